"""The quality card: day statistics, walk-forward probes, retrieval, and the geometry of vectors."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.terms import har_x_terms
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import (
    SessionSet,
    SessionSettings,
    SessionTable,
    build_sessions,
)
from cppncripto_strategy.models.judging import days as day_statistics
from cppncripto_strategy.models.judging import quality
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

HOUR_MS = 3_600_000
# Volatility that stays high or low for days: HAR has something to find, and halves differ.
PLANTED = PlantedSettings(
    days=140, interval="1h", garch_alpha=0.12, garch_beta=0.87, sigma=0.004, setup_rate=0.01, seed=2
)
SESSION = SessionSettings(interval_ms=HOUR_MS, long_window=120)


@pytest.fixture(scope="module")
def candles() -> Candles:
    return generate(PLANTED).candles


@pytest.fixture(scope="module")
def table(candles: Candles) -> SessionTable:
    return build_sessions("AUSDT", CandleGrid.from_candles(candles, HOUR_MS), SESSION)


@pytest.fixture(scope="module")
def bundle(table: SessionTable) -> Bundle:
    learn = LearnSettings(
        session=SESSION,
        encoder_options={"stride": 4, "channels": 8, "dilations": [1]},
        pretrain=PretrainSettings(epochs=1),
        train=TrainSettings(epochs=1, initialisations=1),
        short_window=12,
        label=LabelSettings(horizon=6),
        train_days=60,
        validate_days=20,
    )
    torch.set_num_threads(1)
    return learn_bundle([table], int(table.start_ms[85]), learn, seed=0)


def _grid(candles: Candles) -> CandleGrid:
    return CandleGrid.from_candles(candles, HOUR_MS)


def test_inputs_see_only_the_past_and_targets_only_the_day(candles: Candles) -> None:
    """Kills a baseline that knows its own day, and a target that reaches back into the window."""
    middle = PLANTED.start_ms + 70 * DAY_MS
    row = int(np.searchsorted(candles.open_time, middle))
    sessions = np.array([middle])

    def with_factor(rows: slice) -> Candles:
        volume, high = candles.volume.copy(), candles.high.copy()
        close = candles.close.copy()
        volume[rows] *= 3.0
        close[rows] *= 1 + 0.05 * np.sin(np.arange(len(close[rows])))
        high[rows] *= 1.2
        return candles.replace(volume=volume, close=close, high=high)

    base = day_table(_grid(candles))
    later = day_table(_grid(with_factor(slice(row, None))))
    for features in (
        har_x_terms,
        lambda days, at: day_statistics.hand_made_features(days, at, 5),
    ):
        assert np.array_equal(features(base, sessions), features(later, sessions))
        assert not np.array_equal(
            features(base, sessions + DAY_MS), features(later, sessions + DAY_MS)
        )
    # The close just before midnight belongs to the first return of the day: leave that one alone.
    earlier = day_table(_grid(with_factor(slice(row - 48, row - 1))))
    told, same = (day_statistics.day_targets(days, sessions) for days in (base, earlier))
    assert told["realised_volatility"] == same["realised_volatility"]
    assert told["trend"] == same["trend"]
    trends = day_statistics.day_targets(base, base.day_ms)["trend"][1:]
    np.testing.assert_array_equal(trends, np.abs(base.log_return[1:]))
    changed = day_statistics.day_targets(later, sessions)
    assert changed["realised_volatility"] != told["realised_volatility"]
    over = day_statistics.day_targets(base, np.array([PLANTED.start_ms + PLANTED.days * DAY_MS]))
    assert all(np.isnan(values).all() for values in over.values())


def test_the_volume_regime_compares_a_day_with_the_month_before(candles: Candles) -> None:
    """Kills a median that includes the day itself or days after it."""
    days = day_table(_grid(candles))
    regime = day_statistics.day_targets(days, days.day_ms)["volume_regime"]
    assert np.isnan(regime[: day_statistics.MIN_REGIME_DAYS]).all()
    for day in range(day_statistics.MIN_REGIME_DAYS, len(regime)):
        usual = np.median(days.log_volume[max(0, day - 30) : day])
        assert regime[day] == (1.0 if days.log_volume[day] > usual else -1.0)


def test_predictions_do_not_move_when_later_days_do() -> None:
    """Kills a probe fitted on the days it foretells."""
    rng = np.random.default_rng(0)
    inputs, target = rng.normal(size=(150, 6)), rng.normal(size=150)
    counted = np.arange(150) >= 70
    told = quality.predict([inputs], target, counted)
    assert np.isnan(told[:70]).all()
    assert np.isfinite(told[70:]).all()
    changed = target.copy()
    changed[98:] += 100.0
    again = quality.predict([inputs], changed, counted)
    assert np.array_equal(told[:126], again[:126], equal_nan=True)  # refitted at 70, 98, 126
    assert not np.allclose(told[126:], again[126:])


def test_a_probe_finds_a_linear_truth_and_nothing_in_noise() -> None:
    """Kills an R2 whose benchmark or sign is off."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(300, 5))
    counted = np.arange(300) >= 60
    truth = inputs @ [1.0, -2.0, 0.0, 0.5, 0.0] + 3.0 + rng.normal(0, 0.5, 300)
    told, usual = quality.predict([inputs], truth, counted)[counted].T
    share = 0.5**2 / (1 + 4 + 0.25 + 0.5**2)  # of the variance no input explains
    assert quality._r2(told, truth[counted], usual) == pytest.approx(1 - share, abs=0.03)
    by_hand = quality._r2(np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.zeros(2))
    assert by_hand == pytest.approx(1 - 1 / 10)
    noise = rng.normal(size=300)
    told, usual = quality.predict([inputs], noise, counted)[counted].T
    assert abs(quality._r2(told, noise[counted], usual)) < 0.05


