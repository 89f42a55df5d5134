"""How the evidence meter behaves where the answer is known: validity, power, closing.

No network is trained: on planted markets the signals are those of somebody who knows the regime
(`oracle_scores`, one at each setup), on real candles they are coin tosses, a signal on 4 % of the
candles and its side at random. Results per day and their bets are those of a run.

- Validity: nothing can be predicted (planted mu = 0; coin tosses on real candles), 250 days, looked
  at after each. Without costs the mean is 0, the edge of what is called luck. Beside it, a
  one-sided t-test at 5 % looked at as often, from the tenth day on.
- Power: days with signals until the evidence opens.
- Closing: an answer that vanishes after half of the days, and one that lasts.

    python benchmarks/evidence.py [--runs 200] [--days 250] [--candles FOLDER] [--markdown FILE]

Prints one JSON line per measurement. `--candles` is a folder of SYMBOL-5m.parquet files; without it
real candles are left out, and the output says so. `--markdown` writes the tables of the page in
docs/experiments, and a picture beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.evidence import EvidencePath, EvidenceSettings, weigh
from cppncripto_strategy.evaluation.shadow import Measure, daily_means, daily_results
from cppncripto_strategy.evaluation.statistics import wilson_interval
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate

STEP_MS, SIGMA, COST_BPS = 300_000, 0.004, 22.0
PLANTED_HORIZON, REAL_HORIZON, REAL_RATE = 6, 48, 0.04
FIRST_T_TEST_DAY, CONFIDENCE = 10, 0.95
STRENGTHS = (0.2, 0.4, 0.8)
CLOSING_DAYS = (30.0, 90.0, 365.0)
SETTINGS = EvidenceSettings()
Days = Callable[[int], FloatArray]
"""Mean results (N,) in bps, before costs, of the days of a market of this seed."""


def planted_days(seed: int, mu: float, days: int) -> FloatArray:
    """Daily mean results before costs, bps, of the oracle's signals on a planted market."""
    market = generate(PlantedSettings(days=days + 1, seed=seed, mu=mu, sigma=SIGMA))
    signals = pd.DataFrame(
        {
            "symbol": "PLANTED",
            "close_time_ms": market.candles.open_time + STEP_MS,
            "close": market.candles.close,
            "signal": market.oracle_scores().astype(np.int64),
        }
    )
    measure = Measure(PLANTED_HORIZON, STEP_MS, 0.0)
    return daily_means(list(daily_results(signals, {"PLANTED": measure}).values()))[:days]


