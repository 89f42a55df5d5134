"""Log loss and Brier score: by hand, and lowest for the probabilities that are true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cppncripto_strategy.evaluation.proper_scores import brier_score, log_loss


def test_scores_are_worked_out_by_hand() -> None:
    """Kills buy and sell exchanged, and a third class that is forgotten."""
    p_buy, p_sell, label = [0.2, 0.2, 0.2], [0.3, 0.3, 0.3], [1, 0, -1]
    np.testing.assert_allclose(log_loss(p_buy, p_sell, label), -np.log([0.2, 0.5, 0.3]))
    expected = [0.8**2 + 0.5**2 + 0.3**2, 0.2**2 + 0.5**2 + 0.3**2, 0.2**2 + 0.5**2 + 0.7**2]
    np.testing.assert_allclose(brier_score(p_buy, p_sell, label), expected)


@pytest.mark.parametrize("score", [log_loss, brier_score])
def test_the_true_probabilities_have_the_lowest_mean(score) -> None:
    """Kills a score that rewards being sure of oneself."""
    rng = np.random.default_rng(0)
    true = np.array([0.25, 0.6, 0.15])  # buy, neither, sell
    label = rng.choice([1, 0, -1], size=40_000, p=true)

    def mean(buy: float, sell: float) -> float:
        return score(np.full(len(label), buy), np.full(len(label), sell), label).mean()

    best = mean(true[0], true[2])
    for buy, sell in ((0.35, 0.1), (0.15, 0.2), (0.3, 0.3), (1 / 3, 1 / 3)):
        assert mean(buy, sell) > best


def test_a_certainty_that_failed_costs_much_but_not_everything() -> None:
    """Kills an infinite mean, and a probability of 0 that goes unpunished."""
    [loss] = log_loss([1.0], [0.0], [-1])
    assert 10 < loss < math.inf
    assert brier_score([1.0], [0.0], [-1]) == pytest.approx([2.0])
