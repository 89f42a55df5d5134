"""Candles from other people's files: Parquet, CSV (plain or gzipped) and feather.

`read_file` understands the usual column names, and times as integers (seconds to nanoseconds, by
their magnitude), ISO 8601 text or timestamps. `open_source` gives a folder's candles, be it a
candle store or a handful of `SYMBOL-5m.parquet` files. Every candle is validated; nothing is
sorted, filled or dropped, and a close time is never taken for an open time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.klines import ROW_FIELDS
from cppncripto_strategy.feeds.candles import (
    COLUMNS,
    REQUIRED_COLUMNS,
    Candles,
    first_violation,
    validate,
)
from cppncripto_strategy.feeds.clock import integers_to_ms, interval_to_ms, refuse_fractions
from cppncripto_strategy.feeds.history.store import CandleStore, check_symbol

SUFFIXES = (".parquet", ".feather", ".csv.gz", ".csv")
TIME_NAMES = (
    *("open_time", "opentime", "time", "timestamp", "date", "datetime", "date_time", "ts"),
    *("unix", "t", "index", "index_level_0"),
)
# The names other tools give to our columns, after lower-casing and replacing punctuation by "_".
ALIASES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume", "base_asset_volume"),
    "quote_volume": ("quote_volume", "quote_asset_volume", "quote_vol", "quotevolume"),
    "trades": ("trades", "number_of_trades", "num_trades", "trade_count", "tradecount", "count"),
    "taker_buy_volume": (
        *("taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume"),
        "taker_buy_base",
    ),
    "taker_buy_quote_volume": (
        *("taker_buy_quote_volume", "taker_buy_quote_asset_volume", "taker_buy_quote"),
    ),
}


class CandleSource(Protocol):
    """Where a run gets its candles: a store or a folder of plain files."""

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have candles of this interval, sorted."""

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound)."""


@dataclass(frozen=True, slots=True)
class StoreSource:
    """Candles of a candle store, validated on every read."""

    store: CandleStore

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have candles of this interval, sorted."""
        return sorted(
            {series.symbol for series in self.store.list() if series.interval == interval}
        )

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound).

        Raises
        ------
        StoreError
            When the series is absent or damaged.
        CandleError
            When a stored candle breaks a rule.
        """
        candles = self.store.read(symbol, interval, start_ms, end_ms)
        # A stored series may be nothing but isolated candles, so the step is not judged here.
        if first_violation(candles, interval_to_ms(interval)) is not None:
            validate(candles, interval_to_ms(interval), f"{self.store.root} {symbol} {interval}")
        return candles


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Candles of plain files named SYMBOL-INTERVAL.parquet (or .feather, .csv, .csv.gz)."""

    folder: Path

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have a file of this interval, sorted."""
        return sorted({symbol for symbol, length in plain_files(self.folder) if length == interval})

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound).

        Raises
        ------
        SourceError
            When the folder has no file for them, or the file cannot be read.
        CandleError
            When a candle breaks a rule.
        """
        files = plain_files(self.folder)
        if (check_symbol(symbol), interval) not in files:
            raise SourceError(self._absent(symbol, interval, files))
        candles = read_file(files[symbol, interval], interval)
        first = candles.open_time[0] if start_ms is None else start_ms
        last = candles.open_time[-1] + 1 if end_ms is None else end_ms
        return candles.between(int(first), int(last))

    def _absent(self, symbol: str, interval: str, files: dict[tuple[str, str], Path]) -> str:
        names = [" ".join(series) for series in files]
        close = get_close_matches(f"{symbol} {interval}", names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"{symbol} {interval} is not in {self.folder}: there is no {symbol}-{interval}.parquet."
            f"{hint} It holds: {', '.join(sorted(names))}."
        )


