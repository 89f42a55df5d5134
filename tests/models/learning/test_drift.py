"""Drift and the order of repairs."""

from __future__ import annotations

import math

import pytest

from cppncripto_strategy.models.learning.drift import Repair, RetrainDecision, decide_by_drift

LIMIT = 1.25


def decisions(drifts: list[list[float]]) -> list[RetrainDecision]:
    """The decisions of checks one after another."""
    made: list[RetrainDecision] = []
    for stamp, days in enumerate(drifts):
        made.append(decide_by_drift(stamp, days, LIMIT, made[-1] if made else None))
    return made


def test_persisting_drift_gets_dearer_repairs_one_at_a_time() -> None:
    """A drift that jumps straight to retraining everything wastes days of training."""
    found = [decision.repair for decision in decisions([[2.0, 2.1]] * 4)]
    expected = [
        Repair.RECALIBRATE,
        Repair.RETRAIN_MICRO,
        Repair.RETRAIN_MACRO,
        Repair.RECALIBRATE,
    ]
    assert expected == found


def test_drift_that_went_away_starts_again_at_the_cheapest() -> None:
    """A repair that worked must not make the next, unrelated drift dearer."""
    found = [decision.repair for decision in decisions([[2.0], [1.0], [2.0]])]
    assert found == [Repair.RECALIBRATE, Repair.KEEP, Repair.RECALIBRATE]


def test_median_at_the_limit_is_kept() -> None:
    """The limit itself is still as usual; one wild day does not decide."""
    assert Repair.KEEP is decisions([[1.0, LIMIT, 9.0]])[0].repair


def test_no_known_drift_keeps_and_says_so() -> None:
    """NaN compared with a limit would silently count as no drift."""
    decision = decisions([[math.nan]])[0]
    assert Repair.KEEP is decision.repair
    assert "no day's drift is known" in decision.reason


@pytest.mark.parametrize("drift", [1.3, 5.0])
def test_reason_names_drift_limit_and_what_was_tried(drift: float) -> None:
    """A decision in the log must be understandable on its own."""
    first, second = decisions([[drift], [drift]])
    assert f"{drift:.2f}" in first.reason
    assert "1.25" in first.reason
    assert "recalibrate" in second.reason
