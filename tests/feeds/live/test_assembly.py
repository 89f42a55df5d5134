"""Closed candles on their way into rounds, without a socket or a clock of the market."""

from __future__ import annotations

from collections import Counter

import pytest

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.feeds.live.assembly import Assembly
from cppncripto_strategy.feeds.live.rounds import Row, candles_of
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan

STEP_MS = 300_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def at(slot: int) -> int:
    return slot * STEP_MS


def row(slot: int, price: float = 100.0) -> Row:
    return (at(slot), price, price, price, price, 1.0, 1.0, 1.0, 1.0, 1.0)


def assembly(stale_after_s: float = 60.0, **plan) -> Assembly:
    return Assembly(StreamPlan(SYMBOLS, "5m", 0, **plan), stale_after_s, Counter())


def give(machine: Assembly, symbol: str, *slots: int) -> None:
    for slot in slots:
        machine.accept(machine.series[symbol], row(slot))


def test_a_round_waits_for_every_symbol():
    """Symbols out of step: one of them trades on a bar that the other has not seen."""
    machine = assembly()
    give(machine, "BTCUSDT", 0, 1)
    assert machine.complete() == []
    give(machine, "ETHUSDT", 1, 0)
    assert [at(1), at(2)] == [r.close_ms for r in machine.complete()]
    assert machine.complete() == []


def test_a_symbol_that_is_too_late_is_stale_and_catches_up():
    """A late symbol that stops the others for good, or whose candles are lost."""
    machine = assembly(stale_after_s=-1.0)
    give(machine, "BTCUSDT", 0, 1)
    first, second = machine.complete()
    assert [first.stale, second.stale] == [("ETHUSDT",)] * 2
    give(machine, "ETHUSDT", 0, 1)
    late = machine.complete()
    assert [(at(1), True), (at(2), True)] == [(r.close_ms, r.catch_up) for r in late]
    assert all(set(r.candles) == {"ETHUSDT"} for r in late)


def test_an_outage_of_all_symbols_is_waited_for():
    """An outage taken for everybody's lateness: rounds without a candle."""
    assert assembly(stale_after_s=-1.0).complete() == []


def test_only_two_reads_apart_prove_a_gap():
    """A read that came a moment too early, believed."""
    machine = assembly()
    give(machine, "ETHUSDT", 0, 1)
    give(machine, "BTCUSDT", 1)
    series = machine.series["BTCUSDT"]
    empty, span = candles_of([]), Span(at(0), at(1))
    machine.take_read(series, empty, span, (3600.0, 3600.0))
    machine.take_read(series, empty, span, (3600.0, 3600.0))
    assert machine.complete() == []
    machine.take_read(series, empty, span, (0.0, 3600.0))
    gap, following = machine.complete()
    assert (gap.gaps, following.gaps) == (("BTCUSDT",), ())


def test_what_is_lacking_is_read_in_as_few_spans_as_there_are_holes():
    """A request per candle after an outage, or candles asked for that are here."""
    machine = assembly()
    give(machine, "BTCUSDT", 2)
    lacking = machine.lacking(machine.series["BTCUSDT"], at(5) + 1)
    assert [Span(at(0), at(2)), Span(at(3), at(5))] == lacking


def test_a_plan_knows_what_is_here_and_where_a_stale_symbol_stood():
    """A restart that reads everything again, or skips what a stale symbol lacked."""
    machine = assembly(
        next_open={"ETHUSDT": at(-1)}, known={"BTCUSDT": candles_of([row(-1), row(0)])}
    )
    assert {at(0)} == set(machine.series["BTCUSDT"].pending)
    assert at(-1) == machine.series["ETHUSDT"].next_open


@pytest.mark.parametrize("symbols", [(), ("BTCUSDT", "BTCUSDT")])
def test_a_plan_without_symbols_or_with_one_twice_is_refused(symbols):
    """A stream that shows nothing, or every candle twice."""
    with pytest.raises(SourceError, match="different symbols"):
        StreamPlan(symbols, "5m", 0)
