"""Names of the array types used everywhere, and a union of some. A leaf of the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Numbers = TypeVar("Numbers", bound=NDArray[Any])


def union_of_ascending(parts: Sequence[Numbers]) -> Numbers:
    """Each value once, ascending, as `numpy.unique` of at least one part gives it.

    Parts that are ascending already cost much less than there, where all is hashed.
    """
    merged: Any = np.concatenate(parts)
    merged.sort(kind="stable")  # which merges runs that are in order
    union: Numbers = merged[np.diff(merged, prepend=merged[:1] - 1) > 0]
    return union


def among_ascending(values: NDArray[Any], known: NDArray[Any]) -> BoolArray:
    """Which values (N,) are among known ones (M,), as `numpy.isin`; the known ones ascend.

    There all is hashed; values that ascend too cost a tenth of that.
    """
    if not len(known):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: BoolArray = known[place] == values
    return found
