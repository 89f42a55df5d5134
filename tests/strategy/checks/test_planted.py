"""Studies on planted markets: honest embeddings lose their gain when shifted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks import planted as planted_checks
from cppncripto_strategy.checks.plan import CheckPlan
from cppncripto_strategy.checks.planted import Study, shift_verdict
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable
from cppncripto_strategy.models.judging.leaks import hold_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings

DAY = 288


@pytest.fixture(scope="module")
def planted() -> PlantedMarket:
    return generate(PlantedSettings(days=300, seed=8))


def study_of(planted: PlantedMarket, own: FloatArray, shifted: FloatArray) -> Study:
    """A study whose network sees the setups' direction, times a guess of the regime."""
    rng = np.random.default_rng(0)
    h, log_close = planted.settings.horizon, np.log(planted.candles.close)
    ahead = np.full(len(log_close), np.nan)
    ahead[:-h] = log_close[h:] - log_close[:-h]
    return Study(
        market=planted,
        score=planted.direction * own,
        score_zero=planted.direction * rng.choice([-1.0, 1.0], len(own)),
        shifted=planted.direction * shifted[None],
        ahead=ahead,
        close_ms=planted.candles.open_time + planted.settings.interval_ms,
    )


def test_an_embedding_that_loses_its_gain_when_shifted_passes(planted: PlantedMarket) -> None:
    """Kills a false alarm from what macro honestly knows about its own days."""
    regime = np.repeat(planted.regime, DAY).astype(float)
    study = study_of(planted, own=regime, shifted=np.roll(regime, 60 * DAY))
    verdict = shift_verdict(study, seed=0)
    assert verdict.passed, verdict.detail
    assert verdict.name == "embedding time-shift"
    gain = float(verdict.detail.rsplit("right days ", 1)[1])
    assert gain > 10


def test_an_embedding_that_helps_on_other_days_too_is_caught(planted: PlantedMarket) -> None:
    """Kills a gain that does not come from the embedding's own days."""
    regime = np.repeat(planted.regime, DAY).astype(float)
    verdict = shift_verdict(study_of(planted, own=regime, shifted=regime), seed=0)
    assert not verdict.passed
    assert verdict.first_offending_value is not None
    assert verdict.first_offending_value > 0.1


def test_a_shift_without_setups_does_not_pass(planted: PlantedMarket) -> None:
    """Kills the green tick of a study that scored nothing."""
    nothing = np.full(len(planted.candles), np.nan)
    verdict = shift_verdict(study_of(planted, own=nothing, shifted=nothing), seed=0)
    assert not verdict.passed
    assert "too few" in verdict.detail


def test_a_study_really_shifts_its_embeddings_by_sixty_days_or_more(
    plan: CheckPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a shift that moves nothing, after which every gain looks honest."""
    monkeypatch.setattr(planted_checks, "SCORED_DAYS", 130)
    honest = planted_checks.score_sessions

    def embedding_as_score(table: SessionTable, line: Any, states: Any) -> Any:
        score = hold_sessions(table.grid, table.start_ms, states.embedding[:, 0])
        return dataclasses.replace(honest(table, line, states), score=score)

    monkeypatch.setattr(planted_checks, "score_sessions", embedding_as_score)
    study = planted_checks.plant_and_learn(plan, mu=0.4)
    shifts = (60, 63, 67, 71)
    assert len(study.shifted) == len(shifts)
    scored = 130 * DAY  # the last candle closes at 00:00, so one session more is active
    for days, shifted in zip(shifts, study.shifted, strict=True):
        moved = shifted[len(shifted) - scored + days * DAY :]
        own = study.score[len(shifted) - scored : -days * DAY]
        np.testing.assert_array_equal(moved, own)
        assert len(np.unique(own)) > 20


@pytest.mark.parametrize(
    ("label", "interval_ms"),
    [
        (LabelSettings("fixed", 48, {"threshold_bps": 60.0}), 300_000),
        (LabelSettings("barrier", 24, {"barrier_bps": 150.0}), 300_000),
        (LabelSettings("trade", 12), 900_000),
    ],
)
def test_the_planted_market_fits_the_recipe(
    label: LabelSettings, interval_ms: int, learn: LearnSettings
) -> None:
    """Kills a planted market whose moves the recipe's labels would all call nothing."""
    session = SessionSettings(interval_ms=interval_ms, long_window=1440)
    learn = dataclasses.replace(learn, session=session, label=label)
    interval = f"{interval_ms // 60_000}m"
    plan = CheckPlan(interval, {}, learn, ThresholdSettings(), 0)
    settings = planted_checks.planted_settings(plan, learn, mu=0.4)
    assert (settings.interval, settings.horizon) == (interval, label.horizon)
    market = generate(settings)
    target = label.compute(CandleGrid.from_candles(market.candles, interval_ms)).target
    assert 0.15 < np.mean(target != 0) < 0.9
    warmup_ms = session.warmup * interval_ms
    needed = (learn.train_days + learn.validate_days + planted_checks.SCORED_DAYS) * DAY_MS
    assert settings.days * DAY_MS >= warmup_ms + needed
