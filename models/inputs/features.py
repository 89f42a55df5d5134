"""Features of a candle, from candles up to and including it: nine columns, a tenth where known.

Everything is trailing, and bitwise start-invariant: row i computed from the last `FEATURE_MEMORY`
rows equals, bit for bit, row i computed from years. So a live process that holds a short ring of
candles sees the numbers that the backtest saw. Running sums (cumsum, pandas' rolling mean) cannot
do this, because their rounding depends on where they began; here every windowed sum is a fixed tree
of additions, S_2k(i) = S_k(i) + S_k(i - k), every median an exact selection, and every count an
integer.

Left out: anything that needs more than the candle columns (order books, other symbols), and any
scaling (see `scaling`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.grid import CandleGrid

FEATURES = (
    "log_return",
    "volatility_12",
    "volatility_24",
    "volatility_48",
    "volume_z",
    "range_ratio",
    "sin_day",
    "cos_day",
    "present",
)
TAKER_FEATURE = "taker_imbalance"
SCALED = (
    "log_return",
    "volatility_12",
    "volatility_24",
    "volatility_48",
    "volume_z",
    "range_ratio",
    TAKER_FEATURE,
)
"""Columns a session scaler centres and scales; the others pass through unchanged."""
PASSTHROUGH = ("sin_day", "cos_day", "present")
CLOCK_COLUMNS = (FEATURES.index("sin_day"), FEATURES.index("cos_day"))

VOLATILITY_WINDOWS = (12, 24, 48)
DAY_WINDOW = 288
"""Candles behind `volume_z` and `range_ratio`: a day of 5-minute candles."""
FEATURE_MEMORY = DAY_WINDOW + 1
"""No row depends on more candles than these, itself included: a window and the close before it."""

# Below this many windows a plain sort beats the set-up cost of pandas' rolling median.
_FEW_WINDOWS = 64

Merge = Callable[[FloatArray, FloatArray], FloatArray]


def feature_names(taker: bool = False) -> tuple[str, ...]:
    """Column names of `compute_features`, in order."""
    return (*FEATURES, TAKER_FEATURE) if taker else FEATURES


def scaled_columns(names: tuple[str, ...]) -> IntArray:
    """Positions in `names` of the columns that a session scaler treats, int64 (S,)."""
    return np.array([i for i, name in enumerate(names) if name in SCALED], dtype=np.int64)


def compute_features(grid: CandleGrid, taker: bool = False) -> FloatArray:
    """Features of every row of a grid.

    Columns, in the order of `feature_names`:

    - log_return: ln(close / close one candle before); NaN after a gap of one candle or more.
    - volatility_w, w in 12, 24, 48: square root of the mean squared log return over w candles.
    - volume_z: z-score of ln(volume) over 288 candles; 0 where the window is constant. A candle
      without trades counts as half the smallest traded volume of its window (the usual stand-in
      below a detection limit), so the feature does not change with the unit of volume.
    - range_ratio: (high - low) over its median in 288 candles. Where the median is zero the mean
      stands in; where every candle is flat the ratio is 1.
    - sin_day, cos_day: of the close's UTC time of day, one turn a day. Always defined.
    - present: 1 where the candle exists, 0 where not. Always defined.
    - taker_imbalance (with `taker`): 2 x taker buy volume / volume - 1, 0 without trades; NaN where
      the source does not carry taker volumes.

    Parameters
    ----------
    grid : candles on a regular grid, T rows.
    taker : whether to append taker_imbalance.

    Returns
    -------
    float64 array (T, F). NaN where a feature is undefined: its candle is missing, fewer than half
    of its window's candles (for volatility, returns) exist, or its window begins before the grid.
    """
    returns = _log_returns(grid)
    windows = [_volatility(returns, window) for window in VOLATILITY_WINDOWS]
    columns = [returns, *windows, _volume_z(grid), _range_ratio(grid), *_clock(grid), grid.present]
    if taker:
        columns.append(_taker_imbalance(grid))
    features = np.empty((len(grid), len(columns)))  # (T, F)
    for i, column in enumerate(columns):
        features[:, i] = column
    undefined = scaled_columns(feature_names(taker))
    missing = np.flatnonzero(~grid.present)
    features[missing[:, None], undefined] = np.nan
    return features


def last_row_features(grid: CandleGrid, taker: bool = False) -> FloatArray:
    """The last row of `compute_features(grid, taker)`, bit for bit, without the rows before it.

    For the live path, on a ring of at least `FEATURE_MEMORY` candles (a shorter one gives NaN where
    the full history would not). At least one row.

    Returns
    -------
    float64 array (F,), NaN as in `compute_features`.
    """
    tail = grid.rows(max(0, len(grid) - FEATURE_MEMORY), len(grid))
    returns = _log_returns(tail)
    windows = [_last_volatility(returns, window) for window in VOLATILITY_WINDOWS]
    last = tail.rows(len(tail) - 1, len(tail))
    sine, cosine = _clock(last)
    present = bool(tail.present[-1])
    row = [returns[-1], *windows, _last_volume_z(tail), _last_range_ratio(tail)]
    if not present:
        row = [np.nan] * len(row)
    row += [sine[0], cosine[0], float(present)]
    if taker:
        row.append(_taker_imbalance(last)[0] if present else np.nan)
    return np.array(row, dtype=np.float64)


# --- windows ------------------------------------------------------------------------------------


def _window_parts(window: int) -> list[int]:
    """The powers of two that add up to a window, smallest first: 12 is 4 and 8."""
    return [1 << bit for bit in range(window.bit_length()) if window >> bit & 1]


def _earlier(state: FloatArray, rows: int, merge: Merge, other: FloatArray) -> FloatArray:
    """Merge each row's state with `other` as it was `rows` before; the first rows keep theirs."""
    merged = merge(state[..., rows:], other[..., : max(0, state.shape[-1] - rows)])
    return np.concatenate([state[..., :rows], merged], axis=-1)


