"""SPA, StepM and the confidence set: right under the null, awake to a planted winner."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.evaluation.superiority import (
    CASH,
    MIN_TEST_DAYS,
    SIZE,
    ConfidenceSet,
    Superiority,
    confidence_set,
    superiority,
)
from cppncripto_strategy.evaluation.undefined import Refusal

NAMES = ("a", "b", "c", "d")
DAYS = 60
# A run of the null may find something with probability SIZE: 8 of 50 has one of 0.4 %.
RUNS, MOST = 50, 7


def null(seed, spread=1.0):
    """Four equal accounts and a benchmark, one of them wilder than the others by `spread`."""
    rng = np.random.default_rng([7, seed])
    rows = rng.normal(0, 0.01, (4, DAYS)) * np.array([1, 1, 1, spread])[:, None]
    return rows, rng.normal(0, 0.01, DAYS)


def test_equal_accounts_are_rarely_called_better_and_rarely_leave_the_set():
    """Dies here: tests at 5 % that are wrong more often, as they are in textbook form."""
    found = lost = 0
    for seed in range(RUNS):
        rows, benchmark = null(seed, 1.0 + 2 * (seed % 2))
        tested = superiority(rows, NAMES, benchmark, "base", seed, 200)
        assert isinstance(tested, Superiority)
        found += bool(tested.found or tested.superior)
        kept = confidence_set(rows, NAMES, seed, 200)
        assert isinstance(kept, ConfidenceSet)
        lost += len(kept.included) < len(NAMES)
    assert found <= MOST
    assert lost <= MOST


def test_planted_winner_is_found_and_named_beside_a_wild_account():
    """Dies here: a good arm hidden by a wild one, because differences keep their scale."""
    named = alone = 0
    for seed in range(20):
        rows, benchmark = null(seed, 30.0)
        rows[1] += 0.01
        tested = superiority(rows, NAMES, benchmark, "base", seed, 200)
        named += tested.superior == ("b",) and tested.best == "b" and tested.found
        kept = confidence_set(rows[:3], NAMES[:3], seed, 200)
        alone += kept.included == ("b",)
    assert named >= 17
    assert alone >= 15


def test_every_better_account_is_named():
    """Dies here: arch's StepM, which fails once no account is left to test."""
    rows, benchmark = null(3)
    tested = superiority(rows + 0.02, NAMES, benchmark, "base", 1, 200)
    assert tested.superior == NAMES
    assert tested.p_value == pytest.approx(1 / 201)  # never 0: as many resamples as there are


def test_one_account_against_cash_agrees_with_a_t_test():
    """Dies here: a p-value of another scale or side than the one-sided test of a mean."""
    from scipy import stats

    rng = np.random.default_rng(2)
    for shift in (0.02, 0.05, 0.1, 0.2):
        daily = rng.normal(0, 1, 400)
        daily += shift - daily.mean()
        tested = superiority(daily, ["x"], np.zeros(400), CASH, 0, 2_000)
        expected = stats.ttest_1samp(daily, 0.0, alternative="greater").pvalue
        assert tested.p_value == pytest.approx(expected, abs=0.06)
    worse = superiority(daily - 1.0, ["x"], np.zeros(400), CASH, 0, 200)
    assert (worse.p_value, worse.superior) == (1.0, ())


def test_same_account_under_two_names_stands_in_the_set_as_one():
    """Dies here: arch's IndexError where two arms traded alike, as E4's may."""
    rows, _ = null(5)
    rows[0] += 0.03
    kept = confidence_set(np.stack([rows[1], rows[0], rows[0], rows[2]]), NAMES, 1, 200)
    assert kept.included == ("b", "c")
    assert kept.p_values[1] == kept.p_values[2] == 1.0
    assert max(kept.p_values[0], kept.p_values[3]) <= SIZE


def test_account_that_is_the_benchmark_is_not_compared():
    """Dies here: a division by a deviation of 0 that makes every p-value NaN."""
    rows, benchmark = null(6)
    rows[2] = benchmark
    tested = superiority(rows, NAMES, benchmark, "base", 1, 200)
    assert tested.compared == ("a", "b", "d")
    nothing = superiority(benchmark, ["x"], benchmark, "base")
    assert isinstance(nothing, Refusal)
    assert "no account differs from base" in nothing.reason


def test_too_few_days_and_lost_accounts_are_refused_by_name():
    """Dies here: a p-value of a week, or one made of NaN."""
    rows, benchmark = null(8)
    short = superiority(rows[:, : MIN_TEST_DAYS - 1], NAMES, benchmark[: MIN_TEST_DAYS - 1], "base")
    assert isinstance(short, Refusal)
    assert f"{MIN_TEST_DAYS - 1} common days" in short.reason
    rows[1, 20] = np.nan
    broken = confidence_set(rows, NAMES)
    assert isinstance(broken, Refusal)
    assert "not a finite number" in broken.reason
    equal = confidence_set(np.stack([benchmark, benchmark]), ["a", "b"])
    assert isinstance(equal, Refusal)
    assert "all accounts are the same" in equal.reason
