"""Who took: takers' purchases against their sales."""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid


def taker_imbalance(grid: CandleGrid) -> FloatArray:
    """2 x taker buy volume / volume - 1, (T,), in [-1, 1]; 0 without trades.

    NaN where the source does not carry taker volumes.
    """
    return imbalance(grid.taker_buy_volume, grid.volume)


def last_taker_imbalance(grid: CandleGrid) -> float:
    """The last row of `taker_imbalance`."""
    return float(imbalance(grid.taker_buy_volume[-1:], grid.volume[-1:])[0])


def imbalance(bought: FloatArray, volume: FloatArray) -> FloatArray:
    traded = volume > 0
    share = bought / np.where(traded, volume, 1.0)
    return np.where(traded | np.isnan(share), 2.0 * share - 1.0, 0.0)


TAKER_IMBALANCE = Feature(
    taker_imbalance,
    memory=1,
    live=last_taker_imbalance,
    sign=-1,
    needs=("taker_buy_volume",),
)
