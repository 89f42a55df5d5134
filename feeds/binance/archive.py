"""Binance's bulk archives: monthly and daily zips with a sha256 beside each, read and written.

    https://data.binance.vision/data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-05.zip

A spot archive has no header row, a futures one has; open times are milliseconds until 2024 and
microseconds since 2025. When reading, both are sniffed, not assumed. Nothing here opens a
connection: `archive_client` does.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.klines import ROW_FIELDS, Kline
from cppncripto_strategy.feeds.candles import COLUMNS, Candles, Rejected, split_valid
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    Span,
    integers_to_ms,
    interval_to_ms,
    month_span,
    ms_to_utc,
    utc_to_ms,
)


def _libdeflate() -> Any:
    try:
        return import_module("deflate")
    except ImportError:  # no wheel for this machine: zlib does it too
        return None


deflate = _libdeflate()

ROOT = "/data/"
CHECKSUM_SUFFIX = ".CHECKSUM"
# Spot archives carry microseconds from this open time on, milliseconds before.
MICROSECONDS_FROM_MS = utc_to_ms("2025-01-01")
_ZIP_DATE = (2024, 1, 1, 0, 0, 0)
_NAME = re.compile(r"([A-Z0-9._-]+)-(\d+[smhdw])-(\d{4}-\d{2}(?:-\d{2})?)")
_WANTED = [name for name in ROW_FIELDS if name in COLUMNS]
_TYPES = {name: pa.int64() if name == "open_time" else pa.float64() for name in _WANTED}
_DAMAGE: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError),
    *(() if deflate is None else (deflate.DeflateError,)),
)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One archive: a month ('2024-05') or a day ('2024-05-01') of a symbol and interval."""

    symbol: str
    interval: str
    period: str

    @property
    def name(self) -> str:
        """File name without suffix: 'BTCUSDT-5m-2024-05'."""
        return f"{self.symbol}-{self.interval}-{self.period}"

    @property
    def daily(self) -> bool:
        """True for a day's file."""
        return len(self.period) == len("2024-05-01")

    @property
    def span(self) -> Span:
        """The open times it covers."""
        if not self.daily:
            return month_span(self.period)
        start_ms = utc_to_ms(self.period)
        return Span(start_ms, start_ms + DAY_MS)

    @property
    def path(self) -> str:
        """Where it is published, below the archives' address."""
        folder = "daily" if self.daily else "monthly"
        return f"{ROOT}spot/{folder}/klines/{self.symbol}/{self.interval}/{self.name}.zip"

    def url(self, archive_url: str) -> str:
        """Its whole address."""
        return f"{archive_url.rstrip('/')}{self.path}"


@dataclass(frozen=True, slots=True)
class ArchiveRead:
    """The candles of an archive that was fetched, checked and opened.

    Parameters
    ----------
    file : which one.
    sha256 : of the zip, equal to its published checksum.
    candles : those that keep every rule.
    rejected : those that do not.
    """

    file: ArchiveFile
    sha256: str
    candles: Candles
    rejected: tuple[Rejected, ...]


def parse_name(name: str) -> ArchiveFile:
    """The archive that a file name such as 'BTCUSDT-1m-2026-03.zip' stands for.

    Raises
    ------
    SourceError
        When the name is not an archive's.
    """
    match = _NAME.fullmatch(name.removesuffix(".zip"))
    if match is None:
        raise SourceError(f"{name} is not named like an archive (BTCUSDT-1m-2026-03.zip)")
    return ArchiveFile(*match.groups())


def read_archive(file: ArchiveFile, content: bytes, checksum: str | None) -> ArchiveRead:
    """Candles of a zip's bytes; `checksum` is the text of its .CHECKSUM, None where there is none.

    Raises
    ------
    SourceError
        When the checksum does not match, the zip is truncated or damaged, or its text is no
        candles of this file.
    """
    digest = hashlib.sha256(content).hexdigest()
    if checksum is not None:
        check_digest(digest, checksum, file.name)
    candles = parse_csv(unzip(content, file.name), file.name)
    kept, rejected = split_valid(candles, interval_to_ms(file.interval))
    span = file.span
    if len(kept) and not span.start_ms <= kept.open_time[0] <= kept.open_time[-1] < span.end_ms:
        raise SourceError(
            f"{file.name}.zip holds candles from {ms_to_utc(int(kept.open_time[0]))} to"
            f" {ms_to_utc(int(kept.open_time[-1]))}, outside {span}"
        )
    return ArchiveRead(file, digest, kept, tuple(rejected))


