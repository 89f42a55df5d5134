"""SpotAccount: Backtrader's settings honoured or refused, and records that cannot contradict."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy import tables
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import AccountError, CandleError, RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.ledger import AccountCheck, Fill, LedgerEntry
from cppncripto_strategy.paper.packing import pack, unpack

STEP_MS = 300_000
START_MS = 1_704_067_200_000
BARS = 300
CASH = 10_000.0


def walk(seed: int = 0, bars: int = BARS) -> Candles:
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.003, bars)))
    opens = closes * np.exp(rng.normal(0, 0.001, bars))
    return Candles.from_columns(
        open_time=START_MS + STEP_MS * np.arange(bars),
        open=opens,
        high=np.maximum(opens, closes) * 1.01,
        low=np.minimum(opens, closes) * 0.99,
        close=closes,
        volume=np.ones(bars),
    )


class Orders(bt.Strategy):
    """Sends {bar: {feed number: signed quantity}} as market orders."""

    params = (("orders", {}),)

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def notify_order(self, order: Any) -> None:
        self.statuses.append(order.getstatusname())

    def next(self) -> None:
        for number, quantity in self.p.orders.get(len(self), {}).items():
            send = self.buy if quantity > 0 else self.sell
            send(data=self.datas[number], size=abs(quantity))


def trade(broker: Any, orders: dict[int, dict[int, float]], feeds: int = 1, **mode: Any) -> Orders:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.broker = broker
    for number in range(feeds):
        name = f"S{number}"
        cerebro.adddata(ReplayFeed(candles=walk(number), interval_ms=STEP_MS, name=name))
    cerebro.addstrategy(Orders, orders=orders)
    return cerebro.run()[0]  # type: ignore[no-any-return]


def only_fill(broker: Any) -> Fill:
    (fill,) = trade(broker, {5: {0: 10.0}}).broker.fills
    return fill  # type: ignore[no-any-return]


# Settings ---------------------------------------------------------------------------------------


def test_set_slippage_is_honoured() -> None:
    """Slippage set as in any Backtrader tutorial, and ignored, dies here."""
    opened = walk().open[5]
    broker = SpotBroker(cash=CASH)
    broker.set_slippage_perc(0.002)
    assert only_fill(broker).price == pytest.approx(opened * 1.002, rel=1e-12)
    broker = SpotBroker(cash=CASH)
    broker.set_slippage_fixed(0.25)
    assert only_fill(broker).price == pytest.approx(opened + 0.25, rel=1e-12)
    broker = SpotBroker(cash=CASH)
    broker.set_slippage_perc(0.002, slip_open=False)
    assert only_fill(broker).price == opened
    broker = SpotBroker(cash=CASH, slip_perc=0.05)
    assert only_fill(broker).price == walk().high[5]  # Backtrader's cap


def test_setcommission_is_honoured() -> None:
    """A commission set as in any Backtrader tutorial, and ignored, dies here."""
    broker = SpotBroker(cash=CASH)
    broker.setcommission(commission=0.004)
    fill = only_fill(broker)
    assert fill.fee == pytest.approx(fill.notional * 0.004)
    broker = SpotBroker(cash=CASH)
    broker.setcommission(commission=0.004, name="S0")
    fill = only_fill(broker)
    assert fill.fee == pytest.approx(fill.notional * 0.004)


def test_an_entry_leaves_room_for_the_costs_that_were_set() -> None:
    """An entry sized by the default fee, and cut at its fill by the true one, dies here."""

    class AllIn(bt.Strategy):
        def next(self) -> None:
            if len(self) == 5:
                self.wanted = self.broker.entry_quantity(self.data, notional=1e9)
                self.buy(size=self.wanted)

    broker = SpotBroker(cash=CASH, headroom_bps=300.0)
    broker.setcommission(commission=0.02)
    broker.set_slippage_perc(0.005)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = broker
    cerebro.adddata(ReplayFeed(candles=walk(), interval_ms=STEP_MS, name="S0"))
    cerebro.addstrategy(AllIn)
    ran = cerebro.run()[0]
    (fill,) = broker.fills
    assert (ran.wanted, "") == (fill.quantity, fill.detail)
    share = 1 + 0.02 + 0.005 + 0.03
    assert fill.quantity == pytest.approx(CASH / share / walk().close[4], abs=1e-5)


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda b: b.set_coc(True), "cheat-on-close"),
        (lambda b: b.set_coo(True), "cheat-on-open"),
        (lambda b: b.set_filler(bt.broker.filler.FixedSize(size=1)), "filler"),
        (lambda b: b.setcommission(commission=2.0, margin=1_000.0, mult=10.0), "margin"),
        (lambda b: b.setcommission(commission=0.001, leverage=5.0), "leverage"),
        (lambda b: b.setcommission(commission=0.001, interest=0.05), "interest"),
        (lambda b: b.add_order_history([["2024-01-01", 1, 1.0]]), "order history"),
        (lambda b: b.set_fund_history([["2024-01-01", 1.0, 1.0]]), "fund history"),
        (lambda _: SpotBroker(coc=True), "cheat-on-close"),
        (lambda _: SpotBroker(coo=True), "cheat-on-open"),
        (lambda b: trade(b, {}, cheat_on_open=True), "cheat-on-open"),
    ],
)
def test_a_setting_that_does_not_apply_is_refused(apply: Any, words: str) -> None:
    """A setting taken without a word, and without effect, dies here."""
    with pytest.raises(RecipeError, match=words):
        apply(SpotBroker(cash=CASH))


def test_switching_a_cheat_off_is_no_cheat() -> None:
    """A refusal of what asks for nothing dies here."""
    broker = SpotBroker(cash=CASH)
    broker.set_coc(False)
    broker.set_coo(False)
    broker.set_filler(None)
    assert only_fill(broker).status == "filled"


HOOK = """
from cppncripto_strategy.broker import SpotBroker


