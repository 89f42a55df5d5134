"""The days before a session, each in a few numbers: variance, return, volume, range.

Made for what a network is given (`terms`) and what it is asked (`outcomes`), in batch and live:
each number is a fixed tree of additions over the day's candles, so it is bitwise the same from any
start. A day is the candles that close after one 00:00 UTC and by the next.

Left out: `forecasting.days`, which describes days by statistics that need no such promise. Its log
variance is this one but for rounding, and for a grid's first day: it counts that by the returns
inside it, while here the close before the day must be there.
"""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.models.inputs.features.returns import log_returns
from cppncripto_strategy.models.inputs.features.windows import trailing, trailing_counts
from cppncripto_strategy.models.inputs.grid import CandleGrid

# Added to an hour's variance before its logarithm: an hour that hardly trades moves by less than a
# third of a basis point, and how much less is a matter of ticks.
QUIET_VARIANCE = 1e-9


class DaysBefore:
    """Statistics of the `count` days before each session, (D, count) each; column 0 is the last.

    Parameters
    ----------
    grid : candles. session_ms : int64 (D,), 00:00 UTC of the sessions. count : days looked back.

    Attributes
    ----------
    log_variance : ln of the day's summed squared log returns, brought to the length of a whole day.
    total : its log return.
    fall_share : share of the summed squares that falls made, 0 to 1.
    log_volume : mean ln volume of its candles with trades.
    log_range : ln of ln(high / low) of the day.

    NaN where the day leaves the grid, fewer than half of what a number is made of are known, or it
    is the logarithm of 0.
    """

    def __init__(self, grid: CandleGrid, session_ms: IntArray, count: int) -> None:
        day = DAY_MS // grid.interval_ms
        last = (session_ms - grid.start_ms) // grid.interval_ms - 1  # the row that closes at 00:00
        self._day = day
        self._rows = last[:, None] - day * np.arange(count)  # (D, count)
        # A day's first return needs the close before the day.
        self._inside = (self._rows >= day) & (self._rows < len(grid))
        returns = log_returns(grid)
        known = ~np.isnan(returns)
        flat = np.where(known, returns, 0.0)
        returned = self._known(known)
        squares = self._sums(flat * flat)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = squares * day / returned
            self.log_variance = np.where(variance > 0, np.log(variance), np.nan)
            self.fall_share = self._sums(np.where(flat < 0, flat * flat, 0.0)) / squares
            traded = grid.volume > 0
            logs = np.log(np.where(traded, grid.volume, 1.0))
            self.log_volume = self._sums(logs) / self._known(traded)
        self.total = self._sums(flat)
        self.log_range = self._log_range(grid)

    def _log_range(self, grid: CandleGrid) -> FloatArray:
        highs = np.where(grid.present, grid.high, -np.inf)
        lows = np.where(grid.present, grid.low, np.inf)
        high = self._pick(trailing(highs, self._day, np.maximum))
        low = self._pick(trailing(lows, self._day, np.minimum))
        known = np.isfinite(self._known(grid.present))
        with np.errstate(divide="ignore", invalid="ignore"):
            span = np.log(high / low)
        return np.where(known & (span > 0), np.log(np.where(span > 0, span, 1.0)), np.nan)

    def _sums(self, values: FloatArray) -> FloatArray:
        return self._pick(trailing(values, self._day))

    def _known(self, known: BoolArray) -> FloatArray:
        """How many of a day's candles are known; NaN for fewer than half."""
        counts = self._pick(trailing_counts(known, self._day).astype(np.float64))
        return np.where(counts * 2 >= self._day, counts, np.nan)

    def _pick(self, column: FloatArray) -> FloatArray:
        if not len(column):
            return np.full(self._rows.shape, np.nan)
        return np.where(self._inside, column[np.where(self._inside, self._rows, 0)], np.nan)


def hourly_log_variance(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """ln realised variance of each hour of the day before each session, latest first, (D, 24).

    Of each candle where those are longer than an hour, (D, candles of a day). An hour with an
    outage is brought to the length of a whole one; NaN where it leaves the grid, or fewer than half
    of its returns are known.
    """
    size = max(1, HOUR_MS // grid.interval_ms)
    last = (session_ms - grid.start_ms) // grid.interval_ms - 1  # the row that closes at 00:00
    rows = last[:, None] - size * np.arange(DAY_MS // grid.interval_ms // size)  # (D, 24)
    inside = (rows >= size) & (rows < len(grid))  # its first return needs the close before it
    if not len(grid):
        return np.full(rows.shape, np.nan)
    returns = log_returns(grid)
    known = ~np.isnan(returns)
    flat = np.where(known, returns, 0.0)
    at = np.where(inside, rows, 0)
    count = trailing_counts(known, size)[at]
    variance = trailing(flat * flat, size)[at] * size / np.maximum(count, 1)
    return np.where(inside & (count * 2 >= size), np.log(variance + QUIET_VARIANCE), np.nan)


def mean_known(values: FloatArray) -> FloatArray:
    """Mean of the known among (D, n), added in order of the columns; NaN below half of them."""
    total, count = np.zeros(len(values)), np.zeros(len(values))
    for column in values.T:
        known = ~np.isnan(column)
        total = total + np.where(known, column, 0.0)
        count = count + known
    return np.where(count * 2 >= values.shape[1], total / np.maximum(count, 1), np.nan)
