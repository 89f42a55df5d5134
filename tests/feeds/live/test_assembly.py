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
from cppncripto_strategy.feeds.live.series import Glimpse
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan, StreamSettings

STEP_MS = 300_000
START_MS = utc_to_ms("2024-05-01")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
LONG = {"close_grace_s": 3600.0}


def at(slot: int) -> int:
    return START_MS + slot * STEP_MS


def row(slot: int, price: float = 100.0) -> Row:
    return (at(slot), price, price, price, price, 1.0, 1.0, 1.0, 1.0, 1.0)


def assembly(tell=unheard, patience=None, **plan) -> Assembly:
    chosen = StreamSettings(**{"close_grace_s": 0.0, "still_s": 0.0, **(patience or {})})
    return Assembly(StreamPlan(SYMBOLS, "5m", at(0), **plan), chosen, Counter(), tell)


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
    machine = assembly(patience={"stale_after_s": -1.0})
    give(machine, "BTCUSDT", 0, 1)
    first, second = machine.complete()
    assert [first.stale, second.stale] == [("ETHUSDT",)] * 2
    give(machine, "ETHUSDT", 0, 1)
    late = machine.complete()
    assert [(at(1), True), (at(2), True)] == [(r.close_ms, r.catch_up) for r in late]
    assert all(set(r.candles) == {"ETHUSDT"} for r in late)


def test_an_outage_of_all_symbols_is_waited_for():
    """An outage taken for everybody's lateness: rounds without a candle."""
    assert assembly(patience={"stale_after_s": -1.0}).complete() == []


def read(machine: Assembly, *slots: int, lacking: int = 0, closed: int = 9) -> None:
    """REST shows these candles of BTCUSDT when it is asked about the one that is lacking."""
    shown = candles_of([row(slot) for slot in slots])
    series, span = machine.series["BTCUSDT"], Span(at(lacking), at(lacking + 1))
    machine.take_read(series, shown, span, at(closed))


def waiting(gap_confirm_s: float = 0.0, doubt_s: float = 3600.0) -> Assembly:
    """ETHUSDT is here, and the first candle of BTCUSDT is not."""
    machine = assembly(patience={"gap_confirm_s": gap_confirm_s, "doubt_s": doubt_s})
    give(machine, "ETHUSDT", 0, 1)
    return machine


def test_two_reads_that_pass_over_a_slot_are_a_gap():
    """A hole of the exchange that holds the symbol back for good."""
    machine = waiting()
    read(machine, 1)
    assert machine.complete() == []
    read(machine, 1)
    gap, following = machine.complete()
    assert (gap.gaps, following.gaps) == (("BTCUSDT",), ())


def test_two_reads_of_one_moment_are_one():
    """A read that came a moment too early, believed because it was sent twice."""
    machine = waiting(gap_confirm_s=3600.0)
    for _ in range(5):
        read(machine, 1)
    assert machine.complete() == []


def test_reads_that_show_nothing_newer_prove_nothing():
    """A symbol late on stream and REST alike: a false gap for every candle of it."""
    machine = waiting()
    machine.series["BTCUSDT"].see(at(5))  # the stream is ahead of REST
    for _ in range(5):
        read(machine)
    assert machine.complete() == []
    read(machine, 0, 1)
    assert [{"BTCUSDT", "ETHUSDT"}] * 2 == [set(r.candles) for r in machine.complete()]


@pytest.mark.parametrize(("first", "gap"), [(11, True), (12, False)])
def test_trade_ids_tell_whether_a_candle_that_is_missing_had_trades(first, gap):
    """A candle that REST passes over for a while and that existed: its trades have numbers."""
    machine = assembly(patience={"gap_confirm_s": 0.0, "doubt_s": 3600.0})
    give(machine, "ETHUSDT", 0, 1, 2)
    give(machine, "BTCUSDT", 0)
    series = machine.series["BTCUSDT"]
    series.glimpse(Glimpse(row(0), 1, 10))
    series.glimpse(Glimpse(row(2), first, 20))
    for _ in range(3):
        read(machine, 2, lacking=1)
    assert gap == any(made.gaps for made in machine.complete())


def test_a_frame_of_a_candle_is_evidence_that_it_exists():
    """A candle seen forming, and called absent because REST passes over it."""
    machine = waiting()
    machine.series["BTCUSDT"].glimpse(Glimpse(row(0)))
    for _ in range(3):
        read(machine, 1)
    assert machine.complete() == []


