"""What every kind of label promises. Labels are the only thing that may read the future.

A label says what the candles after a candle made of it, and how many later candles it reads
(`Labels.horizon`): that many are purged between training and validation. It is invalid wherever a
candle it spans is missing or not there yet; it is never guessed.
`cppncripto_strategy.testing.check_label` tests all of it.

Left out: sample weights and meta-labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.options import PartOptions

BPS = 1e-4


@dataclass(frozen=True, slots=True)
class Costs:
    """What a trade costs, in bps of the price per side.

    Parameters
    ----------
    fee_bps : taker fee (the default is Binance spot without discounts).
    slippage_bps : distance of the fill from the price that was seen.
    """

    fee_bps: float = 10.0
    slippage_bps: float = 1.0

    @property
    def round_trip_bps(self) -> float:
        """Costs of buying and selling again."""
        return 2 * (self.fee_bps + self.slippage_bps)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A label for each row of a grid.

    Parameters
    ----------
    target : int8 array (T,): +1 buy, -1 sell, 0 neither (and 0 where invalid).
    forward_return : float64 array (T,): the fraction gained by holding, NaN where invalid.
    valid : bool array (T,): whether every candle the label reads exists.
    horizon : how many candles after its own a label may read, and so the length to purge.
    """

    target: NDArray[np.int8]
    forward_return: FloatArray
    valid: BoolArray
    horizon: int


class LabelKind:
    """Base of the kinds of labels: candles in, a label of every row out.

    A subclass sets `Options` to the class of its options and computes `compute`; a constructor of
    its own is rarely needed.

    Parameters
    ----------
    horizon : candles ahead that the label is about, at least 1.
    options : an instance of the class's `Options`.
    costs : of a trade, for kinds that count them.

    Raises
    ------
    RecipeError
        When the horizon is below 1.
    """

    Options: ClassVar[type[PartOptions]] = PartOptions

    def __init__(self, horizon: int, options: Any, costs: Costs) -> None:
        check_horizon(horizon)
        self.horizon, self.costs = horizon, costs
        self.options: Any = options

    def compute(self, grid: CandleGrid) -> Labels:
        """Labels of every row of a grid."""
        raise NotImplementedError

    def move_bps(self) -> float:
        """Size of a move, bps, that this kind surely calls one: what planted markets are made of.

        Twice the costs of a round trip, unless a kind knows better.
        """
        return 2 * self.costs.round_trip_bps


def ahead_of(values: FloatArray, rows: int) -> FloatArray:
    """values[i + rows] at row i, NaN beyond the end."""
    moved = np.full(len(values), np.nan)
    moved[: max(0, len(values) - rows)] = values[rows:]
    return moved


def all_present(grid: CandleGrid, ahead: int) -> BoolArray:
    """Whether all candles of [i, i + ahead] exist, bool (T,)."""
    totals = np.concatenate([[0], np.cumsum(grid.present)])
    whole = np.zeros(len(grid), np.bool_)
    inside = max(0, len(grid) - ahead)
    whole[:inside] = totals[ahead + 1 :] - totals[:inside] == ahead + 1
    return whole


def sides(up: BoolArray, down: BoolArray) -> NDArray[np.int8]:
    """+1 where up, -1 where down, else 0, int8 (T,)."""
    return up.astype(np.int8) - down.astype(np.int8)


def check_horizon(horizon: int) -> None:
    """Refuse a horizon below 1. Raises RecipeError."""
    if horizon < 1:
        raise RecipeError(f"horizon is {horizon} candles; a label needs at least 1")


def check_not_negative(name: str, value: float) -> None:
    """Refuse a number below 0, and NaN. Raises RecipeError."""
    if not value >= 0:
        raise RecipeError(f"{name} is {value}; it must be zero or more")
