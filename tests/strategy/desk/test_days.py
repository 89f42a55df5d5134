"""The map of days, and what is nearest to one."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.desk import days
from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.feeds.clock import DAY_MS


@pytest.fixture
def embedded(copy_of, embed_days):
    """(listing, file of embeddings, first day)."""
    first = embed_days(copy_of)
    listing = Listing(copy_of)
    return listing, listing.of("embeddings")[0], first


def test_map_lies_on_the_axis_that_was_planted(embedded):
    """Components that are not those of the largest variance, or distances that are not kept."""
    listing, entry, _ = embedded
    found = days.days_map(entry, listing.of("candles"))
    assert found.problem == ""
    assert found.explained[0] == pytest.approx(1.0)
    xs = np.array([day.x for day in found.days])
    assert np.abs(xs[19] - xs[0]) == pytest.approx(9.5)
    assert max(abs(day.y) for day in found.days) < 1e-9
    assert [day.in_sample for day in found.days] == [True] * 5 + [False] * 15


def test_what_followed_is_the_day_itself(embedded, toy):
    """The return of the day before, or of another symbol."""
    listing, entry, first = embedded
    found = days.days_map(entry, listing.of("candles"), "AUSDT")
    close, opened = toy.candles(days=24).close, toy.candles(days=24).open_time
    last = int(np.searchsorted(opened, first + 6 * DAY_MS)) - 1  # last candle of day 5
    assert found.days[5].day_return == pytest.approx(close[last] / close[last - 24] - 1)


def test_near_days_share_no_candle_and_come_nearest_first(embedded):
    """Yesterday called the most similar day, of which it shares half the window."""
    listing, entry, first = embedded
    near = days.near_days(entry, listing.of("candles"), "AUSDT", first + 10 * DAY_MS, 3)
    assert [day.day.ms for day in near if day.day] == [first + n * DAY_MS for n in (8, 7, 6)]


def test_file_says_what_it_holds(embedded):
    """A file of embeddings that stands there without a span."""
    _, entry, first = embedded
    found = days.embedding_file(entry)
    assert (found.symbols, found.encoders, found.days) == (["AUSDT"], ["e"], 20)
    assert found.first is not None
    assert found.first.ms == first


def test_damage_and_unknown_symbols_are_said(embedded):
    """A half-written file of embeddings that takes the page down."""
    listing, entry, _ = embedded
    assert "no day of ZUSDT" in days.days_map(entry, [], "ZUSDT").problem
    entry.path.write_bytes(b"PAR1")
    assert days.days_map(entry, listing.of("candles")).problem
    assert days.embedding_file(entry).problem


def test_few_days_are_drawn_at_the_origin():
    """Two days, of which no plane can be made."""
    points, explained = days.principal(np.ones((2, 4)))
    assert points == [(0.0, 0.0)] * 2
    assert explained == []
    assert days.principal(np.ones((5, 4)))[1] == []
