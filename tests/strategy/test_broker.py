"""SpotBroker: spot rules, honest fills, and a ledger that a hand-written one confirms."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.ledger import Fill

STEP_MS = 300_000
START_MS = 1_704_067_200_000
FEE_BPS = 10.0
SLIPPAGE_BPS = 1.0
CASH = 10_000.0
COARSE = SymbolFilters(
    lot_step=Decimal("0.001"), min_qty=Decimal("0.001"), min_notional=Decimal("10")
)
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product(
        (True, False), (True, False), (False, 1, -1, -2)
    )
]
Orders = dict[tuple[int, str], float]  # (slot of the decision bar, symbol) -> signed quantity


def candles_at(slots: list[int], seed: int = 0, price: float = 100.0) -> Candles:
    rng = np.random.default_rng(seed)
    closes = price * np.exp(np.cumsum(rng.normal(0, 0.01, len(slots))))
    opens = closes * np.exp(rng.normal(0, 0.005, len(slots)))
    return Candles.from_columns(
        open_time=START_MS + STEP_MS * np.array(slots, dtype=np.int64),
        open=opens,
        high=np.maximum(opens, closes),
        low=np.minimum(opens, closes),
        close=closes,
        volume=np.ones(len(slots)),
    )


class Scripted(bt.Strategy):
    """Sends given orders at given bars and keeps what it was notified of."""

    params = (("orders", {}), ("kwargs", {}))

    def __init__(self) -> None:
        self.last = {d._name: 0 for d in self.datas}
        self.values: list[tuple[int, float]] = []
        self.statuses: list[str] = []

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        now_ms = max(bar_close_ms(d) for d in self.datas if len(d))
        slot = (now_ms - START_MS) // STEP_MS - 1
        for data in self.datas:
            quantity = self.p.orders.get((slot, data._name))
            if quantity and len(data) and self.last[data._name] != slot + 1:
                self.last[data._name] = slot + 1
                send = self.buy if quantity > 0 else self.sell
                send(data=data, size=abs(quantity), **self.p.kwargs)
        self.values.append((now_ms, self.broker.getvalue()))

    def notify_order(self, order: Any) -> None:
        self.statuses.append(order.getstatusname())


def trade(
    candles: dict[str, Candles],
    orders: Orders,
    broker: SpotBroker | None = None,
    kwargs: dict[str, Any] | None = None,
    **mode: Any,
) -> Scripted:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.broker = broker or spot()
    for name, part in candles.items():
        cerebro.adddata(ReplayFeed(candles=part, interval_ms=STEP_MS, name=name))
    cerebro.addstrategy(Scripted, orders=orders, kwargs=kwargs or {})
    return cerebro.run()[0]  # type: ignore[no-any-return]


def spot(filters: SymbolFilters = COARSE, **changes: Any) -> SpotBroker:
    settings_: dict[str, Any] = {
        "cash": CASH,
        "fee_bps": FEE_BPS,
        "slippage_bps": SLIPPAGE_BPS,
        "filters": {"A": filters, "B": filters},
    }
    return SpotBroker(**{**settings_, **changes})


def hand_ledger(candles: dict[str, Candles], orders: Orders) -> tuple[Decimal, int]:
    """Final equity and number of fills, in exact decimals, from the rules alone."""
    cash, held, fills = Decimal(CASH), dict.fromkeys(candles, Decimal(0)), 0
    step, minimum = COARSE.lot_step, COARSE.min_notional
    fee, slip = Decimal(FEE_BPS) / 10_000, Decimal(SLIPPAGE_BPS) / 10_000
    rows = {
        name: {
            (int(t) - START_MS) // STEP_MS: (Decimal(float(o)), Decimal(float(c)))
            for t, o, c in zip(part.open_time, part.open, part.close, strict=True)
        }
        for name, part in candles.items()
    }
    for slot in sorted({s for s, _ in orders}):
        for name in candles:
            wanted = Decimal(repr(orders.get((slot, name), 0.0)))
            known = [s for s in rows[name] if s <= slot]
            if not wanted or not known or slot not in {s for r in rows.values() for s in r}:
                continue
            side = 1 if wanted > 0 else -1
            size = abs(wanted) if side > 0 else min(abs(wanted), held[name])
            size = size // step * step
            if size * rows[name][max(known)][1] < minimum or slot + 1 not in rows[name]:
                continue  # too small at the decision, or a gap follows
            price = rows[name][slot + 1][0] * (1 + side * slip)
            if side > 0:
                size = min(size, cash / (price * (1 + fee)) // step * step)
            if size <= 0 or size * price < minimum:
                continue
            cash -= side * size * price + size * price * fee
            held[name] += side * size
            fills += 1
    last = {name: rows[name][max(rows[name])][1] for name in candles}
    return cash + sum(held[name] * last[name] for name in candles), fills


SLOTS = st.lists(st.integers(0, 30), min_size=2, max_size=31, unique=True).map(sorted)


@given(
    slots=st.tuples(SLOTS, SLOTS),
    orders=st.dictionaries(
        st.tuples(st.integers(0, 30), st.sampled_from("AB")),
        st.floats(-60, 80).filter(lambda q: abs(q) > 1e-6),
        min_size=1,
        max_size=30,
    ),
    seed=st.integers(0, 999),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=120, deadline=None)
def test_final_equity_equals_a_hand_written_ledger(
    slots: tuple[list[int], list[int]], orders: Orders, seed: int, mode: dict[str, Any]
) -> None:
    """Any error in fees, slippage, rounding, gaps, shorts or cash moves the last cent and dies."""
    candles = {
        name: candles_at(s, seed + i) for i, (name, s) in enumerate(zip("AB", slots, strict=True))
    }
    ran = trade(candles, orders, **mode)
    equity, fills = hand_ledger(candles, orders)
    assert fills == sum(fill.status == "filled" for fill in ran.broker.fills)
    assert float(equity) == pytest.approx(ran.broker.getvalue(), abs=0.005)
    assert ran.broker.getcash() >= 0
    assert "Margin" not in ran.statuses


def busy_orders(seed: int = 5) -> tuple[dict[str, Candles], Orders]:
    rng = np.random.default_rng(seed)
    slots = {name: sorted(rng.choice(60, 50, replace=False).tolist()) for name in "AB"}
    candles = {name: candles_at(s, seed + i) for i, (name, s) in enumerate(slots.items())}
    return candles, {
        (int(slot), str(name)): float(rng.uniform(-40, 40))
        for slot in range(60)
        for name in "AB"
        if rng.random() < 0.6
    }


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_gives_the_same_fills(mode: dict[str, Any]) -> None:
    """An order that fills on another bar in one of Cerebro's modes dies here."""
    candles, orders = busy_orders()
    reference = trade(candles, orders)
    assert len({fill.reason for fill in reference.broker.fills}) >= 3
    assert list(map(repr, reference.broker.fills)) == list(
        map(repr, trade(candles, orders, **mode).broker.fills)
    )


