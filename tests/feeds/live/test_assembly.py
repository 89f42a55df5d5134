"""Closed candles on their way into rounds, without a socket or a clock of the market."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.candles import Row
from cppncripto_strategy.feeds.clock import Span, utc_to_ms
from cppncripto_strategy.feeds.live.assembly import Assembly
from cppncripto_strategy.feeds.live.notices import GapWithdrawn, Restated, unheard
from cppncripto_strategy.feeds.live.rounds import Round, candles_of
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan

STEP_MS = 300_000
START_MS = utc_to_ms("2024-05-01")
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def at(slot: int) -> int:
    return START_MS + slot * STEP_MS


def row(slot: int, price: float = 100.0) -> Row:
    return (at(slot), price, price, price, price, 1.0, 1.0, 1.0, 1.0, 1.0)


def assembly(stale_after_s: float = 60.0, tell=unheard, join_s=0.0, **plan) -> Assembly:
    whole = StreamPlan(SYMBOLS, "5m", at(0), **plan)
    return Assembly(whole, stale_after_s, Counter(), tell, join_s)


def publish(machine: Assembly) -> list[Round]:
    rounds = machine.complete()
    machine.note_published(rounds)
    return rounds


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


def gap_at_zero(heard: list, **plan) -> Assembly:
    """ETHUSDT's first candle is a published gap, its second one shown."""
    machine = assembly(tell=heard.append, **plan)
    give(machine, "BTCUSDT", 0, 1)
    give(machine, "ETHUSDT", 1)
    series = machine.series["ETHUSDT"]
    series.absent[at(0)] = (0.0, 2)
    gap, following = publish(machine)
    assert (gap.gaps, following.gaps) == (("ETHUSDT",), ())
    return machine


def test_a_candle_that_appears_where_a_gap_was_published_withdraws_it_once():
    """A gap that is not one, kept for good; or its candle shown after newer ones."""
    heard: list = []
    machine = gap_at_zero(heard)
    give(machine, "ETHUSDT", 0)
    (late,) = publish(machine)
    assert (at(1), {}, {"ETHUSDT": row(0)}, True) == (
        late.close_ms,
        late.candles,
        late.withdrawn,
        late.catch_up,
    )
    assert [GapWithdrawn("ETHUSDT", at(0), row(0))] == heard
    give(machine, "ETHUSDT", 0)
    assert publish(machine) == []


def test_a_gap_that_a_recorded_session_published_can_be_withdrawn():
    """A restart that has forgotten what it called a gap, and drops the candle as stale."""
    machine = assembly(next_open={"ETHUSDT": at(2)}, gaps={"ETHUSDT": [at(0)]})
    give(machine, "ETHUSDT", 0)
    (late,) = publish(machine)
    assert {"ETHUSDT": row(0)} == late.withdrawn


@pytest.mark.parametrize("shown", [True, False])
def test_a_candle_that_comes_again_with_other_values_is_reported_once_and_changes_nothing(shown):
    """A restatement that replaces what was traded on, or that nobody hears of."""
    heard: list = []
    machine = assembly(tell=heard.append)
    give(machine, "BTCUSDT", 0)
    if shown:
        give(machine, "ETHUSDT", 0)
        publish(machine)
    series = machine.series["BTCUSDT"]
    machine.accept(series, row(0))
    for _ in range(3):
        machine.accept(series, row(0, 101.0))
    assert [Restated("BTCUSDT", at(0), row(0), row(0, 101.0))] == heard
    if not shown:
        give(machine, "ETHUSDT", 0)
        assert row(0) == publish(machine)[0].candles["BTCUSDT"]


def test_a_value_the_store_did_not_have_is_no_restatement():
    """Candles of a local store without taker volume, reported one by one as restated."""
    heard: list = []
    known = (*row(0)[:8], math.nan, math.nan)
    machine = assembly(tell=heard.append, known={"BTCUSDT": candles_of([known])})
    give(machine, "BTCUSDT", 0)
    assert heard == []


def test_symbols_that_catch_up_at_one_close_make_one_round():
    """A round per symbol: the strategy decides twice at one closing time."""
    machine = assembly(stale_after_s=-1.0, join_s=3600.0, next_open={"BTCUSDT": at(-2)})
    series = machine.series
    series["ETHUSDT"].next_open = at(-2)
    give(machine, "BTCUSDT", -2, -1)
    assert publish(machine) == []
    give(machine, "ETHUSDT", -1)
    series["ETHUSDT"].absent[at(-2)] = (0.0, 2)
    first, second = publish(machine)
    assert ({"BTCUSDT": row(-2)}, ("ETHUSDT",)) == (first.candles, first.gaps)
    assert {"BTCUSDT": row(-1), "ETHUSDT": row(-1)} == second.candles
    assert [first.catch_up, second.catch_up] == [True, True]


def test_a_symbol_that_stays_late_does_not_keep_another_from_catching_up():
    """Waiting for each other without an end."""
    machine = assembly(join_s=-1.0, next_open=dict.fromkeys(SYMBOLS, at(-2)))
    give(machine, "BTCUSDT", -2)
    (late,) = publish(machine)
    assert {"BTCUSDT": row(-2)} == late.candles
