"""Statistics of whole UTC days: volatility, trend, volume and their shapes, by candles alone.

Left out: what is made of them, which is the terms of a forecast (`terms.py`) and what an embedding
is compared with (`judging.days`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.terms import LAST_HOURS
from cppncripto_strategy.models.inputs.terms import hours as hours_before

# A day with fewer of its candles than this has no statistics.
MIN_PRESENT_SHARE = 0.5
# Columns of `DayTable.statistics` that have a name of their own.
_VOLATILITY, _RETURN, _DOWNWARD, _VOLUME, _RANGE = 0, 1, 4, 7, 10


@dataclass(frozen=True, slots=True, eq=False)
class DayTable:
    """Statistics of each UTC day of a grid, by the candles that open in it (N days).

    Parameters
    ----------
    day_ms : int64 (N,), 00:00 UTC of consecutive days.
    statistics : float64 (N, 11), the hand-made features of one day.
    hours : float64 (N, 5), the day's mean hourly ln variance, and that of its last 1, 3, 6 and 12
        hours less it (`inputs.terms.hours`). Left out, it is not known: all NaN.

    NaN where fewer than half of a day's candles exist.
    """

    day_ms: IntArray
    statistics: FloatArray
    hours: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        if len(self.hours) != len(self.day_ms) or self.hours.ndim != 2 or not self.hours.shape[1]:
            unknown = np.full((len(self.day_ms), 1 + len(LAST_HOURS)), np.nan)
            object.__setattr__(self, "hours", unknown)

    @property
    def log_volatility(self) -> FloatArray:
        """Logarithm of realised volatility (root of the summed squared log returns), (N,)."""
        return self.statistics[:, _VOLATILITY]

    @property
    def log_return(self) -> FloatArray:
        """Sum of the day's log returns, (N,)."""
        return self.statistics[:, _RETURN]

    @property
    def downward_share(self) -> FloatArray:
        """Share of the falls in the day's summed squared returns, 0 to 1, (N,)."""
        return self.statistics[:, _DOWNWARD]

    @property
    def log_volume(self) -> FloatArray:
        """Mean logarithm of the volume (base units) of candles with trades, (N,)."""
        return self.statistics[:, _VOLUME]

    @property
    def log_range(self) -> FloatArray:
        """Logarithm of the day's high over its low, (N,); not the logarithm of that."""
        return self.statistics[:, _RANGE]

    def last(self, count: int) -> DayTable:
        """The last `count` days, or all where there are fewer."""
        return DayTable(self.day_ms[-count:], self.statistics[-count:], self.hours[-count:])

    def before(self, day_ms: int) -> DayTable:
        """The days before one: whatever came later is not even there to be looked at."""
        kept = self.day_ms < day_ms
        return DayTable(self.day_ms[kept], self.statistics[kept], self.hours[kept])

    def over(self, earlier: DayTable) -> DayTable:
        """These days, and those of another table where this one has none; NaN in between."""
        if not len(self.day_ms) or not len(earlier.day_ms):
            return self if len(self.day_ms) else earlier
        first = min(self.day_ms[0], earlier.day_ms[0])
        last = max(self.day_ms[-1], earlier.day_ms[-1])
        day_ms = np.arange(first, last + DAY_MS, DAY_MS, dtype=np.int64)
        statistics = np.full((len(day_ms), self.statistics.shape[1]), np.nan)
        hours = np.full((len(day_ms), self.hours.shape[1]), np.nan)
        for table in (earlier, self):
            statistics[(table.day_ms - first) // DAY_MS] = table.statistics
            hours[(table.day_ms - first) // DAY_MS] = table.hours
        return DayTable(day_ms, statistics, hours)

    def at(self, session_ms: IntArray) -> IntArray:
        """Row of the day that starts at each session (may lie outside)."""
        return (session_ms - self.day_ms[0]) // DAY_MS if len(self.day_ms) else session_ms * 0 - 1


def day_table(grid: CandleGrid) -> DayTable:
    """Statistics of every whole UTC day of a grid."""
    per_day = DAY_MS // grid.interval_ms
    first = -(-grid.start_ms // DAY_MS) * DAY_MS
    row = grid.row_of(first)
    days = max((len(grid) - row) // per_day, 0)
    whole = grid.rows(row, row + days * per_day)
    close = np.concatenate([grid.close[row - 1 : row] if row else [np.nan], whole.close])
    returns = np.diff(np.log(close)).reshape(days, per_day)  # NaN beside a missing candle
    statistics = np.concatenate([_price_statistics(returns), _volume_statistics(whole)], axis=1)
    statistics = np.concatenate([statistics, _ranges(whole)[:, None]], axis=1)  # (N, 11)
    known = np.count_nonzero(~np.isnan(returns), axis=1)
    statistics[known < MIN_PRESENT_SHARE * per_day] = np.nan
    day_ms = first + np.arange(days, dtype=np.int64) * DAY_MS
    hours = hours_before(grid, day_ms + DAY_MS)
    hours[known < MIN_PRESENT_SHARE * per_day] = np.nan
    return DayTable(day_ms, statistics, hours)


def _price_statistics(returns: FloatArray) -> FloatArray:
    """From log returns (N, day): ln volatility, return, |return|, autocorrelation, share of falls,
    and the 24-hour wave of absolute returns (sine, cosine); (N, 7)."""
    per_day = returns.shape[1]
    known, flat = ~np.isnan(returns), np.nan_to_num(returns)
    squares = flat**2
    power = squares.sum(axis=1) + 1e-18
    # A day with an outage is brought to the length of a whole one.
    variance = power * per_day / np.maximum(known.sum(axis=1), 1)
    total = flat.sum(axis=1)
    pairs = (flat[:, 1:] * flat[:, :-1]).sum(axis=1)
    falls = np.where(flat < 0, squares, 0.0).sum(axis=1)
    size = np.abs(flat) / np.sqrt(variance / per_day)[:, None]
    wave = _daily_wave(size, known)
    columns = [np.log(variance) / 2, total, np.abs(total), pairs / power, falls / power, *wave]
    return np.stack(columns, axis=1)


def _volume_statistics(whole: CandleGrid) -> FloatArray:
    """Mean ln volume of candles with trades, and its 24-hour wave (sine, cosine); (N, 3)."""
    volume = whole.volume.reshape(-1, DAY_MS // whole.interval_ms)
    traded = volume > 0
    log_volume = np.log(np.where(traded, volume, 1.0))
    mean = log_volume.sum(axis=1) / np.maximum(traded.sum(axis=1), 1)
    return np.stack([mean, *_daily_wave(log_volume, traded)], axis=1)


def _ranges(whole: CandleGrid) -> FloatArray:
    """ln of each day's high over its low, (N,); 0 without candles."""
    shape = (-1, DAY_MS // whole.interval_ms)
    highs = np.where(whole.present, whole.high, -np.inf).reshape(shape).max(axis=1, initial=-np.inf)
    lows = np.where(whole.present, whole.low, np.inf).reshape(shape).min(axis=1, initial=np.inf)
    known = np.isfinite(highs)
    return np.asarray(np.log(np.where(known, highs, 1.0) / np.where(known, lows, 1.0)))


def _daily_wave(values: FloatArray, known: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Mean products (N,) of a day's deviations from their mean with the sine and cosine of time."""
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, values, 0.0).sum(axis=1) / count
    away = np.where(known, values - mean[:, None], 0.0)
    clock = 2 * np.pi * np.arange(values.shape[1]) / values.shape[1]
    return away @ np.sin(clock) / count, away @ np.cos(clock) / count
