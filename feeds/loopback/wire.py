"""What the loopback exchange says, letter for letter: REST rows, stream frames, archives, errors.

Pure functions from candles to Binance's wire forms; no sockets, no clock. A number goes out as the
exchange sends it: a string with eight decimals. Left out: order books, trades, account end points.

Where the candles handed in lack the four optional columns (NaN), neutral stand-ins are sent,
because the exchange always fills them: quote volume = volume x mean of open and close, one trade
for a candle with volume, and half of the volume bought by takers.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, utc_to_ms

# Spot archives carry microseconds from this open time on, milliseconds before.
MICROSECONDS_FROM_MS = utc_to_ms("2025-01-01")
QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY")
# Trade ids are dense on the exchange; ours leave room for a million trades a candle.
TRADES_PER_CANDLE = 1_000_000
_FLOAT_HAS_EIGHT_DECIMALS_BELOW = 1e7
_ZIP_DATE = (2024, 1, 1, 0, 0, 0)

Json = dict[str, Any]


def decimal_text(value: float) -> str:
    """A number as the exchange writes it: '7195.24000000'."""
    if value < _FLOAT_HAS_EIGHT_DECIMALS_BELOW:
        return f"{value:.8f}"
    # Beyond that the eighth decimal is float noise: write the shortest digits that read back equal.
    return f"{Decimal(repr(value)):.8f}"


@dataclass(frozen=True, slots=True)
class Kline:
    """One candle on the wire, whole or still forming.

    Times are UTC milliseconds; prices, volumes are the exchange's eight-decimal strings.
    """

    open_time: int
    close_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    taker_buy_volume: str
    taker_buy_quote_volume: str
    first_trade_id: int

    def row(self) -> list[Any]:
        """The twelve fields of `GET /api/v3/klines`.

        [1736121600000,"98363.61000000","98626.77000000","98363.61000000","98455.89000000",
         "159.94725000",1736122499999,"15757307.02497990",37955,"83.69236000",
         "8244504.24170150","0"]
        """
        return [
            self.open_time,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.close_time,
            self.quote_volume,
            self.trades,
            self.taker_buy_volume,
            self.taker_buy_quote_volume,
            "0",
        ]

    def frame(self, symbol: str, interval: str, event_ms: int, closed: bool) -> Json:
        """The stream's kline event.

        {"e":"kline","E":1757523280021,"s":"BTCUSDT","k":{"t":1757523000000,"T":1757523299999,
         "s":"BTCUSDT","i":"5m","f":5225377132,"L":5225383094,"o":"113647.98000000",
         "c":"113670.12000000","h":"113708.45000000","l":"113627.74000000","v":"46.64096000",
         "n":5963,"x":false,"q":"5302412.42715770","V":"14.72666000","Q":"1674287.91322410",
         "B":"0"}}
        """
        first = self.first_trade_id if self.trades else -1
        kline = {
            "t": self.open_time,
            "T": self.close_time,
            "s": symbol,
            "i": interval,
            "f": first,
            "L": first + self.trades - 1 if self.trades else -1,
            "o": self.open,
            "c": self.close,
            "h": self.high,
            "l": self.low,
            "v": self.volume,
            "n": self.trades,
            "x": closed,
            "q": self.quote_volume,
            "V": self.taker_buy_volume,
            "Q": self.taker_buy_quote_volume,
            "B": "0",
        }
        return {"e": "kline", "E": event_ms, "s": symbol, "k": kline}


def as_served(candles: Candles) -> Candles:
    """The candles as a client will read them: eight decimals, stand-ins for missing columns."""
    mean = (candles.open + candles.close) / 2
    stand_ins = {
        "quote_volume": candles.volume * mean,
        "trades": (candles.volume > 0).astype(np.float64),
        "taker_buy_volume": candles.volume / 2,
        "taker_buy_quote_volume": candles.volume / 2 * mean,
    }
    columns: dict[str, object] = {"open_time": candles.open_time}
    for name in COLUMNS[1:]:
        values = getattr(candles, name)
        if name in stand_ins:
            values = np.where(np.isnan(values), stand_ins[name], values)
        # Through the text itself: np.round differs from it in the last bit for large numbers.
        columns[name] = np.array([float(decimal_text(value)) for value in values.tolist()])
    return Candles.from_columns(**columns)


def whole_kline(candles: Candles, row: int, interval_ms: int) -> Kline:
    """Row `row` of served candles, closed."""
    return _kline(candles, row, interval_ms, 1.0)


def forming_kline(candles: Candles, row: int, interval_ms: int, elapsed_ms: int) -> Kline:
    """Row `row` as it looks `elapsed_ms` after its open: part of its range, part of its volume.

    The path from open to close is a straight line and the range opens in proportion, so the
    forming candle always satisfies low <= open, close <= high and never foretells a wider range.
    """
    return _kline(candles, row, interval_ms, min(1.0, max(0.0, elapsed_ms / interval_ms)))


def _kline(candles: Candles, row: int, interval_ms: int, part: float) -> Kline:
    open_time = int(candles.open_time[row])
    begin = float(candles.open[row])

    def price(name: str) -> str:
        end = float(getattr(candles, name)[row])
        return decimal_text(end if part == 1.0 else begin + part * (end - begin))

    def amount(name: str) -> str:
        return decimal_text(part * float(getattr(candles, name)[row]))

    return Kline(
        open_time=open_time,
        close_time=open_time + interval_ms - 1,
        open=decimal_text(begin),
        high=price("high"),
        low=price("low"),
        close=price("close"),
        volume=amount("volume"),
        quote_volume=amount("quote_volume"),
        trades=int(part * float(candles.trades[row])),
        taker_buy_volume=amount("taker_buy_volume"),
        taker_buy_quote_volume=amount("taker_buy_quote_volume"),
        first_trade_id=open_time // interval_ms * TRADES_PER_CANDLE,
    )


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """A symbol's trading rules, as exchangeInfo states them.

    Parameters
    ----------
    tick_size : price step, quote currency.
    step_size, min_quantity, max_quantity : LOT_SIZE, base units.
    market_step_size, market_max_quantity : MARKET_LOT_SIZE, base units; step 0 means no step.
    min_notional : smallest order value, quote currency.
    status : TRADING, END_OF_DAY, HALT, BREAK or CANCEL_ONLY, when no halt says otherwise.
    legacy_notional : state the minimum in MIN_NOTIONAL (until 2023) instead of NOTIONAL.
    """

    tick_size: str = "0.01000000"
    step_size: str = "0.00001000"
    min_quantity: str = "0.00001000"
    max_quantity: str = "9000.00000000"
    market_step_size: str = "0.00000000"
    market_max_quantity: str = "100.00000000"
    min_notional: str = "5.00000000"
    status: str = "TRADING"
    legacy_notional: bool = False


def split_symbol(symbol: str) -> tuple[str, str]:
    """Base and quote asset of 'BTCUSDT': ('BTC', 'USDT')."""
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)], quote
    return symbol, "USDT"


def symbol_info(symbol: str, rules: SymbolRules, status: str) -> Json:
    """One entry of exchangeInfo's `symbols`."""
    base, quote = split_symbol(symbol)
    return {
        "symbol": symbol,
        "status": status,
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [
            "LIMIT",
            "LIMIT_MAKER",
            "MARKET",
            "STOP_LOSS",
            "STOP_LOSS_LIMIT",
            "TAKE_PROFIT",
            "TAKE_PROFIT_LIMIT",
        ],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": status == "TRADING",
        "isMarginTradingAllowed": False,
        "filters": _filters(rules),
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _filters(rules: SymbolRules) -> list[Json]:
    notional: Json = {
        "filterType": "NOTIONAL",
        "minNotional": rules.min_notional,
        "applyMinToMarket": True,
        "maxNotional": "9000000.00000000",
        "applyMaxToMarket": False,
        "avgPriceMins": 5,
    }
    if rules.legacy_notional:
        notional = {
            "filterType": "MIN_NOTIONAL",
            "minNotional": rules.min_notional,
            "applyToMarket": True,
            "avgPriceMins": 5,
        }
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": rules.tick_size,
            "maxPrice": "1000000.00000000",
            "tickSize": rules.tick_size,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": rules.min_quantity,
            "maxQty": rules.max_quantity,
            "stepSize": rules.step_size,
        },
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": rules.market_max_quantity,
            "stepSize": rules.market_step_size,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        notional,
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def exchange_info(server_ms: int, weight_limit: int, symbols: list[Json]) -> Json:
    """The answer of `GET /api/v3/exchangeInfo`."""
    limits = [
        ("REQUEST_WEIGHT", "MINUTE", 1, weight_limit),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200_000),
        ("RAW_REQUESTS", "MINUTE", 5, 61_000),
    ]
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return {
        "timezone": "UTC",
        "serverTime": server_ms,
        "rateLimits": [dict(zip(names, limit, strict=True)) for limit in limits],
        "exchangeFilters": [],
        "symbols": symbols,
    }