def _trailing(values: FloatArray, window: int, merge: Merge) -> FloatArray:
    """Trailing aggregate over `window` rows of (..., T) by the doubling tree.

    Rows before `window` - 1 hold the aggregate of what there is, and must be masked by the caller.
    """
    parts = _window_parts(window)
    doubled, size, done = values, 1, 0
    total: FloatArray | None = None
    while size <= parts[-1]:
        if size in parts:
            total = doubled if total is None else _earlier(total, done, merge, doubled)
            done += size
        if size < parts[-1]:
            doubled = _earlier(doubled, size, merge, doubled)
        size *= 2
    assert total is not None
    return total


def _trailing_last(values: FloatArray, window: int, merge: Merge) -> FloatArray:
    """The last row of `_trailing`, bit for bit, by folding the last `window` rows in halves."""
    end = values.shape[-1]
    total: FloatArray | None = None
    for size in _window_parts(window):
        block = values[..., end - size : end]
        while block.shape[-1] > 1:
            block = merge(block[..., 1::2], block[..., 0::2])
        total = block if total is None else merge(total, block)
        end -= size
    assert total is not None
    return total[..., 0]


def _counts(known: BoolArray, window: int) -> IntArray:
    """Known rows in the trailing window, int64 (T,); integers, so a running sum is exact."""
    totals = np.cumsum(known, dtype=np.int64)
    totals[window:] -= totals[:-window].copy()
    return totals


def _too_few(counts: IntArray, window: int, first: int) -> BoolArray:
    """Rows before `first`, or with fewer than half of the window known, bool (T,)."""
    few = counts * 2 < window
    few[:first] = True
    return few


def _add(late: FloatArray, early: FloatArray) -> FloatArray:
    return late + early


