"""Candles from Binance's bulk archives: monthly and daily zips with a sha256 beside each.

    https://data.binance.vision/data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-05.zip

A spot archive has no header row, a futures one has; open times are milliseconds until 2024 and
microseconds since 2025. Both are sniffed, not assumed. A file whose checksum does not match, or
that does not open, is handed to whoever keeps damage and fetched again; after the last attempt its
candles are left to REST. Nothing here decides which candles are wanted.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.csv

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import is_loopback
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
logger = logging.getLogger(__name__)

# Damage is rarely cured by asking for ever; the exchange re-publishes a bad file days later.
DAMAGED_ATTEMPTS = 3
# So many files in a row without any answer, and the archive counts as out of reach for this run.
UNREACHABLE_AFTER = 3
# The order of the columns in the exchange's own files, which carry no header row.
HEADERLESS = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("trades", "taker_buy_volume", "taker_buy_quote_volume", "unused"),
)
_NAME = re.compile(r"([A-Z0-9._-]+)-(\d+[smhdw])-(\d{4}-\d{2}(?:-\d{2})?)")
_WANTED = [name for name in HEADERLESS if name in COLUMNS]
_TYPES = {name: pa.int64() if name in ("open_time", "trades") else pa.float64() for name in _WANTED}
_DAMAGE: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError),
    *(() if deflate is None else (deflate.DeflateError,)),
)
KeepDamaged = Callable[[str, bytes, str], object]
_PASSING = (aiohttp.ClientError, TimeoutError, OSError)


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

    def url(self, archive_url: str) -> str:
        """Where it is published."""
        folder = "daily" if self.daily else "monthly"
        where = f"data/spot/{folder}/klines/{self.symbol}/{self.interval}/{self.name}.zip"
        return f"{archive_url.rstrip('/')}/{where}"


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
                column_names=list(HEADERLESS),
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
    beside = path.with_name(path.name + ".CHECKSUM")
    try:
        checksum = beside.read_text() if beside.exists() else None
        return read_archive(parse_name(path.name), path.read_bytes(), checksum)
    except OSError as cause:
        raise SourceError(f"{path} cannot be read: {cause}") from cause


class ArchiveClient:
    """Fetches archives over HTTP; an async context manager, bound to the running event loop.

    Parameters
    ----------
    sources, retry : where to ask and how patiently.
    keep_damaged : called with (name, content, reason) of a file that does not match or open.
    rng : source of the jitter.
    """

    def __init__(
        self,
        sources: Sources,
        keep_damaged: KeepDamaged,
        retry: Retry | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.sources, self.retry, self.keep_damaged = sources, retry or Retry(), keep_damaged
        self.requests = 0
        self.damaged = 0
        self._rng = rng or random.Random()
        self._unanswered = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ArchiveClient:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self.retry.timeout_s, sock_read=self.retry.timeout_s
            ),
            trust_env=not is_loopback(self.sources.archive_url),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, file: ArchiveFile) -> ArchiveRead | None:
        """The archive, or None when there is none, it stays damaged, or cannot be reached.

        None always means: take these candles from elsewhere.
        """
        if self._unanswered >= UNREACHABLE_AFTER:
            return None
        for attempt in range(DAMAGED_ATTEMPTS):
            got = await self._download(file)
            if got is None:
                return None
            content, checksum = got
            try:
                return await asyncio.to_thread(read_archive, file, content, checksum)
            except SourceError as error:
                self.damaged += 1
                logger.warning("%s (attempt %d); quarantined", error, attempt + 1)
                name = f"{file.name}.zip"
                await asyncio.to_thread(self.keep_damaged, name, content, str(error))
                await asyncio.sleep(self.retry.wait_s(attempt, self._rng))
        return None

    async def _download(self, file: ArchiveFile) -> tuple[bytes, str] | None:
        """Zip and checksum text; None when either is not published or does not arrive."""
        url = file.url(self.sources.archive_url)
        try:
            checksum = await self._get(f"{url}.CHECKSUM")
            content = None if checksum is None else await self._get(url)
        except SourceError as error:
            self._unanswered += 1
            logger.warning("%s", error)
            return None
        self._unanswered = 0
        if checksum is None or content is None:
            return None
        return content, checksum.decode("ascii", errors="replace")

    async def _get(self, url: str) -> bytes | None:
        """The body; None for a 404. Raises SourceError after the last attempt."""
        assert self._session is not None, "use `async with ArchiveClient(...)`"
        problem = ""
        for attempt in range(self.retry.attempts):
            self.requests += 1
            try:
                async with self._session.get(url) as response:
                    if response.status == 404:
                        return None
                    if response.status == 200:
                        return await response.read()
                    problem = f"status {response.status}"
            except _PASSING as error:
                problem = f"{type(error).__name__}: {error}"
            logger.info("%s: attempt %d failed: %s", url, attempt + 1, problem)
            await asyncio.sleep(self.retry.wait_s(attempt, self._rng))
        raise SourceError(f"{url} did not arrive after {self.retry.attempts} attempts: {problem}")
