"""Requests as the loopback exchange saw them, and answers that break on their way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from cppncripto_strategy.feeds.loopback.faults import RestFault
from cppncripto_strategy.feeds.loopback.market import Market

# What breaks an answer of any kind.
BREAKS = ("hang", "reset", "truncated")


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

    def __init__(self, market: Market, hang_s: float) -> None:
        self.market, self.hang_s = market, hang_s
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
        """Hang, reset, or break off half way through the body."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        if kind == "hang":
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.closing.wait(), self.hang_s)
        elif kind == "truncated":
            response.content_length = len(content)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            await asyncio.sleep(0.01)
        reset(request)
        return response


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
