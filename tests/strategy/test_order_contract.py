"""Backtrader's order contract: what a strategy written for BackBroker sees under SpotBroker.

The oracle is Backtrader's own broker. With costs and filters off, every strategy of the table must
be notified of the same orders with the same statuses in the same order, and have the same fills.

Where a spot account must differ the strategies stay inside its rules: they sell what they have, pay
what they can, and, with holes, order only before a bar that exists. An order of SpotBroker never
fills on a bar that had opened before its decision; with several feeds BackBroker's limit and stop
orders may, so the strategies of two feeds send market orders.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.spot_account import SpotCommission

STEP_MS = 300_000
START_MS = 1_704_067_200_000
BARS = 600
CASH = 1_000_000.0
ZERO = Decimal(0)
NO_RULES = SymbolFilters(
    lot_step=ZERO, min_qty=ZERO, max_qty=Decimal(10**9), min_notional=ZERO, tick_size=ZERO
)

Event = tuple[Any, ...]


class Watched(bt.Strategy):
    """Keeps every notification and fill; orders are numbered in the order of their making."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.numbers: dict[int, int] = {}
        self.build()

    def build(self) -> None:
        """What a strategy needs before the first bar."""

    def prenext(self) -> None:
        self.next()

    def notify_order(self, order: Any) -> None:
        number = self.numbers.setdefault(order.ref, len(self.numbers))
        event: Event = (number, order.getstatusname(), len(self.data))
        if order.status in (order.Completed, order.Partial):
            done = order.executed
            event += (done.dt, round(done.price, 9), round(done.size, 9), order.data._name)
        self.events.append(event)


class Quickstart(Watched):
    def build(self) -> None:
        self.cross = bt.indicators.CrossOver(
            bt.indicators.SMA(self.data, period=5), bt.indicators.SMA(self.data, period=20)
        )

    def prenext(self) -> None:
        pass

    def next(self) -> None:
        if not self.position and self.cross[0] > 0:
            self.buy(size=2)
        elif self.position and self.cross[0] < 0:
            self.close()


