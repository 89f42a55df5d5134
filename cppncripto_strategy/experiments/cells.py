"""A cell: one arm of an experiment under one seed, as a row of a table and kept on disk.

A finished cell is kept under a hash of what went into it, so a killed experiment resumes, and arms
that experiments share are run once. Left out: running it (`runner`) and comparing arms
(`experiment`); no page is made here, so a word on a page leaves finished cells as they are.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.evaluation.class_scores import with_classes
from cppncripto_strategy.evaluation.returns import daily_returns
from cppncripto_strategy.evaluation.signals import forward_returns
from cppncripto_strategy.experiments.comparison import CellTables
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_plain, write_json, write_table

log = logging.getLogger(__name__)

CELL_FILE, DECISIONS_FILE, DAILY_FILE = "cell.json", "decisions.parquet", "daily.parquet"


@dataclass(frozen=True)
class Arm:
    """One variant: the recipe with `changes` (dotted recipe keys) made to it."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def changed(recipe: Recipe, arm: Arm, seed: int) -> Recipe:
    """The recipe of one cell: the arm's changes, the seed, and no second arm inside the run."""
    values = recipe.to_plain()
    values["candles"]["folder"] = str(recipe.candles.folder)
    changes = {**arm.changes, "seed": seed, "compare_without_macro": False}
    if recipe.candles.source == "planted":
        changes["candles.planted.seed"] = recipe.candles.planted.seed + seed
    for key, value in changes.items():
        _set(values, key.split("."), value)
    return parse_recipe(values, f"{recipe.name}, {arm.name}")


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


@dataclass(frozen=True, eq=False)
class CellOutcome:
    """What running one cell gives.

    Parameters
    ----------
    signals, equity : tables of the backtest, as in `results`.
    metrics : as `metrics.run_metrics` gives them.
    validation_losses : of the active bundles.
    setups : symbol -> close times (UTC ms) of planted setups, or None on real candles.
    probes : measurements of the embedding (reconstruction_error, probe_r2), or {}.
    classes : label and class frequencies of every candle (`class_labels.class_table`), or None.
    """

    signals: pd.DataFrame
    equity: pd.DataFrame
    metrics: Mapping[str, Any]
    validation_losses: Sequence[float] = ()
    setups: Mapping[str, IntArray] | None = None
    probes: Mapping[str, float] = field(default_factory=dict)
    classes: pd.DataFrame | None = None


CellRunner = Callable[[Arm, int, Progress], CellOutcome]


@dataclass(frozen=True, eq=False)
class Cell:
    """A finished arm under one seed: its row of the cell table, and what comparisons need."""

    row: dict[str, Any]
    tables: CellTables


def cell_folder(out: Path, key: str) -> Path:
    """Where the finished cell of this key lies among an experiment's results."""
    return out / "cells" / key


def obtain_cell(
    arm: Arm, seed: int, key: str, out: Path, run_cell: CellRunner, progress: Progress
) -> Cell:
    """The finished cell of this key, or the cell, run now and kept.

    While another process runs the same cell, this one waits for it.
    """
    folder = cell_folder(out, key)

    def waiting(holder: str) -> None:
        progress(0, 1, f"waiting for {holder}")
        log.warning("cell %s, seed %d is being run by %s: waiting for it", arm.name, seed, holder)

    if not (folder / CELL_FILE).is_file():
        with _only_writer(folder, waiting):
            if not (folder / CELL_FILE).is_file():
                return _run_cell(arm, seed, folder, run_cell, progress)
    return _read_cell(folder, arm, seed)


def keep_cell(cell: Cell, key: str, out: Path) -> None:
    """Keep a finished cell that was run on another machine, unless it is there already."""
    folder = cell_folder(out, key)
    if (folder / CELL_FILE).is_file():
        return
    with _only_writer(folder):
        if not (folder / CELL_FILE).is_file():
            _write_cell(cell, folder)


def _only_writer(folder: Path, waiting: Callable[[str], None] | None = None) -> FileLock:
    path = folder.with_name(f".{folder.name}{LOCK_FILE}")
    return FileLock.take(path, f"the cell {folder}", SourceError, "", math.inf, waiting)


