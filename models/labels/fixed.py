"""Label kind "fixed": the return over a fixed number of candles."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels._base import (
    BPS,
    LabelKind,
    Labels,
    ahead_of,
    all_present,
    check_horizon,
    check_not_negative,
    sides,
)
from cppncripto_strategy.models.options import PartOptions

DEFAULT_THRESHOLD_BPS = 25.0
"""Return that counts as a move: above the round trip's cost, so that it could pay."""


class FixedOptions(PartOptions):
    """Options of label kind "fixed".

    Parameters
    ----------
    threshold_bps : a smaller move, either way, is "nothing".
    """

    threshold_bps: Annotated[float, Field(ge=0)] = DEFAULT_THRESHOLD_BPS


class FixedHorizon(LabelKind):
    """Label kind "fixed": see `fixed_horizon`."""

    Options = FixedOptions
    options: FixedOptions

    def compute(self, grid: CandleGrid) -> Labels:
        """Labels of every row of a grid."""
        return fixed_horizon(grid, self.horizon, self.options.threshold_bps)

    def move_bps(self) -> float:
        """Twice the threshold."""
        return 2 * self.options.threshold_bps


def fixed_horizon(
    grid: CandleGrid, horizon: int, threshold_bps: float = DEFAULT_THRESHOLD_BPS
) -> Labels:
    """Label by the return close[i + horizon] / close[i] - 1. Reads `horizon` later candles.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles ahead, at least 1.
    threshold_bps : a return above it is +1, below minus it -1, anything between 0.

    Returns
    -------
    Labels, invalid where any candle of [i, i + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1 or the threshold is negative.
    """
    check_horizon(horizon)
    check_not_negative("threshold_bps", threshold_bps)
    valid = all_present(grid, horizon)
    forward = np.where(valid, ahead_of(grid.close, horizon) / grid.close - 1.0, np.nan)
    threshold = threshold_bps * BPS
    return Labels(sides(forward > threshold, forward < -threshold), forward, valid, horizon)
