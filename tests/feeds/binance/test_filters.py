"""exchangeInfo as filters: every rule read, none invented."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.filters import (
    exchange_info,
    filters_from_exchange_info,
    info_parameters,
    read_info,
    read_info_parameters,
    read_weight_limit,
    statuses,
    symbol_filters,
    symbol_info,
)
from cppncripto_strategy.feeds.filters import SymbolFilters

AMOUNT = st.integers(0, 10**13).map(lambda units: Decimal(units) / 10**8)
FILTERS = st.builds(
    SymbolFilters,
    *[AMOUNT] * 7,
    min_notional_on_market=st.booleans(),
    tick_size=AMOUNT,
    status=st.sampled_from(("TRADING", "HALT", "BREAK")),
)


def entry(*filters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    base = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
        {
            "filterType": "LOT_SIZE",
            "minQty": "0.00010000",
            "maxQty": "9000.00000000",
            "stepSize": "0.00010000",
        },
    ]
    return {"symbol": "XUSDT", "status": "TRADING", "filters": [*base, *filters], **fields}


@pytest.mark.parametrize(
    ("notional", "minimum", "on_market"),
    [
        ({"filterType": "NOTIONAL", "minNotional": "5.0", "applyMinToMarket": True}, 5, True),
        ({"filterType": "MIN_NOTIONAL", "minNotional": "10", "applyToMarket": False}, 10, False),
    ],
)
def test_both_notional_filters_are_read(
    notional: dict[str, Any], minimum: int, on_market: bool
) -> None:
    """An exchangeInfo of the newer or the older shape read as 'no minimum' dies here."""
    filters = symbol_filters(entry(notional))
    assert (Decimal(minimum), on_market) == (filters.min_notional, filters.min_notional_on_market)
    assert filters.notional_is_enough(0.01, 1.0) is not on_market


def test_the_market_lot_step_rules_market_orders() -> None:
    """A market order on the finer LOT_SIZE step, which the exchange rejects, dies here."""
    market = {
        "filterType": "MARKET_LOT_SIZE",
        "minQty": "0.5",
        "maxQty": "100",
        "stepSize": "0.01",
    }
    filters = symbol_filters(entry(market))
    assert filters.floor_quantity(0.6789) == 0.67
    assert filters.floor_quantity(0.6789, market=False) == 0.6789
    assert filters.floor_quantity(0.49) == 0.0
    assert filters.floor_quantity(5000.0) == 100.0
    assert filters.floor_quantity(5000.0, market=False) == 5000.0


def test_an_entry_without_lot_size_is_named() -> None:
    """A filter silently replaced by a default dies here."""
    with pytest.raises(SourceError, match=r"XUSDT.*LOT_SIZE"):
        symbol_filters({"symbol": "XUSDT", "filters": []})
    broken = entry()
    del broken["filters"][1]["stepSize"]
    with pytest.raises(SourceError, match="statement of its filters"):
        symbol_filters(broken)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(filters=FILTERS)
def test_rules_that_are_written_are_read_back(filters):
    """The step of market orders read as that of limit orders; a minimum written as a maximum."""
    assert filters == symbol_filters(json.loads(json.dumps(symbol_info("BTCUSDT", filters))))


def test_a_whole_answer_is_read_back():
    """A limit of another kind, or of another window, taken for the weight per minute."""
    entries = [
        symbol_info("BTCUSDT", SymbolFilters()),
        symbol_info("X", SymbolFilters(status="HALT")),
    ]
    answer = read_info(exchange_info(1, 1234, entries))
    assert read_weight_limit(answer) == 1234
    assert statuses(answer) == {"BTCUSDT": "TRADING", "X": "HALT"}


@pytest.mark.parametrize("symbols", [["BTCUSDT"], ["BTCUSDT", "ETHUSDT"]])
def test_what_is_asked_for_is_understood(symbols):
    """One symbol asked for and the whole exchange sent."""
    assert symbols == read_info_parameters(info_parameters(*symbols))


@pytest.mark.parametrize("lost", ["status", "filters"])
def test_an_entry_without_what_orders_need_is_refused(lost):
    """An order sent by rules that never arrived."""
    entry = symbol_info("BTCUSDT", SymbolFilters()) | {lost: ""}
    with pytest.raises(ValueError, match="BTCUSDT"):
        read_info(exchange_info(1, 6000, [entry]))


@pytest.mark.real
def test_real_exchange_info_is_read() -> None:
    """A filter of the real answer that the parser does not know how to read dies here."""
    root = os.environ.get("CPPN_BT_REAL_MARKET")
    if not root:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    (path,) = (Path(root) / "payloads/rest").glob("exchangeInfo*.json")
    info = json.loads(path.read_text())
    filters = filters_from_exchange_info(info)
    assert {row["symbol"] for row in info["symbols"]} == set(filters)
    btc = filters["BTCUSDT"]
    assert (Decimal("0.00001"), Decimal(10), Decimal("0.01")) == (
        btc.lot_step,
        btc.min_notional,
        btc.tick_size,
    )
    assert btc.floor_quantity(0.123456789) == 0.12345
    assert btc.floor_quantity(500.0) == 100.05381


@pytest.mark.parametrize("text", ["NaN", "-1", "Infinity", "much", None, [], "1e999999999999"])
@pytest.mark.parametrize(("rule", "field"), [(1, "stepSize"), (1, "maxQty"), (0, "tickSize")])
def test_a_filter_that_is_no_amount_is_refused(text, rule, field):
    """Quantities floored to NaN, or an exception that is none of ours."""
    broken = entry()
    broken["filters"][rule][field] = text
    with pytest.raises(SourceError, match="statement of its filters"):
        symbol_filters(broken)


@pytest.mark.parametrize("rules", [None, 7, ["LOT_SIZE"], [None], {"a": 1}])
def test_filters_of_another_form_are_refused(rules):
    """A list of anything that raises past the one door."""
    with pytest.raises(SourceError, match="XUSDT"):
        symbol_filters(entry() | {"filters": rules})


@pytest.mark.parametrize(("limit", "number"), [(0, 1), (-5, 1), (10**9, 1), (6000, 0)])
def test_an_absurd_weight_limit_is_refused(limit, number):
    """A division by zero, a gate that never opens, or one that lets everything through."""
    answer = exchange_info(1, limit, [])
    answer["rateLimits"][0]["intervalNum"] = number
    with pytest.raises((ValueError, ZeroDivisionError)):
        read_weight_limit(answer)