def _moments(late: FloatArray, early: FloatArray) -> FloatArray:
    """Merge (count, mean, sum of squared deviations), each (3, ...), of two samples.

    A constant sample keeps its exact mean and an exact zero of deviations, which sums of squares
    do not. Source: Chan, Golub and LeVeque (1979), updating formulae, eq. 2.1.
    """
    count = late[0] + early[0]
    share = early[0] / np.maximum(count, 1.0)
    delta = early[1] - late[1]
    merged = np.empty((3, *count.shape))
    merged[0] = count
    merged[1] = late[1] + delta * share
    merged[2] = late[2] + early[2] + delta * delta * (late[0] * share)
    return merged


# --- columns ------------------------------------------------------------------------------------


def _log_returns(grid: CandleGrid) -> FloatArray:
    returns = np.full(len(grid), np.nan)
    np.log(grid.close[1:] / grid.close[:-1], out=returns[1:])
    return returns


def _volatility(returns: FloatArray, window: int) -> FloatArray:
    known = ~np.isnan(returns)
    squares = np.where(known, returns * returns, 0.0)
    counts = _counts(known, window)
    volatility = np.sqrt(_trailing(squares, window, _add) / np.maximum(counts, 1))
    # The first return needs a close before the grid, so a full window of returns ends at `window`.
    volatility[_too_few(counts, window, first=window)] = np.nan
    return volatility


def _last_volatility(returns: FloatArray, window: int) -> float:
    tail = returns[-window:]
    known = ~np.isnan(tail)
    count = np.count_nonzero(known)
    if len(returns) <= window or count * 2 < window:
        return float("nan")
    squares = np.where(known, tail * tail, 0.0)
    return float(np.sqrt(_trailing_last(squares, window, _add) / count))


