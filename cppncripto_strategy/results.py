"""The results folder of one run: what it holds, how it is written, how it is read back.

Every file is written to a temporary name in the same folder, synced and renamed, and the manifest
comes last: a folder without `manifest.json` is a run that did not finish. Charts and tearsheets
are made by `reports/report.py`; the log is written by the run itself.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.errors import RecipeError, SessionError
from cppncripto_strategy.foreign import read_object, read_text, reading

SIGNAL_COLUMNS = (
    "symbol",
    "close_time_ms",
    "close",
    "score",
    "p_buy",
    "p_sell",
    "score_zero",
    "upper",
    "lower",
    "signal",
    "drift",
    "age_ms",
)
FILL_COLUMNS = (
    "symbol",
    "created_ms",
    "executed_ms",
    "side",
    "quantity",
    "price",
    "notional",
    "fee",
    "reference_price",
    "reason",
    "status",
    "detail",
)
TRADE_COLUMNS = (
    "symbol",
    "entry_ms",
    "exit_ms",
    "entry_price",
    "exit_price",
    "quantity",
    "fees",
    "pnl",
    "return",
    "candles_held",
    "entry_score",
    "entry_score_zero",
    "exit_reason",
)
EQUITY_COLUMNS = ("close_time_ms", "equity", "cash", "exposure")
EVIDENCE_COLUMNS = (
    "bet",
    "session_ms",
    "signals",
    "crossed",
    "incomplete",
    "mean_net_bps",
    "stake",
    "wealth",
    "closing",
    "open",
    "needed",
)
TABLES: dict[str, tuple[str, ...]] = {
    "signals": SIGNAL_COLUMNS,
    "fills": FILL_COLUMNS,
    "trades": TRADE_COLUMNS,
    "equity": EQUITY_COLUMNS,
    "benchmark_equity": ("close_time_ms", "equity"),
    "equity_without_macro": ("close_time_ms", "equity"),
    "embeddings": ("symbol", "valid_from_ms", "data_end_ms"),
    "evidence": EVIDENCE_COLUMNS,
    "equity_other_rule": ("close_time_ms", "equity"),
}
OPTIONAL_TABLES = ("equity_without_macro", "embeddings", "evidence", "equity_other_rule")
RECIPE_FILE, MANIFEST_FILE, METRICS_FILE = "recipe.toml", "manifest.json", "metrics.json"
# These live inside manifest.json, so that one file says what the run was made of.
_MANIFEST_PARTS = ("filters", "gaps", "bundles", "planted")


@dataclass(frozen=True, eq=False)
class RunResult:
    """Everything one backtest or paper session leaves behind. All times are int UTC milliseconds.

    Parameters
    ----------
    recipe : resolved settings, as nested tables of plain values (what recipe.toml holds).
    manifest : versions, commit, seeds, data and bundle hashes, trial count, seconds per phase.
    metrics : what `metrics.run_metrics` returns, with the run's speed beside it.
    signals, fills, trades, equity : tables with the columns named in this module.
    benchmark_equity : buy-and-hold of the same symbols; columns close_time_ms, equity.
    equity_without_macro : the same strategy under a zero embedding, or None where it was not run.
    filters : one mapping per symbol: the exchange's rules it traded by, and where they came from
        (`KnownFilters.to_plain`).
    gaps : one mapping per gap: symbol, start_ms, end_ms, candles.
    bundles : one mapping per active bundle: trained_until_ms, valid_from_ms, validation_loss,
        hash, and whatever else the walk-forward records.
    embeddings : one row per symbol and day: symbol, valid_from_ms, data_end_ms, model_hash, drift,
        and one column per number of the vector; or None.
    evidence : one row per bet ("account", or each symbol) and UTC day with signals: signals
        judged, those left out (crossed, incomplete), mean_net_bps, stake, wealth after the day,
        closing (the bet against a lasting edge), open (1 or 0), needed (wealth that opens); or
        None.
    equity_other_rule : the same run that traded where this one waits for evidence, or waited where
        it trades; or None where it was not run.
    planted : what is planted in a synthetic market (ceiling, reached, parameters), or None.
    """

    recipe: dict[str, Any]
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    signals: pd.DataFrame
    fills: pd.DataFrame
    trades: pd.DataFrame
    equity: pd.DataFrame
    benchmark_equity: pd.DataFrame
    equity_without_macro: pd.DataFrame | None = None
    filters: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    bundles: list[dict[str, Any]] = field(default_factory=list)
    embeddings: pd.DataFrame | None = None
    evidence: pd.DataFrame | None = None
    equity_other_rule: pd.DataFrame | None = None
    planted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, columns in TABLES.items():
            table = getattr(self, name)
            if table is None and name in OPTIONAL_TABLES:
                continue
            missing = [column for column in columns if column not in table.columns]
            if missing:
                raise SessionError(
                    f"the {name} table lacks the columns {missing}; it has {list(table.columns)}"
                )

    @property
    def uses_macro(self) -> bool:
        """Whether the account that traded saw an embedding."""
        return bool(self.recipe.get("macro", {}).get("enabled", True))


def empty_table(name: str) -> pd.DataFrame:
    """A table of this name with its columns and no row, typed as parquet will read it back."""
    text = {"symbol", "side", "reason", "status", "detail", "exit_reason", "bet"}
    whole = {"signal", "candles_held", "signals", "crossed", "incomplete", "open"}
    return pd.DataFrame(
        {
            column: pd.Series(
                dtype="str"
                if column in text
                else np.int64
                if column.endswith("_ms") or column in whole
                else np.float64
            )
            for column in TABLES[name]
        }
    )


def write_results(result: RunResult, folder: Path) -> None:
    """Write every table, the metrics, the recipe and, last, the manifest into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        table = getattr(result, name)
        if table is not None:
            write_table(table, folder / f"{name}.parquet")
    write_text(folder / RECIPE_FILE, to_toml(result.recipe))
    write_json(folder / METRICS_FILE, result.metrics)
    parts = {name: getattr(result, name) for name in _MANIFEST_PARTS}
    write_json(folder / MANIFEST_FILE, {**result.manifest, **parts})


