"""One month's candles as a Parquet file: the same candles, the same bytes.

    2024-05.parquet: zstd, page checksums, the columns of `candles.CANDLE_SCHEMA`, one row group
    (several only for a month of seconds, so that writing it takes no gigabyte)

Reading checks schema, page checksums, order and month; nothing here knows a store.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import (
    CANDLE_SCHEMA,
    COLUMNS,
    NULLABLE_COLUMNS,
    PRICE_COLUMNS,
    Candles,
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
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            _check_schema(file, parquet.schema_arrow)
            table = parquet.read(columns=list(columns), use_threads=False)
    except StoreError:
        raise
    except Exception as cause:  # whatever a damaged file makes the readers raise
        raise StoreError(
            f"{file} is damaged or not Parquet ({_one_line(cause)}); `cppn-bt data repair` fetches"
            " the month again"
        ) from cause
    arrays = {name: np.full(len(table), np.nan) for name in COLUMNS if name not in columns}
    for name in columns:
        arrays[name] = table[name].to_numpy()
    candles = Candles.from_columns(**arrays)
    _check_month(file, candles)
    return candles


def file_digest(path: Path) -> str:
    """sha256 of a month's file; '' where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def month_bytes(candles: Candles) -> bytes:
    """The Parquet file of one month's candles: the same candles, the same bytes."""
    sink = io.BytesIO()  # whose value is not copied
    pq.write_table(
        candles.to_arrow(),
        sink,
        row_group_size=min(max(len(candles), 1), ROW_GROUP_ROWS),
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding=_ENCODINGS,
        write_page_checksum=True,
        write_statistics=["open_time"],
    )
    return sink.getvalue()


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


def _check_month(file: Path, candles: Candles) -> None:
    if len(candles) == 0:
        raise StoreError(f"{file} holds no candles; delete it or run `cppn-bt data repair`")
    span, stamps = month_span(file.stem), candles.open_time
    if stamps[0] < span.start_ms or stamps[-1] >= span.end_ms or (np.diff(stamps) <= 0).any():
        raise StoreError(
            f"{file} holds candles from {ms_to_utc(int(stamps[0]))} to {ms_to_utc(int(stamps[-1]))}"
            f", expected them sorted, unique and inside {file.stem}; run `cppn-bt data repair`"
        )
