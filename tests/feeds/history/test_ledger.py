"""The coverage ledger: spans against sets of slots, round trips, and files changed behind it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, WEEK_MS, Span, interval_to_ms, utc_to_ms
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    content_digest,
    entries_of,
    job_lock,
    join,
    month_matches,
    named,
    overlay,
    record_month,
    runs,
    uncovered,
    write_recorded,
)
from cppncripto_strategy.feeds.history.store import CandleStore, MonthState

FIVE_MS = 300_000
START_MS = utc_to_ms("2024-01-31 12:00")
STATUSES = ("verified", "exchange-down", "missing")
# Two neighbours in every batch, or the step would betray another interval.
neighbours = st.sets(st.integers(0, 300), min_size=1, max_size=40).map(
    lambda slots: sorted(slots | {min(slots) + 1})
)
many = settings(max_examples=150, deadline=None, derandomize=True)

spans = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda s: (s[0], s[0] + s[1]))
laid = st.lists(st.tuples(spans, st.sampled_from(STATUSES)), max_size=12)


def candles_at(slots, start_ms: int = START_MS, price: float = 1.0) -> Candles:
    count = len(slots)
    flat = np.full(count, price)
    return Candles.from_columns(
        open_time=start_ms + FIVE_MS * np.asarray(slots, dtype=np.int64),
        open=flat,
        high=flat,
        low=flat,
        close=flat,
        volume=np.arange(count, dtype=float),
    )


@many
@given(laid=laid)
def test_overlaid_entries_agree_with_a_dictionary_of_slots(laid):
    """An older entry that shines through, is lost, or overlaps a newer one."""
    entries, slots = [], {}
    for (start, end), status in laid:
        entries = join(overlay(entries, Entry(start, end, status)))
        slots.update(dict.fromkeys(range(start, end), status))
    told = {slot: e.status for e in entries for slot in range(e.start_ms, e.end_ms)}
    assert slots == told
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(entries))
    # Joined: no two neighbours that touch say the same.
    assert all(
        a.end_ms < b.start_ms or a.status != b.status for a, b in itertools.pairwise(entries)
    )


@many
@given(wanted=spans, slots=st.sets(st.integers(0, 60)))
def test_what_is_not_covered_is_exactly_the_rest(wanted, slots):
    """A hole that is never asked for again, or candles fetched twice."""
    covered = runs(np.array(sorted(slots), dtype=np.int64), 1)
    rest = uncovered(Span(*wanted), covered)
    told = {slot for span in rest for slot in range(span.start_ms, span.end_ms)}
    assert set(range(*wanted)) - slots == told


@many
@given(slots=st.sets(st.integers(0, 60)))
def test_runs_are_the_unbroken_stretches(slots):
    """A stretch that swallows a hole."""
    found = runs(FIVE_MS * np.array(sorted(slots), dtype=np.int64), FIVE_MS)
    told = {s // FIVE_MS for run in found for s in range(run.start_ms, run.end_ms, FIVE_MS)}
    assert slots == told
    assert all(a.end_ms < b.start_ms for a, b in itertools.pairwise(found))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(batches=st.lists(neighbours, min_size=1, max_size=4))
@example(batches=[[0, 1], [144, 145]])  # the hole ends the month before the one written
def test_after_any_writes_every_wanted_slot_has_one_true_entry(tmp_path_factory, batches):
    """A ledger that claims candles the store lacks, or forgets a hole."""
    store = CandleStore(tmp_path_factory.mktemp("store"))
    held: set[int] = set()
    for slots in batches:
        write_recorded(store, "BTCUSDT", "5m", candles_at(slots), "test")
        held |= set(slots)
    ledger = Ledger.load(store, "BTCUSDT", "5m")
    told = {
        (at - START_MS) // FIVE_MS: entry.status
        for entry in ledger.entries()
        for at in range(entry.start_ms, entry.end_ms, FIVE_MS)
    }
    expected = {
        slot: "verified" if slot in held else "missing" for slot in range(min(held), max(held) + 1)
    }
    assert expected == told
    assert all(month_matches(ledger, store, month) for month in ledger.months)


def test_a_ledger_is_read_back_as_it_was_saved(tmp_path):
    """A field lost on the way to disk."""
    ledger = Ledger(tmp_path / "ledger.json", "BTCUSDT", "5m")
    ledger.widen(Span(0, 10))
    ledger.widen(Span(5, 20))
    entries = [
        Entry(0, 5, "verified", "archive:x", "abc"),
        Entry(5, 7, "exchange-down", reads_ms=(1, 2)),
        Entry(7, 9, "missing", reads_ms=(3,), reason="why"),
    ]
    ledger.record("1970-01", entries)
    ledger.months["1970-01"].file_sha256 = "f00"
    store = CandleStore(tmp_path / "store")
    ledger.path = Ledger.path_of(store, "BTCUSDT", "5m")
    ledger.save()
    again = Ledger.load(store, "BTCUSDT", "5m")
    assert again.entries() == entries
    assert again.span == Span(0, 20)
    assert again.months["1970-01"].file_sha256 == "f00"
    assert again.open_spans("1970-01", Span(0, 12)) == [Span(7, 12)]
    assert again.spans("exchange-down") == [Span(5, 7)]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": 99}', "[1]", '{"format": 1, "symbol": "X"}']
)
def test_a_damaged_ledger_is_refused_with_the_way_out(tmp_path, text):
    """A KeyError, or a ledger of another series believed."""
    store = CandleStore(tmp_path)
    path = Ledger.path_of(store, "BTCUSDT", "5m")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(StoreError, match="data repair"):
        Ledger.load(store, "BTCUSDT", "5m")


def test_a_month_changed_behind_the_ledger_no_longer_matches(tmp_path):
    """A stale claim of verified candles after somebody else's write."""
    store = CandleStore(tmp_path)
    write_recorded(store, "BTCUSDT", "5m", candles_at([0, 1, 2]), "test")
    assert month_matches(Ledger.load(store, "BTCUSDT", "5m"), store, "2024-01")
    store.write("BTCUSDT", "5m", candles_at([1], price=2.0))
    ledger = Ledger.load(store, "BTCUSDT", "5m")
    assert not month_matches(ledger, store, "2024-01")
    write_recorded(store, "BTCUSDT", "5m", candles_at([3, 4]), "other")
    sources = [entry.source for entry in Ledger.load(store, "BTCUSDT", "5m").entries()]
    assert sources == ["unrecorded", "other"]


