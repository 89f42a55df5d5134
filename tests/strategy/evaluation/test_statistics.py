"""Intervals, tests and Sharpe discounts against closed forms, published cases and brute force."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from cppncripto_strategy.evaluation import statistics
from cppncripto_strategy.evaluation.returns import sharpe_ratio

DAY = 86_400_000


def test_wilson_interval_matches_the_textbook_formula():
    """Dies here: the normal approximation, which gives [0, 0] for no hit in ten."""
    z = 1.959963984540054
    low, high = statistics.wilson_interval(0, 10)
    assert low == pytest.approx(0.0, abs=1e-15)
    assert high == pytest.approx(z**2 / (10 + z**2))  # closed form at zero hits
    low, high = statistics.wilson_interval(81, 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert statistics.wilson_interval(0, 0) == (None, None)


def test_days_that_do_not_occur_have_no_row_and_columns_may_be_flags():
    """A row of zeros between two days, which resampling would draw; columns of unequal kinds."""
    day = 24 * 3_600_000
    stamps = np.array([9 * day, 3 * day + 5, 3 * day])
    sums = statistics.day_sums(stamps, [np.array([True, True, False]), np.array([1.5, 2.0, 4.0])])
    assert sums.tolist() == [[1.0, 6.0], [1.0, 1.5]]
    assert statistics.day_sums(np.empty(0, np.int64), [np.empty(0)]).shape == (0, 1)


def test_day_totals_puts_a_midnight_close_into_the_day_it_opens():
    """Dies here: closes at 00:00 counted to the day before, unlike sessions."""
    stamps = np.array([0, DAY - 1, DAY, 3 * DAY])
    totals = statistics.day_totals(stamps, np.array([[1, 10], [2, 20], [4, 40], [8, 80]]))
    np.testing.assert_array_equal(totals, [[3, 30], [4, 40], [8, 80]])


def test_bootstrap_is_reproducible_and_seeded():
    """Dies here: intervals that change from one report of the same run to the next."""
    totals = np.random.default_rng(0).random((30, 2)) + 1
    one, again, other = (
        statistics.ratio_estimates(totals, [(0, 1)], seed, 200) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize("cluster", [1, 12])
def test_day_block_interval_covers_a_planted_coin(cluster):
    """Dies here: resampling candles, not days: too narrow when a day's hits hang together."""
    truth, runs, days, per_day, covered, naive = 0.55, 120, 60, 12, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        hits = np.repeat(rng.random((days, per_day // cluster)) < truth, cluster, axis=1)
        totals = np.stack([hits.sum(1), np.full(days, per_day)], 1).astype(float)
        estimate = statistics.ratio_estimates(totals, [(0, 1)], seed, 250)[0]
        covered += estimate.low <= truth <= estimate.high
        low, high = statistics.wilson_interval(int(hits.sum()), hits.size)
        naive += low <= truth <= high
    assert 0.87 <= covered / runs <= 0.99
    # The check has teeth: an interval that takes candles for independent fails it at cluster 12.
    assert cluster == 1 or naive / runs < 0.6


def test_ratio_over_too_few_days_has_no_interval():
    """Dies here: a tight interval out of three days."""
    estimate = statistics.ratio_estimates(np.array([[1.0, 2.0]] * 4), [(0, 1)], 0)[0]
    assert (estimate.value, estimate.low, estimate.high) == (0.5, None, None)


def test_ratio_without_denominator_is_none():
    """Dies here: 0/0 reported as 0."""
    estimate = statistics.ratio_estimates(np.zeros((10, 2)), [(0, 1)], 0, 50)[0]
    assert (estimate.value, estimate.low, estimate.count) == (None, None, 0)


def test_paired_difference_is_tighter_than_the_two_intervals_apart():
    """Dies here: resampling each arm on its own, which throws the pairing away."""
    rng = np.random.default_rng(5)
    stamps = np.repeat(np.arange(80), 10) * DAY + 1
    shared = np.repeat(rng.normal(0, 0.15, 80), 10)  # good and bad days hit both arms alike
    draw = rng.random(800)
    a, b = draw < 0.60 + shared, draw < 0.54 + shared
    paired = statistics.paired_hit_difference(a, b, stamps, seed=0, resamples=500)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    totals = statistics.day_totals(stamps, np.stack([a, b, np.ones(800)], 1))
    one, two = statistics.ratio_estimates(totals, [(0, 2), (1, 2)], 0, 500)
    assert paired.low > 0
    assert paired.high - paired.low < 0.5 * ((one.high - one.low) + (two.high - two.low))


def test_diebold_mariano_equals_the_formula_written_out():
    """Dies here: the wrong horizon, a one-sided p, or the small-sample correction left out."""
    rng = np.random.default_rng(11)
    a, b, h = rng.normal(1.0, 0.3, 80) ** 2, rng.normal(1.1, 0.3, 80) ** 2, 3
    d = a - b
    n, centred = len(d), d - d.mean()
    gamma = [np.dot(centred[k:], centred[: n - k]) / n for k in range(h)]
    statistic = d.mean() / math.sqrt((gamma[0] + 2 * sum(gamma[1:])) / n)
    statistic *= math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    from scipy.stats import t

    found = statistics.diebold_mariano(a, b, h)
    assert found.statistic == pytest.approx(statistic)
    assert found.p_value == pytest.approx(2 * t.sf(abs(statistic), n - 1), rel=1e-6)
    turned = statistics.diebold_mariano(b, a, h)
    assert turned.statistic == pytest.approx(-statistic)


def test_diebold_mariano_of_equal_losses_is_undefined():
    """Dies here: a crash, or p = 0, when an arm equals its rival."""
    same = np.arange(50.0)
    assert statistics.diebold_mariano(same, same, 4) is None
    assert statistics.diebold_mariano(same[:5], same[:5] + 1, 4) is None


def published_track_record():
    """1,250 daily returns with Sharpe 2.5 per year of 250 days, skewness -3, kurtosis 10.

    Only a two-point distribution has kurtosis = skewness**2 + 1, so the case of Bailey & Lopez de
    Prado (2014) can be laid out exactly: 105 bad days of 1,250.
    """
    bad = 105
    values = np.r_[np.zeros(bad), np.ones(1250 - bad)]
    unit = (values - values.mean()) / values.std()
    return unit + 2.5 / math.sqrt(250)


def test_deflated_sharpe_reproduces_bailey_and_lopez_de_prado():
    """Dies here: annual and daily Sharpe ratios mixed up in the deflation."""
    returns = published_track_record()
    # The paper: 100 trials whose annual Sharpe ratios have variance 1/2; DSR = 0.9004.
    found = statistics.deflated_sharpe(returns, 100, 0.5 / 250)
    assert found == pytest.approx(0.9004, abs=2e-3)
    # and with 46 trials, 0.9505
    assert statistics.deflated_sharpe(returns, 46, 0.5 / 250) == pytest.approx(0.9505, abs=2e-3)


def test_probabilistic_sharpe_equals_equation_seven():
    """Dies here: excess kurtosis where the formula wants the full one."""
    from scipy.stats import norm

    returns = published_track_record()
    sharpe = 2.5 / math.sqrt(250)
    spread = math.sqrt(1 + 3 * sharpe + (10 - 1) / 4 * sharpe**2)
    for annual in (0.0, 1.5):
        gap = sharpe - annual / math.sqrt(365)
        assert statistics.probabilistic_sharpe(returns, annual) == pytest.approx(
            norm.cdf(gap * math.sqrt(1249) / spread), abs=5e-4
        )


def test_one_trial_deflates_nothing():
    """Dies here: a first run punished for trials that never were."""
    returns = np.random.default_rng(0).normal(0.001, 0.01, 100)
    assert statistics.deflated_sharpe(returns, 1, 0.0) == statistics.probabilistic_sharpe(returns)


def test_sharpe_probabilities_of_flat_or_short_series_are_none():
    """Dies here: a constant account with a certain Sharpe ratio."""
    for flat in (np.zeros(50), np.full(50, 0.1), np.array([0.1, 0.2]), np.array([])):
        assert statistics.probabilistic_sharpe(flat) is None
        assert statistics.deflated_sharpe(flat, 10, 0.01) is None


def overfitting_by_hand(matrix, splits):
    """CSCV as the paper words it: choose in sample, rank out of sample, count the lower half."""
    blocks = np.array_split(np.arange(matrix.shape[1]), splits)
    below = []
    for chosen in combinations(range(splits), splits // 2):
        inside = np.concatenate([blocks[k] for k in range(splits) if k not in chosen])
        outside = np.concatenate([blocks[k] for k in chosen])
        score = [
            [row[part].mean() / row[part].std(ddof=1) for row in matrix]
            for part in (inside, outside)
        ]
        best = int(np.argmax(score[0]))
        rank = sum(s <= score[1][best] for s in score[1])
        below.append(rank / (len(matrix) + 1) < 0.5)
    return float(np.mean(below))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_overfitting_probability_equals_cscv_by_hand(seed):
    """Dies here: PBO over the wrong axis, or ranks counted from the wrong end."""
    matrix = np.random.default_rng(seed).normal(0, 0.01, (6, 60))
    assert statistics.overfitting_probability(matrix, 6) == pytest.approx(
        overfitting_by_hand(matrix, 6)
    )


def test_overfitting_probability_is_low_when_one_configuration_is_truly_better():
    """Dies here: PBO turned around."""
    matrix = np.random.default_rng(3).normal(0, 0.01, (4, 48))
    matrix[2] += 0.02
    assert statistics.overfitting_probability(matrix, 8) == 0.0
    assert statistics.overfitting_probability(matrix[:1]) is None
    assert statistics.overfitting_probability(matrix[:, :6]) is None


def test_sharpe_estimate_covers_the_truth_as_often_as_it_says():
    """Dies here: an interval of daily, not annual, ratios, or one that is far too narrow."""
    truth, covered = 0.1 * math.sqrt(365), 0
    for seed in range(60):
        returns = np.random.default_rng([21, seed]).normal(0.001, 0.01, 250)
        found = statistics.sharpe_estimate(returns, seed, 200)
        assert found.value == pytest.approx(sharpe_ratio(returns))
        assert found.low < found.value < found.high
        covered += found.low <= truth <= found.high
    assert covered >= 51  # of 57 expected


def test_sharpe_gap_is_paired_by_day():
    """Dies here: two accounts resampled on different days, so that what they share is noise."""
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.02, 200)
    a, b = common + 0.001 + rng.normal(0, 1e-3, 200), common + rng.normal(0, 1e-3, 200)
    gap = statistics.sharpe_gap(a, b, 1, 300)
    assert gap.value == pytest.approx(sharpe_ratio(a) - sharpe_ratio(b))
    alone = statistics.sharpe_estimate(a, 1, 300)
    assert gap.high - gap.low < 0.4 * (alone.high - alone.low)
    assert statistics.sharpe_gap(a[:3], b[:3], 1, 300).low is None
    assert statistics.sharpe_estimate(np.zeros(50), 1, 50).value is None