def test_a_fill_records_costs_on_the_next_open() -> None:
    """A fill at the close already seen, or without slippage or fee, dies here."""
    part = candles_at([0, 1, 2])
    ran = trade({"A": part}, {(0, "A"): 2.0005})
    price = part.open[1] * (1 + SLIPPAGE_BPS / 1e4)
    assert [
        Fill(
            symbol="A",
            created_ms=START_MS + STEP_MS,
            executed_ms=START_MS + 2 * STEP_MS,
            side="buy",
            quantity=2.0,
            price=price,
            notional=2.0 * price,
            fee=pytest.approx(2.0 * price * FEE_BPS / 1e4),
            reference_price=part.open[1],
            reason="order",
            status="filled",
            detail="",
        )
    ] == ran.broker.fills
    assert ran.broker.getcash() == pytest.approx(CASH - 2 * price * (1 + FEE_BPS / 1e4))


def test_slippage_is_not_capped_at_the_high() -> None:
    """Backtrader's cap, which makes market orders free on a candle that only fell, dies here."""
    flat = Candles.from_columns(
        open_time=START_MS + STEP_MS * np.arange(3),
        **{name: np.full(3, 100.0) for name in ("open", "high", "low", "close")},
        volume=np.ones(3),
    )
    ran = trade({"A": flat}, {(0, "A"): 1.0})
    assert ran.broker.fills[0].price == 100.0 * (1 + SLIPPAGE_BPS / 1e4)


