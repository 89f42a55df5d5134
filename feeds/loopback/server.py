"""A loopback Binance: REST, archives and streams on 127.0.0.1, on a market clock of its own.

It serves candles handed to it, from a store, or planted, as the exchange would have served them
while they happened: what has not closed is forming, what has not opened is unknown. The clock runs
at a speed factor, or is stepped by hand for deterministic tests. Faults (`faults`) strike by script
or by seed. Wire forms are those of `feeds.binance`, checked field by field against real payloads.

Used by the offline demo of paper trading and by the tests. Left out: orders, accounts, order books
and everything that needs a key. What the real exchange's documents do not say is not imitated.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.answers import (
    INVALID_INTERVAL,
    INVALID_SYMBOL,
    UNKNOWN_ERROR,
    Json,
    banned,
    compact,
    retry_after,
    server_time,
    too_many_requests,
    weight_headers,
)
from cppncripto_strategy.feeds.binance.archive import (
    ROOT as ARCHIVE_ROOT,
)
from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    archive_at,
    archive_csv,
    archive_zip,
    checksum_line,
)
from cppncripto_strategy.feeds.binance.endpoints import (
    API_PATH,
    API_VERSIONS,
    INFO,
    KLINES,
    PING,
    TIME,
    WEIGHTS,
)
from cppncripto_strategy.feeds.binance.filters import (
    exchange_info,
    read_info_parameters,
    symbol_info,
)
from cppncripto_strategy.feeds.binance.frames import (
    COMBINED_PATH,
    COMMANDS_PER_SECOND,
    ODD_FRAMES,
    SINGLE_PATH,
    STREAMS_PER_CONNECTION,
    kline_frame,
    obey,
    read_combined,
    shutdown_frame,
    stream_name,
    wrapped,
)
from cppncripto_strategy.feeds.binance.klines import Kline, KlinesQuery, query_problem
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, interval_to_ms
from cppncripto_strategy.feeds.filters import DEFAULT_FILTERS, TRADING
from cppncripto_strategy.feeds.loopback import wire
from cppncripto_strategy.feeds.loopback.faults import (
    ARCHIVE_FAULTS,
    CONNECTION_FAULTS,
    FRAME_FAULTS,
    REST_FAULTS,
    FaultBook,
    Halt,
    RandomFaults,
    RestFault,
    StreamFault,
)

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_TORN_AT = 24
# Every symbol has them.
_FILTERS = DEFAULT_FILTERS["BTCUSDT"]
_ZIP_FAULTS = ("truncated_zip", "corrupt_zip")
Result = TypeVar("Result")


class ManualClock:
    """A market clock that moves only when told."""

    def __init__(self, start_ms: int) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        return self._now_ms

    def move(self, now_ms: int) -> None:
        """Set the market time; never backwards."""
        self._now_ms = max(self._now_ms, now_ms)


class SpeedClock:
    """A market clock that runs `speed` times as fast as the wall's, from `begin` on."""

    def __init__(self, start_ms: int, speed: float = 1.0) -> None:
        self._from_ms = start_ms
        self._from_s: float | None = None
        self.speed = speed

    def begin(self) -> None:
        """Let it run; a second call changes nothing."""
        if self._from_s is None:
            self._from_s = time.monotonic()

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        elapsed_s = 0.0 if self._from_s is None else time.monotonic() - self._from_s
        return self._from_ms + int(elapsed_s * 1000 * self.speed)

    def wall_s_until(self, market_ms: int) -> float:
        """Wall seconds until the market shows this time; at most half a second at a time."""
        if self._from_s is None or self.speed <= 0:
            return 0.5
        return min(0.5, (market_ms - self.now_ms()) / 1000 / self.speed)


