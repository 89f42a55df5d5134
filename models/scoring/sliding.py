"""Ranks near the top of a sliding window, many windows at a time.

Only values near the top can have such a rank, so only those are kept in order: a list of all
values above a cut, with a few to spare. Where neither the value that leaves nor the one that comes
is among them, nothing changes and nothing is done. Left out: NaN, which has no rank.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from cppncripto_strategy.arrays import FloatArray

# Values kept beside those that are asked for: fewer mean more cuts, more mean more work.
_SPARE = 32


def largest_of_windows(
    values: FloatArray, window: int, ranks: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """The values at two ranks in each window before a value.

    Parameters
    ----------
    values : float64 (window + N,), no NaN and no -0.0. Window i is values[i : i + window], i < N.
    window : values in a window, at least 1.
    ranks : 0 is the largest of a window, window - 1 the smallest.

    Returns
    -------
    The value of each rank in each window, (N,) each.
    """
    count, deepest = len(values) - window, max(ranks)
    spare = max(_SPARE, deepest // 4)
    starts: list[int] = []  # the windows at which a pair of values is a new one
    found: list[float] = []  # those pairs, flat
    first = 0
    while first < count:
        here = values[first : first + window]
        at = max(window - 1 - deepest - spare, 0)
        cut = float(np.partition(here, at)[at])
        top = np.sort(here[here >= cut]).tolist()
        first = _follow(values, window, first, cut, top, ranks, starts, found)
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    each = np.repeat(pairs, np.diff([*starts, count]), axis=0)
    return each[:, 0], each[:, 1]


def _follow(
    values: FloatArray,
    window: int,
    first: int,
    cut: float,
    top: list[float],
    ranks: tuple[int, int],
    starts: list[int],
    found: list[float],
) -> int:
    """Follow the values above the cut until they are too few, too many or a window later."""
    last = min(first + window, len(values) - window)
    least, most = max(ranks) + 1, 2 * len(top)
    low, high = (-1 - rank for rank in ranks)
    leaves, comes = values[first : last - 1], values[first + window : last + window - 1]
    steps = np.flatnonzero((leaves >= cut) | (comes >= cut))
    starts.append(first)
    found += (top[low], top[high])
    for step, old, new in zip(
        (steps + (first + 1)).tolist(), leaves[steps].tolist(), comes[steps].tolist(), strict=True
    ):
        if old >= cut:
            del top[bisect_left(top, old)]
        if new >= cut:
            insort(top, new)
        if not least <= len(top) <= most:
            return int(step)
        starts.append(step)
        found += (top[low], top[high])
    return last
