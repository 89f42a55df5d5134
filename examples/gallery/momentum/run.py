"""A momentum score through the thresholds, costs, evidence and report of the package: no networks.

`python examples/gallery/momentum/run.py` writes `momentum/report.html` where you stand. Replace
`Momentum` by any Backtrader indicator with a line `score`.
"""

from __future__ import annotations

from pathlib import Path

import backtrader as bt

from cppncripto_strategy import MacroMicroStrategy, Recipe, ReplayFeed, SpotBroker, load_recipe
from cppncripto_strategy.judgement import judge
from cppncripto_strategy.market import load_market
from cppncripto_strategy.outcome import write_outputs
from cppncripto_strategy.results import RunResult
from cppncripto_strategy.symbol_rules import account_filters


class Momentum(bt.Indicator):
    """The last candle's change, in standard deviations of the changes before it."""

    lines = ("score",)
    params = (("window", 96),)

    def __init__(self):
        change = self.data.close / self.data.close(-1) - 1.0
        usual = bt.indicators.StandardDeviation(change(-1), period=self.p.window)
        self.lines.score = bt.DivByZero(change, usual, zero=0.0)


def main(recipe: Recipe, folder: Path) -> RunResult:
    """Trade the recipe's market by the score; leaves report, tearsheet, tables and picture."""
    market = load_market(recipe)
    broker, interval_ms = recipe.broker, recipe.interval_ms
    rules = account_filters(recipe, market.candles, start_ms=0)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(
        cash=broker.cash,
        fee_bps=broker.fee_bps,
        slippage_bps=broker.slippage_bps,
        filters={symbol: known.filters for symbol, known in rules.items()},
    )
    for symbol, candles in market.candles.items():
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=interval_ms, name=symbol))
    cerebro.addstrategy(MacroMicroStrategy, score_factory=Momentum, **recipe.strategy_params())
    strategy = cerebro.run()[0]
    names = ("signals", "fills", "trades", "equity", "evidence")
    tables = {name: getattr(strategy, name) for name in names}
    judged = judge(recipe, tables)
    result = RunResult(
        recipe=recipe.to_plain(),
        manifest={},
        filters=[{"symbol": symbol, **known.to_plain()} for symbol, known in rules.items()],
        metrics=judged.metrics,
        benchmark_equity=judged.benchmark,
        **tables,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_outputs(result, folder)
    return result


if __name__ == "__main__":
    found = main(load_recipe(Path(__file__).with_name("recipe.toml")), Path("momentum"))
    print(found.metrics["verdict"]["headline"])
    print(found.metrics["verdict"]["detail"])
    print("open momentum/report.html")
