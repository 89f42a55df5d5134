"""The four experiments: does macro help, which objective, which short window, which threshold?

    E1  macro against no macro                     criterion: +5 points of hit ratio
    E2  autoencoder, contrast, masked patches      better Sharpe and lower reconstruction error
    E3  short window of 2, 5 and 10 hours          higher return for its risk
    E4  static against adaptive threshold          lower drawdown at high precision

Each arm is the user's own recipe with one setting changed, run through the same walk-forward and
the same backtest under several seeds. A finished cell (arm, seed) is kept under a hash of what went
into it: a killed experiment goes on where it was, and the arms that experiments share are run once.

Left out: a search over settings. Every cell is counted in the trial ledger all the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.evaluation.account import BPS
from cppncripto_strategy.evaluation.returns import daily_returns, daily_sharpe
from cppncripto_strategy.evaluation.signals import forward_returns
from cppncripto_strategy.evaluation.statistics import overfitting_probability
from cppncripto_strategy.evaluation.trials import (
    Trial,
    TrialLedger,
    discounted_sharpe,
    fingerprint,
)
from cppncripto_strategy.experiments import comparison
from cppncripto_strategy.experiments.comparison import CellTables, Comparison, Verdict, Where
from cppncripto_strategy.experiments.page import Findings, write_experiment_page
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.results import to_plain, write_json, write_table

log = logging.getLogger(__name__)

CELL_FILE, DECISIONS_FILE, DAILY_FILE = "cell.json", "decisions.parquet", "daily.parquet"
RESULTS_FILE = "results.parquet"


@dataclass(frozen=True)
class Arm:
    """One variant: the recipe with `changes` (dotted recipe keys) made to it."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A question, its arms, and which of them are compared.

    Parameters
    ----------
    pairs : (a, b) arm names; the first pair is the one the criterion is about.
    judge : turns a comparison and both arms' rows of the cell table into a verdict.
    wanted_points : gain of hit ratio the criterion asks for, in percentage points, if any.
    """

    name: str
    title: str
    question: str
    criterion: str
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...]
    judge: Callable[[Comparison, pd.DataFrame, pd.DataFrame], Verdict]
    wanted_points: float | None = None


@dataclass(frozen=True, eq=False)
class CellOutcome:
    """What running one cell gives.

    Parameters
    ----------
    signals, equity : tables of the backtest, as in `results`.
    metrics : as `metrics.run_metrics` gives them.
    validation_losses : of the bundles in force.
    setups : symbol -> close times (UTC ms) of planted setups, or None on real candles.
    probes : measurements of the embedding (reconstruction_error, probe_r2), or {}.
    """

    signals: pd.DataFrame
    equity: pd.DataFrame
    metrics: Mapping[str, Any]
    validation_losses: Sequence[float] = ()
    setups: Mapping[str, IntArray] | None = None
    probes: Mapping[str, float] = field(default_factory=dict)


CellRunner = Callable[[Arm, int, Progress], CellOutcome]


@dataclass(frozen=True, eq=False)
class Cell:
    """A finished arm under one seed: its row of the cell table, and what comparisons need."""

    row: dict[str, Any]
    tables: CellTables


def mean_of(rows: pd.DataFrame, name: str) -> float | None:
    """Mean of a column of the cell table, None where it is absent or empty."""
    known = rows[name].dropna().to_numpy(np.float64) if name in rows else np.zeros(0)
    return float(known.mean()) if len(known) else None


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    run_cell: CellRunner,
    identity: Callable[[Arm], str],
    about: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
    resamples: int = comparison.DEFAULT_RESAMPLES,
) -> Findings:
    """Run every cell that is not there yet, compare the arms, and write page and table.

    Parameters
    ----------
    seeds : each arm is run once under each.
    out : results folder of all experiments of a recipe; finished cells lie in `out/cells`.
    run_cell : runs one cell.
    identity : hash of all that an arm's cells follow from, but the seed: recipe, candles, code.
    about, notes : what the page says about the run.
    progress : called with (done, total, text), over all cells.
    resamples : of days and seeds, for the intervals.
    """
    total = len(experiment.arms) * len(seeds)
    cells: dict[str, list[Cell]] = {}
    for number, (arm, seed) in enumerate((a, s) for a in experiment.arms for s in seeds):
        where = f"{experiment.name} {arm.name}, seed {seed} ({number + 1} of {total})"

        def report(done: int, of: int, text: str, number: int = number, where: str = where) -> None:
            if progress is not None:
                share = round(1000 * (number + done / max(of, 1)))
                progress(share, 1000 * total, f"{where}: {text}")

        report(0, 1, "")
        key = fingerprint({"arm": identity(arm)}, seed, "")
        cell = obtain_cell(arm, seed, key, out, run_cell, report)
        _count_trial(TrialLedger(out), experiment, arm, cell, key)
        cells.setdefault(arm.name, []).append(cell)
    findings = conclude(experiment, cells, TrialLedger(out), about or {}, notes, resamples)
    write_table(_all_rows(out / RESULTS_FILE, findings), out / RESULTS_FILE)
    write_json(out / f"{experiment.name}.json", summary(findings))
    write_experiment_page(findings, out / f"{experiment.name}.html")
    return findings


# ---------------------------------------------------------------- cells


def obtain_cell(
    arm: Arm, seed: int, key: str, out: Path, run_cell: CellRunner, progress: Progress
) -> Cell:
    """The finished cell of this key, or the cell, run now and kept."""
    folder = out / "cells" / key
    if (folder / CELL_FILE).is_file():
        return _read_cell(folder, arm, seed)
    started = datetime.now(UTC)
    outcome = run_cell(arm, seed, progress)
    cell = make_cell(arm, seed, outcome)
    cell.row["seconds"] = (datetime.now(UTC) - started).total_seconds()
    write_table(cell.tables.decisions, folder / DECISIONS_FILE)
    write_table(_dated(cell.tables.daily), folder / DAILY_FILE)
    write_json(folder / CELL_FILE, cell.row)  # last: without it the cell is run again
    return cell


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
    table = signals[["symbol", "close_time_ms", "score", "signal"]].copy()
    table["forward_return"] = forward_returns(signals, quality["horizon"], quality["interval_ms"])
    table["setup"] = False
    for symbol, stamps in (outcome.setups or {}).items():
        mine = (table["symbol"] == symbol) & table["close_time_ms"].isin(stamps)
        table.loc[mine, "setup"] = True
    return table.dropna(subset=["score", "forward_return"]).reset_index(drop=True)


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


def _count_trial(
    ledger: TrialLedger, experiment: Experiment, arm: Arm, cell: Cell, key: str
) -> None:
    if any(trial.fingerprint == key for trial in ledger.read()):
        return
    ratio = daily_sharpe(cell.tables.daily)
    days = len(cell.tables.daily)
    ledger.append(
        Trial(key, experiment.name, arm.name, cell.tables.seed, ratio, days, f"cells/{key}")
    )


# ---------------------------------------------------------------- conclusions


def conclude(
    experiment: Experiment,
    cells: Mapping[str, Sequence[Cell]],
    ledger: TrialLedger,
    about: Mapping[str, Any],
    notes: Sequence[str] = (),
    resamples: int = comparison.DEFAULT_RESAMPLES,
) -> Findings:
    """Compare the arms of an experiment whose cells are all there.

    `about` must name the label's `horizon` (candles) and `label_threshold_bps`.
    """
    table = pd.DataFrame([cell.row for arm in experiment.arms for cell in cells[arm.name]])
    table.insert(0, "experiment", experiment.name)
    found = [_compare(cells, a, b, about, resamples) for a, b in experiment.pairs]
    verdicts = [
        experiment.judge(c, table[table["arm"] == c.a], table[table["arm"] == c.b]) for c in found
    ]
    curves = {arm.name: [cell.tables.daily for cell in cells[arm.name]] for arm in experiment.arms}
    return Findings(
        name=experiment.name,
        title=experiment.title,
        question=experiment.question,
        criterion=experiment.criterion,
        comparisons=found,
        verdicts=verdicts,
        seeds=[
            _seed_by_seed(experiment, cells, pair, about, resamples) for pair in experiment.pairs
        ],
        cells=table,
        curves=curves,
        luck=_luck(curves, ledger),
        about=about,
        notes=notes,
        wanted_points=experiment.wanted_points,
    )


def _where(cells: Mapping[str, Sequence[Cell]], arm: str) -> Where:
    planted = bool(cells[arm][0].tables.decisions["setup"].any())
    return "setups" if planted else "signals"


def _compare(
    cells: Mapping[str, Sequence[Cell]],
    a: str,
    b: str,
    about: Mapping[str, Any],
    resamples: int,
) -> Comparison:
    rows = [cell.row for cell in cells[a]]
    return comparison.compare(
        a,
        b,
        [cell.tables for cell in cells[a]],
        [cell.tables for cell in cells[b]],
        horizon=int(about["horizon"]),
        label_threshold=float(about["label_threshold_bps"]) * BPS,
        shared_market=len({row["market"] for row in rows}) == 1,
        where=_where(cells, a),
        resamples=resamples,
    )


def _seed_by_seed(
    experiment: Experiment,
    cells: Mapping[str, Sequence[Cell]],
    pair: tuple[str, str],
    about: Mapping[str, Any],
    resamples: int,
) -> pd.DataFrame:
    """What each seed alone would have claimed: on a market without an answer, nothing.

    A claim is a gain of hit ratio that is proved, or the experiment's own criterion met.
    """
    a, b = pair
    rows = []
    for ours, theirs in zip(cells[a], cells[b], strict=True):
        alone = _compare({a: [ours], b: [theirs]}, a, b, about, resamples)
        verdict = experiment.judge(alone, pd.DataFrame([ours.row]), pd.DataFrame([theirs.row]))
        gap, test = alone.hit_difference, alone.diebold_mariano
        rows.append(
            {
                "pair": f"{a} - {b}",
                "seed": ours.tables.seed,
                "hit_difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "diebold_mariano_p": None if test is None else test.p_value,
                "found": alone.hit_proved or verdict.met,
            }
        )
    return pd.DataFrame(rows)


def _luck(curves: Mapping[str, Sequence[pd.Series[float]]], ledger: TrialLedger) -> dict[str, Any]:
    luck: dict[str, Any] = {
        arm: discounted_sharpe(seeds[0].to_numpy(np.float64), ledger)
        for arm, seeds in curves.items()
    }
    means = [pd.concat(seeds, axis=1).mean(axis=1) for seeds in curves.values()]
    matrix = pd.concat(means, axis=1, join="inner").dropna().to_numpy(np.float64).T
    luck["pbo"] = overfitting_probability(matrix, 8)
    return luck


def _all_rows(path: Path, findings: Findings) -> pd.DataFrame:
    """The table of all experiments: the old rows of others, and this one's."""
    if not path.is_file():
        return findings.cells
    old = pd.read_parquet(path)
    kept = old[old["experiment"] != findings.name]
    return pd.concat([kept, findings.cells], ignore_index=True) if len(kept) else findings.cells


def summary(findings: Findings) -> dict[str, Any]:
    """An experiment's answer as plain values, for `--json` and for the file beside its page."""
    return {
        "experiment": findings.name,
        "title": findings.title,
        "verdicts": [to_plain(vars(verdict)) for verdict in findings.verdicts],
        "comparisons": [_plain_comparison(found) for found in findings.comparisons],
        "found_in_seeds": [
            {
                "pair": str(table["pair"].iloc[0]),
                "found": int(table["found"].sum()),
                "of": len(table),
            }
            for table in findings.seeds
        ],
        "luck": to_plain(findings.luck),
        "about": to_plain(findings.about),
    }


def _plain_comparison(found: Comparison) -> dict[str, Any]:
    return {**to_plain(asdict(found)), "hit_proved": found.hit_proved}