def open_source(folder: Path | str) -> CandleSource:
    """The candles of a folder: a candle store where it is one, else plain SYMBOL-5m files.

    Raises
    ------
    SourceError
        When the folder does not exist or holds neither.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(
            f"there is no folder {path}; `cppn-bt fetch` or `cppn-bt data import` makes one"
        )
    if any(path.glob("symbol=*/interval=*/*.parquet")):
        return StoreSource(CandleStore(path))
    if plain_files(path):
        return FolderSource(path)
    raise SourceError(
        f"{path} holds no candles: expected a candle store (symbol=BTCUSDT/interval=5m/...) or"
        " files such as BTCUSDT-5m.parquet"
    )


def plain_files(folder: Path) -> dict[tuple[str, str], Path]:
    """(symbol, interval) -> file, for files named SYMBOL-INTERVAL and a known suffix."""
    files: dict[tuple[str, str], Path] = {}
    for suffix in reversed(SUFFIXES):  # of two files for one series, Parquet wins
        for file in sorted(folder.glob(f"*-*{suffix}")):
            symbol, _, interval = file.name.removesuffix(suffix).rpartition("-")
            try:
                interval_to_ms(interval)
                files[check_symbol(symbol), interval] = file
            except CandleError:  # another kind of file
                continue
    return files


def read_file(path: Path | str, interval: str, *, sort: bool = False) -> Candles:
    """Candles of a Parquet, feather or CSV file, validated against the interval.

    Parameters
    ----------
    sort : order the rows by open time first (for files that list the newest first).

    Raises
    ------
    SourceError
        When the file cannot be read or lacks a column.
    CandleError
        When a row breaks a rule; the row (0-based, header not counted) and the rule are named.
    """
    file = Path(path)
    candles = candles_from_table(read_table(file), file.name)
    if sort:
        candles = candles[np.argsort(candles.open_time, kind="stable")]
    if len(candles) == 0:
        raise SourceError(f"{file} holds no rows")
    validate(candles, interval_to_ms(interval), file.name)
    return candles


def read_table(file: Path) -> pa.Table:
    """The Arrow table of a file, by its suffix.

    Raises
    ------
    SourceError
        When the file is absent, of an unknown kind, or cannot be parsed.
    """
    name = file.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            return pq.ParquetFile(file).read()
        if name.endswith((".feather", ".arrow")):
            return pyarrow.feather.read_table(file)
        if name.endswith((".csv", ".csv.gz", ".txt")):
            return _read_csv(file)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as cause:
        raise SourceError(f"{file} cannot be read: {cause}") from cause
    raise SourceError(f"{file} is of an unknown kind; expected one of {', '.join(SUFFIXES)}")


def candles_from_table(table: pa.Table, origin: str) -> Candles:
    """Candles of a table whose columns carry usual names; values are not judged yet.

    Raises
    ------
    SourceError
        When a column is missing.
    CandleError
        When a time or a number cannot be understood; the row is named.
    """
    names = _column_names(table.column_names)
    time_name = _time_name(names, origin)
    missing = [name for name in REQUIRED_COLUMNS[1:] if name not in names]
    if missing:
        raise SourceError(
            f"{origin} lacks {', '.join(missing)}; its columns are {', '.join(table.column_names)}"
        )
    columns: dict[str, object] = {"open_time": times_to_ms(table[time_name], origin)}
    for ours in COLUMNS[1:]:
        if ours in names:
            columns[ours] = _numbers(table[names[ours]], ours, origin)
    return Candles.from_columns(**columns)


def times_to_ms(column: pa.ChunkedArray, origin: str) -> IntArray:
    """UTC milliseconds (N,) of a column of integers, ISO text, dates or timestamps.

    Integers are seconds, milliseconds, microseconds or nanoseconds by their magnitude, row by row
    (a file may change its unit on the way). Times without a zone are UTC.

    Raises
    ------
    CandleError
        When a row holds no time, or one that is not a whole millisecond.
    """
    kind = column.type
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise CandleError(f"{origin}: row {row}: the time is missing (null)")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _stamps_to_ms(column, origin)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return integers_to_ms(_whole_numbers(column, origin), origin)
    return _text_to_ms(column, origin)


def _column_names(columns: list[str]) -> dict[str, str]:
    """Our name (and every cleaned name) -> the name in the file."""
    cleaned: dict[str, str] = {}
    for name in columns:
        cleaned.setdefault(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), name)
    for ours, aliases in ALIASES.items():
        for alias in aliases:
            if alias in cleaned:
                cleaned.setdefault(ours, cleaned[alias])
    return cleaned


def _time_name(names: dict[str, str], origin: str) -> str:
    for name in TIME_NAMES:
        if name in names:
            return names[name]
    if "close_time" in names:
        raise SourceError(
            f"{origin} has close times only; candles are named by their open time: add a column"
            " open_time (the close of the candle before, on the interval's grid)"
        )
    raise SourceError(
        f"{origin} has no time column; its columns are {', '.join(sorted(set(names.values())))},"
        f" expected one of {', '.join(TIME_NAMES[:8])}"
    )


def _stamps_to_ms(column: pa.ChunkedArray, origin: str) -> IntArray:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    values = column.to_numpy().astype(f"datetime64[{column.type.unit}]")
    stamps = values.astype("datetime64[ms]")
    refuse_fractions(stamps != values, values, origin)
    return cast(IntArray, stamps.astype(np.int64))


def _text_to_ms(column: pa.ChunkedArray, origin: str) -> IntArray:
    text = pd.Series(column.to_pandas(), dtype="str").str.strip()
    if text.str.fullmatch(r"\d{9,19}").all():
        return integers_to_ms(text.to_numpy().astype(np.int64), origin)
    parsed = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
    if parsed.isna().any():
        row = int(np.argmax(parsed.isna().to_numpy()))
        raise CandleError(
            f"{origin}: row {row}: time {text.iloc[row]!r} is not understood: expected ISO 8601"
            " (2024-05-01 00:05:00) or a number"
        )
    values = parsed.dt.tz_localize(None).to_numpy()
    stamps = values.astype("datetime64[ms]")
    refuse_fractions(stamps != values, values, origin)
    return cast(IntArray, stamps.astype(np.int64))


def _whole_numbers(column: pa.ChunkedArray, origin: str) -> IntArray:
    values = column.to_numpy()
    if values.dtype.kind == "f":
        # fmod of NaN and of infinity is NaN, which is not 0 either.
        with np.errstate(invalid="ignore"):
            broken = np.fmod(values, 1.0) != 0
        if broken.any():
            row = int(np.argmax(broken))
            raise CandleError(f"{origin}: row {row}: time {values[row]} is not a whole number")
    return cast(IntArray, values.astype(np.int64))


def _numbers(column: pa.ChunkedArray, name: str, origin: str) -> FloatArray:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return cast(FloatArray, column.cast(pa.float64(), safe=False).to_numpy())
        except pa.ArrowException as cause:
            raise SourceError(
                f"{origin}: column {name} is {column.type}, expected numbers"
            ) from cause
    text = column.to_pandas()
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    broken = np.isnan(values) & text.notna().to_numpy()
    if broken.any():
        row = int(np.argmax(broken))
        raise CandleError(f"{origin}: row {row}: {name} is {text.iloc[row]!r}, expected a number")
    return cast(FloatArray, values)


def _read_csv(file: Path) -> pa.Table:
    with pa.input_stream(file, compression="detect") as peek:
        first = peek.read(4096).split(b"\n", 1)[0].decode("utf-8-sig").strip().split(",")
    options = pyarrow.csv.ReadOptions()
    if all(re.fullmatch(r"-?\d+(\.\d*)?", cell) for cell in first):
        options.column_names = _headerless_names(file, len(first))
    return pyarrow.csv.read_csv(file, read_options=options)


def _headerless_names(file: Path, count: int) -> list[str]:
    if count not in (6, len(ROW_FIELDS)):
        raise SourceError(
            f"{file} has no header row and {count} columns; expected 6 (time, open, high, low,"
            " close, volume) or the exchange's own 12"
        )
    return list(ROW_FIELDS[:count])
