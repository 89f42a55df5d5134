"""Times: months and days of a span."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import (
    Span,
    day_names,
    month_names,
    month_span,
    ms_to_utc,
    utc_to_ms,
)


@pytest.mark.parametrize("text", ["2023-12", "2024-02", "2025-12"])
def test_month_span_agrees_with_the_calendar(text):
    """A leap February or a December that ends in the wrong year."""
    year, month = map(int, text.split("-"))
    following = f"{year + month // 12}-{month % 12 + 1:02d}-01"
    span = Span(utc_to_ms(f"{text}-01"), utc_to_ms(following))
    assert span == month_span(text)
    assert [text] == month_names(np.array([span.start_ms, span.end_ms - 1]))


def test_day_names_are_the_days_wholly_inside():
    """A day's archive asked for although only its last hours are wanted."""
    span = Span(utc_to_ms("2025-01-01 13:00"), utc_to_ms("2025-01-04 01:00"))
    assert day_names(span) == ["2025-01-02", "2025-01-03"]


@pytest.mark.parametrize("ms", [10**18, -(10**18), 10**400, 253_402_300_800_000])
def test_a_time_beyond_every_calendar_still_has_a_text(ms):
    """An error about an absurd time that fails while it is written."""
    assert ms_to_utc(ms) == f"{ms} ms since 1970"
