"""Check 6, shuffled labels: a network that learned nonsense must not predict that nonsense."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.checks.hits import hit_verdict
from cppncripto_strategy.checks.plan import (
    CheckPlan,
    Report,
    affordable_training,
    part_of,
    silent,
    training_stamp,
)
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.judging.leaks import LeakVerdict
from cppncripto_strategy.models.labels import Labels, LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions

SHUFFLED = "shuffled labels"
# Days scored after the training.
SCORED_DAYS = 60


@dataclass(frozen=True, slots=True)
class ShuffledLabels(LabelSettings):
    """Labels laid on the wrong candles: blocks of four horizons in random order.

    Blocks keep labels that overlap together, so that a purge that is too short still shows; their
    order destroys everything that could be learned, the time of day included.
    """

    shuffle_seed: int = 0

    def compute(self, grid: CandleGrid) -> Labels:
        """Shuffled labels of every row of a grid."""
        labels = LabelSettings.compute(self, grid)
        order = _block_order(len(grid), 4 * self.horizon, self.shuffle_seed)
        return Labels(
            labels.target[order], labels.forward_return[order], labels.valid[order], labels.horizon
        )


def shuffled_copy(label: LabelSettings, seed: int) -> ShuffledLabels:
    """The same labels, laid on the wrong candles."""
    same = {f.name: getattr(label, f.name) for f in dataclasses.fields(label)}
    return ShuffledLabels(**same, shuffle_seed=seed)


def _block_order(size: int, block: int, seed: int) -> IntArray:
    """Row numbers (size,) with whole blocks in random order; an odd end stays in place."""
    blocks = size // block
    rows = np.arange(blocks * block).reshape(blocks, block)
    shuffled = rows[np.random.default_rng(seed).permutation(blocks)].ravel()
    return np.concatenate([shuffled, np.arange(blocks * block, size)])


def shuffled_labels(plan: CheckPlan, report: Report = silent) -> list[LeakVerdict]:
    """Train on shuffled labels, and ask the network for the shuffled labels of later candles."""
    label = shuffled_copy(plan.learn.label, plan.seed + 1)
    learn = dataclasses.replace(affordable_training(plan.learn), label=label)
    stamp = training_stamp(plan, learn, SCORED_DAYS)
    tables = [build_sessions(name, grid, learn.session) for name, grid in plan.grids.items()]
    bundle = learn_bundle(tables, stamp, learn, plan.seed, progress=part_of(report))
    timeline = BundleTimeline((bundle,))
    scores, ahead, close_ms = [], [], []
    for table in tables:
        scored = score_sessions(table, timeline, embed_sessions(table, timeline))
        scores.append(scored.score)
        ahead.append(label.compute(table.grid).forward_return)
        close_ms.append(table.grid.close_time)
    lines = np.concatenate(scores), np.concatenate(ahead), np.concatenate(close_ms)
    return [hit_verdict(SHUFFLED, "hit ratio on shuffled labels", *lines, 0.5, plan.seed)]
