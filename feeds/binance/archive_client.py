"""Binance's bulk archives over HTTP, within bounds.

A file whose checksum does not match, that does not open, or that is larger than its candles can be,
is handed to `keep_damaged` and fetched again; after the last attempt its candles are left to REST.
A body is spooled: what is larger than a few MiB lies on disk while it is checked. Which candles
are wanted is not decided here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

import aiohttp

from cppncripto_strategy.errors import SourceError, StoreError
from cppncripto_strategy.feeds.binance.archive import (
    CHECKSUM_SUFFIX,
    ArchiveFile,
    ArchiveRead,
    open_archive,
)
from cppncripto_strategy.feeds.binance.bounds import CHECKSUM_BYTES, archive_bounds
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources, is_loopback
from cppncripto_strategy.feeds.binance.receiving import TooLargeError, chunks, redirected
from cppncripto_strategy.feeds.clock import interval_to_ms

logger = logging.getLogger(__name__)

# Asking again rarely repairs a damaged file; the exchange re-publishes it days later.
DAMAGED_ATTEMPTS = 3

# So many files in a row without any answer, and the archive counts as out of reach for this run.
UNREACHABLE_AFTER = 3
_IN_MEMORY_BYTES = 4 << 20
# Of a damaged file so much is kept for a person to look at; of an endless one less, which is then
# the same each time and kept once.
SPECIMEN_BYTES, ENDLESS_SPECIMEN_BYTES = 8 << 20, 4_096

KeepDamaged = Callable[[str, bytes, str], object]


@dataclass(frozen=True, slots=True)
class _Body:
    """What came for one address: its bytes, as far as they were taken, and their sha256.

    `problem` says why they were not taken to their end, '' where they were.
    """

    content: IO[bytes]
    sha256: str
    problem: str = ""


class ArchiveClient:
    """Fetches archives over HTTP; an async context manager, bound to the running event loop.

    Parameters
    ----------
    sources, retry : where to ask and how patiently.
    keep_damaged : called with (name, content, reason) of a file that does not match or open; of a
        large one, its beginning.
    rng : source of the jitter.
    folder : where large files lie while they are checked; nothing stays there, not even after a
        kill. None takes the system's folder for temporary files.
    """

    def __init__(
        self,
        sources: Sources,
        keep_damaged: KeepDamaged,
        retry: Retry | None = None,
        *,
        rng: random.Random | None = None,
        folder: Path | None = None,
    ) -> None:
        self.sources, self.retry, self.keep_damaged = sources, retry or Retry(), keep_damaged
        self.requests = 0
        self.damaged = 0
        self._rng = rng or random.Random()
        self._folder = None if folder is None else str(folder)
        self._unanswered = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ArchiveClient:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self.retry.timeout_s, sock_read=self.retry.timeout_s
            ),
            # An archive is packed already: what its server packs again is taken as it comes.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
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

        Raises
        ------
        StoreError
            When a large file, or a damaged one, cannot be written to disk.
        """
        if self._unanswered >= UNREACHABLE_AFTER:
            return None
        for attempt in range(DAMAGED_ATTEMPTS):
            got = await self._download(file)
            if got is None:
                return None
            checksum, body = got
            with closing(body.content):
                try:
                    return await self._read(file, checksum, body)
                except SourceError as error:
                    await self._set_aside(f"{file.name}.zip", body, str(error))
                    logger.warning("%s (attempt %d); quarantined", error, attempt + 1)
            await asyncio.sleep(self.retry.wait_s(attempt, self._rng))
        return None

    async def _read(self, file: ArchiveFile, checksum: str, body: _Body) -> ArchiveRead:
        if body.problem:
            raise SourceError(body.problem)
        return await asyncio.to_thread(open_archive, file, body.content, body.sha256, checksum)

    async def _set_aside(self, name: str, body: _Body, reason: str) -> None:
        self.damaged += 1
        body.content.seek(0)
        most = ENDLESS_SPECIMEN_BYTES if body.problem else SPECIMEN_BYTES
        await asyncio.to_thread(self.keep_damaged, name, body.content.read(most), reason)

    async def _download(self, file: ArchiveFile) -> tuple[str, _Body] | None:
        """Checksum text and zip; None when either is not published or does not arrive."""
        url = file.url(self.sources.archive_url)
        bounds = archive_bounds(file.span, interval_to_ms(file.interval))
        try:
            checksum = await self._checksum(file, f"{url}{CHECKSUM_SUFFIX}")
            body = None if checksum is None else await self._get(url, bounds.zip_bytes)
        except SourceError as error:
            self._unanswered += 1
            logger.warning("%s", error)
            return None
        self._unanswered = 0
        return None if checksum is None or body is None else (checksum, body)

    async def _checksum(self, file: ArchiveFile, url: str) -> str | None:
        """The text of the .CHECKSUM; of one that is too large its beginning, which matches none."""
        body = await self._get(url, CHECKSUM_BYTES)
        if body is None:
            return None
        with closing(body.content):
            if body.problem:
                name = f"{file.name}.zip{CHECKSUM_SUFFIX}"
                await self._set_aside(name, body, body.problem)
            body.content.seek(0)
            return body.content.read().decode("ascii", errors="replace")

    async def _get(self, url: str, limit: int) -> _Body | None:
        """What is there; None for a 404. Raises SourceError after the last attempt."""
        problem = ""
        for attempt in range(self.retry.attempts):
            try:
                body = await self._once(url, limit)
                if not isinstance(body, int):
                    return body
                if body == 404:
                    return None
                problem = f"status {body}"
            except StoreError:
                raise
            except Exception as error:  # whatever a broken answer makes aiohttp raise
                problem = f"{type(error).__name__}: {error}"
            logger.info("%s: attempt %d failed: %s", url, attempt + 1, problem)
            await asyncio.sleep(self.retry.wait_s(attempt, self._rng))
        raise SourceError(f"{url} did not arrive after {self.retry.attempts} attempts: {problem}")

    async def _once(self, url: str, limit: int) -> _Body | int:
        """What is there, after redirects on the same host; the status where it is not 200."""
        assert self._session is not None, "use `async with ArchiveClient(...)`"
        hops = 0
        while True:
            self.requests += 1
            async with asyncio.timeout(self.retry.timeout_s):
                response = await self._session.get(url, allow_redirects=False)
            try:
                moved = redirected(response, hops)
                if moved is None:
                    ok = response.status == 200
                    return await self._take(response, limit) if ok else response.status
                url, hops = moved, hops + 1
            finally:
                # Not released: that would read what is left of a body nobody wants.
                response.close()

    async def _take(self, response: aiohttp.ClientResponse, limit: int) -> _Body:
        spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=self._folder)  # noqa: SIM115
        content = cast(IO[bytes], spool)
        digest = hashlib.sha256()
        try:
            async for chunk in chunks(response, limit, self.retry.timeout_s):
                digest.update(chunk)
                _write(content, chunk)
        except TooLargeError as error:
            return _Body(content, "", str(error))
        except BaseException:
            content.close()
            raise
        content.seek(0)
        return _Body(content, digest.hexdigest())


def _write(content: IO[bytes], chunk: bytes) -> None:
    try:
        content.write(chunk)
    except OSError as cause:
        raise StoreError(
            f"an archive could not be kept while it is checked ({cause}). Is the disk full?"
        ) from cause