class DelayedStamp(bt.Strategy):
    """Orders B when A's bar comes; B has missed its bar and delivers it late."""

    def __init__(self) -> None:
        self.sent = False

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        late = len(self.data1) and bar_close_ms(self.data0) > bar_close_ms(self.data1)
        if late and not self.sent:
            self.sent = True
            self.buy(data=self.data1, size=1.0, **self.kwargs)

    kwargs: dict[str, Any] = {}


class LateFeed(ReplayFeed):
    """Delivers its third bar one loop after the others delivered theirs, as a live feed may."""

    def __init__(self) -> None:
        super().__init__()
        self.held_back = False

    def islive(self) -> bool:
        return True

    def next(self, datamaster: Any = None, ticks: bool = True) -> bool | None:
        if len(self) == 2 and not self.held_back:
            self.held_back = datamaster is not None
            return False if datamaster is not None else None
        return bt.feed.DataBase.next(self, datamaster, ticks)  # type: ignore[no-any-return]


@pytest.mark.parametrize("exectype", [bt.Order.Market, bt.Order.Limit, bt.Order.Stop])
def test_a_late_bar_of_the_same_stamp_fills_nothing(exectype: int) -> None:
    """Time travel: an order made at a stamp, filled on a late bar that opened before it, dies."""
    parts = [candles_at(list(range(6)), seed) for seed in (0, 1)]
    price = None if exectype == bt.Order.Market else 20.0 if exectype == bt.Order.Stop else 1e6

    class Late(DelayedStamp):
        kwargs = {"exectype": exectype, "price": price}

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot()
    cerebro.adddata(ReplayFeed(candles=parts[0], interval_ms=STEP_MS, name="A"))
    cerebro.adddata(LateFeed(candles=parts[1], interval_ms=STEP_MS, name="B"))
    cerebro.addstrategy(Late)
    ran = cerebro.run()[0]
    (fill,) = ran.broker.fills
    assert fill.created_ms == START_MS + 3 * STEP_MS
    assert fill.status == "filled"
    assert fill.executed_ms == START_MS + 4 * STEP_MS
    assert parts[1].open[3] == fill.reference_price


@pytest.mark.parametrize("exectype", [bt.Order.Limit, bt.Order.Stop])
def test_a_resting_order_does_not_fill_on_the_bar_that_triggered_it(exectype: int) -> None:
    """Time travel of limit and stop orders when another symbol ticks meanwhile dies here."""
    parts = {"A": candles_at([0, 1, 2, 3, 4], 0), "B": candles_at([0, 1, 3, 4], 1)}
    price = 20.0 if exectype == bt.Order.Stop else 1e6
    ran = trade(parts, {(1, "B"): 1.0}, kwargs={"exectype": exectype, "price": price})
    # B's next bar opens one interval after the decision: a gap, so nothing fills at all.
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("cancelled", "gap")]
    ran = trade(parts, {(3, "B"): 1.0}, kwargs={"exectype": exectype, "price": price})
    assert [f.executed_ms for f in ran.broker.fills] == [START_MS + 5 * STEP_MS]


def test_idle_loops_of_a_live_session_fill_nothing_twice() -> None:
    """An order tried again on the same bar by Cerebro's idle loop dies here."""
    part = candles_at([0, 1, 2, 3])

    class Idle(Scripted):
        def next(self) -> None:
            super().next()
            if len(self.data) == 2 and not self.broker.getposition(self.data).size:
                self.buy(size=1.0, exectype=bt.Order.Limit, price=1e6)
            for _ in range(3):
                self.broker.next()

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot()
    cerebro.adddata(ReplayFeed(candles=part, interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Idle, orders={(0, "A"): -1.0})
    fills = [f for f in cerebro.run()[0].broker.fills if f.status == "filled"]
    assert [f.executed_ms for f in fills] == [START_MS + 3 * STEP_MS]


def test_no_order_crosses_a_gap() -> None:
    """A decision before an outage, filled at the price after it, dies here."""
    ran = trade({"A": candles_at([0, 1, 5, 6])}, {(1, "A"): 1.0})
    (fill,) = ran.broker.fills
    assert (fill.status, fill.reason) == ("cancelled", "gap")
    assert fill.created_ms == START_MS + 2 * STEP_MS
    assert fill.executed_ms == START_MS + 6 * STEP_MS
    assert "3 bars" in fill.detail
    assert ran.broker.getcash() == CASH
    assert ran.statuses[-1] == "Canceled"


def test_a_resting_limit_order_is_cancelled_by_a_later_gap() -> None:
    """A limit order that survives an outage dies here."""
    ran = trade(
        {"A": candles_at([0, 1, 2, 7, 8])},
        {(0, "A"): 1.0},
        kwargs={"exectype": bt.Order.Limit, "price": 20.0},
    )
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("cancelled", "gap")]


