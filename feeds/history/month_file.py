"""One month's candles as a Parquet file: the same candles, the same bytes.

    2024-05.parquet: zstd, page checksums, the columns of `candles.CANDLE_SCHEMA`, one row group
    (several only for a month of seconds, so that writing it takes no gigabyte)

Reading checks schema, page checksums, order and month. A month is read and merged one row group
at a time: a month of seconds never lies in memory twice. Nothing here knows a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import (
    CANDLE_SCHEMA,
    COLUMNS,
    NULLABLE_COLUMNS,
    PRICE_COLUMNS,
    Candles,
    concat,
    merge,
)
from cppncripto_strategy.feeds.clock import month_span, ms_to_utc

# A tenth larger than level 1 on real candles, and a third quicker to read.
ZSTD_LEVEL = -1
ROW_GROUP_ROWS = 1 << 19  # a month of minutes has 44,640
_MONTH_FILE = re.compile(r"\d{4}-(0[1-9]|1[0-2])\.parquet")
_FLOATS = (*PRICE_COLUMNS, "volume", *(name for name in NULLABLE_COLUMNS if name != "trades"))
_ENCODINGS = {
    **dict.fromkeys(_FLOATS, "BYTE_STREAM_SPLIT"),
    "open_time": "DELTA_BINARY_PACKED",
    "trades": "DELTA_BINARY_PACKED",
}


def month_files(folder: Path) -> list[Path]:
    """The month files of a series folder, in time order."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if _MONTH_FILE.fullmatch(file.name))


def read_month(file: Path, columns: tuple[str, ...] = COLUMNS) -> Candles:
    """The candles of one month's file; columns not asked for come back as NaN.

    Raises
    ------
    StoreError
        When the file is damaged, has another schema, or holds candles of another month.
    """
    with _reading(file), _opened(file) as parquet:
        arrays = _columns_of(parquet, columns)
    count = len(arrays[columns[0]])
    absent = {name: np.full(count, np.nan) for name in COLUMNS if name not in columns}
    candles = Candles.from_columns(**arrays, **absent)
    _check_stamps(file, candles.open_time)
    return candles


def write_month(sink: BinaryIO, stored: Path | None, newer: Sequence[Candles]) -> IntArray:
    """Write a month's file: what is stored with `newer` over it, the later ones over the earlier.

    The same candles give the same bytes, in whatever parts they come.

    Parameters
    ----------
    sink : the new file. stored : the present one, None where there is none.
    newer : valid candles of the month, each part ascending.

    Returns
    -------
    Open times of the candles written, UTC ms, int64 (N,).

    Raises
    ------
    StoreError
        When the present file is damaged, has another schema, or holds another month.
    """
    with contextlib.ExitStack() as stack:
        present = None
        if stored is not None:
            present = _StoredMonth(stored, stack.enter_context(_opened(stored)))
        known = [] if present is None else [present.open_time]
        open_time = _union([*known, *(part.open_time for part in newer)])
        writer = stack.enter_context(_writer(sink))
        for first in range(0, len(open_time), ROW_GROUP_ROWS):
            stamps = open_time[first : first + ROW_GROUP_ROWS]
            edges = int(stamps[0]), int(stamps[-1]) + 1
            parts = [] if present is None else [present.between(*edges)]
            parts += [part.between(*edges) for part in newer]
            group = reduce(merge, [part for part in parts if len(part)])
            writer.write_table(group.to_arrow(), row_group_size=ROW_GROUP_ROWS)
    return open_time


