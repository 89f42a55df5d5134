"""A recipe small enough to train in seconds, and its candles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import backtrader as bt
import numpy as np
import pytest
import torch

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.checks.plan import CheckPlan, brief_training, candles_of
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.indicators import MicroScore
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings
from cppncripto_strategy.strategy import MacroMicroStrategy

DAY = 288


def weigh(
    grids: Mapping[str, CandleGrid],
    timeline: BundleTimeline,
    span: Span,
    strategy: type[MacroMicroStrategy] = MacroMicroStrategy,
) -> MacroMicroStrategy:
    """Trade the candles of a span's sessions, both sides weighed, held for six candles."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=10_000)
    for name, grid in grids.items():
        candles = candles_of(grid).between(0, span.end_ms)
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=grid.interval_ms, name=name))
    cerebro.addstrategy(
        strategy,
        score_factory=lambda data: MicroScore(data, bundles=timeline),
        window=500,
        min_scores=50,
        hold_candles=6,
    )
    traded: MacroMicroStrategy = cerebro.run()[0]
    return traded


@pytest.fixture(scope="package", name="weigh")
def _weigh() -> Callable[..., MacroMicroStrategy]:
    return weigh


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
    start_ms = grid.start_ms + 25 * DAY_MS
    return CheckPlan("5m", {"PLANTED": grid}, learn, threshold, start_ms, seed=1, weigh=weigh)


@pytest.fixture(scope="package")
def timeline(plan: CheckPlan, grid: CandleGrid, one_thread: None) -> BundleTimeline:
    """Two bundles, the second four days after the first."""
    stamp = grid.start_ms + 25 * DAY_MS
    tables = [build_sessions("PLANTED", grid, plan.learn.session)]
    learn = brief_training(plan.learn)
    first = learn_bundle(tables, stamp, learn, plan.seed)
    return BundleTimeline((first, learn_bundle(tables, stamp + 4 * DAY_MS, learn, 1, first)))
