"""The features of a round: the last row of several symbols at once, each the bits it has alone.

`models.inputs.features.rings` computes the package's own features from rings, for symbols whose
last day has no gap and no candle without trades. Any other symbol, and any other feature, goes by
`Feature.last`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.models.inputs.features.rings import FeatureRings
from cppncripto_strategy.models.scoring.macro_stream import MacroStream

# A rollover looks at the features before the round does: then the rings are a candle behind.
_MOST_BEHIND = 3


class FeatureRounds:
    """Rings of the symbols of a run; lives as long as it.

    Parameters
    ----------
    like : a stream of the run; all have its features and its interval.
    """

    def __init__(self, like: MacroStream) -> None:
        self.table, self._interval_ms = like.table, like.settings.interval_ms
        self._rings = FeatureRings(like.table, self._interval_ms)
        self._slot_of: dict[int, int] = {}

    def fill(self, macros: Sequence[MacroStream]) -> None:
        """Give every stream the row of its last candle, all of one closing time."""
        number = macros[0].next_open_ms // self._interval_ms - 1
        for macro in macros:
            self._slot_of.setdefault(id(macro), len(self._slot_of))
        self._rings.reserve(len(self._slot_of))
        for back in range(_MOST_BEHIND, 0, -1):
            self._step([m for m in macros if m.in_rings == number - back - 1], number - back, back)
        self._step([m for m in macros if m.in_rings == number - 1], number, 0)
        for macro in macros:
            if macro.in_rings != number and macro.clean >= self._rings.memory:
                grid = macro.grid(self._rings.memory)
                self._rings.load(grid, number, self._slot_of[id(macro)])
                macro.in_rings = number

    def _step(self, macros: Sequence[MacroStream], number: int, back: int) -> None:
        """Let the rings of some streams take the candle of this number, `back` before the last."""
        ready = [macro for macro in macros if macro.clean >= self._rings.memory]
        if not ready:
            return
        slots = np.array([self._slot_of[id(macro)] for macro in ready])
        candles = np.stack([macro.candles(1, back)[0] for macro in ready], axis=1)  # (6, S)
        rows, known = self._rings.step(np.ascontiguousarray(candles), number, slots)
        whole: BoolArray = np.all(known, axis=1)
        for index, macro in enumerate(ready):
            macro.in_rings = number
            if not back and macro.waits_for_one:
                row = rows[index]
                macro.give(row if whole[index] else self._completed(macro, row, known[index]))

    def _completed(self, macro: MacroStream, row: FloatArray, known: BoolArray) -> FloatArray:
        """A row with the features that the rings do not know, one by one."""
        grid = macro.grid()
        for column in np.flatnonzero(~known):
            row[column] = self.table.features[column].last(grid)
        return row
