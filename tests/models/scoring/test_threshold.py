"""The threshold state: quantiles of strictly earlier scores, and a bounded controller."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.scoring.threshold import (
    ScoreThreshold,
    ThresholdSettings,
    signal_of,
    signals_of,
    sorted_quantile,
)

DAY_MS = 86_400_000
STEP_MS = 300_000
PER_DAY = DAY_MS // STEP_MS
SCORES = st.lists(
    st.one_of(
        st.floats(-1, 1, allow_nan=False), st.just(math.nan), st.sampled_from([-0.5, 0.0, 0.5])
    ),
    min_size=1,
    max_size=60,
)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_sorted_quantile_has_numpys_bits(values: list[float], quantile: float) -> None:
    """An interpolation that differs from numpy in the last bit, so that replays differ, dies."""
    assert np.quantile(values, quantile) == sorted_quantile(sorted(values), quantile)


@given(SCORES, st.integers(2, 12), st.floats(0.02, 0.45))
@settings(deadline=None)
def test_thresholds_are_numpy_quantiles_of_earlier_scores(
    scores: list[float], window: int, quantile: float
) -> None:
    """The present score in its own threshold, a wrong eviction, a NaN in the history: all die."""
    state = ScoreThreshold(ThresholdSettings(window=window, quantile=quantile, min_scores=2))
    for i, score in enumerate(scores):
        past = [s for s in scores[:i] if not math.isnan(s)][-window:]
        upper, lower = state.update(score, i * STEP_MS)
        if math.isnan(score) or len(past) < 2:
            assert math.isnan(upper)
            assert math.isnan(lower)
        else:
            assert np.quantile(past, 1 - quantile) == upper
            assert np.quantile(past, quantile) == lower


@given(SCORES, st.integers(0, 59), st.floats(-1, 1))
@settings(deadline=None)
def test_the_future_changes_no_threshold(scores: list[float], at: int, other: float) -> None:
    """A threshold that sees its own bar or a later one dies here."""
    config = ThresholdSettings(window=10, min_scores=2)
    changed = [*scores[:at], *(other for _ in scores[at:])]
    first, second = ScoreThreshold(config), ScoreThreshold(config)
    for i, (a, b) in enumerate(zip(scores, changed, strict=True)):
        pair_a, pair_b = first.update(a, i * STEP_MS), second.update(b, i * STEP_MS)
        if i < at or (i == at and not math.isnan(a)):
            assert pair_a == pytest.approx(pair_b, rel=0, abs=0, nan_ok=True)


def test_a_seed_replaces_the_history() -> None:
    """Scores of the old bundle that linger beside the new one's die here."""
    state = ScoreThreshold(ThresholdSettings(window=5, quantile=0.25, min_scores=2))
    for i in range(9):
        state.update(100.0 + i, i * STEP_MS)
    seed = [math.nan, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    state.seed(seed)
    kept = seed[-5:]
    assert (np.quantile(kept, 0.75), np.quantile(kept, 0.25)) == state.update(0.0, 9 * STEP_MS)
    kept = [*kept[1:], 0.0]
    assert (np.quantile(kept, 0.75), np.quantile(kept, 0.25)) == state.update(1.0, 10 * STEP_MS)


@pytest.mark.parametrize(("window", "least"), [(2016, 288), (100, 14), (9, 2), (2, 2)])
def test_a_day_of_a_week_is_needed_unless_told(window: int, least: int) -> None:
    """A short window refused for a least number of scores that nobody asked for."""
    assert ThresholdSettings(window=window).least_scores == least
    assert ThresholdSettings(window=window, min_scores=2).least_scores == 2


def test_a_seed_shorter_than_min_scores_waits_for_more() -> None:
    """Thresholds made of a handful of scores die here."""
    state = ScoreThreshold(ThresholdSettings(window=10, min_scores=4))
    state.seed([0.1, 0.2, 0.3])
    assert math.isnan(state.update(0.4, 0)[0])
    assert not math.isnan(state.update(0.5, STEP_MS)[0])


def test_static_thresholds_are_those_of_the_seed_and_never_move() -> None:
    """A static threshold that learns from the scores it judges dies here."""
    state = ScoreThreshold(ThresholdSettings(mode="static", quantile=0.1))
    assert math.isnan(state.update(0.3, 0)[0])
    seed = np.linspace(-1, 1, 21)
    state.seed(seed)
    fixed = (np.quantile(seed, 0.9), np.quantile(seed, 0.1))
    assert [fixed] * 50 == [state.update(5.0, i * STEP_MS) for i in range(50)]
    assert math.isnan(state.update(math.nan, 0)[0])


def run_days(state: ScoreThreshold, days: int, seed: int = 3) -> list[float]:
    """The quantile in force at the end of each day of independent normal scores."""
    rng = np.random.default_rng(seed)
    quantiles = []
    for day in range(days):
        for slot in range(PER_DAY):
            state.update(float(rng.normal()), day * DAY_MS + slot * STEP_MS)
        quantiles.append(state.quantile)
    return quantiles


def test_too_many_signals_narrow_the_quantile_once_a_session() -> None:
    """A controller that moves the wrong way, or at every candle, dies here."""
    config = ThresholdSettings(
        window=500, min_scores=100, band=(5, 20), lookback_sessions=2, step=1.5
    )
    quantiles = run_days(ScoreThreshold(config), 6)
    # 30 % of 288 candles signal; the first, partial session is not counted.
    assert quantiles[:3] == [0.15] * 3
    assert quantiles[3] == pytest.approx(0.15 / 1.5)
    assert quantiles[4] == pytest.approx(0.15 / 1.5**2)


def test_too_few_signals_widen_the_quantile_up_to_its_bound() -> None:
    """A controller without a bound, which ends in signals at every candle, dies here."""
    config = ThresholdSettings(
        window=500,
        min_scores=100,
        quantile=0.05,
        band=(270, 288),
        lookback_sessions=1,
        step=2.0,
        quantile_range=(0.01, 0.3),
    )
    quantiles = run_days(ScoreThreshold(config), 9)
    assert max(quantiles) == quantiles[-1] == 0.3


def test_inside_the_band_the_quantile_rests() -> None:
    """A controller that never stops hunting dies here."""
    config = ThresholdSettings(window=500, min_scores=100, band=(60, 120), lookback_sessions=1)
    assert run_days(ScoreThreshold(config), 8) == [0.15] * 8


def test_reset_forgets_everything() -> None:
    """State of one run leaking into the next dies here."""
    config = ThresholdSettings(window=50, min_scores=2, band=(0, 1), lookback_sessions=1)
    used = ScoreThreshold(config)
    run_days(used, 4)
    used.reset()
    fresh = ScoreThreshold(config)
    assert run_days(fresh, 3) == run_days(used, 3)


@pytest.mark.parametrize(
    ("score", "upper", "lower", "signal"),
    [
        (0.5, 0.5, -0.5, 1),
        (-0.5, 0.5, -0.5, -1),
        (0.0, 0.5, -0.5, 0),
        (math.nan, 0.5, -0.5, 0),
        (0.9, math.nan, -0.5, 0),
        (0.0, 0.0, 0.0, 0),
    ],
)
def test_signal_rule(score: float, upper: float, lower: float, signal: int) -> None:
    """NaN that compares its way into an order, or a constant score that buys, dies here."""
    assert signal == signal_of(score, upper, lower)


LEVELS = st.sampled_from([-0.5, 0.0, 0.5, math.nan])  # equal ones, and none at all, are likely


@given(st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=1, max_size=60))
def test_signals_of_arrays_equal_the_signals_of_each_candle(rows: list[tuple[float, ...]]) -> None:
    """A table whose signals are not those that were traded dies here."""
    assert [signal_of(*row) for row in rows] == signals_of(*np.array(rows).T).tolist()


