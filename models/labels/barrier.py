"""Label kind "barrier": which of two barriers around the price is touched first.

Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 3; a horizon that
ends untouched is 0 here, not the sign of its return, because such moves do not pay for the trade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels._base import (
    BPS,
    LabelKind,
    Labels,
    ahead_of,
    all_present,
    check_horizon,
    sides,
)
from cppncripto_strategy.models.options import PartOptions

DEFAULT_BARRIER_BPS = 100.0


class BarrierOptions(PartOptions):
    """Options of label kind "barrier".

    Parameters
    ----------
    barrier_bps : distance of both barriers from the close.
    """

    barrier_bps: Annotated[float, Field(gt=0)] = DEFAULT_BARRIER_BPS


class TripleBarrier(LabelKind):
    """Label kind "barrier": see `triple_barrier`."""

    Options = BarrierOptions
    options: BarrierOptions

    def compute(self, grid: CandleGrid) -> Labels:
        """Labels of every row of a grid."""
        width = self.options.barrier_bps
        return triple_barrier(grid, self.horizon, width, width)

    def move_bps(self) -> float:
        """The barriers' distance."""
        return self.options.barrier_bps


def triple_barrier(
    grid: CandleGrid,
    horizon: int,
    up_bps: float | FloatArray,
    down_bps: float | FloatArray,
) -> Labels:
    """Label by the barrier around close[i] that is touched first. Reads `horizon` later candles.

    The upper one first is +1, the lower one first -1, neither within the horizon 0. When one candle
    touches both, their order is unknown and the label is pessimistic for either side: 0, with the
    return of a long position that was stopped out.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles until the vertical barrier, at least 1.
    up_bps, down_bps : distances of the barriers in bps of close[i], positive: one number, or a
        float64 array (T,) such as `volatility_barriers` gives. NaN there makes the label invalid.

    Returns
    -------
    Labels. `forward_return` is what a long position entered at close[i] gains: up to its target,
    down to its stop (or to the open, where a candle opens beyond the stop), or to the close at the
    horizon. Invalid where any candle of [i, i + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1 or a barrier is not positive.
    """
    check_horizon(horizon)
    up, down = barrier_width("up_bps", up_bps), barrier_width("down_bps", down_bps)
    valid = all_present(grid, horizon) & ~np.isnan(up + down)
    path = first_touch(grid, grid.close, up, down, horizon)
    exit_price = np.where(path.untouched, ahead_of(grid.close, horizon), path.long_exit)
    forward = np.where(valid, exit_price / grid.close - 1.0, np.nan)
    return Labels(sides(valid & path.up, valid & path.down), forward, valid, horizon)


def volatility_barriers(volatility: FloatArray, horizon: int, multiple: float) -> FloatArray:
    """Barrier distances in bps, `multiple` deviations of the return over `horizon` candles.

    `volatility` is the deviation of one candle's log return (T,), such as the feature
    volatility_48; NaN stays NaN, and a volatility of zero becomes NaN (no barrier can be set).
    """
    width = multiple * np.sqrt(horizon) * volatility / BPS
    return np.where(width > 0, width, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """First touch of the barriers, each array (T,): which side alone, and where each side exits."""

    up: BoolArray
    down: BoolArray
    untouched: BoolArray
    long_exit: FloatArray
    short_exit: FloatArray


def first_touch(
    grid: CandleGrid, entry: FloatArray, up: FloatArray, down: FloatArray, horizon: int
) -> Touch:
    """Walk candles i + 1 .. i + horizon of every row at once. NaN candles touch nothing."""
    upper, lower = entry * (1 + up), entry * (1 - down)
    size = len(grid)
    first_up, first_down = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    untouched = np.ones(size, np.bool_)
    long_exit, short_exit = np.full(size, np.nan), np.full(size, np.nan)
    for k in range(1, horizon + 1):
        high, low, opened = (ahead_of(values, k) for values in (grid.high, grid.low, grid.open))
        up_now, down_now = untouched & (high >= upper), untouched & (low <= lower)
        # Pessimistic: a stop is filled at the open where the candle opens beyond it, a target at
        # its own price; and a candle that touches both stops either side.
        stopped, covered = np.minimum(opened, lower), np.maximum(opened, upper)
        long_exit = np.where(down_now, stopped, np.where(up_now, upper, long_exit))
        short_exit = np.where(up_now, covered, np.where(down_now, lower, short_exit))
        first_up |= up_now & ~down_now
        first_down |= down_now & ~up_now
        untouched &= ~(up_now | down_now)
    return Touch(first_up, first_down, untouched, long_exit, short_exit)


def barrier_width(name: str, width_bps: float | FloatArray) -> FloatArray:
    """Barrier distances as fractions; NaN allowed in arrays, zero and below refused."""
    width = np.asarray(width_bps, dtype=np.float64)
    if (width <= 0).any() or (width.ndim == 0 and np.isnan(width)):
        raise RecipeError(f"{name} must be positive, found {width[width <= 0][:1]}")
    return width * BPS
