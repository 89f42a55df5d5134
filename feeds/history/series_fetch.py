"""One symbol's fetch: month by month from archives and REST, then the proof of what is absent.

A month is fetched, checked, written and recorded on its own, so a kill costs at most the months
under way. A slot without a candle stays `missing` until two complete REST reads, some time apart,
have shown that the exchange has none; then it is `exchange-down`. Nothing is ever filled in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cppncripto_strategy.errors import CppnError, SourceError, StoreError
from cppncripto_strategy.feeds.binance.answers import Json
from cppncripto_strategy.feeds.binance.archive import ArchiveFile
from cppncripto_strategy.feeds.binance.archive_client import ArchiveClient
from cppncripto_strategy.feeds.binance.klines import PAGE_ROWS
from cppncripto_strategy.feeds.binance.rest import RestClient, UnknownSymbolError
from cppncripto_strategy.feeds.candles import Rejected, gaps, inside, split_valid
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    Span,
    day_names,
    grid_ceil,
    interval_anchor_ms,
    interval_to_ms,
    ms_to_utc,
)
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings, Progress, SeriesReport
from cppncripto_strategy.feeds.history.ledger import (
    STORED,
    Entry,
    Ledger,
    Piece,
    month_matches,
    months_between,
    named,
    record_month,
)
from cppncripto_strategy.feeds.history.month_file import read_month
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.stored_filters import store_filters

logger = logging.getLogger(__name__)

# Below so many open days a month's file is not worth its download: daily files are.
MONTHLY_FROM_DAYS = 3
# A month's file is published within so many days of its end.
DAILY_FOR_DAYS = 45


class SeriesFetch:
    """The fetch of one symbol; lives for one call of `fetch`."""

    def __init__(
        self,
        store: CandleStore,
        symbol: str,
        interval: str,
        settings: FetchSettings,
        rest: RestClient,
        archives: ArchiveClient,
        slots: asyncio.Semaphore,
        progress: Progress | None,
    ) -> None:
        self.store, self.symbol, self.interval = store, symbol, interval
        self.settings, self.rest, self.archives = settings, rest, archives
        self.interval_ms = interval_to_ms(interval)
        self.quarantine = Quarantine(store.root)
        self._slots, self._progress = slots, progress
        self._writing = asyncio.Lock()
        self._ledger = Ledger(Ledger.path_of(store, symbol, interval), symbol, interval)
        self._rest_problem = ""
        self._unknown = False
        self._rules: tuple[int, Json] | None = None
        self._done = self._to_do = 0
        self._from_archives = self._from_rest = self._rejected = 0
        self._changed: set[str] = set()

    async def run(self, asked: Span) -> SeriesReport:
        """Fetch the span; problems of this symbol end in the report, not in an exception."""
        started, span, error = time.monotonic(), asked, ""
        try:
            self._ledger = Ledger.load(self.store, self.symbol, self.interval)
            span = await self._listed(asked)
            await self._months(span)
            await self._prove_absences(span)
            if self._rules is not None:
                stated_ms, entry = self._rules
                store_filters(self.store.root, self.symbol, entry, stated_ms)
            if self._stored_count(span) == 0 and self._rest_problem:
                raise SourceError(self._rest_problem)
        except CppnError as cause:
            logger.info("%s %s: %s", self.symbol, self.interval, cause)
            error = str(cause)
        except Exception as cause:  # a fault of our own must not stop the other symbols
            logger.exception(
                "%s %s stopped by an error of this program", self.symbol, self.interval
            )
            error = f"an error of this program, {type(cause).__name__}: {cause}"
        return self._report(span, time.monotonic() - started, error)

    async def _listed(self, asked: Span) -> Span:
        """The span on the grid, from the exchange's first candle of the symbol."""
        try:
            self._rules = await self.rest.read_limit(self.symbol)
            first_ms = await self.rest.first_open_ms(self.symbol, self.interval)
        except UnknownSymbolError:
            # Delisted symbols keep their archives.
            first_ms, self._unknown = None, True
            self._rest_problem = (
                f"the exchange does not know {self.symbol} and has no archive of it in this span;"
                " check the spelling (BTCUSDT)"
            )
        self._learn_grid(first_ms)
        start_ms = self._ceil(asked.start_ms)
        start_ms = start_ms if first_ms is None else max(start_ms, self._ceil(first_ms))
        end_ms = self._ceil(asked.end_ms)
        return Span(start_ms, max(start_ms, end_ms))

    def _learn_grid(self, first_ms: int | None) -> None:
        """The series' grid by what is stored, else by the exchange's first candle.

        Raises
        ------
        StoreError
            When they contradict each other.
        SourceError
            When nobody knows the symbol, and so its grid.
        """
        if first_ms is None:
            if self._unknown and self._ledger.anchor_ms is None:
                raise SourceError(
                    f"{self._rest_problem}. On which days its {self.interval} candles opened is not"
                    " known: fetch 1d candles and join them with `data resample --opens-on`"
                )
            return
        theirs = interval_anchor_ms(self.interval_ms, np.array([first_ms]))
        if self._ledger.anchor_ms not in (None, theirs):
            raise StoreError(
                f"{self.symbol} {self.interval}: the exchange's candles open on other days than"
                f" those in the store ({ms_to_utc(first_ms)} is one). Fetch into another store"
            )
        self._ledger.anchor_ms = theirs

    def _ceil(self, time_ms: int) -> int:
        """The first grid time at or after a time."""
        return grid_ceil(time_ms, self.interval_ms, self._ledger.anchor_ms or 0)

    async def _months(self, span: Span) -> None:
        if span.end_ms == span.start_ms:
            return
        months = self._month_spans(span)
        self._drop_stale(list(months))
        self._ledger.widen(span)
        todo = {month: self._ledger.open_spans(month, within) for month, within in months.items()}
        todo = {month: spans for month, spans in todo.items() if spans}
        self._to_do = sum(self._slot_count(spans) for spans in todo.values())
        self._report_progress(0)
        try:
            async with asyncio.TaskGroup() as group:
                for month, spans in todo.items():
                    group.create_task(self._month_in_turn(month, spans))
        except BaseExceptionGroup as problems:
            # A full disk fails every month under way alike; one of them says it all.
            raise problems.exceptions[0] from problems

    def _month_spans(self, span: Span) -> dict[str, Span]:
        """The months whose slots the span touches -> the part of the span in each."""
        parts = {}
        for month in months_between(span):
            within = self._ledger.slots_of(month)
            start_ms, end_ms = max(within.start_ms, span.start_ms), min(within.end_ms, span.end_ms)
            if start_ms < end_ms:
                parts[month] = Span(start_ms, end_ms)
        return parts

    def _drop_stale(self, months: list[str]) -> None:
        """Forget what the ledger says about months whose file is another one; move damaged ones."""
        for month in months:
            if month_matches(self._ledger, self.store, month):
                continue
            self._ledger.months.pop(month, None)
            path = self.store.month_path(self.symbol, self.interval, month)
            try:
                if path.exists():
                    read_month(path)
            except StoreError as error:
                kept = self.quarantine.take_file(path, str(error))
                logger.warning("%s; moved to %s, fetching the month again", error, kept)

    async def _month_in_turn(self, month: str, spans: list[Span]) -> None:
        async with self._slots:
            pieces = await self._from_archive(month, spans)
            holes = self._holes(pieces, spans)
            found, absent = await self._over_rest(holes)
            async with self._writing:
                await asyncio.to_thread(self._commit, month, [*pieces, *found], absent)
        self._report_progress(self._slot_count(spans))

    async def _from_archive(self, month: str, spans: list[Span]) -> list[Piece]:
        """Candles of the spans from the month's archive, else from the archives of its days."""
        if not self.settings.archives:
            return []
        closed_ms, whole = (
            await self.rest.closed_until_ms(self.interval, self._ledger.anchor_ms),
            self._ledger.slots_of(month),
        )
        enough = self._slot_count(spans) * self.interval_ms > MONTHLY_FROM_DAYS * DAY_MS
        if whole.end_ms <= closed_ms and (enough or self.interval_ms > DAY_MS):
            pieces = await self._archives([month], spans)
            if pieces:
                return pieces
        # An old month has its file or no candles; REST is cheaper than asking for thirty days that
        # are not there either, unless REST does not know the symbol.
        recent = whole.end_ms > closed_ms - DAILY_FOR_DAYS * DAY_MS
        if self.interval_ms > DAY_MS or not (recent or not enough or self._unknown):
            return []
        days = [day for span in spans for day in day_names(span)]
        return await self._archives(days, spans)

    async def _archives(self, periods: list[str], spans: list[Span]) -> list[Piece]:
        files = [ArchiveFile(self.symbol, self.interval, period) for period in periods]
        pieces = []
        for first in range(0, len(files), self.settings.concurrency):
            batch = files[first : first + self.settings.concurrency]
            for read in await asyncio.gather(*(self.archives.fetch(file) for file in batch)):
                if read is None:
                    continue
                kept, misaligned = split_valid(
                    read.candles, self.interval_ms, self._ledger.anchor_ms
                )
                self._refuse([*read.rejected, *misaligned], f"archive:{read.file.name}")
                candles = inside(kept, spans)
                pieces.append(Piece(candles, f"archive:{read.file.name}", read.sha256))
        return pieces

    def _holes(self, pieces: list[Piece], spans: list[Span]) -> list[Span]:
        open_time = np.sort(
            np.concatenate([np.empty(0, np.int64)] + [p.candles.open_time for p in pieces])
        )
        return [hole for span in spans for hole in gaps(open_time, self.interval_ms, span)]

    async def _over_rest(self, holes: list[Span]) -> tuple[list[Piece], list[Entry]]:
        """Candles that fill the holes, and an entry for each slot still empty."""
        pieces: list[Piece] = []
        absent: list[Entry] = []
        for span in gaps_to_read(holes, PAGE_ROWS * self.interval_ms):
            mine = [hole for hole in holes if _within(hole, span)]
            try:
                if self._rest_problem:
                    raise SourceError(self._rest_problem)
                read = await self.rest.read(
                    self.symbol, self.interval, span, self._ledger.anchor_ms
                )
            except SourceError as error:
                # One failure after every retry is enough: the other months would only repeat it.
                self._rest_problem = str(error)
                absent += [_missing(hole, reason=str(error)) for hole in mine]
                continue
            self._refuse(read.rejected, "rest")
            candles = inside(read.candles, mine)
            pieces.append(Piece(candles, "rest"))
            for hole in mine:
                for empty in gaps(candles.open_time, self.interval_ms, hole):
                    once = partial(_once_absent, read_ms=read.read_ms)
                    absent += self._empty(empty, read.rejected, once)
        return pieces, absent

    def _empty(
        self, hole: Span, rejected: Sequence[Rejected], absent: Callable[[Span], list[Entry]]
    ) -> list[Entry]:
        """Entries of a hole: `absent` where nothing came, refused where a bad candle came."""
        entries: list[Entry] = []
        start_ms = hole.start_ms
        for candle in sorted(rejected, key=lambda candle: candle.open_time):
            on_grid = self._ceil(candle.open_time) == candle.open_time
            if not on_grid or not start_ms <= candle.open_time < hole.end_ms:
                continue
            slot = Span(candle.open_time, candle.open_time + self.interval_ms)
            entries += absent(Span(start_ms, slot.start_ms))
            entries.append(
                _missing(slot, reason=f"the exchange's candle is refused: {candle.rule}")
            )
            start_ms = slot.end_ms
        entries += absent(Span(start_ms, hole.end_ms))
        return [entry for entry in entries if entry.end_ms > entry.start_ms]

    def _commit(self, month: str, pieces: list[Piece], absent: list[Entry]) -> None:
        """Write the candles, then record them; the order a kill can interrupt safely."""
        parts = [piece.candles for piece in pieces]  # not joined: they may be a month of seconds
        written = self.store.write_months(self.symbol, self.interval, parts, sparse=True)
        self._changed.update(state.month for state in written if state.changed)
        entries = [entry for piece in pieces for entry in piece.entries(self.interval)]
        # A misspelt symbol leaves no trace; a delisted one has candles.
        if entries or (absent and not self._nothing_known()):
            states = written or [self.store.month_state(self.symbol, self.interval, month)]
            record_month(self._ledger, states[0], entries + absent)
            self._ledger.save()
        for piece in pieces:
            if piece.source == "rest":
                self._from_rest += len(piece.candles)
            else:
                self._from_archives += len(piece.candles)

    def _nothing_known(self) -> bool:
        return self._unknown and not self.store.months(self.symbol, self.interval)

    async def _prove_absences(self, span: Span) -> None:
        """Read every hole that one read showed a second time, some seconds later."""
        pending = [entry for entry in self._entries(span, "missing") if entry.reads_ms]
        if not pending or self._rest_problem:
            return
        wait_ms = max(entry.reads_ms[0] for entry in pending) - self.rest.now_ms()
        await asyncio.sleep(max(0.0, self.settings.absence_wait_s + wait_ms / 1000))
        for whole in gaps_to_read([entry.span for entry in pending], PAGE_ROWS * self.interval_ms):
            await self._prove(whole, [entry for entry in pending if _within(entry.span, whole)])

    async def _prove(self, whole: Span, pending: list[Entry]) -> None:
        try:
            read = await self.rest.read(self.symbol, self.interval, whole, self._ledger.anchor_ms)
        except SourceError as error:
            logger.warning("%s: holes stay unproved: %s", self.symbol, error)
            return
        self._refuse(read.rejected, "rest")
        proved = partial(self._proved, pending=pending, read_ms=read.read_ms)
        for month, within in self._month_spans(whole).items():
            parts = [part for entry in pending if (part := _common(entry.span, within))]
            candles = inside(read.candles, parts)
            absent = [
                settled
                for part in parts
                for empty in gaps(candles.open_time, self.interval_ms, part)
                for settled in self._empty(empty, read.rejected, proved)
            ]
            async with self._writing:
                await asyncio.to_thread(self._commit, month, [Piece(candles, "rest")], absent)

    def _proved(self, empty: Span, pending: list[Entry], read_ms: int) -> list[Entry]:
        """Exchange-down, but for slots so young that a candle may still appear."""
        first_ms = max(e.reads_ms[0] for e in pending if _common(e.span, empty))
        settled_ms = self._ceil(read_ms - self.settings.proof_age_ms)
        cut_ms = min(max(settled_ms, empty.start_ms), empty.end_ms)
        return [
            Entry(empty.start_ms, cut_ms, "exchange-down", reads_ms=(first_ms, read_ms)),
            _missing(Span(cut_ms, empty.end_ms), (first_ms,), "too young to be proved absent"),
        ]

    def _refuse(self, rejected: Sequence[Rejected], source: str) -> None:
        if rejected:
            self._rejected += len(rejected)
            self.quarantine.keep_candles(self.symbol, self.interval, source, list(rejected))
            logger.warning(
                "%s %s: %d candles of %s break a rule and are quarantined, the first at %s: %s",
                *(self.symbol, self.interval, len(rejected), source),
                *(ms_to_utc(rejected[0].open_time), rejected[0].rule),
            )

    def _entries(self, span: Span, status: str) -> list[Entry]:
        """Ledger entries of a status that lie in the span (cut to it)."""
        return [
            Entry(
                max(e.start_ms, span.start_ms),
                min(e.end_ms, span.end_ms),
                e.status,
                e.source,
                e.digest,
                e.reads_ms,
                e.reason,
            )
            for e in self._ledger.entries()
            if e.status == status and e.start_ms < span.end_ms and span.start_ms < e.end_ms
        ]

    def _stored_count(self, span: Span) -> int:
        entries = [entry for status in STORED for entry in self._entries(span, status)]
        return self._slot_count([entry.span for entry in entries])

    def _slot_count(self, spans: Sequence[Span]) -> int:
        return sum(span.end_ms - span.start_ms for span in spans) // self.interval_ms

    def _report_progress(self, slots: int) -> None:
        self._done += slots
        if self._progress is not None:
            self._progress(self.symbol, self._done, self._to_do)

    def _report(self, span: Span, seconds: float, error: str) -> SeriesReport:
        return SeriesReport(
            self.symbol,
            self.interval,
            span,
            expected=self._slot_count([span]),
            held=self._stored_count(span),
            from_archives=self._from_archives,
            from_rest=self._from_rest,
            rejected=self._rejected,
            months_changed=tuple(sorted(self._changed)),
            exchange_down=named(self._entries(span, "exchange-down")),
            missing=named(self._entries(span, "missing")),
            seconds=seconds,
            error=error,
        )


def _missing(span: Span, reads_ms: tuple[int, ...] = (), reason: str = "") -> Entry:
    return Entry(span.start_ms, span.end_ms, "missing", reads_ms=reads_ms, reason=reason)


def _once_absent(span: Span, read_ms: int) -> list[Entry]:
    return [_missing(span, (read_ms,), "no candle in the archives nor in one REST read")]


def _common(first: Span, second: Span) -> Span | None:
    """The part two spans share; None when there is none."""
    start_ms, end_ms = max(first.start_ms, second.start_ms), min(first.end_ms, second.end_ms)
    return Span(start_ms, end_ms) if start_ms < end_ms else None


def _within(inner: Span, outer: Span) -> bool:
    return outer.start_ms <= inner.start_ms and inner.end_ms <= outer.end_ms


def gaps_to_read(holes: list[Span], join_ms: int) -> list[Span]:
    """Holes joined where they lie closer than `join_ms`, so that few requests read them all."""
    joined: list[Span] = []
    for hole in holes:
        if joined and hole.start_ms - joined[-1].end_ms < join_ms:
            joined[-1] = Span(joined[-1].start_ms, hole.end_ms)
        else:
            joined.append(hole)
    return joined
