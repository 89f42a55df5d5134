"""A symbol's filters: quantities on the step, never above the wish, exact to the last digit."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.filters import SymbolFilters, plain_decimal, quote_of


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


def test_filters_that_are_not_given_are_no_rules() -> None:
    """BTC's steps and 5 dollars for whoever leaves a rule out."""
    free = SymbolFilters()
    assert free.floor_quantity(1e-12) == 1e-12
    assert free.floor_quantity(1e15) == 1e15
    assert free.round_price(1.1e-5) == 1.1e-5
    assert free.snap_position(0.123456789) == 0.123456789
    assert free.notional_is_enough(1e-9, 1e-9)


@pytest.mark.parametrize("market", [True, False])
def test_the_lower_maximum_holds_for_market_orders(market: bool) -> None:
    """A market order as large as a limit order may be, or no order at all for a maximum of 0."""
    filters = SymbolFilters(lot_step=Decimal(1), max_qty=Decimal(9000), market_max_qty=Decimal(100))
    assert filters.floor_quantity(1e9, market) == (100 if market else 9000)
    assert replace(filters, market_max_qty=Decimal(0)).floor_quantity(1e9, market) == 9000


@given(st.integers(1, 10**9), st.integers(-40, 40), st.sampled_from(["0.00001", "0.01", "1"]))
@settings(deadline=None)
def test_a_multiple_that_floats_cannot_hold_is_no_excess(count: int, k: int, step: str) -> None:
    """A position of n steps sold as n - 1, because the float of n steps is a hair below."""
    exact = Decimal(step) * (Decimal(2) ** abs(k) if k > 0 else 1 / Decimal(2) ** abs(k))
    filters = SymbolFilters(lot_step=exact)
    quantity = float(count * exact)
    assert filters.floor_quantity(quantity) == quantity
    below = filters.next_below(quantity)
    assert below == filters.floor_quantity(below) < quantity


def test_the_quantity_below_exists_without_a_step() -> None:
    """An endless loop looking for a quantity that cash pays for."""
    assert SymbolFilters().next_below(1.0) == math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("symbol", "quote"),
    [
        ("BTCUSDT", "USDT"),
        ("ETHBTC", "BTC"),
        ("BTC-USD", "USD"),
        ("BTCFDUSD", "FDUSD"),
        ("SOLBUSD", "BUSD"),
        ("USDTTRY", "TRY"),
        ("BTC", None),
        ("AAPL", None),
    ],
)
def test_the_quote_currency_is_the_longest_known_ending(symbol: str, quote: str | None) -> None:
    """BTCFDUSD priced in USD, or a currency invented for a symbol that names none."""
    assert quote_of(symbol) == quote


def test_plain_decimals_have_no_exponent() -> None:
    """A tick of 1E-8 in a report."""
    assert plain_decimal(Decimal("0.00000001")) == "0.00000001"
    assert plain_decimal(Decimal("1E+2")) == "100"
    assert plain_decimal(Decimal("0.01000000")) == "0.01"
