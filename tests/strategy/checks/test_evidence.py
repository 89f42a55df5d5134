"""Evidence that counts what it cannot know yet is caught, however little it looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cppncripto_strategy.checks.evidence import PEEKING, evidence_verdicts
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.strategy import MacroMicroStrategy

Weigh = Callable[..., MacroMicroStrategy]


class OneHorizonEarly(MacroMicroStrategy):
    """LEAK: a signal's outcome counts when the signal comes, not when it is known."""

    def _build(self) -> None:
        super()._build()
        state = self.states[0]
        shadow: Any = state.shadow

        def see(bar: int, stamp_ms: int, close: float, side: int, session_ms: int) -> None:
            closes, ahead = state.data.close.array, bar + shadow.measure.horizon
            if side > 0:
                later = closes[ahead] if ahead < len(closes) else float("nan")
                shadow._day.judge(1e4 * (later / close - 1) - shadow.measure.cost_bps)

        shadow.see = see


class CountsMidnight(MacroMicroStrategy):
    """LEAK: an outcome that closes at the very midnight counts for the day before."""

    def _begin_session(self, stamp_ms: int) -> None:
        shadow: Any = self.states[0].shadow
        if shadow._day.crossed:
            shadow._day.crossed -= 1
            shadow._day.judge(0.0)
        super()._begin_session(stamp_ms)


def test_honest_evidence_passes(weigh: Weigh, grid: CandleGrid, timeline: BundleTimeline) -> None:
    """A check that fails on what it should pass, or compares nothing."""
    (verdict,) = evidence_verdicts(weigh, {"PLANTED": grid}, timeline)
    assert verdict.name == PEEKING
    assert verdict.passed, verdict.detail
    assert "days with signals follow from what had closed" in verdict.detail


@pytest.mark.parametrize("leak", [OneHorizonEarly, CountsMidnight])
def test_outcomes_that_count_too_early_are_caught(
    leak: Any, weigh: Weigh, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """An account that trades on evidence from tomorrow."""
    (verdict,) = evidence_verdicts(partial(weigh, strategy=leak), {"PLANTED": grid}, timeline)
    assert not verdict.passed
    assert verdict.first_offending_time_ms is not None
    assert verdict.first_offending_time_ms >= timeline.first_session_ms
    assert "what had closed by its end" in verdict.detail


class KnowsTheEnd(MacroMicroStrategy):
    """LEAK: the results are scaled by something that only the last candle says."""

    def refresh_tables(self) -> None:
        super().refresh_tables()
        self.evidence["mean_net_bps"] *= float(self.states[0].data.close.array[-1])


def test_evidence_that_changes_with_the_future_is_caught(
    weigh: Weigh, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """A leak that recounting the day's signals cannot see."""
    trade = partial(weigh, strategy=KnowsTheEnd)
    (verdict,) = evidence_verdicts(trade, {"PLANTED": grid}, timeline)
    assert not verdict.passed
    assert "with the future" in verdict.detail


def test_without_a_judged_signal_nothing_passes(
    weigh: Weigh, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """A check that looked at nothing and says that all is well."""
    last = grid.rows(0, grid.row_of(timeline.first_session_ms) + 3)
    (verdict,) = evidence_verdicts(weigh, {"PLANTED": last}, timeline)
    assert not verdict.passed
    assert "give more candles" in verdict.detail
