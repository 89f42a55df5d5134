"""MacroNet's forecast of the coming day's variance, on real candles of many symbols.

Each quarter everything is fitted anew on all days before it: HAR and HAR-X, HAR-X with the last
hours, MacroNet as the recipe has it under several seeds, ridge regressions on its 128 numbers
alone, and on those of the same encoder with random weights or pretrained by other objectives. All
judge the same symbol-days, and every one is compared with HAR-X. `--transfer N` learns without the
last N symbols and judges those alone.

    python benchmarks/universe.py --candles DIR --from 2023-10-01 --until 2024-09-01 --seeds 0,1,2

JSON lines on stdout: one per training (seconds of processor, epochs), one per forecast, and one
about the run. A look at days from 2023-07 on, which no choice may rest on, leaves a row in the
ledger of looks, `docs/experiments/looks.jsonl`. Peak memory is that of the process. `--keep FILE`
keeps all forecasts in an .npz, and `--score FILE FILE ...` judges those of several runs of one span
together, so that the quarters of a year can be computed side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.forecasts import Forecasted, score_forecasts
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, fingerprint
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_date, utc_to_ms
from cppncripto_strategy.feeds.history.files import open_source
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.forecaster import (
    Forecaster,
    fit_forecaster,
    panel_of_sessions,
)
from cppncripto_strategy.models.forecasting.panel import Panel, fit_rows, lift_of
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.macro import LearnedMacro, learn_macronet
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.recipe import load_recipe
from cppncripto_strategy.results import to_plain

RECIPE = Path(__file__).parents[1] / "runs" / "universe.toml"
LOOKS = Path(__file__).parents[1] / "docs" / "experiments" / "looks.jsonl"
APART_MS = utc_to_ms("2023-07-01")
OTHERS = ("contrastive", "masked", "autoencoder")
ANCHOR = "HAR-X"
INTERVAL = "5m"
KEPT = ("symbol", "day_ms", "usual", "log_variance", "log_range")


@dataclass(frozen=True, eq=False)
class Universe:
    """Sessions of all symbols, and their days as rows of one panel.

    Parameters
    ----------
    tables : those learned from first. learned : how many they are.
    days, market : statistics of days. sessions : members of the panel's rows.
    """

    tables: list[SessionTable]
    learned: int
    days: dict[str, DayTable]
    market: DayTable | None
    sessions: SessionSet
    panel: Panel
    settings: LearnSettings

    def between(self, start_ms: int, end_ms: int) -> SessionSet:
        """Sessions to learn from."""
        chosen = SessionSet.between(self.tables, start_ms, end_ms)
        return SessionSet(chosen.tables, chosen.members[chosen.members[:, 0] < self.learned])

    def known(self, stamp_ms: int) -> IntArray:
        """Rows of the panel that a fit may learn from at a stamp."""
        rows = (self.panel.day_ms < stamp_ms) & np.isfinite(self.panel.log_variance)
        return np.flatnonzero(rows & (self.panel.symbol < self.learned))

    def judged(self, start_ms: int, end_ms: int) -> IntArray:
        """Rows of the panel that are judged between two stamps."""
        inside = (self.panel.day_ms >= start_ms) & (self.panel.day_ms < end_ms)
        whose = self.panel.symbol >= (self.learned if self.learned < len(self.tables) else 0)
        return np.flatnonzero(inside & whose & np.isfinite(self.panel.log_variance))


@dataclass(eq=False)
class Found:
    """Forecasts of log variance by name, and what lifts each to a mean; NaN where there is none."""

    size: int
    center: dict[str, FloatArray] = field(default_factory=dict)
    lift: dict[str, FloatArray] = field(default_factory=dict)

    def put(self, name: str, rows: IntArray, center: FloatArray, lift: float) -> None:
        """Enter forecasts of some rows."""
        for kept, values in ((self.center, center), (self.lift, np.full(len(rows), lift))):
            kept.setdefault(name, np.full(self.size, np.nan))[rows] = values


def universe_of(folder: Path, settings: LearnSettings, held_out: int, until_ms: int) -> Universe:
    """Read the candles of every symbol in a folder; the last `held_out` are not learned from."""
    source = open_source(folder)
    names = source.symbols(INTERVAL)
    market = Market({name: source.read(name, INTERVAL, None, until_ms) for name in names})
    tables = session_tables(market, settings.session)
    days = {table.symbol: day_table(table.grid) for table in tables}
    beside = days[settings.session.market] if settings.session.market else None
    sessions = SessionSet.between(tables, 0, until_ms)
    panel, kept = panel_of_sessions(days, sessions, beside)
    chosen = SessionSet(sessions.tables, sessions.members[kept])
    return Universe(tables, len(names) - held_out, days, beside, chosen, panel, settings)


def quarters(from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """First and last bound of each calendar quarter of the span."""
    months = [np.datetime64(ms, "ms").astype("datetime64[M]") for ms in (from_ms, until_ms)]
    later = np.arange(months[0] + 3, months[1] + 1, 3).astype("datetime64[ms]").astype(np.int64)
    starts = [from_ms, *(int(ms) for ms in later if ms < until_ms)]
    return list(zip(starts, [*starts[1:], until_ms], strict=True))


def linear(universe: Universe, found: Found, stamp_ms: int, end_ms: int) -> None:
    """HAR, HAR-X, and HAR-X with the last hours."""
    panel = universe.panel
    for name, block in (("HAR", panel.har), (ANCHOR, panel.har_x), ("linear", panel.linear)):
        ridge_on(universe, found, name, block, (stamp_ms, end_ms))


def ridge_on(
    universe: Universe, found: Found, name: str, block: FloatArray, span: tuple[int, int]
) -> None:
    """A ridge regression on one block, with a constant per symbol."""
    panel, rows = universe.panel, universe.judged(*span)
    ridge = fit_rows(panel, [block], panel.log_variance, universe.known(span[0]))
    center = ridge.predict([block[rows]], panel.symbol[rows])
    found.put(name, rows, center, lift_of(ridge.errors))


def learned(universe: Universe, stamp_ms: int, settings: LearnSettings, seed: int) -> LearnedMacro:
    """MacroNet trained on all days before a stamp, with the seconds it took printed."""
    split = stamp_ms - settings.validate_days * DAY_MS
    train, validation = universe.between(0, split), universe.between(split, stamp_ms)
    began = time.process_time()
    macro = learn_macronet(train, validation, stamp_ms, settings, seed)
    line = {
        "training": settings.objective,
        "stamp": ms_to_date(stamp_ms),
        "seed": seed,
        "sessions": len(train),
        "cpu_s": round(time.process_time() - began, 1),
        "epochs": len(macro.curves["validation"]),
        "best_epoch": macro.curves["best_epoch"],
    }
    print(json.dumps(line), flush=True)
    return macro


def forecast_of(universe: Universe, macro: LearnedMacro, stamp_ms: int) -> Forecaster:
    """The forecaster that a bundle of these networks would hold."""
    split = stamp_ms - universe.settings.validate_days * DAY_MS
    known = universe.between(0, stamp_ms)
    tables = tuple(universe.tables[: universe.learned])
    bank = np.zeros((len(known), macro.net.size if macro.net else 0), dtype=np.float32)
    forecaster = fit_forecaster(
        SessionSet(tables, known.members), bank, 0, split, stamp_ms, macro.correction
    )
    assert forecaster is not None
    return forecaster


def by_macronet(
    universe: Universe, found: Found, span: tuple[int, int], seed: int, alone: bool
) -> None:
    """The forecast of a bundle's MacroNet, with its half and with all of its correction."""
    macro = learned(universe, span[0], universe.settings, seed)
    forecaster = forecast_of(universe, macro, span[0])
    rows = universe.judged(*span)
    vectors = np.zeros((len(universe.panel), macro.net.size if macro.net else 0), dtype=np.float32)
    wanted = np.arange(len(vectors)) if alone else rows
    vectors[wanted] = embeddings(universe, macro.net, wanted)
    shift = float(forecaster.volatility.numbers[0])
    lift = float(found.lift["linear"][rows[0]])  # of the same regression, and of variance
    for number in np.unique(universe.panel.symbol[rows]):
        mine = rows[universe.panel.symbol[rows] == number]
        symbol, stamps = universe.panel.symbols[number], universe.panel.day_ms[mine]
        days = universe.days[symbol]
        lines = forecaster.predict(symbol, days, stamps, vectors[mine], universe.market)
        center = 2 * (np.log(lines[:, 0]) - shift)
        found.put(f"MacroNet {seed}", mine, center, lift)
        half = 2 * forecaster.corrections(vectors[mine])[:, 0]
        found.put(f"network alone {seed}", mine, center + half, lift)
    if alone:
        ridge_on(universe, found, f"embedding {seed}", vectors.astype(np.float64), span)