def real_days(folder: Path, days: int) -> Days:
    """Daily mean results before costs, bps, of coin tosses on a real symbol, from any day on."""
    files = sorted(folder.glob("*-5m.parquet"))
    columns = ["open_time", "close"]

    def draw(seed: int) -> FloatArray:
        rng = np.random.default_rng(seed)
        table = pd.read_parquet(files[seed % len(files)], columns=columns)
        opened = pd.DatetimeIndex(table["open_time"]).tz_localize(None).astype("datetime64[ms]")
        stamps = np.asarray(opened.astype(np.int64)) + STEP_MS
        midnights = np.unique(stamps // DAY_MS)
        first = int(rng.choice(midnights[: max(1, len(midnights) - 2 * days)])) * DAY_MS
        rows = (stamps >= first) & (stamps < first + 2 * days * DAY_MS)  # some days may be missing
        sides = rng.choice([-1, 1], rows.sum()) * (rng.random(rows.sum()) < REAL_RATE)
        signals = pd.DataFrame(
            {
                "symbol": "X",
                "close_time_ms": stamps[rows],
                "close": table["close"].to_numpy(np.float64)[rows],
                "signal": sides,
            }
        )
        found = daily_results(signals, {"X": Measure(REAL_HORIZON, STEP_MS, 0.0)})
        return daily_means(list(found.values()))[:days]

    return draw


def path_of(net_bps: FloatArray, settings: EvidenceSettings = SETTINGS) -> EvidencePath:
    """The bets of a run on daily mean results in bps."""
    return weigh(np.array([settings.clipped(value) for value in net_bps]), settings)


def t_test_fires(net_bps: FloatArray) -> bool:
    """Whether a one-sided t-test at 5 %, looked at after every day, ever says "above 0"."""
    count = np.arange(1, len(net_bps) + 1)
    mean = np.cumsum(net_bps) / count
    variance = (np.cumsum(net_bps**2) - count * mean**2) / np.maximum(count - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(variance / count)
    z, v = NormalDist().inv_cdf(CONFIDENCE), np.maximum(count - 1.0, 1.0)
    limit = z + (z**3 + z) / (4 * v)  # Abramowitz & Stegun 26.7.5, first order
    late = count >= FIRST_T_TEST_DAY
    return bool((t[late] > limit[late]).any())


def validity(name: str, draw: Days, runs: int) -> Iterator[dict[str, Any]]:
    """Shares of null runs in which evidence, and a t-test, ever appeared."""
    gross = [draw(seed) for seed in range(runs)]
    for cost_bps in (0.0, COST_BPS):
        every = [days - cost_bps for days in gross]
        opened = sum(bool(path_of(days).open.any()) for days in every)
        fired = sum(t_test_fires(days) for days in every)
        yield {
            "part": "validity",
            "market": name,
            "cost_bps": cost_bps,
            "runs": runs,
            "days": round(float(np.mean([len(days) for days in every])), 1),
            "opened": opened,
            "opened_interval": wilson_interval(opened, runs),
            "t_test": fired,
            "t_test_interval": wilson_interval(fired, runs),
        }


def power(mu: float, runs: int, days: int) -> Iterator[dict[str, Any]]:
    """Days until evidence opens where there is an answer of this strength."""
    gross = [planted_days(1000 + seed, mu, days) for seed in range(runs)]
    for cost_bps in (2.0, COST_BPS):
        every = [each - cost_bps for each in gross]
        waits = sorted(first_day(path_of(net).open) for net in every)
        yield {
            "part": "power",
            "mu": mu,
            "cost_bps": cost_bps,
            "runs": runs,
            "net_bps": round(float(np.mean(np.concatenate(every))), 1),
            "opened": sum(math.isfinite(wait) for wait in waits),
            "quartiles": quartiles(waits),
            "waits": [_finite(wait) for wait in waits],
        }


def first_day(holds: np.ndarray[Any, Any]) -> float:
    """Number of the first day that holds, counted from 1; infinity where none does."""
    return float(np.argmax(holds)) + 1 if holds.any() else math.inf


def quartiles(waits: list[float]) -> list[float | None]:
    """Of ascending numbers of days; None where one is infinite, or where there is no number."""
    return [_finite(waits[len(waits) * part // 4]) for part in (1, 2, 3)] if waits else [None] * 3


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def closing(mu: float, runs: int, days: int) -> Iterator[dict[str, Any]]:
    """Days until evidence closes after its answer vanished, and closings while it lasts."""
    half = days // 2
    lasting = [planted_days(2000 + seed, mu, days) - COST_BPS for seed in range(runs)]
    over = [planted_days(3000 + seed, 0.0, days) - COST_BPS for seed in range(runs)]
    ending = [np.concatenate(pair) for pair in zip([p[:half] for p in lasting], over, strict=True)]
    for closing_days in CLOSING_DAYS:
        settings = dataclasses.replace(SETTINGS, closing_days=closing_days)
        stays = [path_of(net, settings).open for net in lasting]
        states = [path_of(net, settings).open for net in ending]
        delays = sorted(first_day(~state[half:]) for state in states if state[half - 1])
        false = sum(int((np.diff(state.astype(np.int64)) < 0).sum()) for state in stays)
        years = sum(float(state.sum()) for state in stays) / 365
        yield {
            "part": "closing",
            "mu": mu,
            "closing_days": closing_days,
            "runs": runs,
            "open_at_half": len(delays),
            "closed": sum(math.isfinite(delay) for delay in delays),
            "quartiles": quartiles(delays),
            "false_closings": false,
            "open_years": round(years, 1),
        }


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every measurement, one after the other."""
    runs, days = options.runs, options.days
    yield from validity("planted, mu 0", lambda seed: planted_days(seed, 0.0, days), runs)
    if options.candles is None:
        yield {"part": "validity", "market": "real candles", "left_out": "no --candles"}
    else:
        yield from validity("real candles", real_days(options.candles, days), runs)
    few = max(1, runs // 2)
    for mu in STRENGTHS:
        yield from power(mu, few, days)
    for mu in STRENGTHS[1:]:
        yield from closing(mu, few, days)


_CLOSING_HEAD = (
    "planted mu",
    "`closing_days`",
    "closed after the end",
    "days until then, quartiles",
    "closed while it lasted",
)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables of the page."""
    lines = ["| null market | costs, bps | runs | evidence opened | daily t-test fired |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for row in rows:
        if row["part"] == "validity" and "opened" in row:
            shares = [
                f"{100 * row[key] / row['runs']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
                for key in ("opened", "t_test")
                for low, high in [row[f"{key}_interval"]]
            ]
            cells = [row["market"], f"{row['cost_bps']:g}", str(row["runs"]), *shares]
            lines.append(f"| {' | '.join(cells)} |")
    head = "| planted mu | costs, bps | net per signal, bps | opened | days until then, quartiles |"
    lines += ["", head, "| --- | --- | --- | --- | --- |"]
    for row in (row for row in rows if row["part"] == "power"):
        waits = ", ".join("-" if day is None else f"{day:.0f}" for day in row["quartiles"])
        opened = f"{row['opened']} of {row['runs']}"
        cells = [f"{row['mu']:g}", f"{row['cost_bps']:g}", f"{row['net_bps']:g}", opened, waits]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| {' | '.join(_CLOSING_HEAD)} |", "| --- | --- | --- | --- | --- |"]
    for row in (row for row in rows if row["part"] == "closing"):
        waits = ", ".join("-" if day is None else f"{day:.0f}" for day in row["quartiles"])
        closed = f"{row['closed']} of {row['open_at_half']}"
        false = f"{row['false_closings']} in {row['open_years']:g} years"
        cells = [f"{row['mu']:g}", f"{row['closing_days']:g}", closed, waits, false]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], days: int, path: Path) -> None:
    """Share of runs with evidence against days."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for row in (row for row in rows if row["part"] == "power"):
        waits = [wait for wait in row["waits"] if wait is not None]
        steps = np.searchsorted(waits, np.arange(1, days + 1), side="right") / row["runs"]
        style = "-" if row["cost_bps"] == COST_BPS else "--"
        label = f"mu {row['mu']:g}, {row['cost_bps']:g} bps"
        axis.plot(np.arange(1, days + 1), 100 * steps, style, label=label)
    axis.set_xlabel("days with signals")
    axis.set_ylabel("runs with evidence, %")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Measure, print, and write the page's tables where asked for."""
    parser = argparse.ArgumentParser(description="validity, power and closing of the evidence")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--days", type=int, default=250)
    parser.add_argument("--candles", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows = []
    for row in measure(options):
        rows.append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "waits"}), flush=True)
    if options.markdown is not None:
        options.markdown.write_text(markdown(rows), "utf-8")
        draw(rows, options.days, options.markdown.with_suffix(".png"))


if __name__ == "__main__":
    main()