def test_a_limit_order_never_pays_more_than_its_limit() -> None:
    """Slippage added on top of a limit price dies here."""
    part = candles_at([0, 1, 2])
    limit = float(round(part.open[1], 2))
    limit += 0.01 if limit < part.open[1] else 0.0
    ran = trade({"A": part}, {(0, "A"): 1.0}, kwargs={"exectype": bt.Order.Limit, "price": limit})
    (fill,) = ran.broker.fills
    assert fill.price <= limit


def test_a_naked_short_is_refused() -> None:
    """A spot account that sells what it does not have dies here."""
    ran = trade({"A": candles_at([0, 1, 2])}, {(0, "A"): -1.0})
    (fill,) = ran.broker.fills
    assert (fill.status, fill.reason, fill.side) == ("refused", "no_position", "sell")
    assert ran.broker.getposition(ran.data).size == 0
    assert ran.statuses == ["Rejected"]


def test_a_sale_never_exceeds_the_position() -> None:
    """A sale twice as large as the position, which leaves a short, dies here."""
    ran = trade({"A": candles_at([0, 1, 2, 3])}, {(0, "A"): 1.0, (1, "A"): -2.0})
    assert [f.quantity for f in ran.broker.fills] == [1.0, 1.0]
    assert ran.broker.getposition(ran.data).size == 0.0


def test_two_sales_of_one_position_in_one_bar_sell_it_once() -> None:
    """Two exits sent at the same bar, which together go short, die here."""

    class Twice(Scripted):
        def next(self) -> None:
            super().next()
            if len(self.data) == 2:
                self.sell(size=1.0)
                self.sell(size=1.0)

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot()
    cerebro.adddata(ReplayFeed(candles=candles_at([0, 1, 2, 3]), interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Twice, orders={(0, "A"): 1.0})
    broker = cerebro.run()[0].broker
    assert [f.status for f in broker.fills] == ["filled", "refused", "filled"]


def test_an_account_that_may_short_does() -> None:
    """allow_short that changes nothing dies here."""
    part = candles_at([0, 1, 2, 3])
    ran = trade({"A": part}, {(0, "A"): -1.0, (1, "A"): 1.0}, broker=spot(allow_short=True))
    sold, bought = ran.broker.fills
    assert (sold.side, bought.side) == ("sell", "buy")
    profit = sold.notional - bought.notional - sold.fee - bought.fee
    assert CASH + profit == pytest.approx(ran.broker.getvalue())


@pytest.mark.parametrize("rise", [1.9, 2.5, 5.0])
def test_a_cover_costs_no_more_than_the_cash(rise: float) -> None:
    """Kills a bankrupt short whose cover leaves the cash below zero, and no row that says so."""
    calm, short = candles_at([0, 1, 2, 3, 4, 5, 6]), 100.0
    factor = np.where(np.arange(7) < 3, 1.0, rise)
    columns = ("open", "high", "low", "close")
    part = calm.replace(**{name: getattr(calm, name) * factor for name in columns})
    orders = {(0, "A"): -short, (2, "A"): short, (4, "A"): short}
    broker = trade({"A": part}, orders, broker=spot(allow_short=True)).broker
    sold, covered, *again = broker.fills
    cash = Decimal(CASH) + Decimal(sold.notional) - Decimal(sold.fee)
    each = Decimal(covered.price) * (1 + Decimal(FEE_BPS) / 10_000)
    payable = min(int(cash / each / COARSE.lot_step) * COARSE.lot_step, Decimal(short))
    assert covered.quantity == float(payable)
    assert broker.getcash() >= 0
    assert broker.ledger[-1].position == pytest.approx(float(payable) - short, abs=1e-9)
    if rise > 2:
        assert covered.detail == f"{float(payable):.12g} instead of {short:.12g}: cash"
        assert [(f.status, f.reason) for f in again] == [("refused", "insufficient_cash")]
    else:
        assert payable == short


@pytest.mark.parametrize("quantity", [0.0004, 1e-9])
def test_a_quantity_that_floors_to_zero_is_refused(quantity: float) -> None:
    """An order of zero coins, accepted and never finished, dies here."""
    ran = trade({"A": candles_at([0, 1, 2])}, {(0, "A"): quantity})
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("refused", "min_quantity")]


