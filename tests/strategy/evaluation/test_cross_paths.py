"""Combinatorial paths: put together by hand, and honest about what choosing earns."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.evaluation.cross_paths import (
    Folds,
    PathSpread,
    join_paths,
    selection_paths,
    spread_of,
)
from cppncripto_strategy.evaluation.returns import sharpe_ratio
from cppncripto_strategy.evaluation.undefined import Refusal


def test_paths_are_put_together_as_the_book_draws_them():
    """Dies here: a group from the wrong fold, so that a path holds days that were trained on.

    Four groups of two days, two tested: 01 02 03 12 13 23. Group 0 is tested in folds 0 1 2, group
    1 in 0 3 4, group 2 in 1 3 5, group 3 in 2 4 5; path k takes the k-th of each.
    """
    folds = Folds(4, 2)
    assert folds.combinations == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    parts = [np.full(4, float(fold)) for fold in range(6)]
    expected = [[0, 0, 0, 0, 1, 1, 2, 2], [1, 1, 3, 3, 3, 3, 4, 4], [2, 2, 4, 4, 5, 5, 5, 5]]
    assert join_paths(parts, folds, 8).tolist() == expected
    assert folds.paths == 3


def test_uneven_days_are_cut_as_the_paths_are_joined():
    """Dies here: two cuts of 11 days that differ by one, and every later day shifted."""
    folds = Folds(3, 1)
    assert [len(part) for part in folds.days_of(11)] == [4, 4, 3]
    parts = [np.asarray(part, dtype=np.float64) for part in folds.days_of(11)]
    assert join_paths(parts, folds, 11).tolist() == [list(range(11))]


def test_choosing_among_equals_earns_nothing_on_other_days():
    """Dies here: a choice that sees the days it is judged on, and turns luck into an edge.

    The best of forty trials of luck shows a Sharpe ratio above 1.8 on every one of these markets.
    Without a look at the tested days, a path's has a mean of 0 and a deviation of about 1.7.
    """
    medians = []
    for seed in range(30):
        rows = np.random.default_rng(seed).normal(0, 0.01, (40, 160))
        spread = spread_of(selection_paths(rows, Folds(8, 2)), Folds(8, 2))
        assert max(sharpe_ratio(row) for row in rows) > 1.8
        assert (len(spread.sharpes), spread.folds, spread.days) == (7, 28, 160)
        medians.append(spread.median)
    assert np.mean(medians) < 3 * 1.7 / np.sqrt(30)


def test_choosing_finds_the_one_that_earns():
    """Dies here: the worst trial chosen, or the best one's returns of other days."""
    rows = np.random.default_rng(1).normal(0, 0.01, (10, 120))
    rows[4] += 0.01
    paths = selection_paths(rows, Folds(6, 2))
    assert np.array_equal(paths, np.tile(rows[4], (5, 1)))


def test_spread_counts_paths_that_earned_nothing():
    """Dies here: a path that never moved, counted as a gain or dropped from the count."""
    spread = PathSpread((1.0, None, -0.5, 2.0), 6, 60)
    assert (spread.known, spread.median, spread.losing) == ([-0.5, 1.0, 2.0], 1.0, 2)
    assert spread_of(np.zeros((2, 30)), Folds(4, 2)).sharpes == (None, None)


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 80), "1 trials"), ((5, 20), "20 days are too few for 6 groups")]
)
def test_too_few_trials_or_days_are_refused_by_name(shape, said):
    """Dies here: paths of groups in which one day decides."""
    refused = selection_paths(np.ones(shape), Folds(6, 2))
    assert isinstance(refused, Refusal)
    assert said in refused.reason
