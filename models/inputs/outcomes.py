"""Outcomes: what a session's own day did, for objectives that learn to forecast it.

Each is the logarithm of a size of the day, less its mean over the 30 days before: so symbols and
years are alike, and 0 is the forecast that R2 is measured against. An outcome is known at the end
of the day it describes: a session may only be learned from whose next 00:00 UTC lies within what
the network may know.

Left out: the day's direction, of which candles tell nothing (`docs/embeddings.md`).
"""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.days_before import DaysBefore, mean_known
from cppncripto_strategy.models.inputs.grid import CandleGrid

OUTCOMES = ("log_variance", "log_volume", "log_range")
"""Realised variance, volume and range of the coming day: columns of `day_outcomes`."""
MEAN_DAYS = 30


def day_outcomes(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """Outcomes of the day that begins at each session's 00:00 UTC, float64 (D, 3).

    NaN where the day is not over in the grid, half of it is missing, or half of the 30 days before.
    """
    days = DaysBefore(grid, session_ms + DAY_MS, MEAN_DAYS + 1)
    columns = [getattr(days, name) for name in OUTCOMES]
    return np.stack([column[:, 0] - mean_known(column[:, 1:]) for column in columns], axis=1)