def spot(cerebro, **params):
    cerebro.broker = SpotBroker.instead_of(cerebro.broker, **params)
"""
STRATEGY = """
import backtrader as bt


class Once(bt.Strategy):
    def next(self):
        if len(self) == 5:
            self.buy(size=1.0)

    def stop(self):
        (fill,) = self.broker.fills
        print("SEEN", self.broker.startingcash, fill.fee / fill.notional,
              fill.price / fill.reference_price)
"""


@pytest.mark.parametrize(
    ("options", "hooked", "expected"),
    [
        ("--cash 5000 --commission 0.003 --slip_perc 0.002 --slip_open", "", (5000, 0.003, 1.002)),
        ("", "", (10_000, 0.001, 1.0001)),
        ("--cash 5000 --commission 0.003", ":cash=700,fee_bps=20", (700, 0.002, 1.0001)),
    ],
)
def test_btrun_settings_reach_the_account(
    tmp_path: Path, options: str, hooked: str, expected: tuple[float, float, float]
) -> None:
    """`btrun --cash` that sets the broker which the hook replaces dies here."""
    (tmp_path / "mine.py").write_text(HOOK + STRATEGY)
    candles = walk()
    frame = pd.DataFrame({name: getattr(candles, name) for name in ("open", "high", "low")})
    frame["close"], frame["volume"] = candles.close, 1.0
    closed = pd.to_datetime(candles.open_time + STEP_MS, unit="ms")
    frame.insert(0, "day", closed.strftime("%Y.%m.%d"))
    frame.insert(1, "time", closed.strftime("%H:%M"))
    frame["openinterest"] = 0
    frame.to_csv(tmp_path / "candles.csv", header=False, index=False)
    data = "--nostdstats --data candles.csv --format mt4csv --timeframe minutes --compression 5"
    command = f"{data} --strategy mine:Once --hook mine:spot{hooked} {options}".split()
    script = "from backtrader.btrun import btrun; btrun()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seen = re.search(r"SEEN (\S+) (\S+) (\S+)", done.stdout)
    assert seen is not None
    assert [float(value) for value in seen.groups()] == pytest.approx(list(expected), rel=1e-6)


# Records ----------------------------------------------------------------------------------------


def short_orders(seed: int) -> dict[int, dict[int, float]]:
    rng = np.random.default_rng(seed)
    return {
        bar: {number: float(rng.choice([-60.0, -20.0, 30.0, 80.0])) for number in range(3)}
        for bar in range(2, BARS - 2, 3)
    }


def test_the_refused_remainder_of_a_part_fill_is_what_was_left() -> None:
    """An order of 500 on record as 50 filled and 500 refused."""
    short, wanted = 50.0, 500.0
    ran = trade(SpotBroker(cash=CASH, allow_short=True), {2: {0: -short}, 10: {0: wanted}})
    _, closed, refused = ran.broker.fills
    assert ran.statuses[-2:] == ["Partial", "Margin"]
    assert (closed.status, closed.quantity) == ("filled", short)
    assert (refused.status, refused.reason) == ("refused", "insufficient_cash")
    assert refused.quantity == wanted - short
    assert refused.created_ms == closed.created_ms
    assert f"{wanted - short:g} not opened" in refused.detail
    assert [entry.position for entry in ran.broker.ledger] == [-short, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_a_fill_that_the_account_cannot_pay_for_is_none(seed: int) -> None:
    """With shorts and several symbols, a "filled" row that moved no position dies here."""
    ran = trade(SpotBroker(cash=CASH, allow_short=True), short_orders(seed), feeds=3)
    broker = ran.broker
    assert "Margin" in ran.statuses
    refused = [fill for fill in broker.fills if fill.reason == "insufficient_cash"]
    # What opens beyond the cash ends as Margin, a cover that nothing pays for as Rejected.
    assert len(refused) == ran.statuses.count("Margin") + ran.statuses.count("Rejected")
    assert min(entry.cash for entry in broker.ledger) > -1e-9
    filled = [fill for fill in broker.fills if fill.status == "filled"]
    assert len(filled) == len(broker.ledger)
    positions, cash = dict.fromkeys(("S0", "S1", "S2"), 0.0), CASH
    for fill, entry in zip(filled, broker.ledger, strict=True):
        sign = 1 if fill.side == "buy" else -1
        positions[fill.symbol] += sign * fill.quantity
        cash -= sign * fill.notional + fill.fee
        assert entry.position == pytest.approx(positions[fill.symbol], abs=1e-9)
        assert entry.cash == pytest.approx(cash, rel=1e-9, abs=1e-9)
    assert broker.getcash() == pytest.approx(cash, rel=1e-9, abs=1e-9)
    table = tables.fills_table(broker.fills)
    scores = pd.DataFrame({"symbol": [], "close_time_ms": [], "score": [], "score_zero": []})
    steps = dict.fromkeys(positions, STEP_MS)
    trades = tables.trades_table(table, scores.astype({"close_time_ms": "int64"}), steps)
    assert len(trades) > 0


class Tampering(Orders):
    """Moves the account behind its records' back."""

    def stop(self) -> None:
        if self.p.orders == "cash":
            self.broker.cash += 1.0
        else:
            self.broker.positions[self.data].size += 0.5

    def next(self) -> None:
        if len(self) == 5:
            self.buy(size=1.0)


