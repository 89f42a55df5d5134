"""What the stream lacks, read over REST: candles that are late, gaps, times, and what was shown.

A row counts as closed when two clocks say so (`exchange_clock`), with a margin, as of the moment
at which it was asked for; or when the same answer shows a newer candle. Every read reaches from
the first slot that is lacking into the present, so that it shows whether the exchange has moved
past it. What brings nothing is repeated with growing waits, within the exchange's weight limits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.klines import PAGE_ROWS
from cppncripto_strategy.feeds.binance.rest import RefusedError, RestClient
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.feeds.live.assembly import Assembly
from cppncripto_strategy.feeds.live.exchange_clock import ExchangeClock
from cppncripto_strategy.feeds.live.health import Health
from cppncripto_strategy.feeds.live.series import Series
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings

log = logging.getLogger(__name__)

# Failures in a row of one symbol, while others are answered, after which it stops.
_FAILURES = 3


@dataclass(slots=True)
class _Agenda:
    """When a symbol is read next; monotonic seconds."""

    review_at_s: float
    review_wait_s: float
    reading: bool = False
    now: bool = False  # whatever is known: a connection is new, or a read failed
    asked: bool = False  # a whole answer has come since the connection was made
    not_before_s: float = 0.0
    sooner_s: float = 0.0  # the same, should a newer candle show
    seen_open: int = -1
    fruitless: int = 0
    failures: int = 0
    failing_since_s: float = 0.0


class Reconciler:
    """Reads over REST what an assembly lacks; lives as long as its stream.

    Parameters
    ----------
    rest : an open client.
    interval, settings : of the stream.
    clock, assembly, health, counters : of the stream, from whose loop alone they are touched.
    """

    def __init__(
        self,
        rest: RestClient,
        interval: str,
        settings: StreamSettings,
        *,
        clock: ExchangeClock,
        assembly: Assembly,
        health: Health,
        counters: Counter[str],
    ) -> None:
        self.rest, self.interval, self.settings = rest, interval, settings
        self.clock, self.assembly = clock, assembly
        self.health, self.counters = health, counters
        at_s, symbols = time.monotonic(), list(assembly.series)
        every_s = settings.review_every_s
        self._agenda = {
            # Spread, so that not all symbols are reviewed at once.
            symbol: _Agenda(at_s + every_s * (1 + n / len(symbols)), every_s)
            for n, symbol in enumerate(symbols)
        }
        self._time = asyncio.Lock()
        self._answered_s = 0.0

    def connected(self, symbols: Sequence[str]) -> None:
        """A connection is new: whatever came between it and the last one must be read."""
        for symbol in symbols:
            agenda = self._agenda[symbol]
            agenda.now, agenda.asked = True, False
            self.assembly.series[symbol].backfilling = True
            agenda.not_before_s = agenda.sooner_s = 0.0

    def gap_published(self, symbol: str) -> None:
        """Read it again soon: the gap may be none."""
        agenda = self._agenda[symbol]
        agenda.review_wait_s = self.settings.review_first_s
        agenda.review_at_s = time.monotonic() + agenda.review_wait_s

    def due(self) -> list[Series]:
        """The symbols to read now."""
        now_ms, at_s = self.clock.now_ms(), time.monotonic()
        return [s for s in self.assembly.series.values() if self._due(s, now_ms, at_s)]

    def _due(self, series: Series, now_ms: int, at_s: float) -> bool:
        agenda = self._agenda[series.symbol]
        newer = series.newest_seen > agenda.seen_open
        if agenda.reading or at_s < (agenda.sooner_s if newer else agenda.not_before_s):
            return False
        if agenda.now:
            return True
        open_ms = series.first_unresolved()
        overdue_ms = now_ms - open_ms - series.interval_ms
        grace_ms = self.settings.close_grace_s * 1000 * self.settings.market_speed
        return overdue_ms > grace_ms or (open_ms < series.newest_seen and overdue_ms >= 0)

    def reviews_due(self) -> list[Series]:
        """The symbols whose shown candles should be read again now."""
        at_s = time.monotonic()
        return [
            series
            for symbol, series in self.assembly.series.items()
            if at_s >= self._agenda[symbol].review_at_s and not self._agenda[symbol].reading
        ]

    def level(self) -> bool:
        """Whether all that the exchange has shown to be closed is here, or known to be late."""
        closed_ms = self._settled_ms(self.clock.closed_ms())
        return all(self._level(series, closed_ms) for series in self.assembly.series.values())

    def _level(self, series: Series, closed_ms: int) -> bool:
        agenda = self._agenda[series.symbol]
        if series.stopped:
            return True
        if agenda.reading or agenda.now or not agenda.asked:
            return False
        return next(series.unresolved(min(closed_ms, series.newest_seen)), None) is None

    # Reading ------------------------------------------------------------------------------------

    async def read_time(self) -> None:
        """Ask the exchange for its time, unless that has just been done."""
        async with self._time:
            if self.clock.rest_age_s < self.settings.refetch_s:
                return
            began_s = time.monotonic()
            server_ms = await self.rest.server_time_ms()
            took_s = time.monotonic() - began_s
            self.clock.hear_rest(server_ms, took_s, 2 * self.settings.clock_refresh_s)

    async def refresh_clock(self) -> None:
        """Keep the clock's REST reading young; while clocks disagree, ask the candles too."""
        try:
            await self.read_time()
            if not self.clock.agree:
                await self._read_newest()
        except SourceError as error:
            log.info("stream: %s", error)

    async def _read_newest(self) -> None:
        """Hear from REST which candle is the newest, of the first symbol that runs."""
        running = [s for s in self.assembly.series.values() if not s.stopped]
        told = self.clock.readings()
        if running and told:
            step = running[0].interval_ms
            span = Span(min(told.values()) // step * step - step, max(told.values()) + step)
            await self._rows(running[0], span)

    async def reconcile(self, series: Series) -> None:
        """Read what this symbol lacks."""
        agenda = self._agenda[series.symbol]
        agenda.reading, agenda.now = True, False
        before = _progress(series)
        wait_s = 0.0
        try:
            self.counters["fetches"] += 1
            await self.read_time()
            for span in self.assembly.lacking(series, self._settled_ms(self.clock.now_ms())):
                await self._read_span(series, span)
                self.health.answered(series.symbol)
            agenda.asked, agenda.failures = True, 0
            series.backfilling = False
            self._answered_s = time.monotonic()
        except RefusedError as error:
            wait_s = self.health.refused(series.symbol, str(error))
            agenda.now, series.backfilling = True, False
        except SourceError as error:
            wait_s = self._failed(series.symbol, agenda, error)
        finally:
            agenda.reading = False
            agenda.fruitless = 0 if _progress(series) != before else agenda.fruitless + 1
            self._rest(series, agenda, wait_s)

    async def _read_span(self, series: Series, span: Span) -> None:
        now_ms = self.clock.now_ms()
        closed_ms = self._settled_ms(self.clock.closed_ms())
        beyond = [open_ms for open_ms in series.pending if open_ms >= span.end_ms]
        last = min(beyond) if beyond else max(now_ms, series.newest_seen)
        candles = await self._rows(series, Span(span.start_ms, last + series.interval_ms))
        if len(candles):
            # What a newer candle follows has closed; the time must have come all the same.
            followed = min(int(candles.open_time[-1]), self._settled_ms(now_ms))
            closed_ms = max(closed_ms, followed)
        self.assembly.take_read(series, candles, span, closed_ms)

    async def _rows(self, series: Series, span: Span) -> Candles:
        candles = await self.rest.shown(series.symbol, self.interval, span)
        for open_ms in candles.open_time[-1:].tolist():
            self.clock.hear_candle(open_ms)
        return candles

    async def review(self, series: Series) -> None:
        """Read again what was shown: former gaps may exist, candles may have other values."""
        agenda = self._agenda[series.symbol]
        agenda.review_at_s = time.monotonic() + agenda.review_wait_s
        agenda.review_wait_s = min(self.settings.review_every_s, 4 * agenda.review_wait_s)
        oldest = series.next_open - (PAGE_ROWS - 2) * series.interval_ms
        first = next((open_ms for open_ms in series.gaps if open_ms >= oldest), series.next_open)
        first = min(first, next(iter(series.shown), series.next_open))
        if first >= series.next_open:
            return
        try:
            self.counters["reviews"] += 1
            span = Span(max(oldest, first), series.next_open + series.interval_ms)
            self.assembly.review(series, await self._rows(series, span))
        except SourceError as error:
            log.info("stream: %s", error)

    def _failed(self, symbol: str, agenda: _Agenda, error: SourceError) -> float:
        """Count a failure; seconds to wait where only this symbol fails."""
        self.counters["fetch_failures"] += 1
        log.info("stream: %s", error)
        agenda.now = True
        if agenda.failures == 0:
            agenda.failing_since_s = time.monotonic()
        agenda.failures += 1
        if agenda.failures >= _FAILURES and self._answered_s > agenda.failing_since_s:
            return self.health.refused(symbol, str(error))
        return 0.0

    def _rest(self, series: Series, agenda: _Agenda, wait_s: float) -> None:
        """Set the waits before this symbol is read again."""
        at_s, settings = time.monotonic(), self.settings
        doubtful = any(reads == 1 for _, reads in series.absent.values())
        soonest_s = max(wait_s, settings.refetch_s, settings.gap_confirm_s if doubtful else 0.0)
        growing_s = settings.refetch_s * 2.0 ** min(agenda.fruitless, 16)
        agenda.sooner_s = at_s + soonest_s
        agenda.not_before_s = at_s + max(soonest_s, min(settings.refetch_cap_s, growing_s))
        agenda.seen_open = series.newest_seen

    def _settled_ms(self, time_ms: int) -> int:
        return time_ms - self.settings.settle_ms


def _progress(series: Series) -> tuple[int, int, int]:
    """Changes whenever a read has brought anything."""
    reads = sum(reads for _, reads in series.absent.values())
    return series.next_open, len(series.pending), reads
