"""Other people's columns as ours: which is which, and their numbers.

Names are compared in lower case with punctuation replaced. A volume named by its coin, such as
`Volume BTC`, is base or quote by the symbol; where that does not decide, nobody guesses. A close
time is never taken for an open time. Rows that cannot be understood are marked, not dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.candles import COLUMNS, REQUIRED_COLUMNS, Candles
from cppncripto_strategy.feeds.history.dates import (
    Flaw,
    is_text,
    looks_like_number_of_time,
    read_times,
)

TIME_NAMES = (
    *("open_time", "opentime", "time", "timestamp", "date", "datetime", "date_time", "ts"),
    *("unix", "unix_timestamp", "unix_time", "gmt_time", "utc", "time_utc", "date_utc"),
    *("t", "index", "index_level_0", ""),
)
# The names other tools give to our columns, after lower-casing and replacing punctuation by "_".
ALIASES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume", "base_asset_volume", "tickvol", "tick_volume"),
    "quote_volume": (
        *("quote_volume", "quote_asset_volume", "quote_vol", "quotevolume", "volume_currency"),
    ),
    "trades": ("trades", "number_of_trades", "num_trades", "trade_count", "tradecount", "count"),
    "taker_buy_volume": (
        *("taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume"),
        "taker_buy_base",
    ),
    "taker_buy_quote_volume": (
        *("taker_buy_quote_volume", "taker_buy_quote_asset_volume", "taker_buy_quote"),
    ),
}
# Names of one coin; and coins that prices are quoted in, where no symbol says so.
_SAME_COIN = {"XBT": "BTC", "XDG": "DOGE"}
_QUOTES = frozenset(("USD", "USDT", "USDC", "BUSD", "TUSD", "FDUSD", "EUR", "GBP", "JPY", "TRY"))
_VOLUME_OF = re.compile(r"(?:volume|vol)_([a-z0-9]{2,10})")
_NOT_A_COIN = ("ma", "sma", "ema", "24h", "usd_24h", "avg", "change", "currency")
ABSENT = ("", "nan", "null", "none", "n/a", "na", "#n/a", "-")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?|\d{6}|\d{4}")
_PLAIN = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


@dataclass(frozen=True, slots=True)
class Notation:
    """How numbers are written: the decimal mark, and the mark between thousands ('' for none)."""

    decimal: str = "."
    thousands: str = ""

    def pattern(self) -> str:
        """A regular expression of such a number."""
        if self.thousands:
            whole = rf"(\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+|\d+)"
            return rf"[+-]?{whole}({re.escape(self.decimal)}\d*)?([eE][+-]?\d+)?"
        return _PLAIN.replace(r"\.", re.escape(self.decimal))

    def plain(self, text: pa.ChunkedArray) -> pa.ChunkedArray:
        """Such numbers with a decimal point and nothing between thousands."""
        if self.thousands:
            text = pc.replace_substring(text, self.thousands, "")
        return text if self.decimal == "." else pc.replace_substring(text, self.decimal, ".")


POINT = Notation()


@dataclass(frozen=True, slots=True)
class Columns:
    """A table's columns under our names; flawed rows hold 0 or NaN.

    Parameters
    ----------
    open_time : UTC milliseconds (N,).
    numbers : our name -> values (N,), NaN where there is none.
    flaws : rows that cannot be understood, by column.
    said : how the columns were read, in words.
    """

    open_time: IntArray
    numbers: dict[str, FloatArray]
    flaws: tuple[Flaw, ...]
    said: str

    def candles(self) -> Candles:
        """The rows as candles, not judged yet."""
        return Candles.from_columns(open_time=self.open_time, **self.numbers)

    def broken(self) -> BoolArray:
        """Rows (N,) that have a flaw."""
        rows = np.zeros(len(self.open_time), dtype=np.bool_)
        for flaw in self.flaws:
            rows |= flaw.rows
        return rows

    def without_numbers(self) -> BoolArray:
        """Rows (N,) that have a time, and neither prices nor a volume."""
        empty = [np.isnan(self.numbers[name]) for name in REQUIRED_COLUMNS[1:]]
        return cast(BoolArray, np.logical_and.reduce(empty)) & ~self.broken()


def read_columns(
    table: pa.Table,
    origin: str,
    *,
    symbol: str = "",
    order: str = "",
    notation: Notation = POINT,
) -> Columns:
    """The columns of a table whose columns carry usual names; values are not judged yet.

    Raises
    ------
    SourceError
        When a column is missing, occurs twice or is no number, or its meaning is ambiguous.
    """
    names = _names(table, origin, symbol)
    time_name, time_column = _time(table, names, origin)
    missing = [name for name in REQUIRED_COLUMNS[1:] if name not in names]
    if missing:
        raise SourceError(
            f"{origin} lacks {', '.join(missing)}; its columns are {', '.join(table.column_names)}"
        )
    times = read_times(time_column, origin, order)
    numbers, flaws = {}, list(times.flaws)
    for ours in COLUMNS[1:]:
        if ours in names:
            numbers[ours], flaw = read_numbers(table[names[ours]], ours, origin, notation)
            flaws.append(flaw)
    # MetaTrader's real volume is 0 where the broker does not know it.
    if names.get("tickvol") not in (None, names["volume"]) and not (numbers["volume"] > 0).any():
        names["volume"] = names["tickvol"]
        numbers["volume"], _ = read_numbers(table[names["volume"]], "volume", origin, notation)
    said = f"time from {time_name!r} ({times.notation}), volume from {names['volume']!r}"
    if "quote_volume" in names:
        said += f", quote volume from {names['quote_volume']!r}"
    return Columns(times.stamps, numbers, tuple(flaws), said)


def read_numbers(
    column: pa.ChunkedArray, name: str, origin: str, notation: Notation = POINT
) -> tuple[FloatArray, Flaw]:
    """Numbers (N,) of a column, NaN where there is none, and the rows that are none.

    Raises
    ------
    SourceError
        When the column is neither numbers nor text.
    """
    if not is_text(column.type):
        try:
            values = cast(FloatArray, column.cast(pa.float64(), safe=False).to_numpy())
        except pa.ArrowException as cause:
            raise SourceError(
                f"{origin}: column {name} is {column.type}, expected numbers"
            ) from cause
        return values, _no_number(np.zeros(len(values), dtype=np.bool_), name, column)
    text = pc.utf8_trim_whitespace(column)
    if notation == POINT:
        try:
            values = cast(FloatArray, pc.cast(text, pa.float64()).to_numpy())
            return values, _no_number(np.zeros(len(values), dtype=np.bool_), name, column)
        except pa.ArrowException:  # some are absent or wrong: the long way
            pass
    absent = pc.is_in(pc.utf8_lower(text), value_set=pa.array(ABSENT, text.type))
    infinite = pc.match_substring_regex(text, r"^[+-]?(?i:inf|infinity)$")
    fits = pc.or_(pc.match_substring_regex(text, f"^{notation.pattern()}$"), infinite)
    fits = pc.fill_null(fits, False)
    plain = pc.if_else(fits, notation.plain(text), pa.scalar(None, text.type))
    values = cast(FloatArray, pc.cast(plain, pa.float64()).to_numpy())
    known = pc.fill_null(pc.or_(fits, absent), True)
    return values, _no_number(~known.to_numpy(), name, column)


def _no_number(rows: BoolArray, name: str, column: pa.ChunkedArray) -> Flaw:
    return Flaw(
        rows,
        name,
        f"{name} is not a number",
        lambda row: f"{name} is {column[row].as_py()!r}, expected a number",
    )


def _names(table: pa.Table, origin: str, symbol: str) -> dict[str, str]:
    """Our name (and every cleaned name) -> the name in the file."""
    cleaned: dict[str, str] = {}
    for name in table.column_names:
        clean = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        if clean in cleaned and any(clean in aliases for aliases in ALIASES.values()):
            raise SourceError(
                f"{origin} has several columns for {clean}: {cleaned[clean]!r} and {name!r}; leave"
                " one of them out of the file"
            )
        cleaned.setdefault(clean, name)
    for ours, aliases in ALIASES.items():
        for alias in aliases:
            if alias in cleaned:
                cleaned.setdefault(ours, cleaned[alias])
    _name_volumes(cleaned, table, origin, symbol)
    return cleaned


def _name_volumes(cleaned: dict[str, str], table: pa.Table, origin: str, symbol: str) -> None:
    """Base and quote volume of columns such as 'Volume BTC' and 'Volume USDT', where none is plain.

    Raises
    ------
    SourceError
        When it cannot be known which coin is the base.
    """
    coins = {
        match[1].upper(): name
        for clean, name in cleaned.items()
        if (match := _VOLUME_OF.fullmatch(clean)) and match[1] not in _NOT_A_COIN
    }
    if "volume" in cleaned or not coins:
        return
    pair = _pair(cleaned, table, symbol)
    for coin, name in coins.items():
        side = _side(coin, pair) or _other_side(coin, coins, cleaned)
        if not side or side in cleaned:
            raise SourceError(
                f"{origin}: is {name!r} the base or the quote volume? Its columns are"
                f" {', '.join(table.column_names)}; give the pair as --symbol (such as"
                " BTCUSDT), or rename the columns to volume and quote_volume"
            )
        cleaned[side] = name


def _pair(cleaned: dict[str, str], table: pa.Table, symbol: str) -> str:
    """The pair that the file itself names (BTC/USDT), else the symbol's name."""
    for name in ("symbol", "pair", "ticker"):
        if name in cleaned and table.num_rows and is_text(table[cleaned[name]].type):
            return str(table[cleaned[name]][0].as_py() or symbol)
    return symbol


