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
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.archive_text import zip_candles
from cppncripto_strategy.feeds.binance.bounds import (
    BROKEN_ROWS,
    CHECKSUM_BYTES,
    archive_bounds,
)
from cppncripto_strategy.feeds.binance.klines import ROW_FIELDS, Kline
from cppncripto_strategy.feeds.candles import (
    Candles,
    Rejected,
    broken_rules,
    first_violation,
    split_valid,
)
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    Span,
    interval_to_ms,
    month_span,
    ms_to_utc,
    utc_to_ms,
)
from cppncripto_strategy.foreign import reading

ROOT = "/data/"
CHECKSUM_SUFFIX = ".CHECKSUM"
# Spot archives carry microseconds from this open time on, milliseconds before.
MICROSECONDS_FROM_MS = utc_to_ms("2025-01-01")
_ZIP_DATE = (2024, 1, 1, 0, 0, 0)
_NAME = re.compile(r"([A-Z0-9._-]+)-(\d+[smhdw])-(\d{4}-\d{2}(?:-\d{2})?)")
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+\*?(\S+))?")


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
    """`open_archive` of a zip's bytes."""
    digest = hashlib.sha256(content).hexdigest()
    return open_archive(file, io.BytesIO(content), digest, checksum)


def open_archive(
    file: ArchiveFile, content: IO[bytes], sha256: str, checksum: str | None
) -> ArchiveRead:
    """Candles of a zip that is here, within `bounds`.

    Whatever a damaged file makes the libraries raise comes out as a SourceError.

    Parameters
    ----------
    content : the zip, open for reading anywhere in it.
    sha256 : of all of it.
    checksum : the text of its .CHECKSUM; None where there is none.

    Raises
    ------
    SourceError
        When the checksum does not match, the zip is truncated or damaged, or its text is no
        candles of this file.
    """
    if checksum is not None:
        check_digest(sha256, checksum, file.name)
    with reading(f"{file.name}.zip", "archive (truncated or damaged)", SourceError):
        interval_ms, span = interval_to_ms(file.interval), file.span
        candles = zip_candles(content, file.name, archive_bounds(span, interval_ms))
        _refuse_mostly_broken(candles, interval_ms, file.name)
        kept, rejected = split_valid(candles, interval_ms)
        if len(kept) and not span.start_ms <= kept.open_time[0] <= kept.open_time[-1] < span.end_ms:
            raise SourceError(
                f"{file.name}.zip holds candles from {ms_to_utc(int(kept.open_time[0]))} to"
                f" {ms_to_utc(int(kept.open_time[-1]))}, outside {span}"
            )
        return ArchiveRead(file, sha256, kept, tuple(rejected))


def _refuse_mostly_broken(candles: Candles, interval_ms: int, name: str) -> None:
    """Raise SourceError for a file of so many bad rows that naming each would take gigabytes."""
    if first_violation(candles, interval_ms) is None:
        return
    broken = int(np.count_nonzero(broken_rules(candles, interval_ms)))
    if broken > BROKEN_ROWS:
        raise SourceError(f"{name}.csv: {broken:,} of {len(candles):,} rows break a rule")


def check_digest(digest: str, checksum: str, name: str) -> None:
    """Compare a sha256 with the published line '<sha256>  <name>.zip'.

    Raises
    ------
    SourceError
        When they differ, the line is none or names another file, or there are several.
    """
    match = _CHECKSUM.fullmatch(checksum.strip())
    if match is None or match[2] not in (None, f"{name}.zip"):
        raise SourceError(
            f"{name}.zip has no checksum: its .CHECKSUM says {checksum.strip()[:120]!r}, expected"
            f" one line, '<sha256>  {name}.zip'"
        )
    if match[1].lower() != digest:
        raise SourceError(
            f"{name}.zip has sha256 {digest[:12]}..., its .CHECKSUM says {match[1][:12]}..."
        )


def read_archive_file(path: Path) -> ArchiveRead:
    """An archive on disk, against the .CHECKSUM beside it where there is one.

    Raises
    ------
    SourceError
        As `read_archive`, or when the file cannot be read.
    """
    beside = path.with_name(path.name + CHECKSUM_SUFFIX)
    file = parse_name(path.name)
    with reading(path, "archive", SourceError), path.open("rb") as content:
        checksum = None
        if beside.exists():
            checksum = beside.read_bytes()[: CHECKSUM_BYTES + 1].decode("ascii", errors="replace")
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return open_archive(file, content, digest, checksum)


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
