"""The time of day at a candle's close, as a point on a circle: one turn per UTC day."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid


def sin_day(grid: CandleGrid) -> FloatArray:
    """Sine of each close's time of day, (T,); always defined."""
    return _circle(grid)[0]


def cos_day(grid: CandleGrid) -> FloatArray:
    """Cosine of each close's time of day, (T,); always defined."""
    return _circle(grid)[1]


def last_sin_day(grid: CandleGrid) -> float:
    """The last row of `sin_day`."""
    return float(sin_day(grid.rows(len(grid) - 1, len(grid)))[0])


def last_cos_day(grid: CandleGrid) -> float:
    """The last row of `cos_day`."""
    return float(cos_day(grid.rows(len(grid) - 1, len(grid)))[0])


@lru_cache(maxsize=8)
def _clock_table(interval_ms: int, phase_ms: int) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of the time of day at phase, phase + interval, ..., within one day."""
    angle = 2 * np.pi * (np.arange(phase_ms, DAY_MS, interval_ms) / DAY_MS)
    return np.sin(angle), np.cos(angle)


def _circle(grid: CandleGrid) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of each close's time of day, (T,) each, looked up in one table a day long."""
    if DAY_MS % grid.interval_ms:
        angle = 2 * np.pi * ((grid.close_time % DAY_MS) / DAY_MS)
        return np.sin(angle), np.cos(angle)
    sine, cosine = _clock_table(grid.interval_ms, grid.end_ms % grid.interval_ms)
    steps = (grid.close_time % DAY_MS) // grid.interval_ms
    return sine[steps], cosine[steps]


SIN_DAY = Feature(sin_day, memory=1, live=last_sin_day, scaled=False, clock=True)
COS_DAY = Feature(cos_day, memory=1, live=last_cos_day, scaled=False, clock=True)
