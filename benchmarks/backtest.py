"""A year through Cerebro: both networks from a ready bundle, and other engines' SMA crossovers.

All trade the same 105,120 candles (one year of 5-minute candles; ours warms up before) in this
process, alternating; processor seconds, of which the least of the repeats counts. Ours is
everything: feed, features, session scalers, embeddings, scores, thresholds, strategy, broker,
tables. Backtrader runs its introductory crossover on PandasData with `stdstats=False`;
backtesting.py and vectorbt run the same crossover where they are installed.

Prints one JSON line for each of our thresholds: name, quantile, ours_s, orders, baseline (always
Backtrader), baseline_s, baseline_orders, speedup (baseline over ours), peers (seconds and orders of
the others), bars, repeats.

    python benchmarks/backtest.py [--repeats N] [--plain-loop]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

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
# The recipes' own threshold, and the package's default, which trades more often.
QUANTILES = (0.02, 0.15)
# Of how long MicroNet learns: another network makes other orders, and other figures than before.
SCHEDULE = {"trial_epochs": 4, "patience": 6}

Measured = tuple[float, int]
"""Processor seconds, and orders that filled."""


class SmaCross(bt.Strategy):  # type: ignore[misc]
    """Backtrader's introductory strategy: all in above the slow average, out below."""

    def __init__(self) -> None:
        fast, slow = bt.ind.SMA(period=SMA_FAST), bt.ind.SMA(period=SMA_SLOW)
        self.cross = bt.ind.CrossOver(fast, slow)
        self.orders_filled = 0

    def notify_order(self, order: Any) -> None:
        """Count what filled."""
        self.orders_filled += order.status == order.Completed

    def next(self) -> None:
        """Trade the crossing."""
        if self.cross > 0:
            self.buy(size=1)
        elif self.cross < 0:
            self.close()


def backtrader_run(frame: pd.DataFrame) -> Measured:
    """The crossover over a PandasData feed."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker.setcash(1e9)
    cerebro.adddata(bt.feeds.PandasData(dataname=frame))
    cerebro.addstrategy(SmaCross)
    began = time.process_time()
    [strategy] = cerebro.run()
    return time.process_time() - began, strategy.orders_filled


def backtesting_run(frame: pd.DataFrame) -> Measured:
    """The crossover in backtesting.py."""
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    def average(values: Any, period: int) -> pd.Series[float]:
        return pd.Series(values).rolling(period).mean()

    class Cross(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.fast = self.I(average, self.data.Close, SMA_FAST)
            self.slow = self.I(average, self.data.Close, SMA_SLOW)

        def next(self) -> None:
            if crossover(self.fast, self.slow):
                self.buy(size=1)
            elif crossover(self.slow, self.fast):
                self.position.close()

    named = frame.rename(columns=str.capitalize)
    began = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        stats = Backtest(named, Cross, cash=1e9, finalize_trades=False).run()
    seconds = time.process_time() - began
    return seconds, 2 * len(stats["_trades"])


def vectorbt_run(frame: pd.DataFrame) -> Measured:
    """The crossover in vectorbt; whole arrays at once, no strategy code."""
    import vectorbt

    began = time.process_time()
    fast, slow = (vectorbt.MA.run(frame["close"], n) for n in (SMA_FAST, SMA_SLOW))
    entries, exits = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    account = vectorbt.Portfolio.from_signals(
        frame["close"], entries, exits, size=1, init_cash=1e9, freq="5min"
    )
    orders = int(account.orders.count())
    return time.process_time() - began, orders


PEERS: dict[str, tuple[str, Callable[[pd.DataFrame], Measured]]] = {
    "backtesting.py": ("backtesting", backtesting_run),
    "vectorbt": ("vectorbt", vectorbt_run),
}


def ours_run(
    recipe: Recipe, candles: Candles, timeline: BundleTimeline, span: Span, plain_loop: bool
) -> Measured:
    """Both networks and the whole strategy over the replay feed."""
    began = time.process_time()
    passed = replay(recipe, {"PLANTED": candles}, timeline, span, plain_loop=plain_loop)
    seconds = time.process_time() - began
    scored = passed.strategy.signals["score"].notna().sum()
    assert scored == BARS, f"{scored} bars were scored, not {BARS}"
    return seconds, int((passed.strategy.fills["status"] == "filled").sum())


def pandas_frame(candles: Candles) -> pd.DataFrame:
    """Candles as PandasData wants them."""
    index = pd.to_datetime(candles.open_time, unit="ms")
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=index)


def least(runs: list[Measured]) -> Measured:
    """The least seconds, and the orders, which are the same each time."""
    return min(seconds for seconds, _ in runs), runs[0][1]


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-loop", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipes = {
        quantile: parse_recipe(
            {
                "symbols": ["PLANTED"],
                "micro": SCHEDULE,
                "threshold": {"quantile": quantile},
                "strategy": {"hold_candles": 48},
            }
        )
        for quantile in QUANTILES
    }
    recipe = recipes[QUANTILES[0]]
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
    measure(recipes, candles, timeline, span, frame, options)


def measure(
    recipes: dict[float, Recipe],
    candles: Candles,
    timeline: BundleTimeline,
    span: Span,
    frame: pd.DataFrame,
    options: argparse.Namespace,
) -> None:
    """Run everybody in turn, and print."""
    peers = {name: run for name, (module, run) in PEERS.items() if find_spec(module)}
    for run in peers.values():
        run(frame.iloc[:2_000])  # what is compiled at the first call is no work on candles
    runs: dict[Any, list[Measured]] = {key: [] for key in (*recipes, "backtrader", *peers)}
    for _ in range(options.repeats):
        for quantile, recipe in recipes.items():
            taken = ours_run(recipe, candles, timeline, span, options.plain_loop)
            runs[quantile].append(taken)
        runs["backtrader"].append(backtrader_run(frame))
        for name, run in peers.items():
            runs[name].append(run(frame))
    baseline_s, baseline_orders = least(runs["backtrader"])
    for quantile in recipes:
        ours_s, orders = least(runs[quantile])
        document = {
            "name": "backtest_year",
            "quantile": quantile,
            "ours_s": round(ours_s, 4),
            "orders": orders,
            "baseline": "backtrader",
            "baseline_s": round(baseline_s, 4),
            "baseline_orders": baseline_orders,
            "speedup": round(baseline_s / ours_s, 2),
            "peers": {name: list(least(runs[name])) for name in peers},
            "bars": BARS,
            "repeats": options.repeats,
        }
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
