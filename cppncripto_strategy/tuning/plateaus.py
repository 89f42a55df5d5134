"""Clusters of good settings: broad plateaus rather than lonely peaks.

The best trials are joined where they lie near each other in the space, every key scaled to its
range. What a setting is worth is also what its neighbours are worth, good or bad: a peak that its
nearest neighbours do not share is likely luck. Left out: a model between the trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.tuning.measures import MEASURES
from cppncripto_strategy.tuning.plan import Plan
from cppncripto_strategy.tuning.space import Dimension, Space
from cppncripto_strategy.tuning.study import DoneTrial

_GOOD_SHARE = 0.25
_NEIGHBOURS = 5
# Mean distance per key, as a share of its range, below which two trials are of one cluster.
_NEAR = 0.15
_FEWEST = 8


@dataclass(frozen=True)
class Plateau:
    """A cluster of good trials.

    Parameters
    ----------
    best : its best trial's number; value : its first objective.
    neighbours : mean of the first objective over the nearest trials of `best`, whatever they are.
    members : numbers of its trials.
    ranges : key -> what its trials have of it, in words.
    """

    best: int
    value: float
    neighbours: float
    members: tuple[int, ...]
    ranges: dict[str, str]


def plateaus(trials: Sequence[DoneTrial], space: Space, plan: Plan) -> list[Plateau]:
    """Clusters of the best quarter by the first objective, the largest first; [] of few trials."""
    judged = [t for t in trials if t.state == "complete" and t.feasible and t.values]
    if len(judged) < _FEWEST:
        return []
    higher = MEASURES[plan.search.objectives[0]].higher
    values = np.array([(t.values or (math.nan,))[0] for t in judged])
    apart = distances(judged, space)
    order = np.argsort(-values if higher else values, kind="stable")
    good = order[: max(2, math.ceil(_GOOD_SHARE * len(judged)))]
    found = []
    for group in _groups(apart[np.ix_(good, good)]):
        members = good[group]
        best = int(members[0])  # groups keep the order, the best first
        near = np.argsort(apart[best], kind="stable")[1 : _NEIGHBOURS + 1]
        found.append(
            Plateau(
                best=judged[best].number,
                value=float(values[best]),
                neighbours=float(values[near].mean()),
                members=tuple(judged[i].number for i in members),
                ranges={d.key: _range([judged[i] for i in members], d) for d in space.dimensions},
            )
        )
    return sorted(found, key=lambda p: (-len(p.members), p.best))


def distances(trials: Sequence[DoneTrial], space: Space) -> FloatArray:
    """Mean distance per key between trials, 0 to 1, (N, N); a key that only one has is 1 apart."""
    total = np.zeros((len(trials), len(trials)))
    for dimension in space.dimensions:
        at = np.array([place(dimension, t.changes.get(dimension.key)) for t in trials])
        gap = np.abs(at[:, None] - at[None, :])
        if dimension.kind == "choice":
            gap = np.where(gap > 0, 1.0, gap)
        missing = np.isnan(at)
        one = missing[:, None] != missing[None, :]
        total += np.where(one, 1.0, np.nan_to_num(gap, nan=0.0))
    return total / max(len(space), 1)


def place(dimension: Dimension, value: Any) -> float:
    """Where a value lies in its dimension, 0 to 1; NaN for None."""
    if value is None:
        return math.nan
    if dimension.kind == "choice":
        return list(dimension.values).index(value) / max(len(dimension.values) - 1, 1)
    low, high = dimension.values
    if low == high:
        return 0.0
    if dimension.log:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _groups(apart: FloatArray) -> list[list[int]]:
    """Numbers joined where they are near, directly or through others; each group ascending."""
    left, groups = set(range(len(apart))), []
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            left -= edge
            edge = {j for j in left if any(apart[i, j] <= _NEAR for i in edge)}
        groups.append(sorted(group))
    return groups


def _range(trials: Sequence[DoneTrial], dimension: Dimension) -> str:
    values = [t.changes[dimension.key] for t in trials if dimension.key in t.changes]
    if not values:
        return "—"
    if dimension.kind == "choice":
        return ", ".join(dict.fromkeys(str(value) for value in values))
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
