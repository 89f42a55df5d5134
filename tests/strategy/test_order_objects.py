"""Order objects made in fewer steps: the same as Backtrader makes, field by field."""

from __future__ import annotations

import datetime
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.order_objects import MarketBuy, MarketSell, is_plain, market_order

STEP_MS = 3_600_000
START_MS = 1_704_067_200_000
PLAIN = {"price": None, "exectype": None, "valid": None, "tradeid": 0, "transmit": True}


def feed(**settings: Any) -> ReplayFeed:
    price = np.linspace(100.0, 101.0, 30)
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    stamps = START_MS + STEP_MS * np.arange(30, dtype=np.int64)
    candles = Candles.from_columns(open_time=stamps, volume=np.ones(30), **columns)
    return ReplayFeed(candles=candles, interval_ms=STEP_MS, name="A", **settings)


class Orders(bt.Strategy):
    """Makes orders both ways at each bar."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Any, Any]] = []

    def next(self) -> None:
        kinds = ((MarketBuy, bt.order.BuyOrder), (MarketSell, bt.order.SellOrder))
        for ours, theirs in kinds:
            asked = {**PLAIN, "purpose": "stop", "note": "why"}
            order = market_order(ours, self, self.data, 1.5, asked)
            other = theirs(owner=self, data=self.data, size=1.5, **PLAIN)
            other.addinfo(purpose="stop", note="why")
            self.pairs.append((order, other))


def fields(order: Any) -> dict[str, Any]:
    """All that an order holds, with what it finds in its params; parts as plain values."""
    own = {name: getattr(order, name) for name in (*vars(order), *order.p._getkeys(), "dteos")}
    params = {f"p.{name}": value for name, value in order.p._getkwargs().items()}
    for part in ("created", "executed"):
        own[part] = vars(own[part])
    return {k: v for k, v in {**own, **params}.items() if k not in ("ref", "p", "params")}


class ThreeHoursWest(datetime.tzinfo):
    """A zone that Backtrader may give a method to, without a library of zones."""

    def utcoffset(self, when: Any) -> datetime.timedelta:
        return datetime.timedelta(hours=-3)

    def dst(self, when: Any) -> datetime.timedelta:
        return datetime.timedelta(0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"tz": ThreeHoursWest()}, {"sessionend": datetime.time(17, 30)}],
    ids=["plain", "zone", "session"],
)
def test_a_market_order_is_what_backtrader_makes(settings: dict[str, Any]) -> None:
    """A field that is missing, has another value, or that only a broker of ours would find."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(feed(**settings))
    cerebro.addstrategy(Orders)
    [strategy] = cerebro.run()
    assert len(strategy.pairs) == 60
    for order, other in strategy.pairs:
        assert isinstance(order, type(other))
        assert other.ref == order.ref + 1
        ours, theirs = fields(order), fields(other)
        assert {k: ours[k] for k in theirs} == theirs
        assert str(order).split("\n")[1:] == str(other).split("\n")[1:]  # but for the reference


@pytest.mark.parametrize(
    "condition",
    [
        *({"price": 1.0}, {"exectype": bt.Order.Limit}, {"transmit": False}, {"valid": 0.5}),
        *({"tradeid": 7}, {"trailpercent": 0.1}, {"parent": "another"}, {"oco": "another"}),
    ],
    ids=str,
)
def test_an_order_with_a_condition_is_left_to_backtrader(condition: dict[str, Any]) -> None:
    """A limit that fills at any price."""
    assert is_plain({**PLAIN, "purpose": "stop"})
    assert not is_plain({**PLAIN, **condition})


class Alternates(bt.Strategy):
    """Buys and sells in turn, and remembers which orders its broker made."""

    def __init__(self) -> None:
        self.made: set[type] = set()

    def next(self) -> None:
        send = self.buy if not self.position else self.sell
        self.made.add(type(send(size=1.0)))
        self.made.add(type(self.buy(size=1.0, exectype=bt.Order.Limit, price=1.0)))


def test_the_broker_makes_plain_market_orders_in_fewer_steps() -> None:
    """A shortcut that is never taken."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=10_000)
    cerebro.adddata(feed())
    cerebro.addstrategy(Alternates)
    [strategy] = cerebro.run()
    assert strategy.made == {MarketBuy, MarketSell, bt.order.BuyOrder}
