"""Hit ratios: luck passes, knowledge of the future does not, and neither does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks.hits import hit_verdict, student_quantile
from cppncripto_strategy.feeds.clock import DAY_MS

DAY = 288


def scored_days(days: int = 60, seed: int = 0) -> tuple[FloatArray, FloatArray, Any]:
    """Random scores, independent returns that drift upwards, and close times."""
    rng = np.random.default_rng(seed)
    size = days * DAY
    close_ms = DAY_MS * 19_000 + 300_000 * np.arange(size)
    return rng.normal(0, 1, size), rng.normal(0.3, 1, size), close_ms


@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_scores_that_know_nothing_pass_even_when_both_lean_one_way(bias: float) -> None:
    """Kills a false alarm from a market that rises and a network that likes to buy."""
    score, ahead, close_ms = scored_days()
    assert np.mean(np.sign(score + 1.5) == np.sign(ahead)) > 0.55
    verdict = hit_verdict("null market", "hit", score + bias, ahead, close_ms, 0.5, seed=0)
    assert verdict.passed, verdict.detail


def test_scores_that_know_the_future_are_caught() -> None:
    """Kills a hit ratio above the ceiling that goes unnoticed."""
    score, ahead, close_ms = scored_days()
    leaky = score + 0.3 * ahead
    verdict = hit_verdict("ceiling", "hit", leaky, ahead, close_ms, 0.52, seed=0)
    assert not verdict.passed
    assert verdict.first_offending_value is not None
    assert verdict.first_offending_value > 0.55
    assert verdict.first_offending_time_ms == close_ms[0]
    assert hit_verdict("ceiling", "hit", leaky, ahead, close_ms, 0.65, seed=0).passed


def test_luck_inside_the_interval_passes() -> None:
    """Kills a verdict that fails every second honest pipeline by comparing the bare hit ratio."""
    score, ahead, close_ms = scored_days()
    hit = float(np.mean(np.sign(score - np.median(score)) == np.sign(ahead)))
    assert hit_verdict("ceiling", "hit", score, ahead, close_ms, hit - 2e-3, seed=0).passed
    assert not hit_verdict("ceiling", "hit", score, ahead, close_ms, hit - 2e-2, seed=0).passed


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [(0.99, 7, 3.499), (0.99, 30, 2.750), (0.999, 27, 3.690), (0.999, 1e9, 3.291)],
)
def test_intervals_of_few_blocks_are_students(
    confidence: float, degrees: float, expected: float
) -> None:
    """Kills an interval that is too narrow because a month of regime is one observation."""
    assert student_quantile(confidence, degrees) == pytest.approx(expected, rel=0.015)


def test_too_few_decisions_do_not_pass() -> None:
    """Kills the green tick of a market on which nothing was scored."""
    score, ahead, close_ms = scored_days()
    nothing = np.full_like(score, np.nan)
    for few in (nothing, np.where(np.arange(len(score)) < 200, score, np.nan), np.ones_like(score)):
        verdict = hit_verdict("null market", "hit", few, ahead, close_ms, 0.5, seed=0)
        assert not verdict.passed
        assert "too few" in verdict.detail
