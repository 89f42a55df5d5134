"""The time at a candle's close, as a point on a circle: one turn per UTC day, or per week.

A week begins on Monday, 00:00 UTC.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.feeds.clock import DAY_MS, FIRST_MONDAY_MS, WEEK_MS
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid


def sin_day(grid: CandleGrid) -> FloatArray:
    """Sine of each close's time of day, (T,); always defined."""
    return _circle(grid, DAY_MS)[0]


def cos_day(grid: CandleGrid) -> FloatArray:
    """Cosine of each close's time of day, (T,); always defined."""
    return _circle(grid, DAY_MS)[1]


def sin_week(grid: CandleGrid) -> FloatArray:
    """Sine of each close's time of the week, (T,); 0 on Monday, 00:00 UTC; always defined."""
    return _circle(grid, WEEK_MS)[0]


def cos_week(grid: CandleGrid) -> FloatArray:
    """Cosine of each close's time of the week, (T,); 1 on Monday, 00:00 UTC; always defined."""
    return _circle(grid, WEEK_MS)[1]


def last_sin_day(grid: CandleGrid) -> float:
    """The last row of `sin_day`."""
    return float(sin_day(grid.rows(len(grid) - 1, len(grid)))[0])


def last_cos_day(grid: CandleGrid) -> float:
    """The last row of `cos_day`."""
    return float(cos_day(grid.rows(len(grid) - 1, len(grid)))[0])


def last_sin_week(grid: CandleGrid) -> float:
    """The last row of `sin_week`."""
    return float(sin_week(grid.rows(len(grid) - 1, len(grid)))[0])


def last_cos_week(grid: CandleGrid) -> float:
    """The last row of `cos_week`."""
    return float(cos_week(grid.rows(len(grid) - 1, len(grid)))[0])


@lru_cache(maxsize=8)
def _clock_table(turn_ms: int, interval_ms: int, phase_ms: int) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of the time at phase, phase + interval, ..., within one turn."""
    angle = 2 * np.pi * (np.arange(phase_ms, turn_ms, interval_ms) / turn_ms)
    return np.sin(angle), np.cos(angle)


def _circle(grid: CandleGrid, turn_ms: int) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of each close's place in its turn, (T,) each, from one table a turn long.

    `FIRST_MONDAY_MS` is a midnight, so that days begin as if counted from 1970.
    """
    since = (grid.close_time - FIRST_MONDAY_MS) % turn_ms
    if turn_ms % grid.interval_ms:
        angle = 2 * np.pi * (since / turn_ms)
        return np.sin(angle), np.cos(angle)
    phase = (grid.end_ms - FIRST_MONDAY_MS) % grid.interval_ms
    sine, cosine = _clock_table(turn_ms, grid.interval_ms, phase)
    steps = since // grid.interval_ms
    return sine[steps], cosine[steps]


SIN_DAY = Feature(sin_day, memory=1, live=last_sin_day, scaled=False, clock=True)
COS_DAY = Feature(cos_day, memory=1, live=last_cos_day, scaled=False, clock=True)
SIN_WEEK = Feature(sin_week, memory=1, live=last_sin_week, scaled=False, clock=True)
COS_WEEK = Feature(cos_week, memory=1, live=last_cos_week, scaled=False, clock=True)
