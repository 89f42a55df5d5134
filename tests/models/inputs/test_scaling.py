"""Session scalers: right by numpy's own quantiles, blind to everything outside their window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, scaled_columns
from cppncripto_strategy.models.inputs.scaling import (
    CLIP,
    MIN_SCALE,
    ScalerKind,
    SessionScaler,
    apply_scaling,
    fit_scaler,
    fit_sessions,
)

NAMES = (*DEFAULT_COLUMNS, "taker_imbalance")
PASSTHROUGH = ("sin_day", "cos_day", "present")
SCALED = scaled_columns(NAMES)
KINDS: tuple[ScalerKind, ...] = ("robust", "minmax")
WINDOW = 200


def random_features(rows: int, seed: int, missing: float = 0.0) -> np.ndarray:
    """Features (rows, F) of unlike levels and sizes, with whole rows missing."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** np.linspace(-4, 2, len(NAMES))
    features = size * (rng.standard_t(4, (rows, len(NAMES))) + rng.normal(0, 3, len(NAMES)))
    features[:, [NAMES.index(name) for name in PASSTHROUGH]] = rng.random((rows, 3))
    features[np.ix_(np.flatnonzero(rng.random(rows) < missing), SCALED)] = np.nan
    return features


def oracle_center_and_scale(window: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Center and scale of the scaled columns by numpy's NaN-aware functions."""
    columns = window[:, SCALED]
    if kind == "robust":
        low, middle, high = np.nanpercentile(columns, [25, 50, 75], axis=0)
        return middle, high - low
    low, high = np.nanmin(columns, axis=0), np.nanmax(columns, axis=0)
    return (low + high) / 2, (high - low) / 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(4, 400), seed=st.integers(0, 10_000), missing=st.sampled_from([0, 0.2, 0.4])
)
def test_a_scaler_is_the_quantiles_of_its_window(
    kind: ScalerKind, rows: int, seed: int, missing: float
) -> None:
    """Kills quantiles that count missing rows or interpolate wrongly."""
    window = random_features(rows, seed, missing)
    known = np.count_nonzero(~np.isnan(window[:, 0]))
    scaler = fit_scaler(window, NAMES, kind)
    assert (scaler is None) == (known * 2 < rows)
    if scaler is not None and known > 1:
        center, scale = oracle_center_and_scale(window, kind)
        np.testing.assert_allclose(scaler.center, center, rtol=1e-12)
        np.testing.assert_allclose(scaler.scale, np.maximum(scale, MIN_SCALE), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_many_sessions_equal_each_session_alone(kind: ScalerKind) -> None:
    """Kills a fast path that drifts from the definition, and off-by-one session windows."""
    features = random_features(3000, 1, missing=0.1)
    features[1000:1190, 0] = np.nan
    ends = np.array([0, 150, 199, 200, 201, 999, 1150, 1200, 1333, 2999, 3000, 3001])
    center, scale, ok = fit_sessions(features, ends, WINDOW, NAMES, kind)
    assert ok.tolist() == [200 <= end <= 3000 and end not in (1150, 1200) for end in ends]
    for d in range(len(ends)):
        alone = fit_scaler(features[max(0, ends[d] - WINDOW) : ends[d]], NAMES, kind)
        if ok[d]:
            assert alone is not None
            assert alone.center.tobytes() == center[d].tobytes()
            assert alone.scale.tobytes() == scale[d].tobytes()
        else:
            assert np.isnan(center[d]).all()
            assert np.isnan(scale[d]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [25, 50, WINDOW, 2 * WINDOW, 60])
def test_windows_that_share_their_parts_equal_each_session_alone(
    step: int, kind: ScalerKind
) -> None:
    """Kills parts that are merged in the wrong place, or with a missing value among them."""
    features = random_features(3000, 4, missing=0.2).round(3)  # with values that are equal
    features[700:1100, 1] = np.nan
    ends = np.arange(WINDOW + 7, 3000, step)
    center, scale, ok = fit_sessions(features, ends, WINDOW, NAMES, kind)
    assert 0 < ok.sum() < len(ends)
    for d in np.flatnonzero(ok):
        alone = fit_scaler(features[ends[d] - WINDOW : ends[d]], NAMES, kind)
        assert alone is not None
        np.testing.assert_array_equal(alone.center, center[d])
        np.testing.assert_array_equal(alone.scale, scale[d])


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_beyond_one_chunk_equal_each_session_alone(
    kind: ScalerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a seam between the chunks that bound memory."""
    features = random_features(1500, 2, missing=0.05)
    ends = np.arange(100, 1500, 37)
    whole = fit_sessions(features, ends, WINDOW, NAMES, kind)
    monkeypatch.setattr("cppncripto_strategy.models.inputs.scaling._SESSION_VALUES", 3 * WINDOW * 7)
    for once, chunked in zip(whole, fit_sessions(features, ends, WINDOW, NAMES, kind), strict=True):
        np.testing.assert_array_equal(once, chunked)


@pytest.mark.parametrize("column", range(len(SCALED)), ids=[NAMES[i] for i in SCALED])
@pytest.mark.parametrize("kind", KINDS)
def test_no_row_outside_the_window_touches_a_scaler(kind: ScalerKind, column: int) -> None:
    """Kills a scaler fitted on the whole span, or on the session's own day."""
    features, ends = random_features(1200, 3, missing=0.05), np.array([420, 708, 996])
    before = fit_sessions(features, ends, WINDOW, NAMES, kind)
    for d, end in enumerate(ends):
        outside = np.ones(len(features), np.bool_)
        outside[end - WINDOW : end] = False
        changed = features.copy()
        changed[outside] = random_features(1200, 4)[outside] * 50 + 3
        after = fit_sessions(changed, ends, WINDOW, NAMES, kind)
        assert before[0][d, column] == after[0][d, column]
        assert before[1][d, column] == after[1][d, column]
        cut = fit_sessions(features[:end], ends[d : d + 1], WINDOW, NAMES, kind)
        assert before[0][d, column] == cut[0][0, column]
        late = fit_sessions(features[end - WINDOW :], np.array([WINDOW]), WINDOW, NAMES, kind)
        assert before[1][d, column] == late[1][0, column]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", [0, WINDOW - 1])
def test_the_first_and_the_last_row_of_the_window_are_seen(kind: ScalerKind, row: int) -> None:
    """Kills a window that is a candle short or late, which blindness alone would not notice."""
    features = random_features(600, 3)
    before, _, _ = fit_sessions(features, np.array([500]), WINDOW, NAMES, kind)
    across = features[300 + row, SCALED] > before[0]
    features[300 + row, SCALED] = np.where(across, -1e6, 1e6)
    after, _, _ = fit_sessions(features, np.array([500]), WINDOW, NAMES, kind)
    assert (before != after).all()


def test_fewer_than_half_of_the_rows_means_no_scaler() -> None:
    """Kills a day scaled by the few candles that an outage left."""
    window = random_features(100, 5)
    window[:50, 2] = np.nan
    assert fit_scaler(window, NAMES) is not None
    window[50, 2] = np.nan
    assert fit_scaler(window, NAMES) is None


def test_taker_volumes_that_the_source_lacks_mean_no_scaler() -> None:
    """Kills a silent column of zeros where taker imbalance was asked for and is unknown."""
    window = random_features(100, 5)
    window[:, NAMES.index("taker_imbalance")] = np.nan
    assert fit_scaler(window, NAMES) is None


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_is_undone_by_its_own_center_and_scale(kind: ScalerKind) -> None:
    """Kills swapped columns and a scale applied twice."""
    features = random_features(300, 6)
    scaler = fit_scaler(features, NAMES, kind)
    assert scaler is not None
    scaled = scaler.apply(features)
    assert scaled.dtype == np.float32
    assert scaled.shape == features.shape
    inside = np.abs(scaled[:, SCALED]) < CLIP
    back = scaled[:, SCALED].astype(np.float64) * scaler.scale + scaler.center
    spread = np.broadcast_to(scaler.scale, back.shape)
    assert (np.abs(back - features[:, SCALED])[inside] < 1e-5 * spread[inside]).all()
    others = [i for i in range(len(NAMES)) if i not in SCALED]
    np.testing.assert_array_equal(scaled[:, others], features[:, others].astype(np.float32))


def test_a_robust_window_has_median_zero_and_iqr_one() -> None:
    """Kills a center that is not the median, a scale that is not the IQR."""
    features = random_features(401, 7)
    scaler = fit_scaler(features, NAMES, "robust")
    assert scaler is not None
    low, middle, high = np.percentile(scaler.apply(features)[:, SCALED], [25, 50, 75], axis=0)
    np.testing.assert_allclose(middle, 0, atol=1e-6)
    np.testing.assert_allclose(high - low, 1, rtol=1e-6)


def test_a_minmax_window_spans_minus_one_to_one() -> None:
    """Kills a min-max scaler that uses the range where it says half-range."""
    features = random_features(401, 7)
    scaler = fit_scaler(features, NAMES, "minmax")
    assert scaler is not None
    scaled = scaler.apply(features)[:, SCALED]
    np.testing.assert_allclose(scaled.min(axis=0), -1, rtol=1e-6)
    np.testing.assert_allclose(scaled.max(axis=0), 1, rtol=1e-6)


def test_missing_values_become_zero_and_outliers_are_clipped() -> None:
    """Kills NaN in a network's input, and a flash crash that rules a window."""
    scaler = fit_scaler(random_features(300, 8), NAMES)
    assert scaler is not None
    day = random_features(4, 9)
    day[1, SCALED] = np.nan
    day[2, SCALED], day[3, SCALED] = 1e9, -1e9
    scaled = scaler.apply(day)
    assert (scaled[1, SCALED] == 0).all()
    assert (scaled[2, SCALED] == CLIP).all()
    assert (scaled[3, SCALED] == -CLIP).all()
    assert np.isnan(day[1, SCALED]).all(), "the caller's array was changed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_is_zero_and_its_noise_stays_small(kind: ScalerKind) -> None:
    """Kills division by an IQR of zero, or by rounding noise."""
    window = random_features(300, 10)
    window[:, 0] = 0.1 + 1e-16 * np.arange(300)
    window[:, 4] = 0.0
    scaler = fit_scaler(window, NAMES, kind)
    assert scaler is not None
    assert np.abs(scaler.apply(window)[:, [0, 4]]).max() < 1e-3
    assert np.isfinite(scaler.statistics()).all()


def test_a_column_that_only_ticks_now_and_then_is_scaled_by_its_mean_deviation() -> None:
    """Kills an IQR of zero that turns every tick of a quiet pair into the clip value."""
    window = random_features(100, 10)
    window[:, 0] = 0.0
    window[::5, 0] = 1e-4
    scaler = fit_scaler(window, NAMES)
    assert scaler is not None
    assert scaler.scale[0] == pytest.approx(1e-4 / 5)
    assert scaler.apply(window)[0, 0] == pytest.approx(5)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_carry_the_level_that_scaling_deletes(kind: ScalerKind) -> None:
    """Kills an embedding that cannot tell a calm week from a wild one."""
    calm = random_features(300, 11)
    wild = calm.copy()
    wild[:, SCALED] *= 2.0
    first, second = fit_scaler(calm, NAMES, kind), fit_scaler(wild, NAMES, kind)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.apply(calm), second.apply(wild), atol=1e-6)
    count = len(SCALED)
    assert first.statistics().shape == (2 * count,)
    gained = second.statistics() - first.statistics()
    np.testing.assert_allclose(gained[:count], first.center, rtol=1e-9)
    np.testing.assert_allclose(gained[count:], np.log(2.0), rtol=1e-9)


def test_many_sessions_are_scaled_as_each_alone() -> None:
    """Kills a broadcast that gives one session's scale to another."""
    features = random_features(1200, 12, missing=0.1)
    ends = np.array([300, 600, 900])
    center, scale, ok = fit_sessions(features, ends, WINDOW, NAMES)
    assert ok.all()
    days = np.stack([features[end : end + 288] for end in ends])
    together = apply_scaling(days, NAMES, center[:, None], scale[:, None])
    for d in range(len(ends)):
        alone = SessionScaler("robust", NAMES, center[d], scale[d]).apply(days[d])
        assert together[d].tobytes() == alone.tobytes()


def test_scaling_one_row_equals_scaling_a_day() -> None:
    """Kills a live score that differs from the batch because of a scaled row."""
    features = random_features(500, 13, missing=0.1)
    scaler = fit_scaler(features[:WINDOW], NAMES)
    assert scaler is not None
    day = scaler.apply(features[WINDOW:])
    for row in range(0, 300, 7):
        assert day[row].tobytes() == scaler.apply(features[WINDOW + row]).tobytes()


def test_an_unknown_kind_and_wrong_names_are_refused() -> None:
    """Kills a typo in a recipe that silently scales by something else."""
    with pytest.raises(RecipeError, match="standard"):
        fit_scaler(random_features(10, 0), NAMES, "standard")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="names"):
        fit_scaler(random_features(10, 0), NAMES[:-1])