@torch.no_grad()
def embeddings(universe: Universe, net: MacroNet | None, rows: IntArray) -> Any:
    """Embeddings (B, 128) of some of the panel's rows."""
    chosen = SessionSet(universe.sessions.tables, universe.sessions.members[rows])
    return embed_set(net, chosen).numpy()


def random_net(universe: Universe, stamp_ms: int, seed: int) -> MacroNet:
    """The same encoder with random weights, standardised on the days before a stamp."""
    settings = universe.settings
    torch.manual_seed(seed)
    names, statistics = settings.session.names, settings.session.n_statistics
    net = build_macronet(settings.encoder, len(names), statistics, settings.encoder_options)
    with torch.no_grad():
        net.calibrate(embed_set(net, universe.between(0, stamp_ms), raw=True))
    return net.eval()


def count_look(ledger: Path, universe: Universe, options: argparse.Namespace) -> None:
    """Leave a row of a look at days that were kept apart; a fingerprint tells looks apart."""
    if utc_to_ms(options.until) <= APART_MS:
        return
    what = {
        "settings": to_plain(dataclasses.asdict(universe.settings)),
        "span": [options.first, options.until],
        "seeds": options.seeds,
        "transfer": options.transfer,
        "others": options.others,
    }
    symbols = ",".join(table.symbol for table in universe.tables)
    name = f"forecast of {len(universe.tables)} symbols, {options.first} to {options.until}"
    name += f", {options.transfer} of them never seen" * bool(options.transfer)
    name += ", other objectives beside it" * options.others
    mark = fingerprint(what, 0, symbols)
    first = int(options.seeds.split(",")[0])
    days = (utc_to_ms(options.until) - utc_to_ms(options.first)) // DAY_MS
    TrialLedger(ledger).append(Trial(mark, "look", name, first, None, days))