def _log_volume_states(volume: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Moments (3, T) of each traded candle's ln(volume) alone, and which candles had no trade."""
    traded = volume > 0
    logs = np.log(np.where(traded, volume, 1.0))
    return np.stack([traded.astype(np.float64), logs, np.zeros(len(volume))]), volume == 0


def _with_untraded(moments: FloatArray, untraded: FloatArray, lowest: FloatArray) -> FloatArray:
    """Moments with `untraded` candles added at the stand-in volume, half of the lowest traded."""
    stand_in = _stand_in(lowest)
    return _moments(moments, np.stack([untraded, stand_in, np.zeros_like(stand_in)]))


def _stand_in(lowest: FloatArray) -> FloatArray:
    return np.log(np.where(np.isfinite(lowest), lowest, 2.0) / 2.0)


def _z_score(values: FloatArray, moments: FloatArray) -> FloatArray:
    """(value - mean) / deviation; 0 where the sample does not vary."""
    deviation = np.sqrt(moments[2] / np.maximum(moments[0], 1.0))
    varies = deviation > 0
    return np.where(varies, (values - moments[1]) / np.where(varies, deviation, 1.0), 0.0)


def _volume_z(grid: CandleGrid) -> FloatArray:
    states, untraded = _log_volume_states(grid.volume)
    moments, values = _trailing(states, DAY_WINDOW, _moments), states[1]
    if untraded.any():
        lowest = np.where(grid.volume > 0, grid.volume, np.inf)
        lowest = _trailing(lowest, DAY_WINDOW, np.minimum)
        zeros = _counts(untraded, DAY_WINDOW).astype(np.float64)
        moments = _with_untraded(moments, zeros, lowest)
        values = np.where(untraded, _stand_in(lowest), values)
    score = _z_score(values, moments)
    score[_too_few(_counts(grid.present, DAY_WINDOW), DAY_WINDOW, first=DAY_WINDOW - 1)] = np.nan
    return score


def _last_volume_z(grid: CandleGrid) -> float:
    if _last_too_few(grid):
        return float("nan")
    volume = grid.volume[-DAY_WINDOW:]
    states, untraded = _log_volume_states(volume)
    moments, value = _trailing_last(states, DAY_WINDOW, _moments), states[1, -1:]
    if untraded.any():
        lowest = np.min(np.where(volume > 0, volume, np.inf), keepdims=True)
        zeros = np.count_nonzero(untraded, keepdims=True).astype(np.float64)
        moments = _with_untraded(moments[:, None], zeros, lowest)[:, 0]
        value = _stand_in(lowest) if untraded[-1] else value
    return float(_z_score(value, moments[:, None])[0])


def _last_too_few(grid: CandleGrid) -> bool:
    known = int(np.count_nonzero(grid.present[-DAY_WINDOW:]))
    return len(grid) < DAY_WINDOW or known * 2 < DAY_WINDOW


def _range_ratio(grid: CandleGrid) -> FloatArray:
    ranges = grid.high - grid.low
    counts = _counts(grid.present, DAY_WINDOW)
    few = _too_few(counts, DAY_WINDOW, first=DAY_WINDOW - 1)
    typical = _trailing_median(ranges)
    flat = typical == 0
    if flat.any():
        means = _trailing(np.where(grid.present, ranges, 0.0), DAY_WINDOW, _add)
        means /= np.maximum(counts, 1)
        typical = np.where(flat, means, typical)
    ratio = np.divide(ranges, typical, out=np.ones(len(grid)), where=typical != 0)
    ratio[few] = np.nan
    return ratio


def _last_range_ratio(grid: CandleGrid) -> float:
    if _last_too_few(grid) or not grid.present[-1]:
        return float("nan")
    ranges = (grid.high - grid.low)[-DAY_WINDOW:]
    known = grid.present[-DAY_WINDOW:]
    ordered = np.sort(ranges)
    count = np.count_nonzero(known)
    typical = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    if typical == 0:
        typical = _trailing_last(np.where(known, ranges, 0.0), DAY_WINDOW, _add) / count
    return float(ranges[-1] / typical) if typical != 0 else 1.0


def _trailing_median(values: FloatArray) -> FloatArray:
    """Median of the known values among the last `DAY_WINDOW`, (T,); NaN before a full window."""
    medians = np.full(len(values), np.nan)
    windows = len(values) - DAY_WINDOW + 1
    if windows <= 0:
        return medians
    if windows > _FEW_WINDOWS:
        rolling = pd.Series(values).rolling(DAY_WINDOW, min_periods=1).median().to_numpy()
        medians[DAY_WINDOW - 1 :] = rolling[DAY_WINDOW - 1 :]
        return medians
    ordered = np.sort(sliding_window_view(values, DAY_WINDOW), axis=1)  # NaN last
    count = DAY_WINDOW - np.count_nonzero(np.isnan(ordered), axis=1)
    rows, middle = np.arange(windows), np.maximum(count - 1, 0) // 2
    medians[DAY_WINDOW - 1 :] = (ordered[rows, middle] + ordered[rows, count // 2]) / 2
    return medians


@lru_cache(maxsize=8)
def _clock_table(interval_ms: int, phase_ms: int) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of the day's turn at phase, phase + interval, ..., within one day."""
    angle = 2 * np.pi * (np.arange(phase_ms, DAY_MS, interval_ms) / DAY_MS)
    return np.sin(angle), np.cos(angle)


def _clock(grid: CandleGrid) -> tuple[FloatArray, FloatArray]:
    """Sine and cosine of each close's time of day, (T,) each, looked up in one table a day long."""
    if DAY_MS % grid.interval_ms:
        angle = 2 * np.pi * ((grid.close_time % DAY_MS) / DAY_MS)
        return np.sin(angle), np.cos(angle)
    sine, cosine = _clock_table(grid.interval_ms, grid.end_ms % grid.interval_ms)
    steps = (grid.close_time % DAY_MS) // grid.interval_ms
    return sine[steps], cosine[steps]


def _taker_imbalance(grid: CandleGrid) -> NDArray[np.float64]:
    traded = grid.volume > 0
    share = grid.taker_buy_volume / np.where(traded, grid.volume, 1.0)
    return np.where(traded | np.isnan(share), 2.0 * share - 1.0, 0.0)
