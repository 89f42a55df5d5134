"""Line buffers laid out at once: Backtrader appends the room that `once` fills number by number."""

from __future__ import annotations

import math
from array import array
from typing import Any


def forward_in_bulk(self: Any, value: float = math.nan, size: int = 1) -> None:
    """`forward` of an object with lines: room for `size` bars in each of them.

    To be a class's method: `forward = forward_in_bulk`. Lines that forget their past, and single
    bars, go Backtrader's way.
    """
    for line in self.lines:
        if size == 1 or line.mode != line.UnBounded:
            line.forward(value, size)
            continue
        line.array.extend(array("d", [value]) * size)
        line.idx += size
        line.lencount += size
