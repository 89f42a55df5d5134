"""What an account's record gets wrong is found, and named first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.crosscheck.record import AccountRecord, check_account
from cppncripto_strategy.crosscheck.run import record_of, rule_books
from cppncripto_strategy.crosscheck.terms import HEADROOM_BPS
from cppncripto_strategy.feeds.clock import HOUR_MS, Span, ms_to_utc
from cppncripto_strategy.replay import replay


@pytest.fixture(scope="module")
def record(hourly: Any, traded: Any) -> AccountRecord:
    """An account that traded two symbols across gaps, under a minimum notional."""
    _, candles, timeline = traded
    rules = {"quantity_step": "0.001", "min_quantity": "0.001", "min_notional": "5"}
    recipe = hourly.recipe(
        symbols=["A", "B"],
        strategy={"hold_candles": 4, "cooldown_candles": 1, "stop_pct": 0.8},
        broker={"filters": dict.fromkeys(("A", "B"), rules)},
    )
    span = Span(timeline.first_session_ms, hourly.day(34))
    passed = replay(recipe, candles, timeline, span)
    return record_of(recipe, candles, rule_books(passed.filters), "it", passed.tables(span))


def filled(record: AccountRecord, number: int) -> Any:
    """Label and row of the n-th filled order."""
    assert record.fills is not None
    rows = record.fills[record.fills["status"] == "filled"]
    return rows.index[number], rows.iloc[number]


def changed(record: AccountRecord, label: Any, **values: Any) -> AccountRecord:
    """The record with another row of fills."""
    assert record.fills is not None
    fills = record.fills.copy()
    for name, value in values.items():
        fills.loc[label, name] = value
    return replace(record, fills=fills)


def test_true_record_agrees(record: AccountRecord) -> None:
    """A check that cries at everything proves nothing."""
    check = check_account(record)
    assert check.same
    assert check.first is None
    assert check.compared["orders"] > 50
    assert check.compared["round trips"] > 20


def test_fill_moved_by_one_candle_is_named(record: AccountRecord) -> None:
    """A fill at a later open, which nobody notices because the price is hardly another."""
    label, row = filled(record, 7)
    late_ms = int(row["executed_ms"]) + HOUR_MS
    first = check_account(changed(record, label, executed_ms=late_ms)).first
    assert first is not None
    assert first.at_ms == row["executed_ms"]
    assert row["symbol"] in first.what
    assert (first.recorded, first.rebuilt) == (ms_to_utc(late_ms), ms_to_utc(row["executed_ms"]))


def test_decision_and_fill_moved_together_are_named(record: AccountRecord) -> None:
    """An order shifted whole: no row of the other side has its time."""
    label, row = filled(record, 7)
    moved = {name: int(row[name]) - HOUR_MS for name in ("created_ms", "executed_ms")}
    first = check_account(changed(record, label, **moved)).first
    assert first is not None
    assert "decided -1 candles from the signal's" in first.what
    assert first.at_ms == moved["created_ms"]


@pytest.mark.parametrize("field", ["quantity", "price", "fee"])
def test_field_of_a_fill_that_is_wrong_is_named(record: AccountRecord, field: str) -> None:
    """A fee or a price a thousandth off."""
    label, row = filled(record, 12)
    first = check_account(changed(record, label, **{field: row[field] * 1.001})).first
    assert first is not None
    assert first.what.endswith(f", {field}")
    assert first.at_ms == row["executed_ms"]


@pytest.mark.parametrize(("field", "other"), [("reason", "stop"), ("side", "sell")])
def test_reason_and_side_are_compared(record: AccountRecord, field: str, other: str) -> None:
    """An exit put down to a rule that did not ask for it."""
    label, row = filled(record, 0)
    assert row[field] != other
    first = check_account(changed(record, label, **{field: other})).first
    assert first is not None
    assert (first.recorded, first.rebuilt) == (other, row[field])


def test_order_that_is_missing_and_one_too_many_are_named(record: AccountRecord) -> None:
    """A refusal without its row."""
    assert record.fills is not None
    label, row = filled(record, 3)
    first = check_account(replace(record, fills=record.fills.drop(label))).first
    assert first is not None
    assert (first.recorded, first.rebuilt) == ("no such order", row["reason"])


def test_equity_a_cent_off_is_found_and_half_a_cent_is_not(record: AccountRecord) -> None:
    """A mark at another close."""
    label = record.equity.index[200]
    for amount, found in ((0.004, False), (0.01, True)):
        equity = record.equity.copy()
        equity.loc[label, "equity"] += amount
        check = check_account(replace(record, equity=equity))
        assert check.same is not found
        if check.first is not None:
            assert check.first.at_ms == equity.loc[label, "close_time_ms"]


def test_signal_that_its_score_does_not_give_is_named(record: AccountRecord) -> None:
    """A signal column that was edited, or compared the wrong way round."""
    signals = record.signals.copy()
    label = signals.index[(signals["signal"] == 1)][5]
    signals.loc[label, "signal"] = -1
    first = check_account(replace(record, signals=signals)).first
    assert first is not None
    assert (first.recorded, first.rebuilt) == (-1, 1)


def test_reported_number_that_the_account_does_not_give_is_named(record: AccountRecord) -> None:
    """A report whose fees are not those of its fills."""
    fees = float(record.metrics["fees_paid"])
    first = check_account(replace(record, metrics={**record.metrics, "fees_paid": fees + 1})).first
    assert first is not None
    assert first.what == "reported fees paid"


def test_reserve_is_the_brokers() -> None:
    """Two engines that agree only because a recipe never spends its last cash."""
    assert SpotBroker.params.headroom_bps == HEADROOM_BPS


def test_vectorbt_by_itself_loses_a_step() -> None:
    """Why steps are floored here: once vectorbt's own granularity is exact, it may do it."""
    from vectorbt import Portfolio

    made = Portfolio.from_orders([1.0, 1.0], size=[0.3, 0.0], size_granularity=0.1, init_cash=10)
    assert made.orders.values["size"].tolist() == pytest.approx([0.2])