def check_digest(digest: str, checksum: str, name: str) -> None:
    """Compare a sha256 with the published line '<sha256>  <name>.zip'.

    Raises
    ------
    SourceError
        When they differ or the line is none.
    """
    published = checksum.split()[0].lower() if checksum.split() else ""
    if published != digest:
        raise SourceError(
            f"{name}.zip has sha256 {digest[:12]}..., its .CHECKSUM says {published[:12] or '?'}..."
        )


def unzip(content: bytes, name: str) -> bytes | bytearray:
    """The one CSV inside an archive.

    Raises
    ------
    SourceError
        When the zip is truncated, damaged, or holds anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            members = packed.infolist()
            if [member.filename for member in members] != [f"{name}.csv"]:
                inside = ", ".join(member.filename for member in members)
                raise SourceError(f"{name}.zip holds {inside}, expected only {name}.csv")
            if members[0].compress_type == zipfile.ZIP_DEFLATED and deflate is not None:
                return _inflate(content, members[0])
            return packed.read(members[0])
    except _DAMAGE as cause:
        raise SourceError(f"{name}.zip is truncated or damaged: {cause}") from cause


def _inflate(content: bytes, member: zipfile.ZipInfo) -> bytearray:
    """A deflated member through libdeflate, three times as fast as zlib."""
    names, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
    start = member.header_offset + 30 + names + extra
    packed = memoryview(content)[start : start + member.compress_size]
    text: bytearray = deflate.deflate_decompress(packed, member.file_size)
    if len(text) != member.file_size or deflate.crc32(text) != member.CRC:
        raise zipfile.BadZipFile("bad CRC-32")
    return text


def parse_csv(text: bytes | bytearray, origin: str) -> Candles:
    """Candles of an archive's text, with or without a header row, in s, ms, us or ns.

    1577836800000,7195.24000000,7196.25000000,7183.14000000,7186.68000000,51.64281200,
    1577836859999,371233.51835535,493,19.59823000,140888.41428273,0

    Raises
    ------
    SourceError
        When it is not such rows.
    """
    if not text or text.isspace():
        return Candles.empty()
    has_header = not text[:1].isdigit()
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(ROW_FIELDS),
                skip_rows=int(has_header),
                block_size=1 << 20,
                use_threads=False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=_TYPES,
                include_columns=_WANTED,
                null_values=[],
                check_utf8=False,
            ),
            parse_options=pyarrow.csv.ParseOptions(quote_char=False),
        )
        open_time = integers_to_ms(table["open_time"].to_numpy(), origin)
    except (pa.ArrowException, CandleError) as cause:
        raise SourceError(f"{origin}.csv is not an archive of candles: {cause}") from cause
    columns = {name: table[name].to_numpy() for name in _WANTED[1:]}
    return Candles.from_columns(open_time=open_time, **columns)


def read_archive_file(path: Path) -> ArchiveRead:
    """An archive on disk, against the .CHECKSUM beside it where there is one.

    Raises
    ------
    SourceError
        As `read_archive`, or when the file cannot be read.
    """
    beside = path.with_name(path.name + CHECKSUM_SUFFIX)
    try:
        checksum = beside.read_text() if beside.exists() else None
        return read_archive(parse_name(path.name), path.read_bytes(), checksum)
    except OSError as cause:
        raise SourceError(f"{path} cannot be read: {cause}") from cause


def archive_at(path: str) -> tuple[ArchiveFile, bool] | None:
    """(the archive published at a path, whether the path is its checksum's); None for any other."""
    name = path.removesuffix(CHECKSUM_SUFFIX)
    try:
        file = parse_name(name.rpartition("/")[2])
        known = file.path == name and file.span.start_ms >= 0
    except (SourceError, ValueError):  # an impossible date is a ValueError
        return None
    return (file, name != path) if known else None


def archive_csv(klines: Sequence[Kline]) -> str:
    """The text inside a spot archive."""
    lines = []
    opened, closed = ROW_FIELDS.index("open_time"), ROW_FIELDS.index("close_time")
    for kline in klines:
        fields = kline.row()
        if fields[opened] >= MICROSECONDS_FROM_MS:
            fields[opened], fields[closed] = fields[opened] * 1000, fields[closed] * 1000 + 999
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