def test_doubt_ends_where_the_exchange_stands_by_it():
    """A candle that REST never shows again, and a symbol that waits for it for good."""
    machine = waiting(doubt_s=0.0)
    machine.series["BTCUSDT"].glimpse(Glimpse(row(0)))
    for _ in range(2):
        read(machine, 1)
    assert machine.complete()[0].gaps == ("BTCUSDT",)


def test_the_newest_row_of_rest_must_stand_still_before_it_is_closed():
    """REST minutes behind: a candle as it once was, taken as closed because its time has come."""
    series, patience = assembly().series["BTCUSDT"], StreamSettings(still_s=60.0)
    asked = [(0.0, row(0)), (59.0, row(0)), (60.0, row(0, 101.0)), (119.0, row(0, 101.0))]
    assert [series.final(shown, False, at_s, patience) for at_s, shown in asked] == [False] * 4
    assert series.final(row(0, 101.0), False, 120.0, patience)


@pytest.mark.parametrize(("trades", "taken"), [(4.0, False), (5.0, True), (6.0, True)])
def test_a_row_needs_the_trades_that_its_last_frame_had(trades, taken):
    """REST a moment behind: a candle that still formed, taken as closed."""
    machine = waiting()
    seen = (*row(0)[:7], 5.0, *row(0)[8:])
    machine.series["BTCUSDT"].glimpse(Glimpse(seen))
    shown = candles_of([(*row(0)[:7], trades, *row(0)[8:]), row(1)])
    machine.take_read(machine.series["BTCUSDT"], shown, Span(at(0), at(1)), at(1))
    assert taken == (at(0) in machine.series["BTCUSDT"].pending)


def test_a_row_that_has_not_closed_is_not_taken():
    """The last row of an answer, which is still forming."""
    machine = waiting()
    read(machine, 0, 1, closed=1)
    assert {at(0)} == set(machine.series["BTCUSDT"].pending)


def test_a_stopped_symbol_is_not_waited_for():
    """One symbol that the exchange removed, and every other one waits half a minute per candle."""
    machine = waiting()
    machine.series["BTCUSDT"].stopped = True
    assert [made.stale for made in machine.complete()] == [("BTCUSDT",)] * 2


def test_stopped_symbols_alone_make_no_round():
    """Rounds without a candle, as fast as the loop turns."""
    machine = assembly()
    for series in machine.series.values():
        series.stopped = True
    assert machine.complete() == []


def test_a_review_withdraws_a_gap_and_finds_what_was_restated():
    """What REST says later about candles that were shown, never compared with them."""
    heard: list = []
    machine = gap_at_zero(heard)
    series = machine.series["ETHUSDT"]
    machine.review(series, candles_of([row(0), row(1), row(2)]))
    machine.review(series, candles_of([row(0), row(1, 99.0), row(2, 98.0)]))
    machine.review(series, candles_of([row(0), row(1, 97.0)]))
    assert {"ETHUSDT": row(0)} == publish(machine)[0].withdrawn
    assert [notice.kind for notice in heard] == ["restated", "gap_withdrawn"]


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
    machine = assembly(patience=LONG, next_open=dict.fromkeys(SYMBOLS, at(-2)))
    give(machine, "BTCUSDT", -2, -1)
    assert publish(machine) == []
    give(machine, "ETHUSDT", -1)
    machine.series["ETHUSDT"].absent[at(-2)] = (0.0, 2)
    first, second = publish(machine)
    assert ({"BTCUSDT": row(-2)}, ("ETHUSDT",)) == (first.candles, first.gaps)
    assert {"BTCUSDT": row(-1), "ETHUSDT": row(-1)} == second.candles
    assert [first.catch_up, second.catch_up] == [True, True]


@pytest.mark.parametrize(("now", "stale"), [(9, False), (1, True)])
def test_the_past_waits_for_symbols_that_are_still_read(now, stale):
    """200 symbols that are read one after the other: a round each for every candle of the past."""
    machine = assembly(patience={"stale_after_s": -1.0, "backfill_s": 3600.0})
    give(machine, "BTCUSDT", 0)
    made = machine.complete(at(now))
    assert stale == bool(made)
    machine.series["ETHUSDT"].backfilling = False
    assert stale != bool(machine.complete(at(now)))


def test_a_symbol_that_stays_late_does_not_keep_another_from_catching_up():
    """Waiting for each other without an end."""
    machine = assembly(patience={"close_grace_s": -1.0}, next_open=dict.fromkeys(SYMBOLS, at(-2)))
    give(machine, "BTCUSDT", -2)
    (late,) = publish(machine)
    assert {"BTCUSDT": row(-2)} == late.candles
