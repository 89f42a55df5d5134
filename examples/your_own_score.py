"""Trade a score of your own through MacroMicroStrategy: no networks, no training.

Any indicator can be the score. Thresholds, sizing, holding limits, fees and the record of every
decision come from the package; the score here is momentum over volatility, in ten lines.
"""

import backtrader as bt

from cppncripto_strategy import MacroMicroStrategy, ReplayFeed, SpotBroker
from cppncripto_strategy.feeds.planted import PlantedSettings, generate


class Momentum(bt.Indicator):
    """The last `period` candles' change, in standard deviations of the close over `window`."""

    lines = ("score",)
    params = (("period", 12), ("window", 96))

    def __init__(self):
        change = self.data.close - self.data.close(-self.p.period)
        deviation = bt.indicators.StandardDeviation(self.data.close, period=self.p.window)
        self.lines.score = bt.DivByZero(change, deviation, zero=0.0)


settings = PlantedSettings(days=60, interval="5m", seed=7)
market = generate(settings)

cerebro = bt.Cerebro(stdstats=False)
cerebro.broker = SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
feed = ReplayFeed(candles=market.candles, interval_ms=settings.interval_ms, name="PLANTED")
cerebro.adddata(feed)
cerebro.addstrategy(
    MacroMicroStrategy,
    score_factory=lambda data: Momentum(data),
    quantile=0.02,  # the strongest 2 % of the score's own past buy, the weakest 2 % sell
    window=2016,  # "past" is a week of 5-minute candles
    hold_candles=24,  # and no position is held longer than two hours
    fraction=0.5,  # half of the equity at a time
)
strategy = cerebro.run()[0]

signals, trades = strategy.signals, strategy.trades
print(f"{len(signals):,} candles, {(signals['signal'] != 0).sum()} signals, {len(trades)} trades")
columns = ["entry_ms", "entry_price", "exit_price", "return", "candles_held", "exit_reason"]
print(trades[columns].tail(5).to_string(index=False))
fees = strategy.fills["fee"].sum()
print(
    f"equity {strategy.equity['equity'].iloc[-1]:,.2f} from 10,000; {fees:,.2f} of it went to fees;"
    f" {(trades['return'] > 0).mean():.0%} of the trades won"
)
print("Momentum was never planted in this market: what is lost here is mostly the fees.")
