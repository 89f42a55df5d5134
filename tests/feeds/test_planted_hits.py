"""The closed forms of the planted market against other arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from cppncripto_strategy.feeds import planted_hits
from cppncripto_strategy.feeds.planted import PlantedSettings

DEFAULT = PlantedSettings()
PHI = NormalDist().cdf


def test_closed_forms_are_the_published_ones() -> None:
    """A slip in any closed form would move the yardstick every experiment is judged by."""
    assert planted_hits.oracle_hit(DEFAULT) == pytest.approx(PHI(0.4), abs=1e-12)
    assert round(100 * planted_hits.oracle_hit(DEFAULT), 1) == 65.5
    micro = [
        round(100 * planted_hits.micro_only_hit(DEFAULT, window), 1) for window in (24, 60, 120)
    ]
    assert micro == [52.2, 55.1, 57.8]
    macro = 100 * planted_hits.macro_hit(DEFAULT, planted_hits.marker_filter_accuracy(DEFAULT, 5))
    assert 62.9 <= macro <= 63.5


def test_a_filter_of_one_day_has_the_accuracy_worked_out_by_hand() -> None:
    """Kills a filter that names yesterday's regime instead of predicting today's."""
    fidelity, stay = DEFAULT.marker_fidelity, 1 - 1 / DEFAULT.tau_days
    expected = fidelity * stay + (1 - fidelity) * (1 - stay)
    assert planted_hits.marker_filter_accuracy(DEFAULT, 1) == pytest.approx(expected, abs=1e-12)
    # One more day can only outvote the last when they differ, and then the last still wins.
    assert planted_hits.marker_filter_accuracy(DEFAULT, 2) == pytest.approx(expected, abs=1e-12)
    assert planted_hits.marker_filter_accuracy(DEFAULT, 0) == 0.5


def test_enumerated_and_sampled_filters_meet() -> None:
    """Kills a seam between the exact filter (14 days) and the sampled one (15)."""
    exact, sampled = (planted_hits.marker_filter_accuracy(DEFAULT, days) for days in (14, 15))
    assert sampled == pytest.approx(exact, abs=0.003)
    sure = replace(DEFAULT, marker_fidelity=1.0)
    assert planted_hits.marker_filter_accuracy(sure, 5) == pytest.approx(1 - 1 / 30, abs=1e-12)


def test_completed_setups_follow_the_renewal_law() -> None:
    """Kills an off-by-one in the window: the law of N must match a plain simulation of waits."""
    rng, h, q, window = np.random.default_rng(7), DEFAULT.horizon, DEFAULT.setup_rate, 60
    periods = rng.geometric(q, (40_000, 12)) + h
    counted = np.bincount((np.cumsum(periods, axis=1) <= window - 1).sum(axis=1), minlength=12)
    law = planted_hits.completed_setups(DEFAULT, window)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    simulated = counted[: len(law)] / 40_000
    np.testing.assert_allclose(simulated, law, atol=4 * 0.5 / math.sqrt(40_000))