def _run_cell(arm: Arm, seed: int, folder: Path, run_cell: CellRunner, progress: Progress) -> Cell:
    started = datetime.now(UTC)
    outcome = run_cell(arm, seed, progress)
    cell = make_cell(arm, seed, outcome)
    cell.row["seconds"] = (datetime.now(UTC) - started).total_seconds()
    _write_cell(cell, folder)
    return cell


def _write_cell(cell: Cell, folder: Path) -> None:
    write_table(cell.tables.decisions, folder / DECISIONS_FILE)
    write_table(_dated(cell.tables.daily), folder / DAILY_FILE)
    write_json(folder / CELL_FILE, cell.row)  # last: without it the cell is run again


def _dated(daily: pd.Series[float]) -> pd.DataFrame:
    days = pd.DatetimeIndex(daily.index).astype("datetime64[ms]").astype(np.int64)
    return pd.DataFrame({"day_ms": np.asarray(days), "return": daily.to_numpy(np.float64)})


def _read_cell(folder: Path, arm: Arm, seed: int) -> Cell:
    row = json.loads((folder / CELL_FILE).read_text("utf-8"))
    table = pd.read_parquet(folder / DAILY_FILE)
    days = pd.to_datetime(table["day_ms"].to_numpy(np.int64), unit="ms")
    daily = pd.Series(table["return"].to_numpy(np.float64), index=days, name="return")
    decisions = pd.read_parquet(folder / DECISIONS_FILE)
    return Cell({**row, "arm": arm.name, "seed": seed}, CellTables(seed, decisions, daily))


def make_cell(arm: Arm, seed: int, outcome: CellOutcome) -> Cell:
    """A cell's row and tables from its backtest."""
    decisions = _decisions(outcome)
    tables = CellTables(seed, decisions, daily_returns(outcome.equity))
    account, both = outcome.metrics["strategy"], outcome.metrics["signals"]["both"]
    losses = outcome.validation_losses
    row = {
        "arm": arm.name,
        "seed": seed,
        "days": len(tables.daily),
        "candles": len(decisions),
        "hit_all": _hit(decisions),
        "hit_setups": _hit(decisions[decisions["setup"]]),
        "hit_signals": both["hit_ratio"]["value"],
        "break_even_hit_ratio": both["break_even_hit_ratio"],
        "precision": both["precision"]["value"],
        "recall": both["recall"]["value"],
        "signals": both["signals"],
        "validation_loss": float(np.mean(losses)) if losses else None,
        **{k: account[k] for k in _ACCOUNT},
        **outcome.probes,
        "market": _market_hash(decisions),
    }
    return Cell(to_plain(row), tables)


_ACCOUNT = ("total_return", "sharpe", "sortino", "max_drawdown", "calmar", "trades", "fees_paid")


def _decisions(outcome: CellOutcome) -> pd.DataFrame:
    """The candles on which arms are compared: scored, and with a known forward return."""
    signals, quality = outcome.signals, outcome.metrics["signals"]
    table = signals[["symbol", "close_time_ms", "score", "signal", "p_buy", "p_sell"]].copy()
    table["forward_return"] = forward_returns(signals, quality["horizon"], quality["interval_ms"])
    table["setup"] = False
    for symbol, stamps in (outcome.setups or {}).items():
        mine = (table["symbol"] == symbol) & table["close_time_ms"].isin(stamps)
        table.loc[mine, "setup"] = True
    table = table.dropna(subset=["score", "forward_return"]).reset_index(drop=True)
    return with_classes(table, outcome.classes)


def _hit(table: pd.DataFrame) -> float | None:
    if len(table) == 0:
        return None
    product = table["score"].to_numpy(np.float64) * table["forward_return"].to_numpy(np.float64)
    return float(np.mean(product > 0))


def _market_hash(decisions: pd.DataFrame) -> str:
    """Equal for cells that saw the same candles, whatever they made of them."""
    market = decisions[["symbol", "close_time_ms", "forward_return"]]
    digest = int(pd.util.hash_pandas_object(market, index=False).sum())
    return f"{digest & 0xFFFFFFFFFFFFFFFF:016x}"