@pytest.mark.parametrize(("what", "words"), [("cash", "cash is"), ("size", "position in S0 is")])
def test_records_that_contradict_the_account_are_an_error(what: str, words: str) -> None:
    """Results made of books that do not agree die here."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=CASH)
    cerebro.adddata(ReplayFeed(candles=walk(), interval_ms=STEP_MS, name="S0"))
    cerebro.addstrategy(Tampering, orders=what)
    with pytest.raises(AccountError, match=words):
        cerebro.run()


def a_fill(side: Any = "buy", quantity: float = 2.0) -> Fill:
    return Fill("A", 0, 0, side, quantity, 10.0, quantity * 10.0, 0.5, 10.0, "", "filled", "")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (LedgerEntry("A", 0, 2.0, 79.5), ""),
        (LedgerEntry("A", 0, 2.1, 79.5), "the position in A is 2.1, the fills make it 2"),
        (LedgerEntry("A", 0, 2.0, 80.0), "the cash is 80, the fills make it 79.5"),
    ],
)
def test_a_ledger_is_compared_fill_by_fill(entry: LedgerEntry, words: str) -> None:
    """A ledger that is wrong in the middle and right at the end dies here."""
    check = AccountCheck(100.0)
    check.add(a_fill(), entry)
    assert words == check.difference({"A": 2.0}, 79.5)


def test_money_paid_in_is_no_difference() -> None:
    """A deposit taken for an error dies here; so does one that is forgotten."""

    class Deposits(Orders):
        def next(self) -> None:
            super().next()
            if len(self) in (3, 10, BARS):
                self.broker.add_cash(500.0)
            if len(self) == 20:
                self.broker.set_cash(3_000.0)

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=CASH, fee_bps=0.0, slippage_bps=0.0)
    cerebro.adddata(ReplayFeed(candles=walk(), interval_ms=STEP_MS, name="S0"))
    cerebro.addstrategy(Deposits, orders={5: {0: 1.0}, 12: {0: -1.0}})
    assert cerebro.run()[0].broker.getcash() == 3_000.0


def test_trades_that_lose_a_fill_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trades table that makes another profit than its fills dies here."""
    ran = trade(SpotBroker(cash=CASH), {5: {0: 1.0}, 9: {0: -1.0}})
    fills = tables.fills_table(ran.broker.fills)
    scores = pd.DataFrame({"symbol": [], "close_time_ms": [], "score": [], "score_zero": []})
    arguments = fills, scores.astype({"close_time_ms": "int64"}), {"S0": STEP_MS}
    assert len(tables.trades_table(*arguments)) == 1
    whole = tables._round_trip

    def lossy(*args: Any) -> dict[str, Any]:
        return {**whole(*args), "pnl": 0.0}

    monkeypatch.setattr(tables, "_round_trip", lossy)
    with pytest.raises(AccountError, match="trades of S0"):
        tables.trades_table(*arguments)


