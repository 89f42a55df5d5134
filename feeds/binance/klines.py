"""A candle on Binance's wire: the row of REST and archives, read and written by one table.

Values are carried, not judged: `feeds.candles` has the rules. What the exchange calls kline is a
candle everywhere else in this package.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from cppncripto_strategy.feeds.binance.answers import Json, illegal_parameter, mandatory_missing
from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import Span

# The order of a row's fields, in REST answers and in archives, which carry no header row.
ROW_FIELDS = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("trades", "taker_buy_volume", "taker_buy_quote_volume", "unused"),
)
PAGE_ROWS = 1000
DEFAULT_ROWS = 500
# The last field of a row means nothing, and may be missing.
_FEWEST_FIELDS = len(ROW_FIELDS) - 1
_UNUSED = "0"
_ENDS = ("startTime", "endTime")
_FLOAT_HAS_EIGHT_DECIMALS_BELOW = 1e7


def decimal_text(value: float) -> str:
    """A number as the exchange writes it: '7195.24000000'."""
    if value < _FLOAT_HAS_EIGHT_DECIMALS_BELOW:
        return f"{value:.8f}"
    # Beyond that the eighth decimal is float noise: write the shortest digits that read back equal.
    return f"{Decimal(repr(value)):.8f}"


@dataclass(frozen=True, slots=True)
class Kline:
    """One candle on the wire, whole or still forming.

    Times are UTC milliseconds; prices and volumes are the exchange's eight-decimal strings.
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
        return [*(getattr(self, name) for name in ROW_FIELDS[:-1]), _UNUSED]


def read_number(value: object) -> float:
    """A number of a candle on the wire: JSON's, or the text of one.

    Raises
    ------
    ValueError
        When it is neither, or larger than a float can be.
    """
    plain = type(value) in (int, float) or (
        isinstance(value, str) and value.isascii() and "_" not in value
    )
    if not plain:
        said = value[:80] if isinstance(value, str) else type(value).__name__
        raise ValueError(f"expected a number, found {said!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as cause:
        raise ValueError("a whole number is larger than any candle's") from cause


def read_klines(answer: Any, span: Span | None = None) -> Candles:
    """Candles of a klines answer (rows as `Kline.row` shows); their values are not judged.

    Raises
    ------
    ValueError
        When it is not a list of such rows, ascending and inside `span`.
    """
    if not isinstance(answer, list):
        raise ValueError(f"expected a list of candles, found {str(answer)[:80]!r}")
    if any(not isinstance(row, list) or len(row) < _FEWEST_FIELDS for row in answer):
        raise ValueError(f"expected rows of {_FEWEST_FIELDS} or more fields")
    if any(type(row[0]) is not int for row in answer):
        raise ValueError("an open time is not a whole number")
    opens = [row[0] for row in answer]
    inside = span is None or all(span.start_ms <= stamp < span.end_ms for stamp in opens)
    if not inside or any(b <= a for a, b in itertools.pairwise(opens)):
        raise ValueError("candles are out of order or outside the span asked for")
    columns = list(zip(*answer, strict=False)) or [()] * _FEWEST_FIELDS
    fields: dict[str, object] = {
        name: np.array([read_number(text) for text in columns[index]])
        for index, name in enumerate(ROW_FIELDS)
        if name in COLUMNS[1:]
    }
    return Candles.from_columns(open_time=np.array(opens, dtype=np.int64), **fields)


@dataclass(frozen=True, slots=True)
class KlinesQuery:
    """What `GET /api/v3/klines` is asked for.

    Parameters
    ----------
    symbol, interval : of the series.
    first_open_ms, last_open_ms : open times, both inclusive; None leaves the end open.
    limit : rows at most.
    """

    symbol: str
    interval: str
    first_open_ms: int | None = None
    last_open_ms: int | None = None
    limit: int = DEFAULT_ROWS

    def parameters(self) -> dict[str, Any]:
        """The query's parameters, by the exchange's names."""
        values: dict[str, str | int | None] = {
            "symbol": self.symbol,
            "interval": self.interval,
            **dict(zip(_ENDS, (self.first_open_ms, self.last_open_ms), strict=True)),
            "limit": self.limit,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def read(cls, query: Mapping[str, str]) -> KlinesQuery:
        """The query of a request's parameters, which `query_problem` found to be sound."""
        first, last = (int(query[name]) if name in query else None for name in _ENDS)
        limit = min(PAGE_ROWS, int(query.get("limit", DEFAULT_ROWS)))
        return cls(query["symbol"], query["interval"], first, last, limit)


def query_problem(query: Mapping[str, str]) -> Json | None:
    """The error body with which the exchange refuses a klines request; None when it is sound."""
    for name in ("symbol", "interval"):
        if not query.get(name):
            return mandatory_missing(name)
    for name in (*_ENDS, "limit"):
        if name in query and not re.fullmatch(r"\d{1,20}", query[name]):
            return illegal_parameter(name)
    return None
