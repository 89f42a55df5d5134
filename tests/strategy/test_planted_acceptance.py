"""What macro is worth where the answer is known: a small market, one seed.

`benchmarks/planted.py` measures the same at full size over three seeds.
"""

import dataclasses

import numpy as np
import pytest
import torch

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.feeds.planted_hits import (
    ceiling_hit,
    hit_at_setups,
    micro_only_hit,
    oracle_hit,
)
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.labels import BPS, LabelSettings
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

pytestmark = pytest.mark.slow

MARKET = PlantedSettings(days=500, seed=1, mu=0.8)
TEST_DAYS, VALIDATE_DAYS, SHIFT_DAYS = 150, 40, 60
LEARN = LearnSettings(
    pretrain=PretrainSettings(epochs=12),
    train=TrainSettings(initialisations=2, epochs=12),
    micro_options={"clock": False},
    train_days=MARKET.days - TEST_DAYS - VALIDATE_DAYS - 14,
    validate_days=VALIDATE_DAYS,
    label=LabelSettings(horizon=6),
)
# Setups often and strongly answered: a window of 5 hours holds three answers, one of 2 hours one.
DENSE = dataclasses.replace(MARKET, mu=1.2, setup_rate=1 / 12)


class Arm:
    """A network trained on the first part of a market, and its scores on the rest."""

    def __init__(self, settings: PlantedSettings, use_macro: bool, **changes: int) -> None:
        self.market = generate(settings)
        grid = CandleGrid.from_candles(self.market.candles, settings.interval_ms)
        self.table = build_sessions("PLANTED", grid, LEARN.session)
        self.until_ms = calendar(grid.end_ms - TEST_DAYS * DAY_MS, grid.end_ms, 7)[0]
        learn = dataclasses.replace(LEARN, use_macro=use_macro, **changes)
        self.timeline = BundleTimeline((learn_bundle([self.table], self.until_ms, learn, seed=0),))
        self.states = embed_sessions(self.table, self.timeline)

    def score(self, shift_days: int = 0) -> np.ndarray:
        states = self.states
        if shift_days:
            peeking = BundleTimeline(self.timeline.bundles, in_sample=True)
            every = embed_sessions(self.table, peeking).embedding
            states = dataclasses.replace(states, embedding=np.roll(every, shift_days, axis=0))
        return score_sessions(self.table, self.timeline, states).score

    def hit(self, shift_days: int = 0):
        return hit_at_setups(self.market, self.score(shift_days), self.until_ms)


@pytest.fixture(scope="module")
def with_macro():
    torch.set_num_threads(1)
    return Arm(MARKET, use_macro=True)


def test_macro_is_worth_four_points_at_setups_and_nothing_once_shifted(with_macro):
    """An embedding that does not reach the decision, or a gain that is not the embedding's."""
    without = Arm(MARKET, use_macro=False).hit()
    reached, shifted = with_macro.hit(), with_macro.hit(SHIFT_DAYS)
    assert reached.count > 1000
    assert reached.hit - without.hit > 0.04
    assert shifted.hit - without.hit < (reached.hit - without.hit) / 3


def test_nothing_beats_the_ceiling(with_macro):
    """Beating what is possible means having seen the answer."""
    assert with_macro.hit().low < oracle_hit(MARKET)
    close, score = with_macro.market.candles.close, with_macro.score()
    ahead = np.full(len(close), np.nan)
    ahead[: -MARKET.horizon] = close[MARKET.horizon :] / close[: -MARKET.horizon] - 1
    known = np.isfinite(score) & np.isfinite(ahead)
    known[: with_macro.table.grid.row_of(with_macro.until_ms)] = False
    hits = (np.sign(score) == np.sign(ahead))[known]
    # Labels overlap over the horizon: as many independent ones as do not.
    error = 0.5 * np.sqrt(MARKET.horizon / known.sum())
    assert hits.mean() < ceiling_hit(MARKET) + 2 * error
    assert np.abs(ahead[known]).mean() > 10 * BPS


def test_null_market_gives_a_coin():
    """A pipeline that finds an edge where there is none."""
    null = Arm(dataclasses.replace(MARKET, mu=0.0), use_macro=True).hit()
    assert null.low <= 0.5 <= null.high
    assert null.count > 1000


def test_five_hours_alone_read_more_answers_than_two():
    """A MicroNet that does not let the earlier setups of its window vote on the present one."""
    five, two = (Arm(DENSE, use_macro=False, short_window=window).hit() for window in (60, 24))
    assert five.low - two.high > 0.03
    # Most of what a window of 60 candles allows (85.9 %), and never more.
    allowed = micro_only_hit(DENSE, 60)
    assert allowed - 0.05 < five.hit
    assert five.low < allowed
    assert two.low < micro_only_hit(DENSE, 24)
