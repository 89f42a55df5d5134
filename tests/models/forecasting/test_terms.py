"""HAR's and HAR-X's terms, against sums written out and against the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.terms import (
    har_terms,
    har_x_terms,
    hour_terms,
    linear_terms,
    targets_of,
    usual_log_variance,
    weekday_dummies,
)
from cppncripto_strategy.models.inputs.terms import har
from cppncripto_strategy.testing.grids import random_grid, with_hole

FIRST_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)  # a Monday


def table_of(days: int, seed: int = 0, first_ms: int = FIRST_MS) -> DayTable:
    """Days of random statistics."""
    statistics = np.random.default_rng(seed).normal(size=(days, 11))
    statistics[:, 10] = np.abs(statistics[:, 10])
    hours = np.random.default_rng(seed + 100).normal(size=(days, 5))
    return DayTable(first_ms + np.arange(days, dtype=np.int64) * DAY_MS, statistics, hours)


def test_lags_of_the_forecast_are_those_of_the_embedding_but_for_rounding() -> None:
    """Kills a day, an outage or a logarithm that one of the two sees otherwise than the other.

    They differ by rounding, and while the grid's first day, whose first return the embedding's
    terms ask for and the forecast's do without, is among the days looked back at.
    """
    whole = random_grid(40 * 24, 0, 0.03, 0.03, start_ms=FIRST_MS, interval_ms=3_600_000)
    grid = with_hole(whole, 700, 720)
    session_ms = FIRST_MS + np.arange(41, dtype=np.int64) * DAY_MS
    ours, theirs = har_terms(day_table(grid), session_ms), har(grid, session_ms)[:, :3]
    for column, span in enumerate((1, 5, 22)):
        after = session_ms > FIRST_MS + span * DAY_MS
        np.testing.assert_allclose(ours[after, column], theirs[after, column], rtol=1e-9)
    assert np.isfinite(ours[-1]).all()
    assert [np.isfinite(lags[1, 0]) for lags in (ours, theirs)] == [True, False]


def test_har_x_is_worked_out_by_hand() -> None:
    """Kills a horizon off by one day, a wrong column, and a weekday of the wrong day."""
    own, market = table_of(60), table_of(60, seed=1)
    day = 40
    row = har_x_terms(own, own.day_ms[day : day + 1], market)[0]
    log_variance = 2 * own.statistics[:, 0]
    weekday = datetime.fromtimestamp(own.day_ms[day] / 1000, UTC).weekday()
    expected = [
        *(log_variance[day - span : day].mean() for span in (1, 5, 22)),
        *(float(weekday == number) for number in range(1, 7)),
        own.statistics[day - 1, 1] / np.exp(own.statistics[day - 1, 0]),
        own.statistics[day - 1, 7] - own.statistics[day - 30 : day, 7].mean(),
        own.statistics[day - 1, 4],
        *((2 * market.statistics[day - span : day, 0]).mean() for span in (1, 5, 22)),
    ]
    np.testing.assert_allclose(row, expected, rtol=1e-12)
    usual = usual_log_variance(own, own.day_ms[day : day + 1])[0]
    assert usual == pytest.approx(log_variance[day - 30 : day].mean())


def test_terms_of_a_day_do_not_move_with_it_or_with_later_days() -> None:
    """Kills a look-ahead: the day itself in its own terms, or the market's day in them."""
    own, market = table_of(60), table_of(60, seed=1)
    changed, moved = own.statistics.copy(), market.statistics.copy()
    hours, market_hours = own.hours.copy(), market.hours.copy()
    for values in (changed, moved, hours, market_hours):
        values[40:] += 1.0
    later = DayTable(own.day_ms, changed, hours)
    later_market = DayTable(market.day_ms, moved, market_hours)
    here, next_day = own.day_ms[40:41], own.day_ms[41:42]
    before = linear_terms(own, here, market)
    assert np.array_equal(linear_terms(later, here, later_market), before)
    assert not np.array_equal(
        har_x_terms(later, next_day, market), har_x_terms(own, next_day, market)
    )
    only_market = har_x_terms(own, next_day, later_market) != har_x_terms(own, next_day, market)
    assert only_market[0].tolist() == [False] * 12 + [True] * 3
    hours_too = linear_terms(own, next_day, later_market) != linear_terms(own, next_day, market)
    assert hours_too[0].tolist() == [False] * 12 + [True] * 3 + [False] * 5 + [True] * 5


def test_hours_are_those_of_yesterday_and_the_market_behind_them() -> None:
    """Kills hours of the day to come, and a linear forecast that calls itself HAR-X."""
    own, market = table_of(60), table_of(60, seed=1)
    row = linear_terms(own, own.day_ms[40:41], market)[0]
    np.testing.assert_array_equal(row[:15], har_x_terms(own, own.day_ms[40:41], market)[0])
    np.testing.assert_array_equal(row[15:], [*own.hours[39], *market.hours[39]])
    unknown = DayTable(own.day_ms, own.statistics)
    assert np.isnan(hour_terms(unknown, own.day_ms[40:41])).all()


def test_a_months_mean_needs_half_of_its_days_and_one_day_needs_that_day() -> None:
    """Kills a mean of one day that is called a month, and yesterday made of an older day."""
    own = table_of(60)
    own.statistics[30:41] = np.nan  # eleven days until the 41st, which is yesterday
    terms = har_terms(own, own.day_ms[41:42])[0]
    assert np.isnan(terms[0])
    assert np.isnan(terms[1])
    expected = (2 * own.statistics[19:30, 0]).mean()
    assert terms[2] == pytest.approx(expected)
    own.statistics[29] = np.nan  # a twelfth of 22
    assert np.isnan(har_terms(own, own.day_ms[41:42])[0, 2])


def test_terms_are_the_same_bits_from_a_short_past() -> None:
    """Kills a live process that rounds differently from the batch."""
    own, market = table_of(400), table_of(400, seed=1)
    tail, market_tail = own.last(31), market.last(31)
    coming = own.day_ms[-1:] + DAY_MS
    assert np.array_equal(
        linear_terms(tail, coming, market_tail),
        linear_terms(own, np.append(own.day_ms, coming), market)[-1:],
    )


def test_weekdays_are_those_of_the_calendar() -> None:
    """Kills a week that begins on a Sunday or in another year's Thursday."""
    day_ms = FIRST_MS + np.arange(-800, 800, dtype=np.int64) * DAY_MS
    found = weekday_dummies(day_ms) @ np.arange(1, 7)
    expected = [datetime.fromtimestamp(ms / 1000, UTC).weekday() for ms in day_ms]
    assert found.tolist() == expected


def test_targets_are_of_the_day_itself_and_unknown_beyond_the_table() -> None:
    """Kills a target shifted by a day, and a range of zero as minus infinity."""
    own = table_of(10)
    own.statistics[3, 10] = 0.0
    outside = np.append(own.day_ms, own.day_ms[-1] + DAY_MS)
    found = targets_of(own, outside)
    np.testing.assert_allclose(found["log_variance"][:10], 2 * own.statistics[:, 0])
    assert np.isnan(found["log_range"][3])
    np.testing.assert_allclose(np.exp(found["log_range"][4]), own.statistics[4, 10])
    assert np.isnan(found["log_variance"][10])
    assert np.isnan(found["log_range"][10])
    nothing = targets_of(DayTable(own.day_ms[:0], own.statistics[:0]), own.day_ms)
    assert np.isnan(nothing["log_variance"]).all()
