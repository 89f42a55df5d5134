"""Counting independent trials: against sums worked out by hand, and against simulated luck."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cppncripto_strategy.evaluation.many_trials import (
    MIN_COMMON_DAYS,
    correlated_count,
    count_trials,
    mean_correlation,
    minimum_backtest_days,
    order_count,
)
from cppncripto_strategy.evaluation.statistics import deflated_sharpe


def test_order_count_equals_a_sum_worked_out_by_hand():
    """Dies here: a young library that sums autocorrelations otherwise than it says.

    1, 2, 3, 4, 5 less their mean 3: -2, -1, 0, 1, 2, squares 10. Lag 1: 2 + 0 + 0 + 2 = 4, so 0.4;
    lag 2: 0 - 1 + 0 = -1, not positive, so the sum ends. 5 / (1 + 2 x 0.4) = 2.78, rounded 3.
    """
    assert order_count([1, 2, 3, 4, 5]) == 3
    # 1, 1, 0, 0, 1, 1, 0, 0 less 1/2: squares 8/4; lag 1: (1 - 1 + 1 - 1 + 1 - 1 + 1) / 4 = 1/4
    # over 2 = 1/8; lag 2: negative. 8 / (1 + 1/4) = 6.4, rounded 6.
    assert order_count([1, 1, 0, 0, 1, 1, 0, 0]) == 6
    assert order_count([2.0, 2.0, 2.0]) == 1
    assert order_count([]) == 0


def test_order_count_is_blind_to_likeness_out_of_order():
    """Dies here: the docstring's warning, should the library learn to see what it does not."""
    assert order_count([1.0, 2.0] * 10) == 20


def test_correlated_count_is_the_published_line():
    """Dies here: rho and 1 - rho exchanged, or a rounding that loses a trial."""
    assert [correlated_count(50, rho) for rho in (0.0, 0.5, 1.0, -0.3)] == [50, 26, 1, 50]
    assert correlated_count(1, 0.7) == 1


def test_mean_correlation_equals_numpys_over_common_days():
    """Dies here: means taken over a trial's own days instead of those of both."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=120)
    rows = 0.01 * (common + rng.normal(size=(4, 120))) + 0.1
    rows[1, :40] = np.nan
    rows[2, 100:] = np.nan
    expected = []
    for i in range(4):
        for j in range(i):
            both = np.isfinite(rows[i]) & np.isfinite(rows[j])
            expected.append(np.corrcoef(rows[i, both], rows[j, both])[0, 1])
    assert mean_correlation(rows) == pytest.approx(np.mean(expected), abs=1e-9)


def test_pairs_without_common_days_or_movement_count_as_uncorrelated():
    """Dies here: a NaN that swallows the mean, or trials of other years called alike."""
    rng = np.random.default_rng(2)
    rows = np.full((3, 80), np.nan)
    rows[0, :40] = rng.normal(size=40)
    rows[1, 40 - MIN_COMMON_DAYS + 1 :] = rng.normal(size=40 + MIN_COMMON_DAYS - 1)
    rows[2] = 0.0
    assert mean_correlation(rows) == 0.0
    assert mean_correlation(rows[:1]) is None


def test_larger_estimate_counts_and_cash_counts_as_a_trial():
    """Dies here: the more flattering of two estimates, or an idle trial that was never tried."""
    rows = np.random.default_rng(3).normal(size=(6, 60))
    count = count_trials([0.1, 0.2, None, 0.3, 0.4, 0.5, None], rows)
    assert (count.raw, count.by_order) == (7, 5)  # 3 by order, and two in cash
    assert count.by_correlation == correlated_count(7, count.correlation)
    assert count.effective == max(count.by_order, count.by_correlation)
    assert count_trials([], np.zeros((0, 0))).effective == 1


@given(
    arrays.arrays(
        np.float64, st.tuples(st.integers(2, 6), st.integers(1, 40)), elements=st.floats(-1, 1)
    )
)
def test_counts_stay_between_one_and_the_number_of_trials(rows):
    """Dies here: an estimate above the count, or one of no trial at all."""
    count = count_trials([float(row.mean()) for row in rows], rows)
    assert 1 <= count.effective <= count.raw == len(rows)
    assert -1 <= count.correlation <= 1


def test_minimum_days_equal_the_bracket_worked_out_by_hand():
    """Dies here: trading days for calendar days, or a Sharpe ratio that is not squared.

    Of ten, the normal quantiles of 1 - 1/10 and of 1 - 1/(10 e) are 1.281552 and 1.789175, weighed
    0.422784 and 0.577216: 1.574562. Over 1.5 that is 1.049708, squared 1.101887 years.
    """
    assert minimum_backtest_days(10, 1.5) == pytest.approx(365 * 1.101887, rel=1e-4)
    assert minimum_backtest_days(1, 1.5) == 0.0
    for undefined in (None, 0.0, -1.0, math.inf):
        assert minimum_backtest_days(10, undefined) is None


def best_of(rho, seed, trials=30, days=200):
    """Daily returns of the best of trials without an edge that are correlated by rho; all rows."""
    rng = np.random.default_rng([11, seed])
    noise = rng.normal(size=(trials, days))
    rows = math.sqrt(rho) * rng.normal(size=days) + math.sqrt(1 - rho) * noise
    sharpes = rows.mean(axis=1) / rows.std(axis=1)
    return rows[int(sharpes.argmax())], rows, sharpes


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_deflated_by_all_trials_luck_is_found_in_at_most_one_run_of_twenty(rho):
    """Dies here: a deflation that likeness of the trials makes too weak.

    Counted by correlation alone, the best of 50 alike (rho 0.9) was called more than luck in 6 %:
    the variance of their Sharpe ratios is small already, and fewer of them discount it twice. So
    the raw count judges.
    """
    raw = plain = 0
    for seed in range(120):
        best, _, sharpes = best_of(rho, seed)
        variance = float(np.var(sharpes, ddof=1))
        raw += deflated_sharpe(best, len(sharpes), variance) >= 0.95
        plain += deflated_sharpe(best, 1, 0.0) >= 0.95
    assert raw <= 10  # 6 expected at most; 11 has a probability of 4 %
    assert plain > raw  # what is not discounted finds luck far more often
