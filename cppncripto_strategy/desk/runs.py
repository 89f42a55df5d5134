"""Runs as rows, side by side, and as what `metrics.json` and `recipe.toml` say of each.

Metrics and manifests are small and are read whole; of the tables only equity is read, and thinned.
Left out: making any number that a run did not write.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cppncripto_strategy.desk.listing import EVOLUTION, RUN, TUNING, Entry
from cppncripto_strategy.desk.problems import item, readable, reason
from cppncripto_strategy.desk.schema import (
    Comparison,
    Curve,
    Difference,
    Experiment,
    Instant,
    Run,
    RunDetail,
)
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.foreign import read_object, read_text, reading
from cppncripto_strategy.results import MANIFEST_FILE, METRICS_FILE, RECIPE_FILE

REPORT_FILE, EVOLUTION_PAGE, LOG_FILE = "report.html", "evolution.html", "log.jsonl"
TUNING_PAGE, SEARCH_FILE = "tuning.html", "search.json"
_PAGES = {RUN: REPORT_FILE, EVOLUTION: EVOLUTION_PAGE, TUNING: TUNING_PAGE}
CURVE_POINTS = 1_000
# Larger files of these kinds are none that a run wrote.
MAX_BYTES = 32 << 20


def run(entry: Entry) -> Run:
    """A run as a row."""
    return readable(entry, Run, lambda: Run(**_row(entry)))


def run_detail(entry: Entry) -> RunDetail:
    """A run with its recipe and all its metrics."""

    def read() -> RunDetail:
        row = _row(entry)
        recipe = _text(entry.path / RECIPE_FILE) if not row.get("problem") else ""
        metrics = _object(entry.path / METRICS_FILE) if not row.get("problem") else {}
        return RunDetail(**row, recipe_toml=recipe, metrics=metrics)

    return readable(entry, RunDetail, read)


def compare(entries: Sequence[Entry]) -> Comparison:
    """Runs side by side: what differs in their recipes, then their curves."""
    recipes = [_flat_recipe(entry) for entry in entries]
    keys = sorted({key for recipe in recipes for key in recipe})
    rows = [(key, [recipe.get(key) for recipe in recipes]) for key in keys]
    return Comparison(
        runs=[run(entry) for entry in entries],
        differences=[Difference(key=k, values=v) for k, v in rows if len(set(v)) > 1],
        curves=[curve(entry) for entry in entries],
    )


def curve(entry: Entry) -> Curve:
    """A run's equity over its first value, at most a thousand points, extremes kept."""
    blank = {"id": entry.id, "name": entry.name}
    try:
        time_ms, equity = _equity(entry.path)
        return Curve(**blank, time_ms=time_ms, growth=[value / equity[0] for value in equity])
    except Exception as error:
        return Curve(**blank, time_ms=[], growth=[], problem=reason(error, entry))


def report(entry: Entry) -> bytes | None:
    """The run's own page, as it lies there; None where it has none.

    Raises
    ------
    SessionError
        When it cannot be read.
    """
    name = _PAGES.get(entry.kind)
    path = entry.path.with_suffix(".html") if name is None else entry.path / name
    if path.is_symlink() or not path.is_file():
        return None
    with reading(entry.name, "report", SessionError):
        _require_size(path)
        return path.read_bytes()


def experiment(entry: Entry) -> Experiment:
    """An experiment's verdicts, or how far an evolution or a search over settings came."""
    read = {EVOLUTION: _evolution, TUNING: _search}.get(entry.kind, _verdicts)
    return readable(entry, Experiment, lambda: Experiment(**item(entry), **read(entry.path)))


def _verdicts(path: Path) -> dict[str, Any]:
    found = _object(path)
    lines = [str(verdict["headline"]) for verdict in found.get("verdicts", [])]
    title = str(found.get("title", ""))
    return {"title": title, "lines": lines, "report": path.with_suffix(".html").is_file()}


def _evolution(folder: Path) -> dict[str, Any]:
    page = {"title": "Evolution", "report": (folder / EVOLUTION_PAGE).is_file()}
    champion = "the champion is chosen" if (folder / "champion.json").is_file() else "no champion"
    if not (folder / "checkpoint.json").is_file():
        return {**page, "lines": [champion]}
    state = _object(folder / "checkpoint.json")
    front = len(state.get("front", []))
    return {**page, "lines": [f"generation {state['generation']}, front of {front}; {champion}"]}


