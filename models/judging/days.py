"""What an embedding is compared with, and what it is asked to predict, by whole UTC days.

The comparisons are HAR-RV and HAR-X (`forecasting.terms`) and 22 hand-made features. Left out:
judging (`quality.py`).
"""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.models.forecasting.days import DayTable

# Days of history behind the volume regime, and at least so many of them.
REGIME_DAYS, MIN_REGIME_DAYS = 30, 10


def hand_made_features(days: DayTable, session_ms: IntArray, long_days: int) -> FloatArray:
    """Statistics of the day before each session, and their mean over the long window, (D, 22)."""
    yesterday = _mean_before(days, session_ms, 1)
    return np.concatenate([yesterday, _mean_before(days, session_ms, long_days)], axis=1)


def day_targets(days: DayTable, session_ms: IntArray) -> dict[str, FloatArray]:
    """What follows each session's midnight: `TARGETS`, each (D,); NaN where the day is not known.

    realised_volatility: its ln. trend: absolute log return of the day. volume_regime: +1 where mean
    log volume is above the median of the 30 days before, else -1.
    """
    row = days.at(session_ms)
    inside = (row >= 0) & (row < len(days.day_ms))
    safe = np.where(inside, row, 0)

    def of(values: FloatArray) -> FloatArray:
        return np.where(inside, values[safe], np.nan)

    ordinary = np.full(len(days.day_ms), np.nan)
    for day in range(MIN_REGIME_DAYS, len(ordinary)):
        before = days.log_volume[max(0, day - REGIME_DAYS) : day]
        if np.count_nonzero(~np.isnan(before)) >= MIN_REGIME_DAYS:
            ordinary[day] = np.nanmedian(before)
    regime = np.sign(days.log_volume - ordinary)
    return {
        "realised_volatility": of(days.log_volatility),
        "trend": np.abs(of(days.log_return)),
        "volume_regime": of(np.where(regime == 0, -1.0, regime)),
    }


def _mean_before(days: DayTable, session_ms: IntArray, span: int) -> FloatArray:
    """Mean of the known statistics of the `span` days before each session, (D, 11)."""
    row = days.at(session_ms)
    means = np.full((len(row), days.statistics.shape[1]), np.nan)
    for place, day in enumerate(row):
        past = days.statistics[max(0, day - span) : max(0, day)]
        past = past[~np.isnan(past).any(axis=1)]
        if len(past):
            means[place] = past.mean(axis=0)
    return means
