"""A symbol's filters: quantities on the step, never above the wish, exact to the last digit."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.filters import SymbolFilters, _Lots, plain_decimal, quote_of


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


STEPS = st.sampled_from(["0", "0.00001", "0.001", "0.25", "1", "0.3", "10", "1e-18"])
FLOATS = st.one_of(
    st.floats(0, 1e3),
    st.floats(1e-9, 1e15),
    st.integers(0, 10**12).map(float),
    st.sampled_from([-1.0, 5e-324, math.inf, math.nan]),
)


@st.composite
def rules_and_quantity(draw: st.DrawFn) -> tuple[SymbolFilters, float]:
    """Filters, and a quantity that often lies on a step, between two, or a float beside either."""
    step = Decimal(draw(STEPS))
    minimum = Decimal(draw(st.sampled_from(["0", "0.00001", "0.0005", "7", "123.456"])))
    maximum = Decimal(draw(st.sampled_from(["0", "9000", "0.3", "1e12"])))
    filters = SymbolFilters(lot_step=step, min_qty=minimum, max_qty=maximum)
    if draw(st.booleans()) or not step:
        return filters, draw(st.one_of(FLOATS, st.sampled_from([float(minimum), float(maximum)])))
    halves = draw(st.one_of(st.integers(0, 10**4), st.integers(0, 10**14)))
    quantity = float(Decimal(halves) * step / 2)
    for _ in range(draw(st.integers(0, 3))):
        quantity = math.nextafter(quantity, draw(st.sampled_from([0.0, math.inf])))
    return filters, quantity


@given(rules_and_quantity(), st.booleans(), st.sampled_from([1, -1]))
@settings(max_examples=2_000)
def test_floats_round_as_decimals_do(
    drawn: tuple[SymbolFilters, float], market: bool, sign: int
) -> None:
    """A quantity that is a step off where floats were trusted, or a minimum that holds no more."""
    filters, quantity = drawn
    decimals = replace(filters)
    object.__setattr__(decimals, "_lots", (_Lots(0, 0, 0.0), _Lots(0, 0, 0.0)))  # sure of nothing
    floored = [repr(rules.floor_quantity(quantity, market)) for rules in (filters, decimals)]
    assert floored[0] == floored[1]
    if math.isfinite(quantity):
        snapped = [repr(rules.snap_position(sign * quantity)) for rules in (filters, decimals)]
        assert snapped[0] == snapped[1]


def test_floats_are_trusted_with_ordinary_quantities() -> None:
    """A shortcut that is never taken, and a backtest that pays for decimals unseen."""
    for step in ("0", "0.00001", "1"):
        lots = SymbolFilters(lot_step=Decimal(step), max_qty=Decimal(9000))._lots
        assert all(side.floor(123.456789) is not None for side in lots)
        assert all(side.nearest(123.256789) is not None for side in lots)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(-3, 3))
def test_a_notional_is_judged_in_decimals_where_it_is_close(
    quantity: float, price: float, ulps: int
) -> None:
    """An order refused, or sent, because a product of floats was rounded."""
    exact = Decimal(repr(quantity)) * Decimal(repr(price))
    minimum = exact + ulps * Decimal(repr(math.ulp(float(exact)))) / 7
    filters = SymbolFilters(min_notional=minimum)
    assert filters.notional_is_enough(quantity, price) == (exact >= minimum)
    assert SymbolFilters(min_notional=exact * 2).notional_is_enough(quantity, price) is False
    assert SymbolFilters(min_notional=exact / 2).notional_is_enough(quantity, price) is True