def file_digest(path: Path) -> str:
    """sha256 of a month's file; '' where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def row_count(file: Path) -> int:
    """Candles of a month's file, by its footer alone.

    Raises
    ------
    StoreError
        When the file is damaged.
    """
    try:
        return int(pq.read_metadata(file).num_rows)
    except Exception as cause:
        raise StoreError(f"{file} is damaged or not Parquet ({_one_line(cause)})") from cause


class _StoredMonth:
    """A month's file, open, of which a part at a time is read; each row group once, in order."""

    def __init__(self, file: Path, parquet: pq.ParquetFile) -> None:
        self._file, self._parquet = file, parquet
        with _reading(file):
            self.open_time: IntArray = _columns_of(parquet, ("open_time",))["open_time"]
            _check_stamps(file, self.open_time)
        counts = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._number, self._group = -1, Candles.empty()

    def between(self, start_ms: int, end_ms: int) -> Candles:
        """Candles with start_ms <= open_time < end_ms."""
        first, last = np.searchsorted(self.open_time, [start_ms, end_ms])
        groups = np.searchsorted(self._starts, [first, last], side="right") - 1
        parts = []
        for number in range(int(groups[0]), int(groups[1]) + 1):
            begin = int(self._starts[number])
            end = int(self._starts[min(number + 1, len(self._starts) - 1)])
            if max(first, begin) < min(last, end):
                parts.append(self._read(number)[max(first - begin, 0) : last - begin])
        return concat(parts)

    def _read(self, number: int) -> Candles:
        if number != self._number:
            self._group = Candles.empty()  # let go of before the next is read
            with _reading(self._file):
                columns = _group_columns(self._parquet, number, COLUMNS)
            self._group, self._number = Candles.from_columns(**columns), number
        return self._group


def _opened(file: Path) -> pq.ParquetFile:
    """A month's file for reading; closed by `with`. Raises StoreError."""
    with _reading(file):
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        _check_schema(file, parquet.schema_arrow)
        return parquet


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raises StoreError for whatever a file's bytes make the readers in the block raise."""
    try:
        yield
    except StoreError:
        raise
    except Exception as cause:  # whatever a damaged file makes the readers raise
        raise StoreError(
            f"{file} is damaged or not Parquet ({_one_line(cause)}); `cppn-bt data repair` fetches"
            " the month again"
        ) from cause


def _columns_of(parquet: pq.ParquetFile, columns: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of a whole file, read by row group into their place."""
    groups = range(parquet.num_row_groups)
    if len(groups) == 1:
        return _group_columns(parquet, 0, columns)
    arrays: dict[str, NDArray[Any]] = {}
    for name in columns:
        kind = np.int64 if name == "open_time" else np.float64
        arrays[name] = np.empty(parquet.metadata.num_rows, dtype=kind)
    end = 0
    for number in groups:
        start = end
        for name, values in _group_columns(parquet, number, columns).items():
            end = start + len(values)
            arrays[name][start:end] = values
    return arrays


def _group_columns(
    parquet: pq.ParquetFile, number: int, columns: tuple[str, ...]
) -> dict[str, NDArray[Any]]:
    table = parquet.read_row_group(number, columns=list(columns), use_threads=False)
    return {name: table[name].to_numpy() for name in columns}


def _union(parts: Sequence[IntArray]) -> IntArray:
    """Open times of any part, ascending, each once."""
    parts = [part for part in parts if len(part)]
    if len(parts) == 1:
        return parts[0]
    return np.unique(np.concatenate([*parts, np.empty(0, np.int64)]))


def _writer(sink: BinaryIO) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        CANDLE_SCHEMA,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding=_ENCODINGS,
        write_page_checksum=True,
        write_statistics=["open_time"],
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _check_schema(file: Path, schema: pa.Schema) -> None:
    if not schema.equals(CANDLE_SCHEMA):
        columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise StoreError(
            f"{file} is not a month of the candle store: its columns are ({columns}), expected"
            f" ({', '.join(f'{field.name}: {field.type}' for field in CANDLE_SCHEMA)}). Bring other"
            " files in with `cppn-bt data import`."
        )


def _check_stamps(file: Path, stamps: IntArray) -> None:
    if len(stamps) == 0:
        raise StoreError(f"{file} holds no candles; delete it or run `cppn-bt data repair`")
    span = month_span(file.stem)
    if stamps[0] < span.start_ms or stamps[-1] >= span.end_ms or (np.diff(stamps) <= 0).any():
        raise StoreError(
            f"{file} holds candles from {ms_to_utc(int(stamps[0]))} to {ms_to_utc(int(stamps[-1]))}"
            f", expected them sorted, unique and inside {file.stem}; run `cppn-bt data repair`"
        )
