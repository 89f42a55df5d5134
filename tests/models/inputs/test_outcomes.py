"""Outcomes of a session's day: against plain sums, known only once the day is over."""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.outcomes import MEAN_DAYS, OUTCOMES, day_outcomes
from cppncripto_strategy.testing.grids import changed_from, random_grid, same_bits, with_hole

DAY, HOUR_MS = 24, 3_600_000
START_MS = 1_704_067_200_000 + 5 * HOUR_MS
GRID = random_grid(40 * DAY, 0, 0.03, 0.03, start_ms=START_MS, interval_ms=HOUR_MS)
FIRST_MS = START_MS // DAY_MS * DAY_MS + 32 * DAY_MS
SESSIONS = np.arange(FIRST_MS, GRID.end_ms - DAY_MS + 1, DAY_MS)


def of_day(day_ms: int) -> list[float]:
    """ln variance, mean ln volume and ln range of the UTC day, by plain sums."""
    row = GRID.row_of(day_ms)
    close, volume = GRID.close[row - 1 : row + DAY], GRID.volume[row : row + DAY]
    moves = np.diff(np.log(close))
    moves = moves[~np.isnan(moves)]
    high, low = np.nanmax(GRID.high[row : row + DAY]), np.nanmin(GRID.low[row : row + DAY])
    variance = np.log((moves**2).sum() * DAY / len(moves))
    return [variance, np.log(volume[volume > 0]).mean(), np.log(np.log(high / low))]


def test_outcomes_are_the_coming_day_less_the_month_before() -> None:
    """Yesterday learned as tomorrow, or a mean that holds the day it is taken from."""
    found = day_outcomes(GRID, SESSIONS)
    assert found.shape == (len(SESSIONS), len(OUTCOMES))
    for row, session_ms in enumerate(SESSIONS.tolist()):
        before = [of_day(session_ms - k * DAY_MS) for k in range(1, MEAN_DAYS + 1)]
        expected = np.array(of_day(session_ms)) - np.mean(before, axis=0)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-12)


def test_an_outcome_is_known_when_its_day_is_over_and_not_before() -> None:
    """A day learned from before it has closed; an outcome that another future changes."""
    whole = day_outcomes(GRID, SESSIONS)
    for number in (0, len(SESSIONS) // 2):
        end = GRID.row_of(int(SESSIONS[number])) + DAY
        one = SESSIONS[number : number + 1]
        assert same_bits(whole[number], day_outcomes(GRID.rows(0, end), one)[0])
        assert same_bits(whole[number], day_outcomes(changed_from(GRID, end), one)[0])
        assert np.isnan(day_outcomes(GRID.rows(0, end - 1), one)).all()


def test_a_day_with_an_outage_has_no_outcome() -> None:
    """A range over three candles taught as a day's."""
    row = GRID.row_of(int(SESSIONS[2]))
    holed = day_outcomes(with_hole(GRID, row + 2, row + 17), SESSIONS)
    assert np.isnan(holed[2]).all()
    assert np.isfinite(holed[[0, 1, 3]]).all()