def test_a_notional_under_the_minimum_is_refused() -> None:
    """An order the exchange would reject, filled on paper, dies here."""
    part = candles_at([0, 1, 2])
    minimum = float(COARSE.min_notional)
    short_of_it = math.floor(minimum / part.close[0] * 1000) / 1000
    ran = trade({"A": part}, {(0, "A"): short_of_it})
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("refused", "min_notional")]
    ran = trade({"A": part}, {(0, "A"): short_of_it + 0.002})
    assert [f.status for f in ran.broker.fills] == ["filled"]


def test_a_buy_for_all_the_cash_is_cut_to_what_cash_pays() -> None:
    """Margin, or cash below zero, on an all-in order dies here."""
    part = candles_at([0, 1, 2])
    ran = trade({"A": part}, {(0, "A"): 2 * CASH / part.close[0]})
    (fill,) = ran.broker.fills
    one_step = float(COARSE.lot_step) * fill.price * 1.001
    assert fill.status == "filled"
    assert 0 <= ran.broker.getcash() < one_step
    assert "instead of" in fill.detail
    ran = trade({"A": part}, {(0, "A"): 200.0, (1, "A"): 1.0})
    assert [(f.status, f.reason) for f in ran.broker.fills] == [
        ("filled", "order"),
        ("refused", "insufficient_cash"),
    ]


def test_a_tenth_and_two_tenths_less_three_is_nothing() -> None:
    """Dust of 5.6e-17 coins, which counts as a position, dies here."""
    orders = {(0, "A"): 0.1, (1, "A"): 0.2, (2, "A"): -0.3}
    ran = trade({"A": candles_at(list(range(5)), price=1000.0)}, orders)
    assert [f.quantity for f in ran.broker.fills] == [0.1, 0.2, 0.3]
    assert ran.broker.getposition(ran.data).size == 0.0
    assert not ran.broker.getposition(ran.data)


def test_can_trade_blocks_new_orders() -> None:
    """A stale symbol that still takes orders dies here."""
    blocked = spot(trade_gate=lambda data: data._name != "A")
    parts = {name: candles_at([0, 1, 2], seed) for seed, name in enumerate("AB")}
    ran = trade(parts, {(0, "A"): 1.0, (0, "B"): 1.0}, broker=blocked)
    assert [(f.symbol, f.status, f.reason) for f in ran.broker.fills] == [
        ("A", "refused", "can_trade"),
        ("B", "filled", "order"),
    ]


def test_a_halted_symbol_takes_no_orders() -> None:
    """Trading through a HALT dies here."""
    halted = SymbolFilters(status="HALT")
    ran = trade({"A": candles_at([0, 1, 2])}, {(0, "A"): 1.0}, broker=spot(halted))
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("refused", "status")]


def test_above_the_market_maximum_the_maximum_is_ordered() -> None:
    """A quantity over MARKET_LOT_SIZE's maximum, which the exchange rejects, dies here."""
    capped = SymbolFilters(lot_step=Decimal("0.1"), market_max_qty=Decimal("3.05"))
    ran = trade({"A": candles_at([0, 1, 2])}, {(0, "A"): 7.0}, broker=spot(capped))
    assert [f.quantity for f in ran.broker.fills] == [3.0]


