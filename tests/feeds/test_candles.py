"""Candles: choosing among them."""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.feeds.candles import Candles, inside
from cppncripto_strategy.feeds.clock import HOUR_MS, Span, utc_to_ms


def test_inside_keeps_only_what_was_asked_for():
    """Candles of a month's file overwriting neighbours that were not asked for."""
    first = utc_to_ms("2025-01-02")
    price = np.full(24, 100.0)
    candles = Candles.from_columns(
        open_time=first + np.arange(24) * HOUR_MS,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), price),
    )
    spans = [Span(first, first + 2 * HOUR_MS), Span(first + 5 * HOUR_MS, first + 6 * HOUR_MS)]
    assert ((inside(candles, spans).open_time - first) // HOUR_MS).tolist() == [0, 1, 5]
