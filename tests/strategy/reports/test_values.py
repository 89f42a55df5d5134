"""Numbers as text."""

from __future__ import annotations

from cppncripto_strategy.reports import values


def test_undefined_numbers_are_dashes():
    """Dies here: "nan %" or "None" shown to a person."""
    assert values.percent(None) == values.number(float("nan")) == values.whole(None) == "–"
    assert values.interval({"value": None, "low": None, "high": None}) == "–"
    assert values.interval({"value": 0.5, "low": None, "high": None}) == "50.0 %"
    assert values.interval({"value": 0.5, "low": 0.4, "high": 0.625}) == "50.0 % [40.0, 62.5]"