def test_cancelled_and_unfinished_orders_are_on_record() -> None:
    """An order that vanishes without a row dies here."""

    class Cancels(bt.Strategy):
        def next(self) -> None:
            if len(self) == 1:
                self.first = self.buy(size=1.0, exectype=bt.Order.Limit, price=1.0)
            if len(self) == 2:
                self.cancel(self.first)
                self.buy(size=1.0, exectype=bt.Order.Limit, price=20.0)

        def stop(self) -> None:
            self.broker.cancel_pending("end", "the run ended")

    tiny = SymbolFilters(min_notional=Decimal(0))
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot(tiny)
    cerebro.adddata(ReplayFeed(candles=candles_at([0, 1, 2, 3]), interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Cancels)
    broker = cerebro.run()[0].broker
    assert [f.reason for f in broker.fills] == ["user", "end"]


def test_the_ledger_rebuilds_the_value_of_every_bar() -> None:
    """A ledger entry out of step with the broker's own cash and positions dies here."""
    candles, orders = busy_orders()
    ran = trade(candles, orders)
    for now_ms, value in ran.values:
        past = [e for e in ran.broker.ledger if e.executed_ms <= now_ms]
        total = past[-1].cash if past else CASH
        for name, part in candles.items():
            held = [e.position for e in past if e.symbol == name]
            closed = part.open_time + STEP_MS <= now_ms
            total += held[-1] * part.close[closed][-1] if held else 0.0
        assert total == pytest.approx(value, rel=1e-12)


def test_a_second_run_starts_from_an_empty_book() -> None:
    """Fills of an earlier run counted again dies here."""
    candles, orders = busy_orders()
    broker = spot()
    first = repr(trade(candles, orders, broker=broker).broker.fills)
    assert first == repr(trade(candles, orders, broker=broker).broker.fills)


@pytest.mark.parametrize("name", ["fee_bps", "slippage_bps", "headroom_bps"])
def test_negative_costs_are_refused(name: str) -> None:
    """A broker that pays its client dies here."""
    with pytest.raises(RecipeError, match=name):
        SpotBroker(**{name: -1.0})


def market_candles(volumes: list[float]) -> Candles:
    """Candles that every limit and stop below is reached in; volumes in base units."""
    count = len(volumes)
    return Candles.from_columns(
        open_time=START_MS + STEP_MS * np.arange(count),
        open=np.full(count, 100.0),
        high=np.full(count, 101.0),
        low=np.full(count, 99.0),
        close=np.full(count, 100.0),
        volume=np.array(volumes),
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"exectype": bt.Order.Limit, "price": 99.5},
        {"exectype": bt.Order.Stop, "price": 100.5},
        {"exectype": bt.Order.StopLimit, "price": 100.5, "plimit": 100.7},
    ],
    ids=["market", "limit", "stop", "stoplimit"],
)
@pytest.mark.parametrize("runonce", [True, False])
def test_a_candle_without_a_trade_fills_nothing(kwargs: dict[str, Any], runonce: bool) -> None:
    """A fill at the price of a candle in which nobody traded dies here."""
    dead, unknown = market_candles([1.0, 0.0, 1.0]), market_candles([1.0, math.nan, 1.0])
    ran = trade({"A": dead}, {(0, "A"): 1.0}, kwargs=kwargs, runonce=runonce)
    assert [(f.status, f.reason) for f in ran.broker.fills] == [("cancelled", "no_trades")]
    assert ran.statuses == ["Submitted", "Accepted", "Canceled"]
    old = spot(fill_without_trades=True)
    for candles, broker in ((dead, old), (unknown, spot())):
        ran = trade({"A": candles}, {(0, "A"): 1.0}, broker, kwargs, runonce=runonce)
        assert ran.statuses == ["Submitted", "Accepted", "Completed"]


def test_a_resting_order_outlives_a_candle_without_a_trade_that_it_misses() -> None:
    """A limit far away, cancelled because nobody traded in a candle, dies here."""
    limit = {"exectype": bt.Order.Limit, "price": 50.0}
    ran = trade({"A": market_candles([1.0, 0.0, 1.0, 1.0])}, {(0, "A"): 1.0}, kwargs=limit)
    assert ran.statuses == ["Submitted", "Accepted"]


def test_what_the_maximum_cut_says_so() -> None:
    """A quantity cut to the exchange's maximum without a word dies here."""
    capped = SymbolFilters(lot_step=Decimal("0.1"), market_max_qty=Decimal("3.05"))
    ran = trade({"A": candles_at([0, 1, 2])}, {(0, "A"): 7.0}, broker=spot(capped))
    assert [f.detail for f in ran.broker.fills] == [
        "3 instead of 7: the exchange's maximum quantity"
    ]