# Timeframes -------------------------------------------------------------------------------------


def pandas_feed(minutes: int, bars: int = 60, **params: Any) -> Any:
    candles = walk(bars=bars)
    index = pd.to_datetime(START_MS + minutes * 60_000 * (1 + np.arange(bars)), unit="ms")
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame({name: getattr(candles, name) for name in names}, index=index)
    return bt.feeds.PandasData(dataname=frame, name="P", **params)


MINUTES: dict[str, Any] = {"timeframe": bt.TimeFrame.Minutes}


@pytest.mark.parametrize("runonce", [True, False])
@pytest.mark.parametrize(
    ("minutes", "params", "words"),
    [
        (5, {}, "1 Day long.* rows are 300 s apart"),
        (60, {}, "1 Day long.* rows are 3,600 s apart"),
        (60, {**MINUTES, "compression": 5}, "5 Minutes long.* rows are 3,600 s apart"),
        (5, {**MINUTES, "compression": 5}, None),
        (1440, {}, None),
    ],
)
def test_bars_that_contradict_their_timeframe_are_an_error(
    minutes: int, params: dict[str, Any], words: str | None, runonce: bool
) -> None:
    """5-minute rows in a feed that says Days, whose orders then silently never fill, die here."""
    cerebro = bt.Cerebro(stdstats=False, runonce=runonce)
    cerebro.broker = SpotBroker(cash=CASH)
    cerebro.adddata(pandas_feed(minutes, **params))
    cerebro.addstrategy(Orders, orders={bar: {0: 1.0} for bar in range(1, 58)})
    if words is None:
        ran = cerebro.run()[0]
        assert {fill.status for fill in ran.broker.fills} == {"filled"}
        return
    with pytest.raises(CandleError, match=words):
        cerebro.run()


def test_restored_account_is_worth_the_same_to_the_bit() -> None:
    """Positions that are added up in another order after a restart: an equity a last bit away.

    A checkpoint is then refused, and the first start after a year replays the year.
    """
    held = {5: {1: 10.3}, 9: {2: 7.7}}
    whole, rest = SpotBroker(cash=CASH), SpotBroker(cash=CASH)
    first, later = trade(whole, held, feeds=3), trade(rest, {}, feeds=3)
    for data in first.datas:
        whole.getposition(data)
    kept = unpack(pack(whole.snapshot()))
    rest.positions.clear()
    rest.restore(kept, later)
    order = [data._name for data in whole.positions]
    assert [data._name for data in rest.positions] == order
    assert rest.getvalue() == whole.getvalue()
    # One that was never held comes last in both, and is bought after the restart.
    assert [position.size for position in rest.positions.values()] == [
        position.size for position in whole.positions.values()
    ]
