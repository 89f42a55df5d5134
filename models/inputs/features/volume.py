"""Volume against the last day's: the z-score of its logarithm."""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.features.windows import (
    DAY_MEMORY,
    DAY_WINDOW,
    last_too_few,
    too_few,
    trailing,
    trailing_counts,
    trailing_last,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid


def volume_z(grid: CandleGrid) -> FloatArray:
    """Z-score of ln(volume) over 288 candles, (T,); 0 where the window is constant.

    A candle without trades counts as half the smallest traded volume of its window (the usual
    stand-in below a detection limit), so the feature does not change with the unit of volume. NaN
    where fewer than half of the window's candles exist, or it begins before the grid.
    """
    states, untraded = _log_volume_states(grid.volume)
    moments, values = trailing(states, DAY_WINDOW, merge_moments), states[1]
    if untraded.any():
        lowest = np.where(grid.volume > 0, grid.volume, np.inf)
        lowest = trailing(lowest, DAY_WINDOW, np.minimum)
        zeros = trailing_counts(untraded, DAY_WINDOW).astype(np.float64)
        moments = _with_untraded(moments, zeros, lowest)
        values = np.where(untraded, _stand_in(lowest), values)
    score = z_score(values, moments)
    counts = trailing_counts(grid.present, DAY_WINDOW)
    score[too_few(counts, DAY_WINDOW, first=DAY_WINDOW - 1)] = np.nan
    return score


def last_volume_z(grid: CandleGrid) -> float:
    """The last row of `volume_z`."""
    if last_too_few(grid.present, DAY_WINDOW):
        return float("nan")
    volume = grid.volume[-DAY_WINDOW:]
    states, untraded = _log_volume_states(volume)
    moments, value = trailing_last(states, DAY_WINDOW, merge_moments), states[1, -1:]
    if untraded.any():
        lowest = np.min(np.where(volume > 0, volume, np.inf), keepdims=True)
        zeros = np.count_nonzero(untraded, keepdims=True).astype(np.float64)
        moments = _with_untraded(moments[:, None], zeros, lowest)[:, 0]
        value = _stand_in(lowest) if untraded[-1] else value
    return float(z_score(value, moments[:, None])[0])


def _log_volume_states(volume: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Moments (3, T) of each traded candle's ln(volume) alone, and which candles had no trade."""
    traded = volume > 0
    logs = np.log(np.where(traded, volume, 1.0))
    return np.stack([traded.astype(np.float64), logs, np.zeros(len(volume))]), volume == 0


def merge_moments(late: FloatArray, early: FloatArray) -> FloatArray:
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


def _with_untraded(moments: FloatArray, untraded: FloatArray, lowest: FloatArray) -> FloatArray:
    """Moments with `untraded` candles added at the stand-in volume, half of the lowest traded."""
    stand_in = _stand_in(lowest)
    return merge_moments(moments, np.stack([untraded, stand_in, np.zeros_like(stand_in)]))


def _stand_in(lowest: FloatArray) -> FloatArray:
    return np.log(np.where(np.isfinite(lowest), lowest, 2.0) / 2.0)


def z_score(values: FloatArray, moments: FloatArray) -> FloatArray:
    """(value - mean) / deviation; 0 where the sample does not vary."""
    deviation = np.sqrt(moments[2] / np.maximum(moments[0], 1.0))
    varies = deviation > 0
    return np.where(varies, (values - moments[1]) / np.where(varies, deviation, 1.0), 0.0)


VOLUME_Z = Feature(volume_z, memory=DAY_MEMORY, live=last_volume_z)