@pytest.mark.parametrize(
    ("cash", "notional", "filters", "reason", "quantity", "words"),
    [
        (CASH, 1_000.0, COARSE, "", 10.0, ""),
        (50.0, 1_000.0, COARSE, "", 0.498, ""),
        (5.0, 1_000.0, COARSE, "insufficient_cash", 0.0, "5.00 of cash for an order of 1000.00"),
        (CASH, 5.0, COARSE, "min_notional", 0.0, "0.05 x 100 is below the minimum notional 10"),
        (CASH, 0.05, COARSE, "min_quantity", 0.0, "0.0005 is below the minimum quantity 0.001"),
        (
            CASH,
            1_000.0,
            SymbolFilters(max_qty=Decimal(4)),
            "",
            4.0,
            "4 instead of 10: the exchange's maximum quantity",
        ),
    ],
)
def test_an_entry_that_cannot_be_says_why(
    cash: float, notional: float, filters: Any, reason: str, quantity: float, words: str
) -> None:
    """An entry of zero without a reason dies here; so does the wrong one of two reasons."""

    class Asks(bt.Strategy):
        def next(self) -> None:
            self.entry = self.broker.entry(self.data, notional)

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot(filters, cash=cash)
    cerebro.adddata(ReplayFeed(candles=market_candles([1.0]), interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Asks)
    entry = cerebro.run()[0].entry
    assert (reason, quantity, words) == (entry.reason, pytest.approx(entry.quantity), entry.detail)


def test_a_bracket_with_a_refused_order_is_refused_whole() -> None:
    """A parent that waits for ever for a child that was refused dies here."""

    class Brackets(Scripted):
        def next(self) -> None:
            if len(self) == 2:
                prices = {"stopprice": 5.0, "limitprice": 200.0, "exectype": bt.Order.Market}
                self.buy_bracket(size=1.0, **prices)

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot()
    cerebro.adddata(ReplayFeed(candles=market_candles([1.0] * 5), interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Brackets)
    ran = cerebro.run()[0]
    reasons = [(f.side, f.status, f.reason) for f in ran.broker.fills]
    assert reasons == [
        ("sell", "refused", "min_notional"),  # 1 x 5 is below 10
        ("buy", "refused", "bracket"),
        ("sell", "refused", "bracket"),
    ]
    assert ran.statuses == ["Rejected"] * 3
    assert not ran.broker.pending


def test_a_bracket_that_trades_on_spot_leaves_its_rows() -> None:
    """A child that fills while its parent waits, or a sibling that stays, dies here."""

    class Brackets(Scripted):
        def next(self) -> None:
            if len(self) == 2:
                prices = {"stopprice": 50.0, "limitprice": 100.5, "exectype": bt.Order.Market}
                self.buy_bracket(size=1.0, **prices)

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = spot()
    cerebro.adddata(ReplayFeed(candles=market_candles([1.0] * 5), interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(Brackets)
    ran = cerebro.run()[0]
    assert [(f.side, f.status, f.reason, f.executed_ms) for f in ran.broker.fills] == [
        ("buy", "filled", "order", START_MS + 3 * STEP_MS),
        ("sell", "filled", "order", START_MS + 4 * STEP_MS),
        ("sell", "cancelled", "bracket", START_MS + 4 * STEP_MS),
    ]
    assert ran.broker.getposition(ran.data).size == 0.0


def test_a_symbol_without_filters_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Rules of nobody, applied or left out without a word, die here; so does a word per order."""
    parts = {name: candles_at([0, 1, 2, 3], seed) for seed, name in enumerate("AB")}
    broker = SpotBroker(cash=CASH, filters={"B": COARSE})
    orders = {(slot, name): 1.0 for slot in range(3) for name in "AB"}
    trade(parts, orders, broker=broker)
    (record,) = [r for r in caplog.records if "no filters" in r.getMessage()]
    assert "'A'" in record.getMessage()


def test_float_noise_is_no_position_without_a_lot_step() -> None:
    """0.1 + 0.2 - 0.3, held as a position of 5.6e-17 coins, dies here."""
    orders = {(0, "A"): 0.1, (1, "A"): 0.2, (2, "A"): -0.3}
    ran = trade({"A": candles_at([0, 1, 2, 3, 4])}, orders, broker=SpotBroker(cash=CASH))
    assert [f.status for f in ran.broker.fills] == ["filled"] * 3
    assert ran.broker.getposition(ran.data).size == 0.0
