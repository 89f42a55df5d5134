"""Numbers as people read them: signs where there is a direction, a dash where nothing is known."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("fastapi")

from cppncripto_strategy.desk.rendering import UNKNOWN, fall, percent, share


@pytest.mark.parametrize(
    ("value", "as_change", "as_fall", "as_share"),
    [
        (0.0123, "+1.23 %", "−1.23 %", "1.23 %"),
        (-0.0123, "−1.23 %", "+1.23 %", "−1.23 %"),
        (0.0, "+0.00 %", "0.00 %", "0.00 %"),
        (None, UNKNOWN, UNKNOWN, UNKNOWN),
        (math.nan, UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_percentages(value, as_change, as_fall, as_share):
    """A volatility that rises by three per cent, a drawdown that looks like a gain."""
    assert (percent(value), fall(value), share(value)) == (as_change, as_fall, as_share)
