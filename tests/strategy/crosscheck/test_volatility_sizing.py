"""Sizes by forecast volatility, derived twice."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import backtrader as bt

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.crosscheck.record import check_account
from cppncripto_strategy.crosscheck.run import forecast_of, record_of, rule_books
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.strategy import MacroMicroStrategy


class Forecast(bt.Indicator):
    """A day's volatility, unknown on some days; another one for each symbol."""

    lines: Any = ("volatility",)

    def next(self) -> None:
        day = bar_close_ms(self.data) // DAY_MS + (self.data._name == "B")
        self.lines.volatility[0] = math.nan if day % 7 == 0 else 0.01 + 0.004 * (day % 9)


class Waves(bt.Indicator):
    """A score with a forecast beside it, as `MicroScore` has one; none at the daily rollover."""

    lines: Any = ("score",)

    def __init__(self) -> None:
        self.macro = Forecast(self.data)

    def next(self) -> None:
        close_ms = bar_close_ms(self.data)
        late = 2.0 if self.data._name == "B" else 0.0  # so that one is held when the other enters
        wave = math.sin(close_ms / HOUR_MS * 0.9 + late) + 1e-3 * self.data[0]
        self.lines.score[0] = wave if close_ms % DAY_MS else math.nan


def test_sizes_by_volatility_agree(hourly: Any, traded: Any) -> None:
    """A share rounded, capped or split among open positions in another way."""
    _, candles, _ = traded
    recipe = hourly.recipe(
        symbols=["A", "B"],
        strategy={
            "sizing": "volatility",
            "hold_candles": 5,
            "target_volatility": 0.5,
            "fraction": 1.0,
        },
    )
    cerebro = bt.Cerebro(stdstats=False)
    known = dict.fromkeys(("A", "B"), PLANTED_FILTERS)
    cerebro.broker = SpotBroker(
        cash=10_000, filters={name: rules.filters for name, rules in known.items()}
    )
    for name, series in candles.items():
        cerebro.adddata(ReplayFeed(candles=series, interval_ms=HOUR_MS, name=name))
    cerebro.addstrategy(MacroMicroStrategy, score_factory=Waves, **recipe.strategy_params())
    [strategy] = cerebro.run()
    tables = {name: getattr(strategy, name) for name in ("signals", "fills", "trades", "equity")}
    forecast = forecast_of(SimpleNamespace(strategy=strategy))  # type: ignore[arg-type]
    record = record_of(recipe, candles, rule_books(known), "it", tables, forecast)
    check = check_account(record)
    assert [str(difference) for difference in check.differences] == []
    reasons = set(strategy.fills["reason"])
    assert {"signal", "no_forecast", "volatility_target"} <= reasons
    assert strategy.fills["quantity"].nunique() > 20