def keep(path: Path, panel: Panel, found: Found) -> None:
    """Write every judged row's forecasts."""
    rows = np.flatnonzero(np.isfinite(found.center[ANCHOR]))
    columns = {name: getattr(panel, name)[rows] for name in KEPT}
    forecasts: dict[str, Any] = {
        f"center.{name}": values[rows] for name, values in found.center.items()
    }
    lifts: dict[str, Any] = {f"lift.{name}": values[rows] for name, values in found.lift.items()}
    with path.open("wb") as file:
        np.savez(file, symbols=np.array(panel.symbols), **columns, **forecasts, **lifts)


def joined(paths: list[Path]) -> tuple[Panel, Found]:
    """The rows of several files under one another."""
    files = [dict(np.load(path)) for path in paths]
    whole = {name: np.concatenate([file[name] for file in files]) for name in files[0]}
    nothing = np.empty((len(whole["day_ms"]), 0))
    columns = (whole[name] for name in KEPT)
    panel = Panel(
        tuple(files[0]["symbols"]), next(columns), next(columns), *[nothing] * 3, *columns
    )
    found = Found(len(nothing))
    for name, values in whole.items():
        kind, _, forecast = name.partition(".")
        if kind in ("center", "lift"):
            getattr(found, kind)[forecast] = values
    return panel, found


