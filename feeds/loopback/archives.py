"""The loopback exchange's archives: zips and checksums of what has ended, whole or damaged."""

from __future__ import annotations

import asyncio

from aiohttp import web

from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    archive_at,
    archive_csv,
    archive_zip,
    checksum_line,
)
from cppncripto_strategy.feeds.loopback.damage import CHECKSUMS, ZIPS
from cppncripto_strategy.feeds.loopback.faults import (
    ARCHIVE_FAULTS,
    BREAKS,
    CHECKSUM_FAULTS,
    FORGERIES,
    ZIP_FAULTS,
    FaultBook,
)
from cppncripto_strategy.feeds.loopback.market import Market
from cppncripto_strategy.feeds.loopback.transport import Requests

_ZIPS_KEPT = 256


class ArchiveHost:
    """Serves archives; keeps the zips it made, as long as it lives."""

    def __init__(self, market: Market, faults: FaultBook, requests: Requests) -> None:
        self.market, self.faults, self.requests = market, faults, requests
        self._zips: dict[str, bytes] = {}
        self._forged: dict[str, str] = {}  # archive -> how its next zip is damaged

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for an archive or its checksum."""
        file, wants_sum = archive_at(request.path) or (None, False)
        unfit = ZIP_FAULTS if wants_sum else CHECKSUM_FAULTS + FORGERIES
        allowed = tuple(kind for kind in ARCHIVE_FAULTS if kind not in unfit)
        fault = self.faults.for_request(
            request.path, file.symbol if file else None, request.path, allowed
        )
        kind = fault.kind if fault else None
        content = self._zip(file) if file else None
        if file is None or content is None or kind == "missing":
            response: web.StreamResponse = web.Response(
                status=404,
                text="<Error><Code>NoSuchKey</Code></Error>",
                content_type="application/xml",
            )
        elif kind == "503":
            response = web.Response(
                status=503,
                text="<Error><Code>SlowDown</Code></Error>",
                content_type="application/xml",
            )
        else:
            body = await self._body(file, content, kind or "", wants_sum)
            if kind in BREAKS:
                response = await self.requests.broken(request, kind, body, "application/zip")
            else:
                response = web.Response(body=body, content_type="application/zip")
        self.requests.record(request, response.status, 0, fault)
        return response

    def _zip(self, file: ArchiveFile) -> bytes | None:
        """The archive's bytes; None when there is none (yet)."""
        if file.name not in self._zips:
            klines = self.market.published(file)
            if not klines:
                return None
            if len(self._zips) >= _ZIPS_KEPT:
                self._zips.clear()
            self._zips[file.name] = archive_zip(file.name, archive_csv(klines))
        return self._zips[file.name]

    async def _body(self, file: ArchiveFile, content: bytes, kind: str, wants_sum: bool) -> bytes:
        """The zip or its checksum, damaged as `kind` says."""
        if kind in CHECKSUMS:
            return CHECKSUMS[kind](content, file.name)
        forged = kind.removeprefix("forged_") if kind in FORGERIES else ""
        if wants_sum:
            self._forged[file.name] = forged
        else:
            forged = self._forged.pop(file.name, "")
        spoil = ZIPS.get(kind) or ZIPS.get(forged)
        if spoil is not None:
            # On a thread: a bomb takes seconds to make.
            content = await asyncio.to_thread(spoil, content, file.name)
        return checksum_line(file.name, content).encode() if wants_sum else content