def read_results(folder: Path) -> RunResult:
    """The run in `folder`, as it was written.

    Raises
    ------
    SessionError
        When the folder holds no finished run, or one of its files is missing or damaged.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise SessionError(
            f"{folder} holds no finished run: {MANIFEST_FILE} is written last and is not there"
        )
    with reading(folder / MANIFEST_FILE, "manifest", SessionError):
        manifest = read_object(folder / MANIFEST_FILE)
    with reading(folder / METRICS_FILE, "table of metrics", SessionError):
        metrics = read_object(folder / METRICS_FILE)
    with reading(folder / RECIPE_FILE, "recipe", SessionError):
        recipe = tomllib.loads(read_text(folder / RECIPE_FILE))
    parts = {name: manifest.pop(name, None) for name in _MANIFEST_PARTS}
    return RunResult(
        recipe=recipe,
        manifest=manifest,
        metrics=metrics,
        filters=parts["filters"] or [],
        gaps=parts["gaps"] or [],
        bundles=parts["bundles"] or [],
        planted=parts["planted"],
        **{name: _read_table(folder, name) for name in TABLES},
    )


def _read_table(folder: Path, name: str) -> Any:
    path = folder / f"{name}.parquet"
    if path.is_file():
        with reading(path, "table", SessionError, "Run again, or take it from a copy"):
            return pd.read_parquet(path)
    if name in OPTIONAL_TABLES:
        return None
    raise SessionError(f"{folder} lacks {path.name}: the run was copied in part, or damaged")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as zstd parquet, atomically."""
    buffer = BytesIO()
    table.to_parquet(buffer, compression="zstd", index=False)
    write_bytes(path, buffer.getbuffer())  # the bytes themselves: a large table's are many


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, atomically; NaN and infinity become null, numpy values plain ones."""
    write_text(path, json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_bytes(path, text.encode("utf-8"))


def to_plain(value: Any) -> Any:
    """Nested values as JSON has them: None for NaN and infinities, lists for arrays and tuples."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def to_toml(tables: Mapping[str, Any]) -> str:
    """Nested mappings as TOML text, `tomllib` reading back what was given; None is left out.

    Raises
    ------
    RecipeError
        On a value TOML cannot hold.
    """
    return "\n".join(_toml_lines(tables, ())).strip("\n") + "\n"


def _toml_lines(tables: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in tables.items() if v is not None and not isinstance(v, Mapping)}
    nested = {k: v for k, v in tables.items() if isinstance(v, Mapping)}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    for key, table in nested.items():
        inner = (*path, key)
        lines += ["", f"[{'.'.join(map(_toml_key, inner))}]", *_toml_lines(table, inner)]
    return lines


def _toml_key(key: str) -> str:
    bare = key != "" and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else _toml_text(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)  # TOML spells nan and inf as Python does
    if isinstance(value, (str, Path)):
        return _toml_text(str(value))
    if isinstance(value, Mapping):
        items = (f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    raise RecipeError(f"a recipe cannot hold {value!r} ({type(value).__name__}): TOML has no such")


def _toml_text(text: str) -> str:
    # JSON's escapes are a subset of TOML's; DEL is the one character JSON leaves bare.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