def _search(folder: Path) -> dict[str, Any]:
    page = {"title": "Search over settings", "report": (folder / TUNING_PAGE).is_file()}
    if not (folder / SEARCH_FILE).is_file():
        return {**page, "lines": ["under way, or it did not finish"]}
    found = _object(folder / SEARCH_FILE)
    trials = _part(found, "trials")
    counts = ", ".join(f"{count} {name}" for name, count in trials.items() if name != "total")
    best, objectives = _part(found, "best"), found.get("objectives", [])
    named = zip(objectives, best.get("values") or [], strict=False)
    lines = [f"{trials.get('total')} trials: {counts}"]
    lines += [f"best trial {best.get('number')}: {name} {value:g}" for name, value in named]
    opened = found.get("sealed") is not None
    lines.append("the sealed span was opened" if opened else "the sealed span is unopened")
    return {**page, "lines": lines}


def _row(entry: Entry) -> dict[str, Any]:
    folder = entry.path
    if not (folder / MANIFEST_FILE).is_file():
        return {**item(entry), "problem": f"did not finish: {_last_words(folder / LOG_FILE)}"}
    manifest, metrics = _object(folder / MANIFEST_FILE), _object(folder / METRICS_FILE)
    recipe = _recipe(folder)
    account, evidence = _part(metrics, "strategy"), _part(metrics, "evidence")
    return {
        **item(entry),
        "recipe": str(recipe.get("name", "")),
        "symbols": [str(symbol) for symbol in recipe.get("symbols", [])],
        "interval": str(recipe.get("interval", "")),
        "created": str(manifest.get("created", "")),
        "trials": manifest.get("trials"),
        "start": Instant.of(account.get("start_ms")),
        "end": Instant.of(account.get("end_ms")),
        **{k: account.get(k) for k in ("total_return", "cagr", "sharpe", "max_drawdown", "trades")},
        "benchmark_return": _part(metrics, "benchmark").get("total_return"),
        "without_macro_return": _part(metrics, "without_macro").get("total_return"),
        "evidence": str(evidence.get("sentence", "")),
        "evidence_open": evidence.get("open") if isinstance(evidence.get("open"), bool) else None,
        "report": (folder / REPORT_FILE).is_file(),
    }


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name)
    return part if isinstance(part, Mapping) else {}


def _recipe(folder: Path) -> dict[str, Any]:
    with reading(folder / RECIPE_FILE, "recipe", SessionError):
        return tomllib.loads(_text(folder / RECIPE_FILE))


def _flat_recipe(entry: Entry) -> dict[str, str]:
    """Dotted key -> value as JSON; empty where the recipe cannot be read."""
    try:
        return dict(_flat(_recipe(entry.path), ""))
    except SessionError:
        return {}


def _flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.dumps(value, default=str)


def _equity(folder: Path) -> tuple[list[int], list[float]]:
    import numpy as np
    import pyarrow.parquet as pq

    from cppncripto_strategy.reports.charts import thin

    path = folder / "equity.parquet"
    with reading(path, "table", SessionError):
        table = pq.read_table(path, columns=["close_time_ms", "equity"])
        time_ms = table["close_time_ms"].to_numpy().astype(np.int64)
        equity = table["equity"].to_numpy().astype(np.float64)
        if not len(equity) or not np.isfinite(equity).all() or equity[0] <= 0:
            raise ValueError("it holds no equity to draw")
        few_ms, few = thin(time_ms, equity, CURVE_POINTS)
    return few_ms.tolist(), few.tolist()


def _last_words(path: Path) -> str:
    """The last message of a log, or that there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return str(json.loads(lines[-1])["message"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return "its log says nothing"


def _object(path: Path) -> dict[str, Any]:
    with reading(path, "JSON file", SessionError):
        _require_size(path)
        return read_object(path)


def _text(path: Path) -> str:
    with reading(path, "recipe", SessionError):
        _require_size(path)
        return read_text(path)


def _require_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"it holds {size:,} bytes, more than any that is written here")
