"""A symbol's filters: quantities on the step, never above the wish, exact to the last digit."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.filters import SymbolFilters


@given(st.integers(0, 10**9), st.sampled_from(["0.001", "0.00001", "0.1", "1", "0.25"]))
@settings(deadline=None)
def test_a_whole_number_of_steps_is_not_floored_away(count: int, step: str) -> None:
    """Float arithmetic that loses the last step of an exact multiple dies here."""
    exact = Decimal(step) * count
    filters = SymbolFilters(lot_step=Decimal(step), min_qty=Decimal(0), max_qty=Decimal(10) ** 12)
    assert float(exact) == filters.floor_quantity(float(exact))
    assert float(exact) == filters.snap_position(float(exact) * (1 + 1e-16))


@given(st.floats(1e-6, 1e6), st.sampled_from(["0.001", "0.00001", "0.1"]))
@settings(deadline=None)
def test_a_floored_quantity_never_exceeds_the_wish(wish: float, step: str) -> None:
    """Rounding up, which buys more than there is cash for, dies here."""
    quantity = SymbolFilters(lot_step=Decimal(step), min_qty=Decimal(0)).floor_quantity(wish)
    assert 0 <= quantity <= wish
    assert Decimal(repr(wish)) - Decimal(repr(quantity)) < Decimal(step)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_no_quantity_comes_from_nonsense(bad: float) -> None:
    """A NaN size that turns into an order dies here."""
    assert SymbolFilters().floor_quantity(bad) == 0.0
