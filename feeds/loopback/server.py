"""A loopback Binance: REST, archives and streams on 127.0.0.1, on a market clock of its own.

It serves candles handed to it, from a store, or planted, as the exchange would have served them
while they happened (`market`). Faults (`faults`) strike by script or by seed. Wire forms are those
of `feeds.binance`, checked field by field against real payloads.

Used by the offline demo of paper trading and by the tests. Left out: orders, accounts, order books
and everything that needs a key. What the real exchange's documents do not say is not imitated.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from aiohttp import web

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.archive import ROOT as ARCHIVE_ROOT
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.loopback.archives import ArchiveHost
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import (
    FaultBook,
    RandomFaults,
    RestFault,
    StreamFault,
)
from cppncripto_strategy.feeds.loopback.market import Clock, Market, SpeedClock
from cppncripto_strategy.feeds.loopback.rest import RestDesk
from cppncripto_strategy.feeds.loopback.sockets import Sockets
from cppncripto_strategy.feeds.loopback.ticker import Ticker
from cppncripto_strategy.feeds.loopback.transport import RequestRecord, Requests

HOST = "127.0.0.1"
Result = TypeVar("Result")


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
    market : candles, clock, and what is visible when.
    faults : the `FaultBook`; `faults.struck` counts what struck.
    rest, archives, sockets, ticker : who answers requests and who sends frames.

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
        self.market = Market(candles, archive_candles or {}, clock, self.settings)
        self.faults = FaultBook(faults)
        self._seen = Requests(self.market, self.settings.hang_s, self.settings.slow_s)
        self.rest = RestDesk(self.market, self.faults, self._seen)
        self.archives = ArchiveHost(self.market, self.faults, self._seen)
        self.sockets = Sockets(self.market, self.faults)
        self.ticker = Ticker(self.market, self.faults, self.sockets)
        self.port = 0
        self._running: asyncio.Task[None] | None = None

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
    def candles(self) -> dict[str, Candles]:
        """The truth, as clients read it (eight decimals, halts taken out)."""
        return self.market.candles

    @property
    def end_ms(self) -> int:
        """Close of the last candle, UTC milliseconds."""
        return self.market.end_ms

    @property
    def requests(self) -> deque[RequestRecord]:
        """The last 100,000 requests."""
        return self._seen.records

    @property
    def violations(self) -> int:
        """Requests that came before a Retry-After had passed."""
        return self.rest.violations

    @property
    def connections(self) -> int:
        """Stream connections open now."""
        return len(self.sockets.open)

    @property
    def connection_attempts(self) -> int:
        """Upgrades to a stream asked for, refused ones included."""
        return self.sockets.attempts

    @property
    def finished(self) -> asyncio.Event:
        """Set when the last candle has closed."""
        return self.ticker.finished

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        return self.market.now_ms()

    def script(self, *faults: RestFault | StreamFault) -> None:
        """Add scripted faults."""
        self.faults.script(*faults)

    def strike(self, kind: str) -> None:
        """Let a connection fault strike every stream connection at once."""
        self.sockets.strike(kind)

    def say(self, text: str) -> None:
        """Send a raw text to every stream connection."""
        self.sockets.say(text)

    async def advance(self, market_ms: int) -> None:
        """Move a `ManualClock` on by so much, sending every frame due on the way."""
        await self.advance_to(self.now_ms() + market_ms)

    async def advance_to(self, until_ms: int) -> None:
        """Move a `ManualClock` to this market time, sending every frame due on the way."""
        await self.ticker.advance_to(until_ms)

    async def __aenter__(self) -> LoopbackExchange:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind to 127.0.0.1 and let the market clock run."""
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
        clock = self.market.clock
        if isinstance(clock, SpeedClock):
            if not self.settings.wait_for_subscriber:
                clock.begin()
            self._running = asyncio.get_running_loop().create_task(self.ticker.run(clock))

    async def stop(self) -> None:
        """Close every connection and free the port."""
        self._seen.closing.set()
        self.sockets.stop()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application()
        application.add_routes([*self.rest.routes(), *self.sockets.routes()])
        application.router.add_get(ARCHIVE_ROOT + "{name:.*}", self.archives.serve)
        return application


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