@settings(max_examples=60, deadline=None)
@given(
    vectors=hnp.arrays(np.float64, (12, 3), elements=st.integers(-3, 3).map(float)),
    query=st.integers(0, 11),
    lag=st.integers(1, 6),
    count=st.integers(1, 12),
)
def test_nearest_past_is_a_sorted_search_over_days_that_share_nothing(
    vectors: np.ndarray, query: int, lag: int, count: int
) -> None:
    """Kills a neighbour whose window overlaps the day's own, which is near by construction."""
    day_ms = np.arange(12, dtype=np.int64) * DAY_MS
    rows, distance = quality.nearest_past(
        vectors, day_ms, vectors[query], int(day_ms[query]), lag * DAY_MS, count
    )
    allowed = [day for day in range(12) if day <= query - lag]
    far = [math.dist(vectors[day], vectors[query]) for day in allowed]
    expected = sorted(zip(far, allowed, strict=True))[:count]
    assert rows.tolist() == [day for _, day in expected]
    np.testing.assert_allclose(distance, [length for length, _ in expected], atol=1e-12)


def test_geometry_has_its_known_values() -> None:
    """Kills a slip in alignment, uniformity or effective rank."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2_000, 64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert quality.alignment(points, points) == 0.0
    assert quality.alignment(points, -points) == pytest.approx(4.0)
    assert quality.uniformity(np.tile(points[:1], (5, 1))) == pytest.approx(0.0, abs=1e-9)
    assert quality.uniformity(np.stack([points[0], -points[0]])) == pytest.approx(-8.0)
    # Independent directions in many dimensions lie at squared distance 2: -4, a little above.
    assert -4.0 < quality.uniformity(points) < -3.8
    assert quality.effective_rank(np.outer(np.arange(9.0), points[0])) == pytest.approx(1.0)
    square = np.concatenate([np.eye(7), -np.eye(7)])
    assert quality.effective_rank(square) == pytest.approx(7.0)


def test_halves_of_a_day_of_long_candles_are_whole_patches() -> None:
    """Kills an empty half where a day has fewer candles than two patches."""
    market = generate(PlantedSettings(days=100, interval="4h"))
    grid = CandleGrid.from_candles(market.candles, 4 * HOUR_MS)
    coarse = SessionSettings(interval_ms=4 * HOUR_MS, long_window=60)
    sessions = SessionSet.between([build_sessions("AUSDT", grid, coarse)], 0, 2**62)
    torch.manual_seed(0)
    first, second = quality._halves(build_encoder("tcn", 9, {"stride": 12}).eval(), sessions)
    assert len(sessions) > 10
    assert first.shape == second.shape == (len(sessions), 116)
    assert not np.allclose(first, second)


def test_a_card_judges_days_after_training_alone(bundle: Bundle, table: SessionTable) -> None:
    """Kills a card that flatters the embedding with the days it was trained on."""
    card = quality.quality_card(bundle, [table])
    assert not card.in_sample
    assert card.judged_from_ms >= bundle.info.trained_until_ms
    assert card.judged_until_ms <= PLANTED.start_ms + PLANTED.days * DAY_MS
    days = (card.judged_until_ms - card.judged_from_ms) // DAY_MS
    assert {probe.days for probe in (*card.probes, *card.retrieval)} == {days}
    pairs = {(probe.target, probe.inputs) for probe in card.probes}
    assert pairs == {(t, i) for t in quality.TARGETS for i in quality.INPUTS}
    assert 0 <= card.alignment <= 4
    assert -8 <= card.uniformity <= 0
    assert 1 <= card.effective_rank <= 128
    assert card.model_hash == bundle.model_hash
    values = {p.inputs: p.value for p in card.probes if p.target == "realised_volatility"}
    assert values["har_rv"] > 0.1  # the planted volatility persists for days
    assert json.loads(json.dumps(card.to_json()))["probes"][0]["symbol"] == "AUSDT"
    assert quality.quality_card(bundle, [table]) == card


def test_in_sample_has_to_be_asked_for(bundle: Bundle, table: SessionTable) -> None:
    """Kills a card on too few days, and a silent fall back on training days."""
    late = replace(bundle, info=replace(bundle.info, trained_until_ms=int(table.start_ms[-10])))
    with pytest.raises(BundleError, match="needs 20"):
        quality.quality_card(late, [table])
    card = quality.quality_card(late, [table], in_sample=True)
    assert card.in_sample
    assert card.judged_from_ms < late.info.trained_until_ms


def test_a_card_leaves_the_global_random_state_alone(bundle: Bundle, table: SessionTable) -> None:
    """Kills a random twin that moves the seed of whatever trains next."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = quality.quality_card(bundle, [table], seed=1)
    assert torch.equal(torch.rand(1), expected)
    second = quality.quality_card(bundle, [table], seed=2)
    twins = [
        [p.value for p in card.probes if p.inputs == "random_encoder"] for card in (first, second)
    ]
    assert twins[0] != twins[1]


def test_a_bundle_without_macro_has_no_card(bundle: Bundle, table: SessionTable) -> None:
    """Kills a card over zeros."""
    with pytest.raises(BundleError, match="without macro"):
        quality.quality_card(replace(bundle, macro=None), [table])