class Bracket(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 15 == 0:
            self.buy_bracket(
                size=1, exectype=bt.Order.Market, stopprice=close * 0.99, limitprice=close * 1.01
            )


class LimitBracket(Watched):
    """The parent waits for its limit, and an old bracket is cancelled by its parent."""

    def build(self) -> None:
        self.bracket: list[Any] = []

    def next(self) -> None:
        close = self.data.close[0]
        if self.bracket and self.bracket[0].alive() and len(self) % 30 == 20:
            self.cancel(self.bracket[0])
        if not self.position and len(self) % 30 == 0:
            self.bracket = self.buy_bracket(
                size=1, price=close * 0.996, stopprice=close * 0.985, limitprice=close * 1.008
            )


class ExpiringBracket(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 30 == 0:
            self.buy_bracket(
                size=1,
                price=close * 0.996,
                valid=datetime.timedelta(minutes=25),
                stopprice=close * 0.985,
                stopargs={"valid": None},
                limitprice=close * 1.01,
                limitargs={"valid": None},
            )


class BracketOfTrail(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 25 == 0:
            self.buy_bracket(
                size=1,
                exectype=bt.Order.Market,
                stopexec=bt.Order.StopTrail,
                stopargs={"trailpercent": 0.005},
                limitprice=close * 1.01,
            )


class OneCancelsOther(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 20 == 0:
            self.buy(size=1)
        if self.position and len(self) % 20 == 5:
            first = self.sell(size=1, exectype=bt.Order.Limit, price=close * 1.005)
            second = self.sell(size=1, exectype=bt.Order.Stop, price=close * 0.995, oco=first)
            self.sell(size=1, exectype=bt.Order.Limit, price=close * 1.02, oco=second)


class OcoBuys(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 20 == 0:
            first = self.buy(size=1, exectype=bt.Order.Limit, price=close * 0.996)
            valid = datetime.timedelta(minutes=30)
            stop = {"exectype": bt.Order.Stop, "price": close * 1.004, "valid": valid}
            self.buy(size=1, oco=first, **stop)
        if self.position and len(self) % 20 == 15:
            self.close()


class Trail(Watched):
    trail: dict[str, float] = {"trailamount": 0.6}

    def build(self) -> None:
        self.exit: Any = None

    def next(self) -> None:
        if not self.position and len(self) % 30 == 0:
            self.buy(size=1)
        if self.position and len(self) % 30 == 2 and not (self.exit and self.exit.alive()):
            self.exit = self.sell(size=1, exectype=bt.Order.StopTrail, **self.trail)


class TrailPercent(Trail):
    trail = {"trailpercent": 0.004}


class TrailLimit(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 30 == 0:
            self.buy(size=1)
        if self.position and len(self) % 30 == 2:
            prices = {"price": close, "plimit": close - 0.2, "trailamount": 0.4}
            self.exit = self.sell(size=1, exectype=bt.Order.StopTrailLimit, **prices)
        if self.position and len(self) % 30 == 25 and self.exit.alive():
            self.cancel(self.exit)
            self.close()


class StopLimit(Watched):
    def next(self) -> None:
        close, kind = self.data.close[0], {"exectype": bt.Order.StopLimit}
        valid = datetime.timedelta(minutes=40)
        if not self.position and len(self) % 20 == 0:
            self.buy(size=1, price=close * 1.003, plimit=close * 1.001, valid=valid, **kind)
        if self.position and len(self) % 20 == 10:
            self.sell(size=1, price=close * 0.997, plimit=close * 0.999, valid=valid, **kind)


class GoodTill(Watched):
    """Valid as a date, as a span, for the day, and in the past already."""

    def next(self) -> None:
        now, close = self.data.datetime.datetime(0), self.data.close[0]
        valids = (now + datetime.timedelta(minutes=20), datetime.timedelta(minutes=10))
        valids += (bt.Order.DAY, now - datetime.timedelta(minutes=1))
        if len(self) % 25 == 0 and not self.position:
            kind = {"exectype": bt.Order.Limit, "price": close * 0.995}
            self.buy(size=1, valid=valids[len(self) // 25 % 4], **kind)
        if self.position and len(self) % 25 == 24:
            self.close()


class Targets(Watched):
    def next(self) -> None:
        step = len(self) % 40
        if step == 0:
            self.order_target_size(target=3)
        if step == 10:
            self.order_target_value(target=500.0)
        if step == 20:
            self.order_target_percent(target=0.01)
        if step == 30:
            self.order_target_percent(target=0.0)


class CancelReplace(Watched):
    def build(self) -> None:
        self.entry: Any = None

    def next(self) -> None:
        if self.position:
            if len(self) % 10 == 9:
                self.close()
            return
        if self.entry is not None and self.entry.alive():
            self.cancel(self.entry)
        kind = {"exectype": bt.Order.Limit, "price": self.data.close[0] * 0.998}
        self.entry = self.buy(size=1, **kind)


class CancelAtOnce(Watched):
    """A cancel on the bar that sent the order finds nothing to cancel yet."""

    def next(self) -> None:
        if len(self) % 20 == 0:
            self.cancel(self.buy(size=1))
        if len(self) % 20 == 5:
            self.close()


class SessionClose(Watched):
    def next(self) -> None:
        if len(self) % 100 == 50:
            self.buy(size=1, exectype=bt.Order.Close)
        if len(self) % 400 == 399 and self.position:
            self.close()


class TwoSymbols(Watched):
    """Orders only on feeds whose bar is new and whose next one exists (see `HOLES`)."""

    def next(self) -> None:
        for number, data in enumerate(self.datas):
            if not len(data) or data.datetime[0] != self.datetime[0]:
                continue
            slot = round((data.datetime[0] - 719163.0) * 86_400_000 - START_MS) // STEP_MS - 1
            if slot + 1 in HOLES[number]:
                continue
            if (slot + number) % 9 == 0 and not self.getposition(data):
                self.buy(data=data, size=1 + number)
            if (slot + number) % 9 == 4:
                self.close(data=data)


class Hourly(Watched):
    """Trades the last feed: the one that was resampled or replayed."""

    def next(self) -> None:
        data = self.datas[-1]
        if len(data) % 3 == 0 and not self.getposition(data):
            self.buy(data=data, size=1)
        if len(data) % 3 == 2 and self.getposition(data):
            self.close(data=data)


class HourlyOfTwo(Hourly):
    """Decides when an hour has just closed: BackBroker would fill at an open before a later one."""

    def next(self) -> None:
        hours = self.datas[-1]
        if len(hours) and hours.datetime[0] == self.data.datetime[0]:
            super().next()


class HourlyBracket(Watched):
    def next(self) -> None:
        close = self.data.close[0]
        if not self.position and len(self) % 3 == 0:
            self.buy_bracket(
                size=1, exectype=bt.Order.Market, stopprice=close * 0.99, limitprice=close * 1.01
            )


HOLES = (set(range(40, 44)) | {70}, set(range(41, 60)) | {100, 102})


def feed(name: str = "A", seed: int = 3, holes: set[int] | None = None) -> ReplayFeed:
    """A random walk of 5-minute candles with wicks, traded in each of them."""
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.002, BARS)))
    opens = np.concatenate([[100.0], closes[:-1]]) * np.exp(rng.normal(0, 0.0005, BARS))
    wicks = np.exp(np.abs(rng.normal(0, 0.001, (2, BARS))))
    candles = Candles.from_columns(
        open_time=START_MS + STEP_MS * np.arange(BARS),
        open=opens,
        high=np.maximum(opens, closes) * wicks[0],
        low=np.minimum(opens, closes) / wicks[1],
        close=closes,
        volume=np.ones(BARS),
    )
    kept = np.array([slot not in (holes or set()) for slot in range(BARS)])
    return ReplayFeed(candles=candles[kept], interval_ms=STEP_MS, name=name)


HOUR = {"timeframe": bt.TimeFrame.Minutes, "compression": 60, "name": "H"}
Feeds = Callable[[bt.Cerebro], Any]


def one(cerebro: bt.Cerebro) -> None:
    cerebro.adddata(feed())


def two(cerebro: bt.Cerebro) -> None:
    for number, name in enumerate("AB"):
        cerebro.adddata(feed(name, number, HOLES[number]))


def resampled(cerebro: bt.Cerebro) -> None:
    cerebro.resampledata(feed(), **HOUR)


def with_hours(cerebro: bt.Cerebro) -> None:
    data = feed()
    cerebro.adddata(data)
    cerebro.resampledata(data, **HOUR)


def replayed(cerebro: bt.Cerebro) -> None:
    cerebro.replaydata(feed(), **HOUR)


TABLE: list[tuple[type[Watched], Feeds]] = [
    (Quickstart, one),
    (Bracket, one),
    (LimitBracket, one),
    (ExpiringBracket, one),
    (BracketOfTrail, one),
    (OneCancelsOther, one),
    (OcoBuys, one),
    (Trail, one),
    (TrailPercent, one),
    (TrailLimit, one),
    (StopLimit, one),
    (GoodTill, one),
    (Targets, one),
    (CancelReplace, one),
    (CancelAtOnce, one),
    (SessionClose, one),
    (TwoSymbols, two),
    (Hourly, resampled),
    (HourlyBracket, resampled),
    (HourlyOfTwo, with_hours),
    (Hourly, replayed),
    (HourlyBracket, replayed),
]


def back_broker() -> bt.brokers.BackBroker:
    broker = bt.brokers.BackBroker(cash=CASH)
    # Its own sizes are whole numbers; those of coins are not.
    broker.addcommissioninfo(SpotCommission(commission=0.0))
    return broker


def spot_broker(**changes: Any) -> SpotBroker:
    rules = dict.fromkeys(("A", "B", "H"), NO_RULES)
    settings = {"cash": CASH, "fee_bps": 0.0, "slippage_bps": 0.0, "filters": rules}
    return SpotBroker(**{**settings, **changes})


def run(strategy: type[Watched], feeds: Feeds, broker: Any, **mode: Any) -> Watched:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.broker = broker
    feeds(cerebro)
    cerebro.addstrategy(strategy)
    return cerebro.run()[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("runonce", [True, False], ids=["once", "next"])
@pytest.mark.parametrize(
    ("strategy", "feeds"), TABLE, ids=[f"{s.__name__}-{f.__name__}" for s, f in TABLE]
)
def test_a_vanilla_strategy_is_notified_alike(
    strategy: type[Watched], feeds: Feeds, runonce: bool
) -> None:
    """Another status, another order of notifications or another fill than Backtrader's dies."""
    expected = run(strategy, feeds, back_broker(), runonce=runonce)
    assert sum(event[1] == "Completed" for event in expected.events) >= 4
    ran = run(strategy, feeds, spot_broker(), runonce=runonce)
    assert expected.events == ran.events
    assert expected.broker.getvalue() == pytest.approx(ran.broker.getvalue(), rel=1e-12)


def test_the_table_reaches_every_status_of_the_contract() -> None:
    """A table whose strategies never cancel, or never expire, proves nothing and dies here."""
    seen = {event[1] for s, f in TABLE for event in run(s, f, spot_broker()).events}
    assert seen == {"Submitted", "Accepted", "Completed", "Canceled", "Expired"}


@pytest.mark.parametrize(("strategy", "feeds"), TABLE)
def test_a_filled_order_ends_as_completed(strategy: type[Watched], feeds: Feeds) -> None:
    """A notification after Completed, or a second one, dies here; so does a row too many."""
    ran = run(strategy, feeds, spot_broker())
    statuses: dict[int, list[str]] = {}
    for number, status, *_ in ran.events:
        statuses.setdefault(number, []).append(status)
    filled = [seen for seen in statuses.values() if "Completed" in seen]
    assert all(seen == ["Submitted", "Accepted", "Completed"] for seen in filled)
    assert len(filled) == sum(fill.status == "filled" for fill in ran.broker.fills)
