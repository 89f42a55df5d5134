"""A session's networks: each is active from when it was ready."""

from __future__ import annotations

from typing import Any

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.paper.networks import SessionTimeline


def test_session_timeline_counts_from_when_a_bundle_was_ready(papers: Any, toy: Any) -> None:
    """A bundle trained until Monday and ready on Tuesday has no say on Monday."""
    timeline = toy.timeline(toy.grid(toy.candles(days=papers.days)), toy.settings, sessions=(3, 5))
    first, second = (bundle.info.trained_until_ms for bundle in timeline.bundles)
    mine = SessionTimeline(timeline.bundles, False, (first, second + DAY_MS))
    days = [first - DAY_MS, first, second, second + DAY_MS]
    assert mine.active_in(days).tolist() == [-1, 0, 0, 1]
    assert timeline.active_in(days).tolist() == [-1, 0, 1, 1]
    assert [start for start, _ in mine.seeds()] == [first, second + DAY_MS]
