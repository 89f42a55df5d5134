"""A year through Cerebro: both networks from a ready bundle against Backtrader's own SMA crossover.

Prints one JSON line: name, ours_s, baseline_s, speedup (baseline over ours), bars, repeats. Both
sides trade the same 105,120 candles (one year of 5-minute candles; ours warms up before) in this
process, with `stdstats=False`, alternating; the median of the repeats counts. Ours is everything:
feed, features, session scalers, embeddings, scores, thresholds, strategy, broker, tables.

    python benchmarks/backtest.py [--repeats N]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time

import backtrader as bt
import pandas as pd
import torch

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.replay import replay

YEAR_DAYS, LEARN_DAYS = 365, 42
BARS = YEAR_DAYS * 288
SMA_FAST, SMA_SLOW = 10, 30


class SmaCross(bt.Strategy):  # type: ignore[misc]
    """Backtrader's introductory strategy: all in above the slow average, out below."""

    def __init__(self) -> None:
        fast, slow = bt.ind.SMA(period=SMA_FAST), bt.ind.SMA(period=SMA_SLOW)
        self.cross = bt.ind.CrossOver(fast, slow)

    def next(self) -> None:
        """Trade the crossing."""
        if self.cross > 0:
            self.buy(size=1)
        elif self.cross < 0:
            self.close()


def baseline_s(frame: pd.DataFrame) -> float:
    """Seconds of the crossover over a PandasData feed."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=frame))
    cerebro.addstrategy(SmaCross)
    began = time.perf_counter()
    cerebro.run()
    return time.perf_counter() - began


def ours_s(recipe: Recipe, candles: Candles, timeline: BundleTimeline, span: Span) -> float:
    """Seconds of both networks and the whole strategy over the replay feed."""
    began = time.perf_counter()
    passed = replay(recipe, {"PLANTED": candles}, timeline, span)
    seconds = time.perf_counter() - began
    scored = passed.strategy.signals["score"].notna().sum()
    assert scored == BARS, f"{scored} bars were scored, not {BARS}"
    return seconds


def pandas_frame(candles: Candles) -> pd.DataFrame:
    """Candles as PandasData wants them."""
    index = pd.to_datetime(candles.open_time, unit="ms")
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=index)


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    recipe = parse_recipe({"symbols": ["PLANTED"], "strategy": {"hold_candles": 48}})
    candles = generate(PlantedSettings(days=LEARN_DAYS + YEAR_DAYS, seed=0)).candles
    start = int(candles.open_time[0]) + LEARN_DAYS * DAY_MS
    settings = dataclasses.replace(recipe.learn_settings(), train_days=20, validate_days=10)
    tables = session_tables(Market({"PLANTED": candles.between(0, start)}), settings.session)
    timeline = BundleTimeline((learn_bundle(tables, start, settings, seed=0),))
    # The bar that closes at the start belongs to the first session; the one that closes at the end
    # would open a session of its own.
    span = Span(start, start + YEAR_DAYS * DAY_MS - recipe.interval_ms)
    frame = pandas_frame(candles.between(start - recipe.interval_ms, span.end_ms))
    assert len(frame) == BARS
    pairs = [(ours_s(recipe, candles, timeline, span), baseline_s(frame)) for _ in range(repeats)]
    ours, baseline = (statistics.median(side) for side in zip(*pairs, strict=True))
    document = {
        "name": "backtest_year",
        "ours_s": ours,
        "baseline_s": baseline,
        "speedup": baseline / ours,
        "bars": BARS,
        "repeats": repeats,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
