"""One stream connection: python-binance's socket, without its reconnecting.

The library's own reconnecting gives up after four attempts, and one bad frame or a full queue ends
its read loop for good; so each generation of the stream gets a new connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from binance.ws.reconnecting_websocket import ReconnectingWebsocket

from cppncripto_strategy.feeds.binance.endpoints import is_loopback

log = logging.getLogger(__name__)


class _QuietLog:
    """The library reports each disconnection as an error; here they are routine."""

    def debug(self, text: str) -> None:
        """Nothing: one line per message would be too many."""

    def error(self, text: str) -> None:
        """A routine message."""
        log.debug("socket: %s", text)


class StreamSocket(ReconnectingWebsocket):
    """One generation's socket: never reconnects by itself, survives what it cannot parse.

    Parameters
    ----------
    url : stream address. prefix, path : what follows it (`binance.frames.combined_path`).
    timeout_s : bounds the closing.
    queue_frames : unread frames it may hold.
    """

    MAX_RECONNECTS = 0

    def __init__(
        self, url: str, prefix: str, path: str, *, timeout_s: float, queue_frames: int
    ) -> None:
        proxy = {"proxy": None} if is_loopback(url) else {}
        super().__init__(url=url, path=path, prefix=prefix, max_queue_size=queue_frames, **proxy)
        self.TIMEOUT = timeout_s
        self._log = _QuietLog()
        self._malformed = 0
        self._connected: Any = None

    async def connect(self) -> None:
        """Connect once, and remember the connection."""
        await super().connect()
        self._connected = self.ws

    def _handle_message(self, evt: Any) -> Any:
        try:
            return self.json_loads(evt)
        except Exception:  # whatever a text makes the parser raise: deep nesting, long numbers, ...
            self._malformed += 1
            return None

    def waiting(self) -> Iterator[Any]:
        """The messages that have arrived and were not received yet, each as it is taken."""
        while not self._queue.empty():
            yield self._queue.get_nowait()

    def take_malformed(self) -> int:
        """Messages that could not be parsed since the last call."""
        count, self._malformed = self._malformed, 0
        return count

    async def end(self) -> None:
        """Close, politely if the other side listens, in bounded time if it does not."""
        with suppress(Exception):
            async with asyncio.timeout(3 * self.TIMEOUT + 0.5):
                await self.close()
        # The library forgets a connection that failed; its file descriptor would stay open.
        transport = getattr(self._connected, "transport", None)
        if transport is not None:
            transport.abort()
