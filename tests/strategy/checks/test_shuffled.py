"""Shuffled labels: the same labels, on other candles, in blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.checks import shuffled
from cppncripto_strategy.checks.plan import CheckPlan
from cppncripto_strategy.checks.shuffled import ShuffledLabels, shuffled_copy
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.labels import LabelSettings


def test_shuffled_labels_are_the_same_labels_on_other_candles(grid: CandleGrid) -> None:
    """Kills a shuffle that invents labels, or leaves most of them where they were."""
    label = LabelSettings(horizon=6, options={"threshold_bps": 10.0})
    honest = label.compute(grid)
    moved = ShuffledLabels(**dataclasses.asdict(label), shuffle_seed=5).compute(grid)
    for name in ("target", "forward_return", "valid"):
        mine, theirs = getattr(honest, name), getattr(moved, name)
        np.testing.assert_array_equal(np.sort(mine), np.sort(theirs))
    same = honest.forward_return == moved.forward_return
    assert same.mean() < 0.05
    both = honest.valid & moved.valid
    pair = np.corrcoef(honest.forward_return[both], moved.forward_return[both])
    assert abs(pair[0, 1]) < 0.1
    again = ShuffledLabels(**dataclasses.asdict(label), shuffle_seed=5).compute(grid)
    np.testing.assert_array_equal(again.target, moved.target)


def test_shuffled_labels_keep_overlapping_labels_together(grid: CandleGrid) -> None:
    """Kills a shuffle of single candles, under which a short purge could not show."""
    label = ShuffledLabels(horizon=6, shuffle_seed=1)
    values = label.compute(grid).forward_return
    known = np.isfinite(values[1:]) & np.isfinite(values[:-1])
    neighbours = np.corrcoef(values[1:][known], values[:-1][known])[0, 1]
    # Neighbours share 5 of 6 candles, except across the edges of blocks of 24.
    assert neighbours == pytest.approx(5 / 6 * 23 / 24, abs=0.05)


def test_a_score_that_knows_the_shuffled_label_is_caught(
    plan: CheckPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a shuffled-label check that reads the honest labels instead."""
    honest = shuffled.score_sessions

    def peeking(table: SessionTable, *rest: Any) -> Any:
        """LEAK: a little of the shuffled label is in the score."""
        scored = honest(table, *rest)
        label = shuffled_copy(plan.learn.label, plan.seed + 1)
        peek = np.nan_to_num(label.compute(table.grid).forward_return)
        return dataclasses.replace(scored, score=scored.score + 100 * peek)

    monkeypatch.setattr(shuffled, "SCORED_DAYS", 8)
    monkeypatch.setattr(shuffled, "score_sessions", peeking)
    (verdict,) = shuffled.shuffled_labels(plan)
    assert not verdict.passed