def show(panel: Panel, found: Found) -> None:
    """Print the score of every forecast."""
    for row in rows_of(panel, found):
        print(json.dumps(row), flush=True)


def rows_of(panel: Panel, found: Found) -> list[dict[str, Any]]:
    """Scores of every forecast; those of several seeds are means over the seeds."""
    anchor = found.center[ANCHOR]
    groups: dict[str, list[str]] = {}
    for name in found.center:
        base, _, seed = name.rpartition(" ")
        groups.setdefault(base if seed.isdigit() else name, []).append(name)
    scored = []
    for group, names in groups.items():
        known = np.isfinite(anchor)
        for name in names:
            known &= np.isfinite(found.center[name])
        scored.append(_score(panel, found, group, names, np.flatnonzero(known)))
    return scored


def _score(
    panel: Panel, found: Found, group: str, names: list[str], rows: IntArray
) -> dict[str, Any]:
    """One row of the table; the seeds stand below each other, so their losses are averaged."""
    many = np.tile(rows, len(names))
    values = {ANCHOR: ([ANCHOR] * len(names)), group: names}
    stacked = {k: np.concatenate([found.center[n][rows] for n in v]) for k, v in values.items()}
    lifts = {k: np.concatenate([found.lift[n][rows] for n in v]) for k, v in values.items()}
    forecasted = Forecasted(
        panel.day_ms[many],
        panel.symbol[many],
        panel.log_variance[many],
        panel.usual[many],
        stacked,
        lifts,
    )
    score = score_forecasts(forecasted, ANCHOR)[-1]
    return {"forecast": group, "seeds": len(names), **dataclasses.asdict(score)}


def main() -> None:
    """Judge the quarters of a span and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candles", type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--from", dest="first", default="2023-10-01")
    parser.add_argument("--until", default="2024-09-01")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--transfer", type=int, default=0, metavar="N")
    parser.add_argument("--others", action="store_true", help="other objectives, too")
    parser.add_argument("--keep", type=Path, help="file for the forecasts (.npz)")
    parser.add_argument("--ledger", type=Path, default=LOOKS, help="where looks are counted")
    parser.add_argument("--score", type=Path, nargs="+", help="files of --keep to judge")
    options = parser.parse_args()
    if options.score:
        show(*joined(options.score))
        return
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    began, span = time.process_time(), (utc_to_ms(options.first), utc_to_ms(options.until))
    settings = load_recipe(options.recipe).learn_settings()
    universe = universe_of(options.candles, settings, options.transfer, span[1])
    count_look(options.ledger, universe, options)
    found = Found(len(universe.panel))
    with Progress(console=Console(stderr=True)) as progress:
        parts = quarters(*span)
        for part in progress.track(parts, description="quarters"):
            judge(universe, found, part, seeds, options.others)
    show(universe.panel, found)
    if options.keep:
        keep(options.keep, universe.panel, found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    about = {
        "symbols": len(universe.tables),
        "learned": universe.learned,
        "cpu_s": round(time.process_time() - began, 1),
        "peak_gb": round(peak, 2),
        "torch": torch.__version__,
    }
    print(json.dumps(about))


def judge(
    universe: Universe, found: Found, part: tuple[int, int], seeds: list[int], others: bool
) -> None:
    """All forecasts of one quarter."""
    linear(universe, found, *part)
    whole = universe.learned == len(universe.tables)
    for seed in seeds:
        by_macronet(universe, found, part, seed, alone=whole and seed == seeds[0])
    if not whole:
        return
    net = random_net(universe, part[0], seeds[0])
    every = np.arange(len(universe.panel))
    block = embeddings(universe, net, every).astype(np.float64)
    ridge_on(universe, found, f"random encoder {seeds[0]}", block, part)
    for objective in OTHERS if others else ():
        settings = dataclasses.replace(universe.settings, objective=objective, objective_options={})
        macro = learned(universe, part[0], settings, seeds[0])
        block = embeddings(universe, macro.net, every).astype(np.float64)
        ridge_on(universe, found, f"{objective} {seeds[0]}", block, part)


if __name__ == "__main__":
    main()
