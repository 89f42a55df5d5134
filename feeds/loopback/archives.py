"""The loopback exchange's archives: zips and checksums of what has ended, whole or damaged."""

from __future__ import annotations

from aiohttp import web

from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    archive_at,
    archive_csv,
    archive_zip,
    checksum_line,
)
from cppncripto_strategy.feeds.loopback.faults import ARCHIVE_FAULTS, FaultBook
from cppncripto_strategy.feeds.loopback.market import Market
from cppncripto_strategy.feeds.loopback.transport import BREAKS, Requests

_ZIP_FAULTS = ("truncated_zip", "corrupt_zip")
_ZIPS_KEPT = 256


class ArchiveHost:
    """Serves archives; keeps the zips it made, as long as it lives."""

    def __init__(self, market: Market, faults: FaultBook, requests: Requests) -> None:
        self.market, self.faults, self.requests = market, faults, requests
        self._zips: dict[str, bytes] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for an archive or its checksum."""
        file, wants_sum = archive_at(request.path) or (None, False)
        unfit = _ZIP_FAULTS if wants_sum else ("bad_checksum",)
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
            content = _spoil(content, kind)
            body = checksum_line(file.name, content).encode() if wants_sum else content
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


def _spoil(content: bytes, kind: str | None) -> bytes:
    if kind == "truncated_zip":
        return content[: len(content) // 2]
    if kind in ("corrupt_zip", "bad_checksum"):
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    return content
