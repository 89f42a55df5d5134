"""A feature: one column of what the networks read, and all that anybody has to know about it.

A name is a column. A feature of several columns is several entries that share a function: then
recipes, bundles and leak reports use the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid

Batch = Callable[[CandleGrid], FloatArray]
Live = Callable[[CandleGrid], float]

NULLABLE_COLUMNS = ("taker_buy_volume",)
"""Columns of a `CandleGrid` that not every source carries."""


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One entry of the table of features.

    Parameters
    ----------
    batch : CandleGrid of T rows -> float64 (T,). Row i may depend on candles i - memory + 1 .. i
        and on nothing else, the length of the grid included: sums over a window belong to
        `windows.trailing`, because running sums round differently from another start. NaN where
        undefined. A scaled feature is NaN wherever the candle is missing, whatever stands there.
    memory : int, candles a row depends on at most, itself included.
    live : the last row of `batch`, bit for bit, from a grid of at least one row: the last `memory`
        candles and perhaps some before them, or fewer at the start of a session. None computes
        `batch` over the last `memory` candles: always right, and slower.
    scaled : whether the session scaler centres and scales it. Otherwise it reaches the networks as
        it is, and must be finite in every row, missing candles included.
    sign : +1 or -1, its factor in a mirrored market: log prices negated, so that highs and lows
        change places, and takers' purchases and sales exchanged. What is neither (a place between
        0 and 1) has to be written around zero first.
    clock : whether it says what time it is; `micro.clock = false` hides it from MicroNet.
    needs : those of `NULLABLE_COLUMNS` that it reads; candles without them are refused.
    market : whether it reads the market symbol's candles, `grid.of_market()`. A market's candle may
        be missing where the symbol's own exists: there a scaled feature is NaN.

    Raises
    ------
    RecipeError
        When memory, sign or needs are none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from cppncripto_strategy.models.inputs.features import FEATURES, Feature
    >>> @FEATURES.register("close_to_open")
    ... @Feature.of(memory=1, sign=-1)
    ... def close_to_open(grid):
    ...     return np.log(grid.close / grid.open)
    """

    batch: Batch
    memory: int
    live: Live | None = None
    scaled: bool = True
    sign: int = 1
    clock: bool = False
    needs: tuple[str, ...] = ()
    market: bool = False

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise RecipeError(f"a feature's memory is {self.memory} candles: expected 1 or more")
        if self.sign not in (-1, 1):
            raise RecipeError(f"a feature's sign is {self.sign!r}: expected 1 or -1")
        unknown = set(self.needs) - set(NULLABLE_COLUMNS)
        if unknown:
            raise RecipeError(
                f"a feature needs {', '.join(sorted(unknown))}: candles on a grid may lack"
                f" {', '.join(NULLABLE_COLUMNS)}; every other column is always there"
            )

    @classmethod
    def of(
        cls,
        memory: int,
        live: Live | None = None,
        scaled: bool = True,
        sign: int = 1,
        clock: bool = False,
        needs: tuple[str, ...] = (),
        market: bool = False,
    ) -> Callable[[Batch], Feature]:
        """Decorator that makes a feature of its batch form."""
        return lambda batch: cls(batch, memory, live, scaled, sign, clock, needs, market)

    def last(self, grid: CandleGrid) -> float:
        """The value of the grid's last row."""
        if self.live is not None:
            return self.live(grid)
        return float(self.batch(grid.rows(max(0, len(grid) - self.memory), len(grid)))[-1])
