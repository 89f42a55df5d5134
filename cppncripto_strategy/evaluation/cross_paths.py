"""Combinatorial purged cross-validation: several paths through one history, a Sharpe ratio each.

The days are cut into groups. Each combination of test groups is judged by what was learned, or
chosen, on the other days; the parts are then put together into paths, each of which covers every
day once. One backtest gives one Sharpe ratio; the spread over paths says how much of it hangs on
which days came first. Paths share days and networks, so their spread is no confidence interval.

Left out: the training on the other days, its purge and its embargo (`checks.cross_validation`).

Sources: Lopez de Prado 2018, "Advances in Financial Machine Learning", chapter 12; the order of
the parts in a path is purgedcv's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.returns import sharpe_ratio
from cppncripto_strategy.evaluation.undefined import Refusal

# A path with fewer days per group has groups in which one day decides.
MIN_GROUP_DAYS = 5


@dataclass(frozen=True)
class Folds:
    """How days are cut: into `groups` of equal length (the first ones longer by a day), of which
    each combination of `tested` is judged once by what the others taught."""

    groups: int = 6
    tested: int = 2

    @property
    def combinations(self) -> list[tuple[int, ...]]:
        """Numbers of the tested groups of each fold, in order."""
        return list(combinations(range(self.groups), self.tested))

    @property
    def paths(self) -> int:
        """How many paths the folds make: each group is tested that often."""
        return comb(self.groups - 1, self.tested - 1)

    def days_of(self, days: int) -> list[IntArray]:
        """Numbers of the days of each group, of `days` in order of time."""
        return np.array_split(np.arange(days, dtype=np.int64), self.groups)

    def refusal(self, days: int) -> Refusal | None:
        """Why so few days make no paths, or None."""
        needed = self.groups * MIN_GROUP_DAYS
        if days >= needed:
            return None
        return Refusal(
            f"{days} days are too few for {self.groups} groups of at least {MIN_GROUP_DAYS}:"
            f" {needed} needed"
        )


@dataclass(frozen=True)
class PathSpread:
    """Annual Sharpe ratios over the paths.

    Parameters
    ----------
    sharpes : one per path; None where a path's account never moved.
    folds, days : how many trainings or choices are behind them, and days of each path.
    """

    sharpes: tuple[float | None, ...]
    folds: int
    days: int

    @property
    def known(self) -> list[float]:
        """The Sharpe ratios that are defined, ascending."""
        return sorted(value for value in self.sharpes if value is not None)

    @property
    def median(self) -> float | None:
        """Of the defined ones; None without any."""
        return float(np.median(self.known)) if self.known else None

    @property
    def losing(self) -> int:
        """Paths with a Sharpe ratio of at most 0; one that never moved earned nothing either."""
        return sum(value is None or value <= 0 for value in self.sharpes)


def join_paths(fold_returns: Sequence[FloatArray], folds: Folds, days: int) -> FloatArray:
    """Paths (paths, days) of daily returns.

    Parameters
    ----------
    fold_returns : per fold, in the order of `Folds.combinations`, the returns of its tested days in
        order of time. days : of all groups.
    """
    from purgedcv import reconstruct_paths

    groups = folds.days_of(days)
    tested = [np.concatenate([groups[k] for k in fold]) for fold in folds.combinations]
    found = reconstruct_paths(list(fold_returns), tested, folds.groups, folds.tested, days)
    return np.asarray(found, dtype=np.float64)


def spread_of(paths: FloatArray, folds: Folds) -> PathSpread:
    """The Sharpe ratio of each path (paths, days)."""
    sharpes = tuple(sharpe_ratio(path) for path in paths)
    return PathSpread(sharpes, len(folds.combinations), paths.shape[1])


def selection_paths(returns: ArrayLike, folds: Folds) -> FloatArray | Refusal:
    """What choosing the best trial earns on days that it was not chosen on.

    In each fold the trial with the highest Sharpe ratio on the other days is chosen, and earns its
    returns on the tested ones. Trials were trained before any of these days, so none is purged.

    Parameters
    ----------
    returns : float array (trials, days), finite.

    Returns
    -------
    Paths (paths, days); a Refusal with fewer than two trials or too few days.
    """
    rows = np.asarray(returns, dtype=np.float64)
    if len(rows) < 2:
        return Refusal(f"{len(rows)} trials with returns on all days: choosing takes two")
    refused = folds.refusal(rows.shape[1])
    if refused is not None:
        return refused
    groups = folds.days_of(rows.shape[1])
    parts = []
    for fold in folds.combinations:
        tested = np.concatenate([groups[k] for k in fold])
        others = np.setdiff1d(np.arange(rows.shape[1]), tested)
        parts.append(rows[_best(rows[:, others]), tested])
    return join_paths(parts, folds, rows.shape[1])


def _best(rows: FloatArray) -> int:
    """Number of the row with the highest Sharpe ratio; rows that never move come last."""
    deviation = rows.std(axis=1)
    moved = deviation > 1e-12
    ratio = np.where(moved, rows.mean(axis=1) / np.where(moved, deviation, 1.0), -np.inf)
    return int(ratio.argmax())
