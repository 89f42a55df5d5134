"""The loopback exchange's stream connections: subscriptions, pings, and how they break."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from cppncripto_strategy.feeds.binance.answers import compact
from cppncripto_strategy.feeds.binance.frames import (
    COMBINED_PATH,
    COMMANDS_PER_SECOND,
    SINGLE_PATH,
    STREAMS_PER_CONNECTION,
    obey,
    read_combined,
    shutdown_frame,
    stream_name,
    wrapped,
)
from cppncripto_strategy.feeds.loopback.faults import CONNECTION_FAULTS, FaultBook
from cppncripto_strategy.feeds.loopback.market import Market
from cppncripto_strategy.feeds.loopback.transport import reset

# Wall seconds, as on the exchange.
PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 60.0
# A consumer this far behind is dropped.
BACKLOG_FRAMES = 20_000
_ATTEMPTS_WINDOW_S = 300


@dataclass(frozen=True, slots=True)
class _Goodbye:
    """Queued like a frame: close the connection here."""

    code: int
    reason: str


@dataclass(slots=True, eq=False)
class _Connection:
    """One stream connection: what it subscribed to and what waits to be sent."""

    ws: web.WebSocketResponse
    request: web.Request
    combined: bool
    opened_ms: int
    streams: set[str]
    queue: asyncio.Queue[str | _Goodbye]
    frozen: bool = False
    pong_at: float = field(default_factory=time.monotonic)

    def push(self, text: str, limit: int) -> bool:
        """Queue a frame; False when the consumer is too far behind."""
        self.queue.put_nowait(text)
        return self.queue.qsize() <= limit

    def abort(self) -> None:
        """Reset the TCP connection."""
        reset(self.request)


class Sockets:
    """Every stream connection; lives as long as its exchange.

    Attributes
    ----------
    open : the connections that get frames.
    attempts : upgrades asked for, refused ones included.
    """

    def __init__(self, market: Market, faults: FaultBook) -> None:
        self.market, self.faults, self.settings = market, faults, market.settings
        self.open: set[_Connection] = set()
        self.attempts = 0
        self._recent: deque[float] = deque()

    def routes(self) -> list[web.RouteDef]:
        """Single and combined streams."""
        paths = (SINGLE_PATH, f"{SINGLE_PATH}/{{names}}", COMBINED_PATH)
        return [web.get(path, self._serve) for path in paths]

    def in_outage(self) -> bool:
        """Whether connections are refused now."""
        now_ms = self.market.now_ms()
        return any(self.faults.lasting(kind, now_ms) for kind in ("outage", "blackout"))

    def broadcast(self, symbol: str, text: str) -> None:
        """Send a symbol's frame to whoever subscribed to it."""
        stream = stream_name(symbol, self.market.interval)
        named = wrapped(stream, text)
        for connection in list(self.open):
            if stream in connection.streams and not connection.frozen:
                frame = named if connection.combined else text
                if not connection.push(frame, BACKLOG_FRAMES):
                    connection.abort()

    def close_old(self) -> None:
        """Cut the connections that have lived as long as the exchange allows."""
        for connection in list(self.open):
            if self.market.now_ms() - connection.opened_ms >= self.settings.connection_life_ms:
                self._close(connection, WSCloseCode.GOING_AWAY, "24 hours have passed")

    def stop(self) -> None:
        """Say goodbye to everybody."""
        for connection in list(self.open):
            connection.queue.put_nowait(_Goodbye(WSCloseCode.GOING_AWAY, "stopped"))

    def strike(self, kind: str) -> None:
        """Let a connection fault strike every stream connection at once."""
        for connection in list(self.open):
            if kind == "abort":
                connection.abort()
            elif kind == "half_open":
                connection.frozen = True
            elif kind == "close_1000":
                self._close(connection, WSCloseCode.OK, "")
            elif kind == "close_1001":
                self._close(connection, WSCloseCode.GOING_AWAY, "")
            elif kind == "shutdown":
                connection.queue.put_nowait(compact(shutdown_frame(self.market.now_ms())))
                self._close(connection, WSCloseCode.GOING_AWAY, "shutting down")
            else:
                raise ValueError(f"{kind!r} is no connection fault: {CONNECTION_FAULTS}")

    def say(self, text: str) -> None:
        """Send a raw text to every stream connection."""
        for connection in list(self.open):
            connection.queue.put_nowait(text)

    def _close(self, connection: _Connection, code: int, reason: str) -> None:
        """Close after what is queued has been sent; nothing more is queued."""
        self.open.discard(connection)
        connection.queue.put_nowait(_Goodbye(code, reason))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self.in_outage():
            return web.Response(status=503, text="Service Unavailable")
        if self._too_many_attempts():
            return web.Response(status=403, text="too many connection attempts")
        combined = request.path == COMBINED_PATH
        names = read_combined(request.query) if combined else request.match_info.get("names", "")
        streams = {name for name in names.split("/") if name}
        if len(streams) > STREAMS_PER_CONNECTION:
            return web.Response(status=400, text="too many streams")
        ws = web.WebSocketResponse(autoping=False, compress=False)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the client has left again
            return ws
        connection = _Connection(
            ws, request, combined, self.market.now_ms(), streams, asyncio.Queue()
        )
        self.open.add(connection)
        self.market.begin()
        writer = asyncio.get_running_loop().create_task(self._write(connection))
        try:
            await self._listen(connection)
        finally:
            self.open.discard(connection)
            writer.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return ws

    def _too_many_attempts(self) -> bool:
        now = time.monotonic()
        self._recent.append(now)
        while now - self._recent[0] > _ATTEMPTS_WINDOW_S:
            self._recent.popleft()
        return len(self._recent) > self.settings.attempts_limit

    async def _write(self, connection: _Connection) -> None:
        """Send what is queued; ping when it is time; drop a peer that answers none."""
        next_ping = time.monotonic() + PING_INTERVAL_S
        with suppress(ConnectionError, RuntimeError, TimeoutError):
            while True:
                try:
                    wait_s = max(0.0, next_ping - time.monotonic())
                    async with asyncio.timeout(wait_s):
                        frame = await connection.queue.get()
                except TimeoutError:
                    next_ping = time.monotonic() + PING_INTERVAL_S
                    if not await self._keep_alive(connection):
                        return
                    continue
                if isinstance(frame, _Goodbye):
                    async with asyncio.timeout(1.0):
                        await connection.ws.close(code=frame.code, message=frame.reason.encode())
                    return
                await connection.ws.send_str(frame)

    async def _keep_alive(self, connection: _Connection) -> bool:
        """Ping; False, and the connection is cut, when no pong came for too long."""
        if time.monotonic() - connection.pong_at > PONG_TIMEOUT_S:
            connection.abort()
            return False
        if not connection.frozen:
            await connection.ws.ping(str(self.market.now_ms()).encode())
        return True

    async def _listen(self, connection: _Connection) -> None:
        recent: deque[float] = deque(maxlen=COMMANDS_PER_SECOND + 1)
        async for message in connection.ws:
            if connection.frozen:
                continue
            recent.append(time.monotonic())
            if len(recent) > COMMANDS_PER_SECOND and recent[-1] - recent[0] < 1.0:
                await connection.ws.close(code=WSCloseCode.POLICY_VIOLATION)
                return
            if message.type == WSMsgType.PING:
                await connection.ws.pong(message.data)
            elif message.type == WSMsgType.PONG:
                connection.pong_at = time.monotonic()
            elif message.type == WSMsgType.TEXT:
                connection.queue.put_nowait(obey(message.json, connection.streams))
