"""Both networks as indicators in a strategy of your own, with bundles trained a moment before.

`cppn-bt run` leaves bundles beside its results; here they are trained first, into `bundles/`, so that
the example is complete. A bundle refuses candles it was trained on: their scores are NaN.
"""

import math
from pathlib import Path

import backtrader as bt

from cppncripto_strategy.backtest import run_backtest
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.indicators import MacroEmbedding, MicroScore
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.recipe import load_recipe

recipe = load_recipe(Path(__file__).with_name("small.toml"), compare_without_macro=False)
run_backtest(recipe, Path("results"), cache=Path("bundles"))


class Mine(bt.Strategy):
    """Buy a high score where the market looks like the days MacroNet learned from."""

    def __init__(self):
        timeline = BundleTimeline.load(Path("bundles"))
        self.macro = MacroEmbedding(self.data, bundles=timeline)
        self.micro = MicroScore(self.data, macro=self.macro)
        self.scored = self.familiar = 0

    def next(self):
        score, drift = self.micro.score[0], self.macro.drift[0]
        if math.isnan(score):
            return  # warm-up, a gap, or a candle of the training span
        self.scored += 1
        self.familiar += drift < 1.25  # 1 is the usual distance among the training days
        if not self.position and score > 0.1 and drift < 1.25:
            self.buy(size=self.broker.entry_quantity(self.data, notional=5_000))
        elif self.position and score < 0:
            self.close()


planted = recipe.candles.planted.model_dump(exclude={"start"})
settings = PlantedSettings(**planted, interval=recipe.interval, start_ms=1_672_617_600_000)
cerebro = bt.Cerebro(stdstats=False)
cerebro.broker = SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
candles = generate(settings).candles
cerebro.adddata(ReplayFeed(candles=candles, interval_ms=settings.interval_ms, name="PLANTED"))
cerebro.addstrategy(Mine)
strategy = cerebro.run()[0]

print(f"{len(candles):,} candles, {strategy.scored:,} of them after the training, with a score;")
print(f"on {strategy.familiar:,} the drift was below 1.25")
for fill in strategy.broker.fills[-4:]:
    print(f"  {fill.side} {fill.quantity:g} at {fill.price:.2f}, fee {fill.fee:.2f}")
print(
    f"{len(strategy.broker.fills)} fills; the account stands at {strategy.broker.getvalue():,.2f}"
)
