"""Live candles: one thread, one loop, supervised websocket generations, and REST for what is late.

What it promises: a candle that closed on the exchange is published once, in order, or reported as
a gap; symbols move together, and one that the exchange refuses stops alone. How: subscribe first,
then reconcile by REST from each symbol's next expected open; commit contiguously per symbol;
publish a round (`feeds.live.rounds`) when every symbol's candle of a closing time is there, proved
absent (`series`), or late beyond a deadline (then the symbol is stale until it has caught up). A
connection is a generation: on any error it is dropped whole and a new one made, always, with capped
and jittered waits.

A candle counts as closed when its frame says x = true for the right symbol, interval, grid time and
close time, and neither that frame's own time nor the exchange's clocks (`exchange_clock`) say that
it lies in the future; or when REST serves it (`reconciliation`). Left out: trades, order books,
account streams.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.filters import statuses
from cppncripto_strategy.feeds.binance.frames import (
    STREAMS_PER_ADDRESS,
    KlineEvent,
    StreamEnd,
    combined_path,
    read_frame,
)
from cppncripto_strategy.feeds.binance.rest import RestClient
from cppncripto_strategy.feeds.filters import TRADING
from cppncripto_strategy.feeds.live.assembly import Assembly
from cppncripto_strategy.feeds.live.clock_watch import ClockWatch
from cppncripto_strategy.feeds.live.exchange_clock import ExchangeClock
from cppncripto_strategy.feeds.live.health import Health
from cppncripto_strategy.feeds.live.link import Link
from cppncripto_strategy.feeds.live.notices import Listener, Notice, unheard
from cppncripto_strategy.feeds.live.reconciliation import Reconciler
from cppncripto_strategy.feeds.live.rounds import Round, RoundQueue
from cppncripto_strategy.feeds.live.rules import RulesWatch, read_rules
from cppncripto_strategy.feeds.live.series import Glimpse, Series
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan, StreamSettings
from cppncripto_strategy.feeds.live.stream_socket import StreamSocket

log = logging.getLogger(__name__)

# Market milliseconds by which a closing frame may say that it was sent before the close.
_EARLY_MS = 1_000


class CandleStream:
    """Live candles of several symbols; owns one daemon thread and its loop.

    Parameters
    ----------
    plan : what is shown, and from where on.
    sources, settings, retry : where, and how patiently.
    journal : called with every batch of rounds before it is published; it must have them on disk
        when it returns.
    queue : where rounds are published; default one that judges by `allowed`.
    rng : jitter.
    listener : hears every notice (`feeds.live.notices`), on the stream's thread; it must return
        quickly. What it raises stops the stream.

    Attributes
    ----------
    rounds : the `RoundQueue`.
    counters : what happened: generations, frames, malformed, odd, rejected, future, unfinished,
        duplicates, stale_frames, fetches, fetch_failures, reviews, published, gaps, stale,
        catch_up, withdrawn, restated.
    last_frame : symbol -> (close price, exchange time) of the newest frame, forming ones included.
    info : the exchange's latest exchangeInfo; status_of : symbol -> its status there.
    """

    def __init__(
        self,
        plan: StreamPlan,
        *,
        sources: Sources | None = None,
        settings: StreamSettings | None = None,
        retry: Retry | None = None,
        journal: Callable[[Sequence[Round]], None] | None = None,
        queue: RoundQueue | None = None,
        rng: random.Random | None = None,
        listener: Listener = unheard,
    ) -> None:
        self.symbols, self.interval = tuple(plan.symbols), plan.interval
        self.interval_ms = plan.interval_ms
        self.sources, self.settings = sources or Sources(), settings or StreamSettings()
        self.retry = retry or Retry()
        self.clock = ExchangeClock(
            self.settings.market_speed, self.interval_ms, self.settings.clock_bound_ms
        )
        self.rounds = queue or RoundQueue(self.allowed)
        self.info: dict[str, Any] = {}
        self.status_of: dict[str, str] = {}
        self.counters: Counter[str] = Counter()
        self.last_frame: dict[str, tuple[float, int]] = {}
        self._journal = journal or (lambda _rounds: None)
        self._rng = rng or random.Random()
        self._listener = listener
        self._assembly = Assembly(plan, self.settings, self.counters, self._tell)
        self._health = Health(
            self._assembly.series,
            self.settings.retry_first_s,
            self.settings.retry_cap_s,
            self._tell,
        )
        self._watch = ClockWatch(
            self.clock,
            self.settings.close_grace_s,
            3 * self.settings.clock_refresh_s,
            self._tell,
        )
        self._rules = RulesWatch(plan.rules)
        self._failure: Exception | None = None
        self._info_due_s = self._info_asked_s = 0.0
        # One connection each: so many streams fit into an address.
        self._parts = [
            self.symbols[first : first + STREAMS_PER_ADDRESS]
            for first in range(0, len(self.symbols), STREAMS_PER_ADDRESS)
        ]
        self._link = Link(len(self._parts), self._tell)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fetches: set[asyncio.Task[None]] = set()
        self._closers: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether every symbol is subscribed to."""
        return self._link.whole

    @property
    def gap_list(self) -> list[tuple[str, int]]:
        """(symbol, open time) of every proved gap, in the order published."""
        return self._assembly.gap_list

    # Any thread ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; candles begin to arrive in `rounds`."""
        self._thread = threading.Thread(target=self._run, name="candle-stream", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Close the connection and end the thread; rounds already published stay readable."""
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and thread.is_alive():
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stopping.set)
            thread.join(timeout_s)
        self.rounds.close()

    def __enter__(self) -> CandleStream:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def read_rules_soon(self) -> None:
        """Have trading rules and statuses read now; a session asks for it after a refused order."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._rules_due)

    def fresh(self, shown: Round) -> bool:
        """Whether a round may be traded on now: connected, and no newer candle has closed yet."""
        return self.connected and self.clock.now_ms() - shown.close_ms < self.interval_ms

    def allowed(self, shown: Round) -> frozenset[str]:
        """Symbols that may be traded on a round now: fresh, and listed as TRADING on the exchange.

        No symbol while the exchange's clocks disagree and no two of them agree.
        """
        if not self.fresh(shown) or self._watch.blind:
            return frozenset()
        stopped = {symbol for symbol, series in self._assembly.series.items() if series.stopped}
        listed = {symbol for symbol, status in self.status_of.items() if status == TRADING}
        return frozenset(shown.candles) & listed - stopped

    # The loop -----------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._main())
        except Exception as error:
            log.exception("the candle stream stopped")
            failure = error
        self._link.end()
        self.rounds.connection("DISCONNECTED")
        self.rounds.close(failure)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._wake = asyncio.Event(), asyncio.Event()
        rest = RestClient(
            self.sources, self.retry, rng=self._rng, settle_ms=self.settings.settle_ms
        )
        async with rest:
            self._rest = rest
            self._reconciler = Reconciler(
                rest,
                self.interval,
                self.settings,
                clock=self.clock,
                assembly=self._assembly,
                health=self._health,
                counters=self.counters,
            )
            work = [
                *(asyncio.create_task(self._generations(n)) for n in range(len(self._parts))),
                asyncio.create_task(self._deadlines()),
            ]
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                done, _ = await asyncio.wait([*work, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancel([*work, stopping])
                await _cancel(list(self._fetches))
                # Sockets close in bounded time; each is let finish so that none stays open.
                await asyncio.gather(*self._closers, return_exceptions=True)
            for task in done:
                if task is not stopping:
                    task.result()
            if self._failure is not None:
                raise self._failure

    def _fail(self, error: Exception) -> None:
        """Stop the stream with an error that waiting cannot cure."""
        self._failure = self._failure or error
        self._stopping.set()

    def _rules_due(self) -> None:
        soonest_s = self._info_asked_s + 10 * self.settings.refetch_s
        self._info_due_s = min(self._info_due_s, soonest_s)
        self._wake.set()

    def _tell(self, notice: Notice) -> None:
        try:
            self._listener(notice)
        except Exception as error:
            self._fail(error)

    def _spawn(self, work: Coroutine[Any, Any, None], kept: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        kept.add(task)
        task.add_done_callback(kept.discard)

    # Generations --------------------------------------------------------------------------------

    async def _generations(self, part: int) -> None:
        """Connect, listen, drop, and again, until the stream stops."""
        wait_s, reason = self.settings.backoff_first_s, ""
        while True:
            self.counters["generations"] += 1
            frames = self.counters["frames"]
            try:
                await self._generation(part)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # The library raises its own, websockets' and the system's errors: no common base.
                reason = f"{type(error).__name__}: {error}"
                log.info("stream lost: %s", reason)
            self._link.lost(part, reason)
            self.rounds.connection("CONNBROKEN")
            if self.counters["frames"] > frames:
                wait_s = self.settings.backoff_first_s
            await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
            wait_s = min(self.settings.backoff_cap_s, 2 * wait_s)

    async def _generation(self, part: int) -> None:
        """One connection, until anything at all goes wrong with it."""
        socket = self._new_socket(self._parts[part])
        try:
            async with asyncio.timeout(max(1.0, self.settings.watchdog_s)):
                await socket.connect()
            self._subscribed(part)
            while True:
                async with asyncio.timeout(self.settings.watchdog_s):
                    frame = await socket.recv()
                self._hear(frame)
                for message in socket.waiting():
                    self._hear(message)
                self.counters["malformed"] += socket.take_malformed()
                self._publish()
        finally:
            self._drain(socket)
            self._spawn(socket.end(), self._closers)

    def _subscribed(self, part: int) -> None:
        self._link.opened(part)
        if self.connected:
            self.rounds.connection("DELAYED")
        self._reconciler.connected(self._parts[part])
        self._wake.set()

    def _drain(self, socket: StreamSocket) -> None:
        """Candles that arrived before the connection died are as good as any."""
        self.counters["malformed"] += socket.take_malformed()
        for message in socket.waiting():
            with suppress(_DroppedError):
                self._hear(message)
        self._publish()

    def _new_socket(self, symbols: Sequence[str]) -> StreamSocket:
        prefix, path = combined_path(symbols, self.interval)
        return StreamSocket(
            self.sources.stream_url.rstrip("/") + "/",
            prefix,
            path,
            timeout_s=self.settings.close_timeout_s,
            queue_frames=self.settings.queue_frames,
        )

    # Frames -------------------------------------------------------------------------------------

    def _hear(self, frame: Any) -> None:
        """One message of any kind; raises `_DroppedError` when it ends the generation."""
        event = read_frame(frame)
        if isinstance(event, StreamEnd):
            raise _DroppedError(event.reason)
        series = self._assembly.series.get(event.symbol) if event is not None else None
        if event is None or series is None or event.interval != self.interval:
            self.counters["odd"] += 1
            return
        self._hear_candle(series, event)

    def _hear_candle(self, series: Series, event: KlineEvent) -> None:
        self.counters["frames"] += 1
        if event.event_ms is not None:
            self.clock.hear_frame(event.event_ms)
        fault = self._fault(event)
        if fault is not None or event.row is None:
            self.counters[fault or "rejected"] += 1
            return
        self.last_frame[series.symbol] = (event.row[4], self.clock.now_ms())
        series.see(event.open_ms)
        finished = True
        if self._assembly.problem(event.row) is None:
            finished = series.glimpse(Glimpse(event.row, event.first_trade, event.last_trade))
        if event.closed and finished:
            self._assembly.accept(series, event.row)
        elif event.closed:
            self.counters["unfinished"] += 1  # REST decides
        if series.newest_seen > series.next_open and not series.resolved(series.next_open):
            self._wake.set()

    def _fault(self, event: KlineEvent) -> str | None:
        """The counter under which a frame is refused, or None: its times, not its values."""
        if event.row is None or event.open_ms % self.interval_ms != 0:
            return "rejected"
        close_ms = event.open_ms + self.interval_ms
        if event.close_ms is not None and event.close_ms != close_ms - 1:
            self._watch.misdated(event.close_ms + 1 - close_ms)
            return "rejected"
        bound_ms = self.settings.clock_bound_ms
        if not self.clock.hear_candle(event.open_ms):
            return "future"
        now_ms = self.clock.now_ms()
        sent_ms = now_ms if event.event_ms is None else event.event_ms
        early = close_ms > sent_ms + _EARLY_MS or max(close_ms, sent_ms) > now_ms + bound_ms
        return "future" if event.closed and early else None

    def _publish(self) -> None:
        """Publish every round that is complete, oldest first."""
        rounds = self._assembly.complete(self.clock.now_ms())
        if not rounds:
            return
        try:
            self._journal(rounds)
        except Exception as error:
            # Not on disk, hence not shown: the session stops and a restart reads them again.
            self._fail(error)
            return
        self._assembly.note_published(rounds)
        for published in rounds:
            for symbol in published.gaps:
                self._reconciler.gap_published(symbol)
        self.rounds.put(rounds)

    # Deadlines ----------------------------------------------------------------------------------

    async def _deadlines(self) -> None:
        """Look at every deadline now and then, and whenever a frame shows that one is missing."""
        reconciler = self._reconciler
        clock_due_s = 0.0
        while True:
            at_s = time.monotonic()
            if at_s >= clock_due_s:
                clock_due_s = at_s + self.settings.clock_refresh_s
                self._spawn(reconciler.refresh_clock(), self._fetches)
            if at_s >= self._info_due_s:
                self._info_asked_s = at_s
                self._info_due_s = at_s + self.settings.info_every_s
                self._spawn(self._read_info(), self._fetches)
            for series in reconciler.due():
                self._spawn(self._fetch(series), self._fetches)
            for series in reconciler.reviews_due():
                self._spawn(self._review(series), self._fetches)
            self._watch.look()
            self._publish()
            if self._level():
                self.rounds.release()
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.poll_s):
                    await self._wake.wait()
            # However often frames wake us, deadlines cost one look per fifth of a poll.
            await asyncio.sleep(self.settings.poll_s / 5)

    def _level(self) -> bool:
        """Whether everything that has closed is published, as far as the exchange shows."""
        known = self.connected and self.clock.known and bool(self.info)
        return known and self._reconciler.level()

    async def _fetch(self, series: Series) -> None:
        await self._reconciler.reconcile(series)
        self._publish()

    async def _review(self, series: Series) -> None:
        await self._reconciler.review(series)
        self._publish()

    async def _read_info(self) -> None:
        """Trading rules and statuses; after a failure the last ones stay active."""
        try:
            info = await read_rules(self._rest, self.symbols)
        except SourceError as error:
            self._info_due_s = time.monotonic() + self.settings.refetch_s
            log.info("stream: %s", error)
            return
        self.info, self.status_of = info, statuses(info)
        for symbol in self.symbols:
            status = self.status_of.get(symbol)
            self._health.stated(symbol, status, self.settings.info_every_s)
        for change in self._rules.compare(info):
            log.warning("%s: the exchange changed %s", change.symbol, ", ".join(change.changed))
            self._tell(change)


class _DroppedError(Exception):
    """The generation is over; the text says why."""


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel and wait, again where need be: until Python 3.12 `asyncio.wait_for` swallows a
    cancellation that comes together with its result, and the library receives through it."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