@pytest.mark.parametrize(
    "bad",
    [
        {"window": 1},
        {"quantile": 0.5},
        {"mode": "magic"},
        {"min_scores": 5000},
        {"step": 1.0},
        {"band": (3, 2)},
        {"quantile_range": (0.3, 0.2)},
        {"lookback_sessions": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    """A setting that cannot work, accepted in silence, dies here."""
    with pytest.raises(RecipeError, match="threshold"):
        ThresholdSettings(**bad)  # type: ignore[arg-type]


def as_text(kept: object) -> str:
    """A snapshot with every bit of its floats."""
    return repr({k: v.tolist() if hasattr(v, "tolist") else v for k, v in vars_of(kept).items()})


def vars_of(kept: object) -> dict[str, object]:
    assert isinstance(kept, dict)
    return kept


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(2, 60),
    quantile=st.sampled_from([0.02, 0.15, 0.3, 0.49]),
    mode=st.sampled_from(["adaptive", "adaptive", "adaptive", "static"]),
    band=st.sampled_from([None, (1.0, 3.0), (0.0, 0.0)]),
    decimals=st.sampled_from([1, 12]),
    nan_share=st.sampled_from([0.0, 0.1, 0.9]),
)
def test_batch_has_the_bits_and_the_state_of_the_live_class(
    seed, window, quantile, mode, band, decimals, nan_share
) -> None:
    """A rank one off while the window fills, a tie evicted twice, a session counted wrongly."""
    rng = np.random.default_rng(seed)
    how = ThresholdSettings(
        window=window, quantile=quantile, mode=mode, band=band, lookback_sessions=2, step=1.5
    )
    live, batch = ScoreThreshold(how), ScoreThreshold(how)
    bar = 0
    for length in rng.integers(0, 150, size=int(rng.integers(1, 6))):
        if rng.random() < 0.5:
            scores = np.round(rng.normal(size=int(rng.integers(0, 90))), decimals)
            for state in (live, batch):
                state.seed(scores)
        values = np.round(rng.normal(size=length), decimals)
        values[rng.random(length) < nan_share] = math.nan
        # Days of 24 candles, some missing, some days missing altogether.
        bars = bar + np.cumsum(rng.choice([1, 1, 1, 2, 40], size=length))
        stamps = bars.astype(np.int64) * (DAY_MS // 24)
        bar = int(bars[-1]) if length else bar
        pairs = [live.update(float(v), int(ms)) for v, ms in zip(values, stamps, strict=True)]
        expected = np.array(pairs, dtype=np.float64).reshape(length, 2)
        upper, lower = batch.update_all(values, stamps)
        assert upper.tobytes() == expected[:, 0].tobytes()
        assert lower.tobytes() == expected[:, 1].tobytes()
        assert as_text(batch.snapshot()) == as_text(live.snapshot())
