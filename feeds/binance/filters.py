"""Binance's exchangeInfo: trading rules, statuses and limits, read and written side by side.

Numbers are exact decimals. Filters that no market or limit order of ours meets are written, because
the exchange writes them, and not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.answers import Json, is_time
from cppncripto_strategy.feeds.candles import LARGEST
from cppncripto_strategy.feeds.filters import TRADING, KnownFilters, SymbolFilters, quote_of
from cppncripto_strategy.foreign import reading

_LOT, _MARKET_LOT, _PRICE = "LOT_SIZE", "MARKET_LOT_SIZE", "PRICE_FILTER"
# The minimum of an order's value stood in MIN_NOTIONAL until 2023.
_NOTIONAL, _NOTIONAL_OLD = "NOTIONAL", "MIN_NOTIONAL"
_WEIGHT_LIMIT = ("REQUEST_WEIGHT", "MINUTE")
_HIGHEST_WEIGHT_LIMIT = 1_000_000  # 6,000 in 2026
_LIMIT_FIELDS = ("rateLimitType", "interval", "intervalNum", "limit")
_ORDER_TYPES = (
    *("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"),
    *("TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
)


def filters_from_exchange_info(info: Mapping[str, Any]) -> dict[str, SymbolFilters]:
    """Filters of every symbol in a whole exchangeInfo answer, by symbol name."""
    return {str(entry.get("symbol")): symbol_filters(entry) for entry in symbol_entries(info)}


def symbol_filters(entry: Mapping[str, Any]) -> SymbolFilters:
    """Filters from one entry of `symbols` in Binance's GET /api/v3/exchangeInfo.

    Reads LOT_SIZE, MARKET_LOT_SIZE, PRICE_FILTER and NOTIONAL or the older MIN_NOTIONAL.

    Raises
    ------
    SourceError
        When LOT_SIZE or PRICE_FILTER is absent, or a number is not one.
    """
    name = entry.get("symbol")
    with reading(f"exchangeInfo of {name!r}", "statement of its filters", SourceError):
        stated = {rule.get("filterType"): rule for rule in entry.get("filters", ())}
        absent = [kind for kind in (_LOT, _PRICE) if kind not in stated]
        if absent:
            raise SourceError(
                f"exchangeInfo of {name!r} lacks {absent}: expected an entry of 'symbols' from"
                " GET /api/v3/exchangeInfo"
            )
        lot, market = stated[_LOT], stated.get(_MARKET_LOT, {})
        notional = stated.get(_NOTIONAL) or stated.get(_NOTIONAL_OLD) or {}
        on_market = notional.get("applyMinToMarket", notional.get("applyToMarket", True))
        return SymbolFilters(
            lot_step=_amount(lot["stepSize"]),
            min_qty=_amount(lot["minQty"]),
            max_qty=_amount(lot["maxQty"]),
            market_lot_step=_amount(market.get("stepSize", "0")),
            market_min_qty=_amount(market.get("minQty", "0")),
            market_max_qty=_amount(market.get("maxQty", "0")),
            min_notional=_amount(notional.get("minNotional", "0")),
            min_notional_on_market=bool(on_market),
            tick_size=_amount(stated[_PRICE]["tickSize"]),
            status=str(entry.get("status", TRADING)),
        )


def _amount(text: object) -> Decimal:
    """A number of a filter. Raises ValueError when it is none, or beyond any market."""
    try:
        amount = Decimal(str(text))
    except ArithmeticError:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= LARGEST:
        raise ValueError(f"a filter says {str(text)[:40]!r} where a number is expected")
    return amount


def known_filters(entry: Mapping[str, Any], stated_ms: int | None, origin: str) -> KnownFilters:
    """Filters of one entry with its quote currency, and where and when it was stated.

    Raises
    ------
    SourceError
        As `symbol_filters` does.
    """
    quote = entry.get("quoteAsset") or quote_of(str(entry.get("symbol")))
    return KnownFilters(symbol_filters(entry), origin, stated_ms, quote)


def stated_filters(info: Mapping[str, Any], origin: str) -> dict[str, KnownFilters]:
    """Filters of every symbol in an exchangeInfo answer, dated by the answer's own time.

    Raises
    ------
    SourceError
        As `symbol_filters` does.
    """
    stated_ms = read_stated_ms(info)
    return {
        str(entry["symbol"]): known_filters(entry, stated_ms, origin)
        for entry in symbol_entries(info)
    }


def symbol_info(symbol: str, filters: SymbolFilters) -> Json:
    """One entry of exchangeInfo's `symbols`."""
    base, quote = split_symbol(symbol)
    permissions = ("icebergAllowed", "ocoAllowed", "otoAllowed", "quoteOrderQtyMarketAllowed")
    return {
        "symbol": symbol,
        "status": filters.status,
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(_ORDER_TYPES),
        **dict.fromkeys((*permissions, "allowTrailingStop", "cancelReplaceAllowed"), True),
        "isSpotTradingAllowed": filters.status == TRADING,
        "isMarginTradingAllowed": False,
        "filters": _filters(filters),
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _filters(filters: SymbolFilters) -> list[Json]:
    tick = _text(filters.tick_size)
    sides = ("bidMultiplierUp", "bidMultiplierDown", "askMultiplierUp", "askMultiplierDown")
    return [
        {"filterType": _PRICE, "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
        _lot(_LOT, filters.min_qty, filters.max_qty, filters.lot_step),
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        _lot(_MARKET_LOT, filters.market_min_qty, filters.market_max_qty, filters.market_lot_step),
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            **dict(zip(sides, ("5", "0.2", "5", "0.2"), strict=True)),
            "avgPriceMins": 5,
        },
        {
            "filterType": _NOTIONAL,
            "minNotional": _text(filters.min_notional),
            "applyMinToMarket": filters.min_notional_on_market,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def _lot(kind: str, lowest: Decimal, highest: Decimal, step: Decimal) -> Json:
    return {
        "filterType": kind,
        "minQty": _text(lowest),
        "maxQty": _text(highest),
        "stepSize": _text(step),
    }


def _text(value: Decimal) -> str:
    return f"{value:.8f}"


def split_symbol(symbol: str) -> tuple[str, str]:
    """Base and quote asset of 'BTCUSDT': ('BTC', 'USDT')."""
    quote = quote_of(symbol)
    return (symbol, "USDT") if quote is None else (symbol.removesuffix(quote), quote)


def exchange_info(server_ms: int, weight_limit: int, symbols: list[Json]) -> Json:
    """The answer of `GET /api/v3/exchangeInfo`."""
    limits = [
        (*_WEIGHT_LIMIT, 1, weight_limit),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200_000),
        ("RAW_REQUESTS", "MINUTE", 5, 61_000),
    ]
    return {
        "timezone": "UTC",
        "serverTime": server_ms,
        "rateLimits": [dict(zip(_LIMIT_FIELDS, limit, strict=True)) for limit in limits],
        "exchangeFilters": [],
        "symbols": symbols,
    }


def info_parameters(*symbols: str) -> dict[str, str]:
    """The query of exchangeInfo for these symbols."""
    if len(symbols) == 1:
        return {"symbol": symbols[0]}
    return {"symbols": "[" + ",".join(f'"{symbol}"' for symbol in symbols) + "]"}


def read_info_parameters(query: Mapping[str, str]) -> list[str] | None:
    """The symbols an exchangeInfo request asks for; None when it asks for all."""
    if "symbol" in query:
        return [query["symbol"]]
    return re.findall(r'"([^"]+)"', query["symbols"]) if "symbols" in query else None


def read_info(answer: Any) -> Json:
    """An exchangeInfo answer whose symbols all have a name, a status and filters.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it is something else.
    """
    for entry in symbol_entries(answer):
        if not (entry["symbol"] and entry["status"] and isinstance(entry["filters"], list)):
            raise ValueError(f"exchangeInfo of {entry['symbol']} lacks its status or filters")
    return dict(answer)


def read_statement(answer: Any, symbol: str) -> tuple[int, Json] | None:
    """When an exchangeInfo answer was given (UTC ms), and its entry of a symbol; None without.

    Raises
    ------
    KeyError, TypeError, ValueError
        When an entry is there, but is none.
    """
    entries = [entry for entry in answer.get("symbols", ()) if entry["symbol"] == symbol]
    if not entries or not is_time(answer.get("serverTime")):
        return None
    read_info(answer)
    return answer["serverTime"], entries[0]


def symbol_entries(info: Mapping[str, Any]) -> list[Json]:
    """The entries of an exchangeInfo answer, one per symbol."""
    return list(info["symbols"])


def read_stated_ms(info: Mapping[str, Any]) -> int | None:
    """The exchange's time of an exchangeInfo answer, UTC milliseconds; None where it says none."""
    stated = info.get("serverTime")
    return stated if isinstance(stated, int) else None


def statement_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between two entries of a symbol: "status", then filter types by name."""
    old, new = (
        {str(rule.get("filterType")): rule for rule in entry.get("filters", ())}
        for entry in (before, after)
    )
    changed = sorted(kind for kind in {*old, *new} if old.get(kind) != new.get(kind))
    moved = before.get("status") != after.get("status")
    return (*(["status"] if moved else []), *changed)


def statuses(info: Mapping[str, Any]) -> dict[str, str]:
    """Each symbol's trading status."""
    return {entry["symbol"]: entry["status"] for entry in symbol_entries(info)}


def read_weight_limit(answer: Any) -> int:
    """Request weight allowed per minute.

    Raises
    ------
    KeyError, TypeError, ValueError, ZeroDivisionError
        When the answer names none, or none that can be.
    """
    for limit in answer["rateLimits"]:
        if (limit["rateLimitType"], limit["interval"]) == _WEIGHT_LIMIT:
            per_minute = int(limit["limit"]) // int(limit["intervalNum"])
            if not 0 < per_minute <= _HIGHEST_WEIGHT_LIMIT:
                raise ValueError(f"exchangeInfo allows {limit['limit']!r} request weight")
            return per_minute
    raise ValueError("exchangeInfo names no REQUEST_WEIGHT limit per minute")
