"""A recipe small enough to train in seconds, and its candles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cppncripto_strategy.checks.plan import CheckPlan, brief_training
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

DAY = 288


@pytest.fixture(scope="package")
def learn() -> LearnSettings:
    return LearnSettings(
        session=SessionSettings(long_window=2 * DAY),
        pretrain=PretrainSettings(epochs=1),
        train=TrainSettings(epochs=2, initialisations=1),
        label=LabelSettings(horizon=6),
        retrain_days=7,
        macro_retrain_days=28,
        short_window=24,
        train_days=14,
        validate_days=4,
    )


@pytest.fixture(scope="package")
def threshold() -> ThresholdSettings:
    return ThresholdSettings(window=500, min_scores=50)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The same bits, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def grid() -> CandleGrid:
    """34 days of a planted market with an outage of 90 minutes among the scored ones."""
    market = generate(PlantedSettings(days=34, seed=3))
    candles = market.candles
    kept = np.ones(len(candles), np.bool_)
    kept[27 * DAY + 100 : 27 * DAY + 118] = False
    return CandleGrid.from_candles(candles[kept], market.settings.interval_ms)


@pytest.fixture(scope="package")
def plan(grid: CandleGrid, learn: LearnSettings, threshold: ThresholdSettings) -> CheckPlan:
    return CheckPlan("5m", {"PLANTED": grid}, learn, threshold, grid.start_ms + 25 * DAY_MS, seed=1)


@pytest.fixture(scope="package")
def timeline(plan: CheckPlan, grid: CandleGrid, one_thread: None) -> BundleTimeline:
    """Two bundles, the second four days after the first."""
    stamp = grid.start_ms + 25 * DAY_MS
    tables = [build_sessions("PLANTED", grid, plan.learn.session)]
    learn = brief_training(plan.learn)
    first = learn_bundle(tables, stamp, learn, plan.seed)
    return BundleTimeline((first, learn_bundle(tables, stamp + 4 * DAY_MS, learn, 1, first)))