def interval_name(interval_ms: int) -> str:
    """The exchange's name of an interval: 300000 -> '5m'."""
    for unit, size in (("w", 7 * DAY_MS), ("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if interval_ms % size == 0:
            return f"{interval_ms // size}{unit}"
    return f"{interval_ms // SECOND_MS}s"


def archive_csv(candles: Candles, interval_ms: int, header: bool = False) -> str:
    """The text inside an archive; `header` writes the names futures archives begin with."""
    lines = []
    if header:
        lines.append(
            "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
            "taker_buy_volume,taker_buy_quote_volume,ignore"
        )
    for row in range(len(candles)):
        fields = whole_kline(candles, row, interval_ms).row()
        if fields[0] >= MICROSECONDS_FROM_MS:
            fields[0], fields[6] = fields[0] * 1000, fields[6] * 1000 + 999
        lines.append(",".join(str(field) for field in fields))
    return "\n".join(lines) + "\n"


def archive_zip(name: str, text: str) -> bytes:
    """A zip that holds `name`.csv; the same text gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        entry = zipfile.ZipInfo(f"{name}.csv", date_time=_ZIP_DATE)
        packed.writestr(entry, text, compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def checksum_line(name: str, content: bytes) -> str:
    """The `.CHECKSUM` file: sha256, two blanks, file name."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}.zip\n"


def error_body(code: int, message: str) -> Json:
    """The exchange's error form: {"code": -1121, "msg": "Invalid symbol."}."""
    return {"code": code, "msg": message}


INVALID_SYMBOL = error_body(-1121, "Invalid symbol.")
INVALID_INTERVAL = error_body(-1120, "Invalid interval.")


def mandatory_missing(name: str) -> Json:
    """A parameter that must be sent was not."""
    return error_body(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def illegal_parameter(name: str) -> Json:
    """A whole number was expected and something else came."""
    return error_body(
        -1100,
        f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
    )


def too_many_requests(limit: int) -> Json:
    """The body of status 429."""
    return error_body(
        -1003,
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
        " Please use the websocket for live updates to avoid polling the API.",
    )


def banned(until_ms: int) -> Json:
    """The body of status 418."""
    return error_body(
        -1003,
        f"Way too much request weight used; IP banned until {until_ms}."
        " Please use the websocket for live updates to avoid bans.",
    )


def compact(value: object) -> str:
    """JSON without blanks, as the exchange sends it."""
    return json.dumps(value, separators=(",", ":"))
