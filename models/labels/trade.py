"""Label kind "trade": what the trade that the backtest would make leaves after costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels._base import (
    BPS,
    Costs,
    LabelKind,
    Labels,
    ahead_of,
    all_present,
    check_horizon,
    check_not_negative,
    sides,
)
from cppncripto_strategy.models.labels.barrier import (
    DEFAULT_BARRIER_BPS,
    barrier_width,
    first_touch,
)
from cppncripto_strategy.models.options import PartOptions

_COSTS = Costs()


class TradeOptions(PartOptions):
    """Options of label kind "trade".

    Parameters
    ----------
    barrier_bps : distance from the entry at which the trade is left early; 0: never.
    """

    barrier_bps: Annotated[float, Field(ge=0)] = DEFAULT_BARRIER_BPS


class NetTrade(LabelKind):
    """Label kind "trade": see `net_trade`."""

    Options = TradeOptions
    options: TradeOptions

    def compute(self, grid: CandleGrid) -> TradeLabels:
        """Labels of every row of a grid."""
        barrier = self.options.barrier_bps or None
        return net_trade(grid, self.horizon, self.costs, up_bps=barrier, down_bps=barrier)


@dataclass(frozen=True, slots=True, eq=False)
class TradeLabels(Labels):
    """Labels by the net result of a simulated trade.

    Parameters
    ----------
    long_net, short_net : float64 arrays (T,): fraction gained by each side after fees and slippage,
        NaN where invalid. `forward_return` is the long side before costs.
    """

    long_net: FloatArray
    short_net: FloatArray


def net_trade(
    grid: CandleGrid,
    horizon: int,
    costs: Costs = _COSTS,
    up_bps: float | FloatArray | None = None,
    down_bps: float | FloatArray | None = None,
) -> TradeLabels:
    """Label by the trade decided at candle i, after costs. Reads `horizon` + 1 later candles.

    It enters at the open of candle i + 1 and leaves at the open of candle i + 1 + horizon. With
    barriers it leaves at the first one touched on the way: the upper is the long side's target and
    the short side's stop, the lower the reverse; a candle that touches both stops either side.
    +1 where the long side gains, -1 where the short side gains, 0 where neither does.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles the position is held, at least 1.
    costs : of each side.
    up_bps, down_bps : distances of the barriers in bps of the entry price: both or neither.

    Returns
    -------
    TradeLabels, invalid where any candle of [i, i + 1 + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1, a cost is negative, or a barrier is not positive or alone.
    """
    check_horizon(horizon)
    check_not_negative("fee_bps", costs.fee_bps)
    check_not_negative("slippage_bps", costs.slippage_bps)
    if (up_bps is None) != (down_bps is None):
        raise RecipeError("net_trade needs both up_bps and down_bps, or neither")
    valid = all_present(grid, horizon + 1)
    entry = ahead_of(grid.open, 1)
    long_exit = short_exit = ahead_of(grid.open, horizon + 1)
    if up_bps is not None and down_bps is not None:
        up, down = barrier_width("up_bps", up_bps), barrier_width("down_bps", down_bps)
        valid &= ~np.isnan(up + down)
        path = first_touch(grid, entry, up, down, horizon)
        long_exit = np.where(path.untouched, long_exit, path.long_exit)
        short_exit = np.where(path.untouched, short_exit, path.short_exit)
    paid = (1 + costs.slippage_bps * BPS) * (1 + costs.fee_bps * BPS)
    kept = (1 - costs.slippage_bps * BPS) * (1 - costs.fee_bps * BPS)
    long_net = np.where(valid, long_exit * kept / (entry * paid) - 1.0, np.nan)
    short_net = np.where(valid, 1.0 - short_exit * paid / (entry * kept), np.nan)
    forward = np.where(valid, long_exit / entry - 1.0, np.nan)
    target = sides(long_net > 0, short_net > 0)
    return TradeLabels(target, forward, valid, horizon + 1, long_net, short_net)
