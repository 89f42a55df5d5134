"""A candle's range against the last day's: high minus low over its trailing median."""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.features.windows import (
    DAY_MEMORY,
    DAY_WINDOW,
    last_too_few,
    too_few,
    trailing,
    trailing_counts,
    trailing_last,
    trailing_median,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid


def range_ratio(grid: CandleGrid) -> FloatArray:
    """(high - low) over its median in 288 candles, (T,).

    Where the median is zero the mean stands in; where every candle is flat the ratio is 1. NaN
    where fewer than half of the window's candles exist, or it begins before the grid.
    """
    ranges = grid.high - grid.low
    counts = trailing_counts(grid.present, DAY_WINDOW)
    few = too_few(counts, DAY_WINDOW, first=DAY_WINDOW - 1)
    typical = trailing_median(ranges, DAY_WINDOW)
    flat = typical == 0
    if flat.any():
        means = trailing(np.where(grid.present, ranges, 0.0), DAY_WINDOW)
        means /= np.maximum(counts, 1)
        typical = np.where(flat, means, typical)
    ratio = np.divide(ranges, typical, out=np.ones(len(grid)), where=typical != 0)
    ratio[few] = np.nan
    return ratio


def last_range_ratio(grid: CandleGrid) -> float:
    """The last row of `range_ratio`."""
    if last_too_few(grid.present, DAY_WINDOW) or not grid.present[-1]:
        return float("nan")
    ranges = grid.high[-DAY_WINDOW:] - grid.low[-DAY_WINDOW:]
    known = grid.present[-DAY_WINDOW:]
    ordered = np.sort(ranges)
    count = np.count_nonzero(known)
    typical = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    if typical == 0:
        typical = trailing_last(np.where(known, ranges, 0.0), DAY_WINDOW) / count
    return float(ranges[-1] / typical) if typical != 0 else 1.0


RANGE_RATIO = Feature(range_ratio, memory=DAY_MEMORY, live=last_range_ratio)
