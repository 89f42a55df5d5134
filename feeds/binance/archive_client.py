"""Binance's bulk archives over HTTP.

A file whose checksum does not match, or that does not open, is handed to `keep_damaged` and
fetched again; after the last attempt its candles are left to REST. Which candles are wanted is not
decided here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import aiohttp

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.archive import (
    CHECKSUM_SUFFIX,
    ArchiveFile,
    ArchiveRead,
    read_archive,
)
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources, is_loopback

logger = logging.getLogger(__name__)

# Asking again rarely repairs a damaged file; the exchange re-publishes it days later.
DAMAGED_ATTEMPTS = 3

# So many files in a row without any answer, and the archive counts as out of reach for this run.
UNREACHABLE_AFTER = 3

KeepDamaged = Callable[[str, bytes, str], object]

_PASSING = (aiohttp.ClientError, TimeoutError, OSError)


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
            checksum = await self._get(f"{url}{CHECKSUM_SUFFIX}")
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
