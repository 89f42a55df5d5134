"""A ring of rows: the last ones, in order, in one piece of memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray


class Ring:
    """The last `size` rows of something, as one contiguous array; lives as long as its owner."""

    def __init__(self, size: int, width: int) -> None:
        self.size, self.end = size, 0
        self._rows = np.full((4 * size, width), np.nan)

    def append(self, row: FloatArray) -> None:
        """Put a row (width,) behind the last."""
        if self.end == len(self._rows):
            self._rows[: self.size] = self._rows[-self.size :]
            self.end = self.size
        self._rows[self.end] = row
        self.end += 1

    def extend(self, rows: FloatArray) -> None:
        """Put rows (N, width) behind the last, lying where appending each would leave them."""
        while len(rows):
            if self.end == len(self._rows):
                self._rows[: self.size] = self._rows[-self.size :]
                self.end = self.size
            taken = rows[: len(self._rows) - self.end]
            self._rows[self.end : self.end + len(taken)] = taken
            self.end += len(taken)
            rows = rows[len(taken) :]

    def last(self, count: int, before: int = 0) -> FloatArray:
        """The last `count` rows but `before`, oldest first, a view (count, width)."""
        end = max(self.end - before, 0)
        return self._rows[max(end - count, 0) : end]

    def snapshot(self) -> dict[str, Any]:
        """The last `size` rows and where they lie, copied."""
        return {"end": self.end, "rows": self._rows[max(self.end - self.size, 0) : self.end].copy()}

    def restore(self, kept: dict[str, Any]) -> None:
        """Hold what a snapshot of a ring of this size and width held."""
        self.end = kept["end"]
        self._rows[self.end - len(kept["rows"]) : self.end] = kept["rows"]