def _side(coin: str, pair: str) -> str:
    """'volume' for the base of a pair, 'quote_volume' for its quote, '' where neither is sure."""
    text = re.sub(r"[^A-Z0-9]", "", pair.upper())
    spellings = {coin, _SAME_COIN.get(coin, coin)} | {a for a, b in _SAME_COIN.items() if b == coin}
    base, quote = text.startswith(tuple(spellings)), text.endswith(tuple(spellings))
    if base != quote:
        return "volume" if base else "quote_volume"
    return ""


def _other_side(coin: str, coins: dict[str, str], cleaned: dict[str, str]) -> str:
    """By the other column, where exactly one of two coins is one that prices are quoted in."""
    others = [other for other in coins if other != coin]
    if "quote_volume" in cleaned and not others:
        return "volume"
    if len(others) == 1 and (coin in _QUOTES) != (others[0] in _QUOTES):
        return "quote_volume" if coin in _QUOTES else "volume"
    return ""


def _time(table: pa.Table, names: dict[str, str], origin: str) -> tuple[str, pa.ChunkedArray]:
    """The column of open times, a good number before any text; date and time apart are joined.

    Raises
    ------
    SourceError
        When there is none.
    """
    there = [names[name] for name in TIME_NAMES if name in names]
    if not there:
        raise SourceError(_no_time(names, origin))
    ranked = sorted(there, key=lambda name: _rank(table[name]))  # stable: first names first
    if _rank(table[ranked[0]]) and "date" in names and "time" in names:
        date, clock = table[names["date"]], table[names["time"]]
        if is_text(date.type) and is_text(clock.type) and _is_clock(clock):
            both = pc.binary_join_element_wise(
                pc.utf8_trim_whitespace(date), pc.utf8_trim_whitespace(clock), " "
            )
            return f"{names['date']} {names['time']}", both
    return ranked[0], table[ranked[0]]


def _rank(column: pa.ChunkedArray) -> int:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or looks_like_number_of_time(column):
        return 0
    return 1 if is_text(kind) else 2


def _is_clock(column: pa.ChunkedArray) -> bool:
    return column.length() > 0 and bool(_CLOCK.fullmatch(str(column[0].as_py()).strip()))


def _no_time(names: dict[str, str], origin: str) -> str:
    if "close_time" in names:
        return (
            f"{origin} has close times only; candles are named by their open time: add a column"
            " open_time (the close of the candle before, on the interval's grid)"
        )
    return (
        f"{origin} has no time column; its columns are {', '.join(sorted(set(names.values())))},"
        f" expected one of {', '.join(TIME_NAMES[:8])}"
    )