def test_verified_candles_that_vanish_from_the_file_become_missing(tmp_path):
    """A ledger that goes on claiming what a truncated month lost."""
    store = CandleStore(tmp_path)
    write_recorded(store, "BTCUSDT", "5m", candles_at([0, 1, 2, 3]), "test")
    ledger = Ledger.load(store, "BTCUSDT", "5m")
    record_month(ledger, MonthState.of("2024-01", candles_at([0, 3]), "x"), [])
    assert ledger.spans("missing") == [Span(START_MS + FIVE_MS, START_MS + 3 * FIVE_MS)]


def test_digests_tell_candles_apart_and_nothing_else(tmp_path):
    """A digest that depends on the file, or that misses a changed number."""
    one, other = candles_at([0, 1, 2]), candles_at([0, 1, 2], price=np.nextafter(1.0, 2.0))
    assert content_digest(one) == content_digest(candles_at([0, 1, 2]))
    assert content_digest(one) != content_digest(other)
    assert [content_digest(one)] == [e.digest for e in entries_of(one, "5m", "rest")]


def test_named_holes_do_not_fall_apart_at_month_ends():
    """One outage reported as five."""
    read = [
        Entry(0, 5, "exchange-down", reads_ms=(1, 2)),
        Entry(5, 9, "exchange-down", reads_ms=(3, 4)),
    ]
    assert [Span(0, 9)] == [entry.span for entry in named(read)]


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d", "3d", "1w"])
def test_the_slots_of_the_months_tile_all_time(tmp_path, interval):
    """A week that belongs to two months, or to none."""
    interval_ms = interval_to_ms(interval)
    ledger = Ledger(tmp_path / "ledger.json", "BTCUSDT", interval)
    if interval == "3d":
        ledger.anchor_ms = DAY_MS
    months = [str(m) for m in np.arange(np.datetime64("2023-11"), np.datetime64("2025-03"))]
    spans = [ledger.slots_of(month) for month in months]
    assert all(a.end_ms == b.start_ms for a, b in itertools.pairwise(spans))
    if interval_ms == WEEK_MS:
        monday = utc_to_ms("2024-01-01")
        assert all((span.start_ms - monday) % WEEK_MS == 0 for span in spans)
    if interval == "3d":
        assert all(span.start_ms // DAY_MS % 3 == 1 for span in spans)


def test_a_second_job_is_refused_at_once(tmp_path):
    """Two fetches that undo one another's ledger."""
    store = CandleStore(tmp_path)
    with (
        job_lock(store),
        pytest.raises(StoreError, match="is in use by this process"),
        job_lock(store),
    ):
        pass
    with job_lock(store):
        pass
