"""Both networks as indicators in a strategy of your own, with a bundle trained a moment before.

`cppn-bt run` leaves bundles beside its results; here one is trained first, into `bundles/`, so that
the example is complete. A bundle refuses the candles it was trained on: their scores are NaN.
"""

import math
from pathlib import Path

import backtrader as bt

from cppncripto_strategy import MacroEmbedding, MicroScore, ReplayFeed, SpotBroker, load_recipe
from cppncripto_strategy.market import load_market, session_tables, traded_span
from cppncripto_strategy.models.learning.walkforward import walk_forward

recipe = load_recipe(Path(__file__).with_name("small.toml"))
market, settings = load_market(recipe), recipe.learn_settings()
span, sessions = traded_span(recipe, market), session_tables(market, settings.session)
walk_forward(sessions, span.start_ms, span.end_ms, settings, recipe.seed, Path("bundles"))


class Mine(bt.Strategy):
    """Buy a high score, but only on days like those that MacroNet learned from."""

    def __init__(self):
        self.macro = MacroEmbedding(self.data, bundles="bundles")
        self.micro = MicroScore(self.data, macro=self.macro)
        self.scored = self.familiar = 0

    def next(self):
        score, drift = self.micro.score[0], self.macro.drift[0]
        if math.isnan(score):
            return  # warm-up, a gap, or a candle of the training span
        self.scored += 1
        self.familiar += drift < 1.25  # 1: as far from a training day as those from each other
        if not self.position and score > 0.1 and drift < 1.25:
            self.buy(size=self.broker.entry_quantity(self.data, notional=5_000))
        elif self.position and score < 0:
            self.close()


cerebro = bt.Cerebro(stdstats=False)
cerebro.broker = SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
candles = market.candles["PLANTED"]
cerebro.adddata(ReplayFeed(candles=candles, interval_ms=recipe.interval_ms, name="PLANTED"))
cerebro.addstrategy(Mine)
strategy = cerebro.run()[0]

print(f"{len(candles):,} candles; {strategy.scored:,} after the training have a score,")
print(f"on {strategy.familiar:,} of them the drift was below 1.25")
for fill in strategy.broker.fills[-4:]:
    print(f"  {fill.side} {fill.quantity:g} at {fill.price:.2f}, fee {fill.fee:.2f}")
print(
    f"{len(strategy.broker.fills)} fills; the account stands at {strategy.broker.getvalue():,.2f}"
)
