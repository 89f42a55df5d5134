"""Whether the candle exists: the mask that goes with the zeros of missing values."""

from __future__ import annotations

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid


def present(grid: CandleGrid) -> FloatArray:
    """1 where the candle exists, 0 where not, (T,); always defined."""
    return grid.present.astype(float)


def last_present(grid: CandleGrid) -> float:
    """The last row of `present`."""
    return float(grid.present[-1])


PRESENT = Feature(present, memory=1, live=last_present, scaled=False)
