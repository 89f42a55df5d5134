"""Ridge probes and the next-day profile they foretell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions
from cppncripto_strategy.models.judging.probes import (
    MIN_FIT_DAYS,
    fold_rows,
    next_day_profile,
    profile_targets,
    sign_accuracy,
    walk_forward_r2,
)
from cppncripto_strategy.models.ridge import fit_ridge

INTERVAL_MS = 300_000


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def table():
    market = generate(PlantedSettings(days=14, seed=3))
    grid = CandleGrid.from_candles(market.candles, INTERVAL_MS)
    return build_sessions("P", grid, SessionSettings(long_window=576))


def test_r2_is_one_for_what_is_linear_and_nothing_for_noise():
    """A probe that scored its own learning days would find noise predictable."""
    days = np.arange(200) * DAY_MS
    embedding = normal(200, 30)
    linear = embedding @ normal(30, 4, seed=1)
    assert walk_forward_r2(embedding, linear, days) > 0.99
    assert walk_forward_r2(embedding, normal(200, 4, seed=2), days) < 0.02


def test_r2_matches_a_computation_by_hand():
    """Fold edges, gap, benchmark mean and spread, each from its own definition."""
    n, folds, gap = 50, 2, 3
    days, embedding, targets = np.arange(n) * DAY_MS, normal(n, 4), normal(n, 2, seed=1)
    error = benchmark = 0.0
    for begin, end in ((30, 40), (40, 50)):
        learn, judge = slice(0, begin - gap), slice(begin, end)
        prediction = fit_ridge(embedding[learn], targets[learn]).predict(embedding[judge])
        mean, spread = targets[learn].mean(0), targets[learn].std(0)
        error += (((prediction - targets[judge]) / spread) ** 2).sum()
        benchmark += (((mean - targets[judge]) / spread) ** 2).sum()
    found = walk_forward_r2(embedding, targets, days, folds=folds, gap_days=gap)
    assert found == pytest.approx(1 - error / benchmark, abs=1e-9)


@given(
    days=st.lists(st.integers(0, 120), min_size=70, max_size=150),
    folds=st.integers(1, 5),
    gap=st.integers(1, 6),
)
@settings(max_examples=50, deadline=None)
def test_folds_learn_only_from_days_before_the_gap(days, folds, gap):
    """Two symbols share days: a fold cut by row would learn one symbol's future from another."""
    day_ms = np.array(days, dtype=np.int64) * DAY_MS
    try:
        parts = fold_rows(day_ms, folds, gap)
    except TrainingError:
        assert len(set(days)) * max(0.5, 1 - folds / 5) - gap < MIN_FIT_DAYS + 1
        return
    judged = np.concatenate([judge for _, judge in parts])
    assert len(np.unique(judged)) == len(judged)
    for learn, judge in parts:
        assert day_ms[learn].max() < day_ms[judge].min() - gap * DAY_MS
    assert day_ms[judged].max() == day_ms.max()


def test_short_span_is_refused_with_its_length():
    """A ridge over 116 columns and ten days must not become a fitness."""
    with pytest.raises(TrainingError, match="30 days"):
        walk_forward_r2(normal(30, 2), normal(30, 1), np.arange(30) * DAY_MS)


def test_sign_accuracy_counts_later_rows_alone():
    """Accuracy on the learning rows would be 1 for noise with enough columns."""
    signs = np.where(normal(200) > 0, 1, -1).astype(np.int8)
    learn, judge = np.arange(100), np.arange(100, 200)
    own = np.stack([signs + 0.1 * normal(200, seed=1)], axis=1)
    assert sign_accuracy(own, signs, learn, judge) == 1.0
    assert 0.35 < sign_accuracy(normal(200, 90, seed=2), signs, learn, judge) < 0.65


def test_profile_is_of_the_sessions_own_candles(table):
    """One candle early or late, and the profile of the day leaks into the window before it."""
    session = 4
    start = table.start_ms[session]
    inside = (table.grid.close_time >= start) & (table.grid.close_time < start + DAY_MS)
    names = table.settings.names
    features = table.features[: len(table.grid)][inside]
    hour = (table.grid.close_time[inside] - start) // 3_600_000
    profile = next_day_profile(table, session)
    for block in range(12):
        rows = features[hour // 2 == block]
        assert profile[block] == pytest.approx(rows[:, names.index("volume_z")].mean())
        relative = rows[:, names.index("volatility_12")] / table.center[session, 1]
        assert profile[12 + block] == pytest.approx(np.log(relative).mean())


@pytest.mark.parametrize(
    "names",
    [
        ("log_return", "log_volatility_12", "volume_z", "sin_week", "present"),
        ("log_return", "present"),
    ],
    ids=["the logarithm of the volatility", "neither"],
)
def test_profile_follows_from_candles_and_not_from_the_recipes_features(table, names):
    """A recipe whose columns are others could not be probed, nor evolved on."""
    other = build_sessions("P", table.grid, SessionSettings(long_window=576, names=names))
    sessions = [SessionSet.between([one], 0, 2**62) for one in (table, other)]
    usual, found = (profile_targets(each, 2**62) for each in sessions)
    assert np.isfinite(usual).all(axis=1).sum() > 5
    np.testing.assert_allclose(found, usual, rtol=1e-9)
    np.testing.assert_array_equal(next_day_profile(other, 4), found[4])


def test_profile_of_a_day_not_over_is_unknown(table):
    """Fitness must not see a candle that closes after the span."""
    sessions = SessionSet.between([table], 0, 2**62)
    until = int(table.start_ms[5])
    known = np.isfinite(profile_targets(sessions, until)).all(axis=1)
    assert (sessions.start_ms()[known] + DAY_MS <= until).all()
    assert known.sum() == 5