Clock = ManualClock | SpeedClock


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """How the loopback exchange behaves.

    Parameters
    ----------
    interval : interval of the candles handed in.
    port : 0 takes a free one.
    updates_per_candle : frames of the forming candle between its open and its close.
    halts : maintenance; candles in it never exist.
    weight_limit : request weight per window, as the exchange counts it.
    weight_window_s : wall seconds of that window (60 on the exchange).
    attempts_limit : websocket upgrades per 5 wall minutes.
    rest_lag_ms : REST shows the market as it was so long ago (market milliseconds).
    time_skew_ms : added to the server time told to clients.
    wait_for_subscriber : the clock starts with the first stream connection.
    connection_life_ms : streams are cut after so much market time.
    ping_interval_s, pong_timeout_s : wall seconds, the server's pings.
    backlog_frames : a consumer this far behind is dropped.
    hang_s : wall seconds a hanging request is held at most.
    archive_header : write a header row into archives.
    """

    interval: str = "5m"
    port: int = 0
    updates_per_candle: int = 2
    halts: Sequence[Halt] = ()
    weight_limit: int = 6000
    weight_window_s: float = 60.0
    attempts_limit: int = 300
    rest_lag_ms: int = 0
    time_skew_ms: int = 0
    wait_for_subscriber: bool = False
    connection_life_ms: int = DAY_MS
    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    backlog_frames: int = 20_000
    hang_s: float = 30.0
    archive_header: bool = False


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One REST or archive request as the exchange saw it; `fault` is what struck it."""

    path: str
    query: str
    status: int
    weight: int
    market_ms: int
    fault: str | None


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
        _reset(self.request)


class LoopbackExchange:
    """A Binance of our own on 127.0.0.1; an async context manager.

    Parameters
    ----------
    candles : symbol -> candles of `settings.interval`, the whole market, future included.
    clock : the market clock; default a `ManualClock` at the end of the candles (pure history).
    settings : how it behaves.
    faults : random faults; scripted ones are added with `script`.
    archive_candles : what archives hold where it differs from REST (restated candles).

    Attributes
    ----------
    rest_url, stream_url, archive_url : like https://data-api.binance.vision,
        wss://data-stream.binance.vision and https://data.binance.vision.
    candles : the truth, as clients read it (eight decimals, halts taken out).
    requests : the last 100,000 requests.
    violations : requests that came before a Retry-After had passed.
    faults : the `FaultBook`; `faults.struck` counts what struck.

    Raises
    ------
    SourceError
        When there is no candle, or the port is taken.
    """

    def __init__(
        self,
        candles: Mapping[str, Candles],
        *,
        clock: Clock | None = None,
        settings: ExchangeSettings | None = None,
        faults: RandomFaults | None = None,
        archive_candles: Mapping[str, Candles] | None = None,
    ) -> None:
        self.settings = settings or ExchangeSettings()
        self.interval_ms = interval_to_ms(self.settings.interval)
        self.candles = {
            name: self._without_halts(name, wire.as_served(c)) for name, c in candles.items()
        }
        self._archived = dict(self.candles)
        for name, held in (archive_candles or {}).items():
            self._archived[name] = wire.as_served(held)
        filled = [c for c in self.candles.values() if len(c)]
        if not filled:
            raise SourceError("the loopback exchange was given no candle: nothing to serve")
        self.end_ms = max(int(c.open_time[-1]) for c in filled) + self.interval_ms
        self.clock: Clock = clock or ManualClock(self.end_ms)
        self.faults = FaultBook(faults)
        self.requests: deque[RequestRecord] = deque(maxlen=100_000)
        self.violations = 0
        self.connection_attempts = 0
        self.port = 0
        self._connections: set[_Connection] = set()
        self._late: list[tuple[int, int, str, str]] = []
        self._sequence = itertools.count()
        self._zips: dict[str, bytes] = {}
        self._blocked = (0.0, 0.0, 429)  # (from, until) in monotonic seconds, status
        self._weight = (0, 0)  # (window, used)
        self._attempts: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def _without_halts(self, symbol: str, candles: Candles) -> Candles:
        keep = np.ones(len(candles), dtype=np.bool_)
        for halt in self.settings.halts:
            if halt.symbol in (None, symbol):
                inside = (candles.open_time >= halt.start_ms) & (candles.open_time < halt.end_ms)
                keep &= ~inside
        return candles[keep]

    @property
    def rest_url(self) -> str:
        """Stands for https://data-api.binance.vision; python-binance's API_URL is this + /api."""
        return f"http://{HOST}:{self.port}"

    @property
    def archive_url(self) -> str:
        """Stands for https://data.binance.vision."""
        return f"http://{HOST}:{self.port}"

    @property
    def stream_url(self) -> str:
        """Stands for wss://data-stream.binance.vision."""
        return f"ws://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """Stream connections open now."""
        return len(self._connections)

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        return self.clock.now_ms()

    def script(self, *faults: RestFault | StreamFault) -> None:
        """Add scripted faults."""
        self.faults.script(*faults)

    # --- life -------------------------------------------------------------------------------

    async def __aenter__(self) -> LoopbackExchange:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind to 127.0.0.1 and let the market clock run."""
        self._closing = asyncio.Event()
        self.finished = asyncio.Event()
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=0.2, handler_cancellation=True
        )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, HOST, self.settings.port)
            await site.start()
        except OSError as cause:
            await self._runner.cleanup()
            raise SourceError(
                f"port {self.settings.port} of {HOST} is taken ({cause}); choose another with"
                " --port, or 0 for any free one"
            ) from cause
        self.port = self._runner.addresses[0][1]
        self._tick_ms = self._first_tick_after(self.now_ms())
        if isinstance(self.clock, SpeedClock):
            if not self.settings.wait_for_subscriber:
                self.clock.begin()
            self._spawn(self._run_market(self.clock))

    async def stop(self) -> None:
        """Close every connection and free the port."""
        self._closing.set()
        for connection in list(self._connections):
            connection.queue.put_nowait(_Goodbye(WSCloseCode.GOING_AWAY, "stopped"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _application(self) -> web.Application:
        application = web.Application()
        for version in API_VERSIONS:
            for name, answer in (
                (PING, self._ping),
                (TIME, self._time),
                (INFO, self._exchange_info),
                (KLINES, self._klines),
            ):
                application.router.add_get(
                    f"{API_PATH}/{version}/{name}", self._guarded(name, answer)
                )
        application.router.add_get(ARCHIVE_ROOT + "{name:.*}", self._archive)
        application.router.add_get(SINGLE_PATH, self._stream)
        application.router.add_get(SINGLE_PATH + "/{names}", self._stream)
        application.router.add_get(COMBINED_PATH, self._stream)
        return application

    # --- market -----------------------------------------------------------------------------

    async def advance(self, market_ms: int) -> None:
        """Move a `ManualClock` on by so much, sending every frame due on the way."""
        await self.advance_to(self.now_ms() + market_ms)

    async def advance_to(self, until_ms: int) -> None:
        """Move a `ManualClock` to this market time, sending every frame due on the way."""
        if not isinstance(self.clock, ManualClock):
            raise SourceError("only a ManualClock can be moved by hand; a SpeedClock runs alone")
        while self._next_due_ms() <= until_ms:
            due = self._next_due_ms()
            self.clock.move(due)
            self._happen(due)
            await asyncio.sleep(0)
        self.clock.move(until_ms)
        if until_ms >= self.end_ms:
            self.finished.set()

    async def _run_market(self, clock: SpeedClock) -> None:
        while self._tick_ms <= self.end_ms or self._late:
            due = self._next_due_ms()
            wait_s = clock.wall_s_until(due)
            await asyncio.sleep(max(0.0, wait_s))
            if clock.now_ms() >= due:
                self._happen(due)
        self.finished.set()

    def _first_tick_after(self, now_ms: int) -> int:
        step = self.interval_ms // (self.settings.updates_per_candle + 1)
        return (now_ms - now_ms % self.interval_ms) + (now_ms % self.interval_ms // step + 1) * step

    def _next_due_ms(self) -> int:
        return min(self._tick_ms, self._late[0][0]) if self._late else self._tick_ms

    def _happen(self, due_ms: int) -> None:
        """Everything the market does at this time."""
        while self._late and self._late[0][0] <= due_ms:
            _, _, symbol, text = heapq.heappop(self._late)
            self._broadcast(symbol, text)
        if self._tick_ms <= due_ms:
            self._tick(self._tick_ms)
            self._tick_ms = self._first_tick_after(self._tick_ms)

    def _tick(self, now_ms: int) -> None:
        closing = now_ms % self.interval_ms == 0
        self._strike_connections(now_ms, closing)
        for symbol in self.candles:
            open_ms = now_ms - self.interval_ms if closing else now_ms - now_ms % self.interval_ms
            row = self._row_opening_at(symbol, open_ms)
            if row is not None and not self.faults.lasting("silence", now_ms, symbol):
                self._send_candle(symbol, row, now_ms, closing)

    def _row_opening_at(self, symbol: str, open_ms: int) -> int | None:
        times = self.candles[symbol].open_time
        row = int(np.searchsorted(times, open_ms))
        return row if row < len(times) and times[row] == open_ms else None

    def _send_candle(self, symbol: str, row: int, now_ms: int, closing: bool) -> None:
        candles, interval = self.candles[symbol], self.settings.interval
        if not closing:
            elapsed = now_ms - int(candles.open_time[row])
            kline = wire.forming_kline(candles, row, self.interval_ms, elapsed)
            self._send(symbol, now_ms, compact(kline_frame(kline, symbol, interval, now_ms, False)))
            return
        key = f"{symbol}/{int(candles.open_time[row])}"
        if self.faults.lasting("missed_close", now_ms, symbol):
            self.faults.struck["stream:missed_close"] += 1
            return
        if self.faults.random_stream(("missed_close",), key):
            self.faults.struck["stream:missed_close"] += 1
            return
        scripted = [fault.kind for fault in self.faults.take_frames(symbol, now_ms)]
        drawn = self.faults.random_stream(FRAME_FAULTS, f"frame/{key}")
        kinds = scripted or ([drawn] if drawn else [])
        for text in self._faulty(symbol, row, now_ms, kinds):
            self._send(symbol, now_ms, text)

    def _faulty(self, symbol: str, row: int, now_ms: int, kinds: list[str]) -> list[str]:
        """The closing frame with what the faults make of it, in the order sent."""
        whole = wire.whole_kline(self.candles[symbol], row, self.interval_ms)

        def text(kline: Kline) -> str:
            return compact(kline_frame(kline, symbol, self.settings.interval, now_ms, True))

        texts = [text(whole)]
        for kind in kinds:
            self.faults.struck[f"stream:{kind}"] += 1
            if kind == "malformed":
                texts.insert(0, text(whole)[:_TORN_AT])
            elif kind == "odd":
                texts.insert(0, ODD_FRAMES[row % len(ODD_FRAMES)])
            elif kind == "duplicate":
                texts.append(texts[-1])
            elif kind == "stale" and row > 0:
                texts.append(
                    text(wire.whole_kline(self.candles[symbol], row - 1, self.interval_ms))
                )
            elif kind == "misaligned":
                opened, closed = whole.open_time + 1234, whole.close_time + 1234
                texts.insert(0, text(replace(whole, open_time=opened, close_time=closed)))
            elif kind == "broken_candle":
                texts[-1] = text(replace(whole, high=whole.low, low=whole.high, close="NaN"))
        return texts

    def _send(self, symbol: str, now_ms: int, text: str) -> None:
        late = self.faults.lasting("late", now_ms, symbol)
        if late is None:
            self._broadcast(symbol, text)
        else:
            self.faults.struck["stream:late"] += 1
            due = now_ms + late.delay_ms
            heapq.heappush(self._late, (due, next(self._sequence), symbol, text))

    def _broadcast(self, symbol: str, text: str) -> None:
        stream = stream_name(symbol, self.settings.interval)
        named = wrapped(stream, text)
        for connection in list(self._connections):
            if stream in connection.streams and not connection.frozen:
                said = named if connection.combined else text
                if not connection.push(said, self.settings.backlog_frames):
                    connection.abort()

    def _strike_connections(self, now_ms: int, closing: bool) -> None:
        kinds = [fault.kind for fault in self.faults.take_connections(now_ms)]
        if closing:
            drawn = self.faults.random_stream(CONNECTION_FAULTS, f"connection/{now_ms}")
            kinds += [drawn] if drawn else []
        if self._in_outage(now_ms) and self._connections:
            kinds.append("abort")
        for connection in list(self._connections):
            if now_ms - connection.opened_ms >= self.settings.connection_life_ms:
                self._close(connection, WSCloseCode.GOING_AWAY, "24 hours have passed")
        for kind in kinds:
            self.faults.struck[f"stream:{kind}"] += 1
            self.strike(kind)

    def _in_outage(self, now_ms: int) -> bool:
        return any(self.faults.lasting(kind, now_ms) for kind in ("outage", "blackout"))

    def strike(self, kind: str) -> None:
        """Let a connection fault strike every stream connection at once."""
        for connection in list(self._connections):
            if kind == "abort":
                connection.abort()
            elif kind == "half_open":
                connection.frozen = True
            elif kind == "close_1000":
                self._close(connection, WSCloseCode.OK, "")
            elif kind == "close_1001":
                self._close(connection, WSCloseCode.GOING_AWAY, "")
            elif kind == "shutdown":
                connection.queue.put_nowait(compact(shutdown_frame(self.now_ms())))
                self._close(connection, WSCloseCode.GOING_AWAY, "shutting down")
            else:
                raise ValueError(f"{kind!r} is no connection fault: {CONNECTION_FAULTS}")

    def say(self, text: str) -> None:
        """Send a raw text to every stream connection."""
        for connection in list(self._connections):
            connection.queue.put_nowait(text)

    def _close(self, connection: _Connection, code: int, reason: str) -> None:
        """Close after what is queued has been sent; nothing more is queued."""
        self._connections.discard(connection)
        connection.queue.put_nowait(_Goodbye(code, reason))

    # --- REST -------------------------------------------------------------------------------

    def _guarded(
        self, name: str, answer: Callable[[dict[str, str]], tuple[int, object]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler that counts weight, obeys bans and lets faults strike before it answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            query = dict(parse_qsl(request.query_string, keep_blank_values=True))
            weight = WEIGHTS[name]
            used = self._spend(weight)
            headers = weight_headers(used)
            refused = self._refusal(used)
            fault = None
            if refused is None:
                fault = self.faults.for_request(
                    request.path, query.get("symbol"), request.path_qs, REST_FAULTS
                )
                if self.faults.lasting("blackout", self.now_ms()):
                    fault = RestFault("503")
            response: web.StreamResponse
            if refused is not None:
                code, told, more = refused
                response = self._json(code, told, headers | more)
            elif fault is not None:
                response = await self._rest_fault(request, fault, headers, answer, query)
            else:
                status, body = answer(query)
                response = self._json(status, body, headers)
            self._record(request, response.status, weight, fault)
            return response

        return handle

    def _json(self, status: int, body: object, headers: Mapping[str, str]) -> web.Response:
        return web.Response(
            status=status,
            text=compact(body),
            content_type="application/json",
            charset="utf-8",
            headers=dict(headers),
        )

    def _record(
        self, request: web.Request, status: int, weight: int, fault: RestFault | None
    ) -> None:
        kind = fault.kind if fault else None
        self.requests.append(
            RequestRecord(request.path, request.query_string, status, weight, self.now_ms(), kind)
        )

    def _spend(self, weight: int) -> int:
        window = int(time.monotonic() // self.settings.weight_window_s)
        used = self._weight[1] if self._weight[0] == window else 0
        self._weight = (window, used + weight)
        return used + weight

    def _refusal(self, used: int) -> tuple[int, Json, dict[str, str]] | None:
        """429 or 418 while a Retry-After has not passed, or when the weight is spent."""
        now = time.monotonic()
        since, until, status = self._blocked
        if now < until:
            # Requests already under way when the ban was told are no violation.
            self.violations += now > since + 0.1
            return self._block_answer(status, until - now)
        if used > self.settings.weight_limit:
            window_s = self.settings.weight_window_s
            return self._block(429, window_s - now % window_s)
        return None

    def _block(self, status: int, for_s: float) -> tuple[int, Json, dict[str, str]]:
        now = time.monotonic()
        self._blocked = (now, now + for_s, status)
        return self._block_answer(status, for_s)

    def _block_answer(self, status: int, for_s: float) -> tuple[int, Json, dict[str, str]]:
        header = retry_after(for_s)
        if status == 418:
            return status, banned(int((time.time() + for_s) * 1000)), header
        return status, too_many_requests(self.settings.weight_limit), header

    async def _rest_fault(
        self,
        request: web.Request,
        fault: RestFault,
        headers: dict[str, str],
        answer: Callable[[dict[str, str]], tuple[int, object]],
        query: dict[str, str],
    ) -> web.StreamResponse:
        kind = fault.kind
        if kind in ("429", "418"):
            status, body, more = self._block(int(kind), fault.retry_after_s)
            return self._json(status, body, headers | more)
        if kind in ("hang", "reset", "truncated"):
            whole = compact(answer(query)[1]).encode()
            return await self._broken_transport(request, kind, whole, "application/json")
        if kind == "200_html":
            return web.Response(
                text="<html><body>Be right back</body></html>",
                content_type="text/html",
                headers=headers,
            )
        if kind == "502_html":
            return web.Response(
                status=502,
                text="<html><h1>502 Bad Gateway</h1></html>",
                content_type="text/html",
                headers=headers,
            )
        if kind == "403":
            return web.Response(
                status=403,
                text="<html><h1>403 Forbidden</h1></html>",
                content_type="text/html",
                headers=headers,
            )
        if kind == "empty":
            return web.Response(text="", content_type="application/json", headers=headers)
        if kind == "bad_json":
            return web.Response(
                text="[[17575230000", content_type="application/json", headers=headers
            )
        return self._json(int(kind), UNKNOWN_ERROR, headers)

    async def _broken_transport(
        self, request: web.Request, kind: str, content: bytes, content_type: str
    ) -> web.StreamResponse:
        """Hang, reset, or break off half way through the body."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        if kind == "hang":
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self.settings.hang_s)
        elif kind == "truncated":
            response.content_length = len(content)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            await asyncio.sleep(0.01)
        _reset(request)
        return response

    def _ping(self, query: dict[str, str]) -> tuple[int, object]:
        return 200, {}

    def _time(self, query: dict[str, str]) -> tuple[int, object]:
        return 200, server_time(self.now_ms() + self.settings.time_skew_ms)

    def _exchange_info(self, query: dict[str, str]) -> tuple[int, object]:
        asked = read_info_parameters(query)
        wanted = list(self.candles) if asked is None else asked
        if any(symbol not in self.candles for symbol in wanted):
            return 400, INVALID_SYMBOL
        entries = [self._symbol_info(symbol) for symbol in wanted]
        server_ms = self.now_ms() + self.settings.time_skew_ms
        return 200, exchange_info(server_ms, self.settings.weight_limit, entries)

    def _symbol_info(self, symbol: str) -> Json:
        halted = [h.status for h in self.settings.halts if h.holds(self.now_ms(), symbol)]
        return symbol_info(symbol, replace(_FILTERS, status=halted[0] if halted else TRADING))

    def _klines(self, query: dict[str, str]) -> tuple[int, object]:
        problem = query_problem(query)
        if problem is not None:
            return 400, problem
        asked = KlinesQuery.read(query)
        if asked.symbol not in self.candles:
            return 400, INVALID_SYMBOL
        if asked.interval != self.settings.interval:
            return 400, INVALID_INTERVAL
        return 200, [kline.row() for kline in self._rows(asked)]

    def _rows(self, asked: KlinesQuery) -> list[Kline]:
        """Oldest first from the first open time; without it the latest, the forming one last."""
        candles, market_ms = self.candles[asked.symbol], self._rest_time_ms(asked.symbol)
        start, end = asked.first_open_ms, asked.last_open_ms
        first = 0 if start is None else int(np.searchsorted(candles.open_time, start))
        last_open = market_ms if end is None else min(market_ms, end)
        last = int(np.searchsorted(candles.open_time, last_open, side="right"))
        # A candle appears with its first trade, after its open.
        last = min(last, int(np.searchsorted(candles.open_time, market_ms)))
        chosen = range(first, last)
        limit = asked.limit
        chosen = chosen[:limit] if start is not None else chosen[max(0, len(chosen) - limit) :]
        return [
            wire.forming_kline(
                candles, row, self.interval_ms, market_ms - int(candles.open_time[row])
            )
            for row in chosen
        ]

    def _rest_time_ms(self, symbol: str) -> int:
        now = self.now_ms()
        late = self.faults.lasting("late", now, symbol)
        return now - self.settings.rest_lag_ms - (late.delay_ms if late else 0)

    # --- archives ---------------------------------------------------------------------------

    async def _archive(self, request: web.Request) -> web.StreamResponse:
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
            if kind in ("hang", "reset", "truncated"):
                response = await self._broken_transport(request, kind, body, "application/zip")
            else:
                response = web.Response(body=body, content_type="application/zip")
        self._record(request, response.status, 0, fault)
        return response

    def _zip(self, file: ArchiveFile) -> bytes | None:
        """The archive's bytes; None when there is none (yet)."""
        candles = self._archived.get(file.symbol)
        if candles is None or file.interval != self.settings.interval:
            return None
        within = candles.between(file.span.start_ms, file.span.end_ms)
        if file.span.end_ms > self.now_ms() or not len(within):
            return None
        if file.name not in self._zips:
            if len(self._zips) >= 256:
                self._zips.clear()
            klines = [wire.whole_kline(within, row, self.interval_ms) for row in range(len(within))]
            text = archive_csv(klines, self.settings.archive_header)
            self._zips[file.name] = archive_zip(file.name, text)
        return self._zips[file.name]

    # --- streams ----------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.connection_attempts += 1
        if self._in_outage(self.now_ms()):
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
        connection = _Connection(ws, request, combined, self.now_ms(), streams, asyncio.Queue())
        self._connections.add(connection)
        if isinstance(self.clock, SpeedClock):
            self.clock.begin()
        writer = asyncio.get_running_loop().create_task(self._write(connection))
        try:
            await self._listen(connection)
        finally:
            self._connections.discard(connection)
            writer.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return ws

    def _too_many_attempts(self) -> bool:
        now = time.monotonic()
        self._attempts.append(now)
        while now - self._attempts[0] > 300:
            self._attempts.popleft()
        return len(self._attempts) > self.settings.attempts_limit

    async def _write(self, connection: _Connection) -> None:
        """Send what is queued; ping when it is time; drop a peer that answers none."""
        next_ping = time.monotonic() + self.settings.ping_interval_s
        with suppress(ConnectionError, RuntimeError, TimeoutError):
            while True:
                try:
                    wait_s = max(0.0, next_ping - time.monotonic())
                    async with asyncio.timeout(wait_s):
                        frame = await connection.queue.get()
                except TimeoutError:
                    next_ping = time.monotonic() + self.settings.ping_interval_s
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
        if time.monotonic() - connection.pong_at > self.settings.pong_timeout_s:
            connection.abort()
            return False
        if not connection.frozen:
            await connection.ws.ping(str(self.now_ms()).encode())
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


class ExchangeThread:
    """A loopback exchange on a thread of its own, for synchronous callers; a context manager.

    `with ExchangeThread(LoopbackExchange(candles)) as host: ... host.rest_url ...`
    """

    def __init__(self, exchange: LoopbackExchange) -> None:
        self.exchange = exchange
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback-exchange", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def __enter__(self) -> ExchangeThread:
        self._thread.start()
        try:
            self.run(self.exchange.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.run(self.exchange.stop())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = 60.0) -> Result:
        """Run a coroutine on the exchange's loop and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            future.cancel()
            raise

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function on the exchange's loop: `host.call(host.exchange.strike, "abort")`."""

        async def work() -> Result:
            return function(*arguments)

        return self.run(work())

    def advance(self, market_ms: int) -> None:
        """Move a `ManualClock` on."""
        self.run(self.exchange.advance(market_ms))

    def advance_to(self, until_ms: int) -> None:
        """Move a `ManualClock` to this market time."""
        self.run(self.exchange.advance_to(until_ms))

    def script(self, *faults: RestFault | StreamFault) -> None:
        """Add scripted faults."""
        self.call(self.exchange.script, *faults)

    @property
    def rest_url(self) -> str:
        """See `LoopbackExchange.rest_url`."""
        return self.exchange.rest_url

    @property
    def archive_url(self) -> str:
        """See `LoopbackExchange.archive_url`."""
        return self.exchange.archive_url

    @property
    def stream_url(self) -> str:
        """See `LoopbackExchange.stream_url`."""
        return self.exchange.stream_url


def _reset(request: web.Request) -> None:
    """Cut the connection with a TCP reset, not a polite end."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _spoil(content: bytes, kind: str | None) -> bytes:
    if kind == "truncated_zip":
        return content[: len(content) // 2]
    if kind in ("corrupt_zip", "bad_checksum"):
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    return content
