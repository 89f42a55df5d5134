"""Binance's GET /api/v3/exchangeInfo, read as `SymbolFilters`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.filters import TRADING, SymbolFilters


def filters_from_exchange_info(info: Mapping[str, Any]) -> dict[str, SymbolFilters]:
    """Filters of every symbol in a whole exchangeInfo answer, by symbol name."""
    return {str(entry.get("symbol")): symbol_filters(entry) for entry in info.get("symbols", ())}


def symbol_filters(symbol: Mapping[str, Any]) -> SymbolFilters:
    """Filters from one entry of `symbols` in Binance's GET /api/v3/exchangeInfo.

    Reads LOT_SIZE, MARKET_LOT_SIZE, PRICE_FILTER and NOTIONAL or the older MIN_NOTIONAL.

    Raises
    ------
    SourceError
        When LOT_SIZE or PRICE_FILTER is absent, or a number is not one.
    """
    filters = {entry.get("filterType"): entry for entry in symbol.get("filters", ())}
    absent = [name for name in ("LOT_SIZE", "PRICE_FILTER") if name not in filters]
    if absent:
        raise SourceError(
            f"exchangeInfo of {symbol.get('symbol')!r} lacks {absent}: expected an entry of"
            " 'symbols' from GET /api/v3/exchangeInfo"
        )
    lot, market = filters["LOT_SIZE"], filters.get("MARKET_LOT_SIZE", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    on_market = notional.get("applyMinToMarket", notional.get("applyToMarket", True))
    try:
        return SymbolFilters(
            lot_step=Decimal(lot["stepSize"]),
            min_qty=Decimal(lot["minQty"]),
            max_qty=Decimal(lot["maxQty"]),
            market_lot_step=Decimal(market.get("stepSize", "0")),
            market_min_qty=Decimal(market.get("minQty", "0")),
            market_max_qty=Decimal(market.get("maxQty", "0")),
            min_notional=Decimal(notional.get("minNotional", "0")),
            min_notional_on_market=bool(on_market),
            tick_size=Decimal(filters["PRICE_FILTER"]["tickSize"]),
            status=str(symbol.get("status", TRADING)),
        )
    except (KeyError, ArithmeticError, TypeError) as cause:
        raise SourceError(
            f"exchangeInfo of {symbol.get('symbol')!r} has a filter without its number: {cause}"
        ) from cause
