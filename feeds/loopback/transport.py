"""Requests as the loopback exchange saw them, and answers that break on their way."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from cppncripto_strategy.feeds.loopback.faults import RestFault
from cppncripto_strategy.feeds.loopback.market import Market

_TERABYTE = 10**12
_ENDLESS_CHUNK = b"[" * 65_536


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One REST or archive request as the exchange saw it; `fault` is what struck it."""

    path: str
    query: str
    status: int
    weight: int
    market_ms: int
    fault: str | None


class Requests:
    """The requests seen and the way answers leave; lives as long as its exchange.

    Attributes
    ----------
    records : the last 100,000 requests.
    closing : set when the exchange stops, which ends requests that hang.
    """

    def __init__(self, market: Market, hang_s: float, slow_s: float) -> None:
        self.market, self.hang_s, self.slow_s = market, hang_s, slow_s
        self.records: deque[RequestRecord] = deque(maxlen=100_000)
        self.closing = asyncio.Event()

    def record(
        self, request: web.Request, status: int, weight: int, fault: RestFault | None
    ) -> None:
        """Remember a request with what became of it."""
        kind = fault.kind if fault else None
        now_ms = self.market.now_ms()
        self.records.append(
            RequestRecord(request.path, request.query_string, status, weight, now_ms, kind)
        )

    async def broken(
        self, request: web.Request, kind: str, content: bytes, content_type: str
    ) -> web.StreamResponse:
        """Let a fault of `BREAKS` strike an answer on its way."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        if kind in ("redirect", "moved"):
            there = request.url.with_host("localhost") if kind == "redirect" else request.url
            return web.Response(status=302, headers={"Location": str(there)})
        with suppress(OSError):  # the client may have had enough
            if kind == "hang":
                await self._closing_within(self.hang_s)
            elif kind in ("truncated", "lying_length"):
                response.content_length = len(content) if kind == "truncated" else _TERABYTE
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
                await asyncio.sleep(0.01)
            elif kind in ("endless", "slow"):
                await self._without_end(request, response, content, kind == "slow")
        reset(request)
        return response

    async def _without_end(
        self, request: web.Request, response: web.StreamResponse, content: bytes, slow: bool
    ) -> None:
        """Chunks until the client has had enough: as fast as it reads, or a byte a second."""
        response.enable_chunked_encoding()
        await response.prepare(request)
        for sent in itertools.count():
            part = content[sent % len(content) :][:1] if slow else _ENDLESS_CHUNK
            await response.write(part)
            if self.closing.is_set() or (slow and await self._closing_within(self.slow_s)):
                return

    async def _closing_within(self, seconds: float) -> bool:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)
        return self.closing.is_set()


def reset(request: web.Request) -> None:
    """Cut the connection with a TCP reset, not a polite end."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
