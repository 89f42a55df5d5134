"""Returns, ratios and drawdowns against hand-made numbers and brute force."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.evaluation import returns as measure

DAY = 86_400_000
CANDLE = 300_000
START = 1_704_067_200_000  # 2024-01-01 00:00 UTC


def equity_table(values, step_ms=DAY, start_ms=START):
    stamps = start_ms + step_ms * np.arange(len(values), dtype=np.int64)
    return pd.DataFrame({"close_time_ms": stamps, "equity": np.asarray(values, dtype=np.float64)})


equities = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=60)


def test_sharpe_and_sortino_match_hand_computation():
    """Dies here: annualising with 252 or with the population deviation."""
    # Mean 0.01; squared deviations 1e-4 + 4e-4 + 9e-4 = 14e-4, over n - 1 = 2 -> 7e-4.
    returns = np.array([0.02, -0.01, 0.02])
    mean, variance = 0.01, (0.01**2 + 0.02**2 + 0.01**2) / 2
    assert measure.sharpe_ratio(returns) == pytest.approx(
        mean / math.sqrt(variance) * math.sqrt(365)
    )
    downside = math.sqrt(0.01**2 / 3)
    assert measure.sortino_ratio(returns) == pytest.approx(mean / downside * math.sqrt(365))


def test_ratios_without_spread_are_none_not_zero():
    """Dies here: a constant account that reports Sharpe 0, or infinity from rounding dust."""
    for values in ([], [0.01], [0.01, 0.01, 0.01], [0.1 + 0.2 - 0.3] * 3):
        assert measure.sharpe_ratio(np.array(values)) is None
    assert measure.sortino_ratio(np.array([0.01, 0.02])) is None


def test_daily_sharpe_is_the_ratio_of_a_population():
    """Dies here: the deflated Sharpe ratio fed with annual ratios, or with n - 1."""
    mean, variance = 0.01, (0.01**2 + 0.02**2 + 0.01**2) / 3
    found = measure.daily_sharpe(np.array([0.02, -0.01, 0.02]))
    assert found == pytest.approx(mean / math.sqrt(variance))
    for values in ([], [0.01], [0.01, 0.01], [0.01, np.nan, 0.02], [0.01, np.inf]):
        assert measure.daily_sharpe(np.array(values)) is None


@given(st.lists(st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3), min_size=2, max_size=50))
def test_sharpe_of_sums_equals_the_sharpe_ratio_of_the_days(accounts):
    """Dies here: a Sharpe ratio rebuilt from sums that lost its n - 1 or its root of 365."""
    daily = np.array(accounts)  # (days, accounts)
    count = np.full(3, float(len(daily)))
    found = measure.sharpe_of_sums(count, daily.sum(axis=0), (daily**2).sum(axis=0))
    for column, ratio in zip(daily.T, found, strict=True):
        if column.std() > 1e-5:  # sums of squares cannot resolve smaller deviations
            expected = column.mean() / column.std(ddof=1) * math.sqrt(365)
            assert ratio == pytest.approx(expected, rel=1e-4)
            assert measure.sharpe_ratio(column) == pytest.approx(expected)


def test_sharpe_of_sums_without_deviation_is_nan():
    """Dies here: a constant account resampled to an infinite Sharpe ratio."""
    days, total = np.array([4.0, 4.0]), np.array([0.04, 0.0])
    squares = np.array([4 * 0.01**2, 0.0])
    assert np.isnan(measure.sharpe_of_sums(days, total, squares)).all()


def test_daily_returns_are_cut_at_utc_midnight_and_carry_empty_days():
    """Dies here: days cut 24 hours after the first bar, or a day without bars left out."""
    noon = START + DAY // 2
    table = pd.DataFrame(
        {
            # noon of day 0, last bar before midnight, midnight itself, then nothing until day 3.
            "close_time_ms": [noon, START + DAY - CANDLE, START + DAY, START + 3 * DAY + CANDLE],
            "equity": [100.0, 105.0, 110.0, 121.0],
        }
    )
    returns = measure.daily_returns(table)
    assert [str(day.date()) for day in returns.index] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
        "2024-01-04",
    ]
    assert returns.tolist() == pytest.approx([0.10, 0.0, 0.0, 0.10])


@given(equities, st.integers(1, 40), st.integers(0, 300))
def test_daily_returns_compound_to_the_total_return(values, hours, offset):
    """Dies here: a partial first or last day that is dropped from the daily returns."""
    table = equity_table(values, step_ms=hours * 3_600_000, start_ms=START + offset * CANDLE)
    compounded = float(np.prod(1 + measure.daily_returns(table).to_numpy())) - 1
    assert compounded == pytest.approx(values[-1] / values[0] - 1, rel=1e-9, abs=1e-9)


@given(equities)
def test_max_drawdown_equals_brute_force_and_lies_in_unit_range(values):
    """Dies here: a drawdown measured from the first or the last peak instead of the highest."""
    brute = max(1 - b / max(values[: k + 1]) for k, b in enumerate(values))
    found = measure.max_drawdown(equity_table(values))
    assert 0 <= found.depth < 1
    assert found.depth == pytest.approx(brute, abs=1e-12)
    if found.depth > 0:
        peak, trough = ((ms - START) // DAY for ms in (found.peak_ms, found.trough_ms))
        assert 1 - values[trough] / values[peak] == pytest.approx(found.depth)
        back = [k for k in range(trough, len(values)) if values[k] >= values[peak]]
        expected = START + back[0] * DAY if back else None
        assert found.recovered_ms == expected
