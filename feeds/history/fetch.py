"""Fetching history into the store: monthly archives, then daily ones, then REST, month by month.

Each month is fetched, checked, written and recorded on its own, so a kill costs at most the months
under way and the next fetch goes on from there; the store ends with the same bytes whatever the
faults were, because an archive and a REST page of the same candles are the same numbers. A slot
without a candle stays `missing` until two complete REST reads, some time apart, have shown that the
exchange has none; then it is `exchange-down`. Nothing is ever filled in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path

import numpy as np

from cppncripto_strategy.errors import CandleError, SourceError, StoreError
from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    read_archive_file,
)
from cppncripto_strategy.feeds.binance.archive_client import ArchiveClient
from cppncripto_strategy.feeds.binance.endpoints import BINANCE_INTERVALS, Retry, Sources
from cppncripto_strategy.feeds.binance.klines import PAGE_ROWS
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate, UnknownSymbolError
from cppncripto_strategy.feeds.candles import Candles, Rejected, concat, gaps, inside, merge
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    WEEK_MS,
    Span,
    day_names,
    interval_anchor_ms,
    interval_to_ms,
    month_names,
    ms_to_utc,
)
from cppncripto_strategy.feeds.history.files import read_file
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    entries_of,
    job_lock,
    month_matches,
    name_holes,
    named,
    record_month,
    slot_span,
)
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import (
    CandleStore,
    MonthState,
    by_month,
    check_symbol,
    read_month,
)

logger = logging.getLogger(__name__)

# Below so many open days a month's file is not worth its download: daily files are.
MONTHLY_FROM_DAYS = 3
FILES_PER_BATCH = 16
# A month's file is published within so many days of its end.
DAILY_FOR_DAYS = 45
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How a fetch goes about it.

    Parameters
    ----------
    sources, retry : where to ask and how patiently.
    concurrency : months under way at once, over all symbols.
    archives : False takes everything from REST.
    absence_wait_s : seconds between the two REST reads that prove a slot empty.
    proof_age_ms : a slot younger than this is never called exchange-down.
    settle_ms : a candle counts as closed so long after its close, by the exchange's clock.
    """

    sources: Sources = field(default_factory=Sources)
    retry: Retry = field(default_factory=Retry)
    concurrency: int = 4
    archives: bool = True
    absence_wait_s: float = 5.0
    proof_age_ms: int = 600_000
    settle_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """What a fetch did for one symbol, and what is known about its span now.

    Parameters
    ----------
    span : what was fetched: the span asked for, from the first candle the exchange ever had.
    expected, held : candles the span would hold without holes; candles it does hold.
    from_archives, from_rest : candles this fetch brought.
    rejected : candles that broke a rule and were quarantined.
    months_changed : months whose file is new or different.
    exchange_down, missing : ledger entries inside the span.
    seconds : wall time.
    error : why the fetch of this symbol stopped, '' when it did not.
    """

    symbol: str
    interval: str
    span: Span
    expected: int = 0
    held: int = 0
    from_archives: int = 0
    from_rest: int = 0
    rejected: int = 0
    months_changed: tuple[str, ...] = ()
    exchange_down: tuple[Entry, ...] = ()
    missing: tuple[Entry, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def complete(self) -> bool:
        """True when every slot is verified or proved absent."""
        return not self.missing and not self.error


def fetch(
    store: CandleStore,
    symbols: Sequence[str],
    interval: str,
    start_ms: int,
    end_ms: int | None = None,
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
    *,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> list[SeriesReport]:
    """Bring candles with start_ms <= open time < end_ms into the store (see the module).

    Parameters
    ----------
    end_ms : None stops at the last closed candle, as the exchange's clock has it.
    progress : called with (symbol, slots done, slots to do) as months are finished.
    gate : REST gate; default the process's own.
    rng : jitter of the retries; results do not depend on it.

    Raises
    ------
    SourceError
        When the interval is not the exchange's, or the exchange cannot be asked the time.
    StoreError
        When another job holds the store, or a ledger in it is damaged.
    """
    return asyncio.run(
        fetch_async(
            store, symbols, interval, start_ms, end_ms, settings, progress, gate=gate, rng=rng
        )
    )


async def fetch_async(
    store: CandleStore,
    symbols: Sequence[str],
    interval: str,
    start_ms: int,
    end_ms: int | None = None,
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
    *,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> list[SeriesReport]:
    """`fetch`, for callers with an event loop of their own."""
    check_interval(interval)
    wanted = list(dict.fromkeys(check_symbol(symbol) for symbol in symbols))
    chosen, dice = settings or FetchSettings(), rng or random.Random()
    with job_lock(store):
        rest = RestClient(
            chosen.sources, chosen.retry, gate=gate, rng=dice, settle_ms=chosen.settle_ms
        )
        keep_damaged = Quarantine(store.root).keep_file
        archives = ArchiveClient(chosen.sources, keep_damaged, chosen.retry, rng=dice)
        async with rest, archives:
            closed_ms = await rest.closed_until_ms(interval)
            span = Span(start_ms, max(start_ms, min(end_ms or closed_ms, closed_ms)))
            slots = asyncio.Semaphore(chosen.concurrency)
            jobs = [
                _Series(store, symbol, interval, chosen, rest, archives, slots, progress)
                for symbol in wanted
            ]
            return list(await asyncio.gather(*(job.run(span) for job in jobs)))


def import_files(
    store: CandleStore,
    symbol: str,
    interval: str,
    files: Sequence[Path],
    *,
    sort: bool = False,
    workers: int | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Bring files on disk into the store and its ledger; archives (.zip) and anything importable.

    Files are read, checked and written in batches of sixteen, each batch as a whole or not at all;
    where files overlap, the later in the order given wins.

    Returns
    -------
    (candles read, months whose file changed).

    Raises
    ------
    SourceError
        When a file cannot be read, or an archive fails its checksum or belongs to another series.
    CandleError
        When a candle breaks a rule; nothing of the batch is then in the store.
    """
    check_symbol(symbol)
    interval_to_ms(interval)
    count = 0
    months: set[str] = set()
    read = partial(_read_local, symbol, interval, sort)
    # Two more than cores, so that somebody computes while others wait for the disk.
    threads = workers or min(8, (os.cpu_count() or 2) + 2)
    with job_lock(store), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(files), FILES_PER_BATCH):
            pieces = list(pool.map(read, files[first : first + FILES_PER_BATCH]))
            count += sum(len(piece.candles) for piece in pieces)
            months.update(_write_pieces(store, symbol, interval, pieces, pool))
    return count, tuple(sorted(months))


def _write_pieces(
    store: CandleStore, symbol: str, interval: str, pieces: list[_Piece], pool: ThreadPoolExecutor
) -> list[str]:
    """Write and record pieces that may share months, later over earlier; the months changed."""
    shares: dict[str, list[_Piece]] = {}
    for piece in pieces:
        for month, part in by_month(piece.candles):
            shares.setdefault(month, []).append(_Piece(part, piece.source, piece.digest))
    ledger = Ledger.load(store, symbol, interval)
    stale = [month for month in shares if not month_matches(ledger, store, month)]

    def stage(month: str) -> tuple[MonthState, list[Entry]]:
        parts = shares[month]
        state = batch.stage(month, reduce(merge, [part.candles for part in parts]))
        return state, [e for part in parts for e in part.entries(interval)]

    with store.writing(symbol, interval) as batch:
        staged = list(pool.map(stage, shares))
    opens = [int(piece.candles.open_time[row]) for piece in pieces for row in (0, -1)]
    ledger.widen(Span(min(opens), max(opens) + interval_to_ms(interval)))
    for state, entries in staged:
        if state.month in stale:
            ledger.months.pop(state.month, None)
        record_month(ledger, state, entries)
    name_holes(ledger, store)
    ledger.save()
    return [state.month for state, _ in staged if state.changed]


def _read_local(symbol: str, interval: str, sort: bool, file: Path) -> _Piece:
    if file.suffix.lower() != ".zip":
        return _Piece(read_file(file, interval, sort=sort), f"import:{file.name}")
    read = read_archive_file(file)
    if (read.file.symbol, read.file.interval) != (symbol, interval):
        raise SourceError(f"{file.name} is not an archive of {symbol} {interval}")
    if read.rejected:
        first = read.rejected[0]
        raise CandleError(
            f"{file.name}: the candle of {ms_to_utc(first.open_time)} is refused ({first.values}):"
            f" {first.rule}. Nothing was written."
        )
    if len(read.candles) == 0:
        raise SourceError(f"{file.name} holds no candles")
    return _Piece(read.candles, f"archive:{read.file.name}", read.sha256)


def check_interval(interval: str) -> None:
    """Refuse intervals the exchange does not have.

    Raises
    ------
    SourceError
        Naming those it has.
    """
    if interval not in BINANCE_INTERVALS:
        raise SourceError(
            f"the exchange has no candles of {interval!r}; it has {', '.join(BINANCE_INTERVALS)}."
            " `cppn-bt data resample` makes longer ones from shorter ones."
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Candles from one source, to be written and recorded together."""

    candles: Candles
    source: str
    digest: str | None = None

    def entries(self, interval: str) -> list[Entry]:
        """Ledger entries of these candles."""
        return entries_of(self.candles, interval, self.source, self.digest)


class _Series:
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
        self._ledger = Ledger.load(store, symbol, interval)
        self._rest_problem = ""
        self._unknown = False
        self._done = self._to_do = 0
        self._from_archives = self._from_rest = self._rejected = 0
        self._changed: set[str] = set()

    async def run(self, asked: Span) -> SeriesReport:
        """Fetch the span; problems of this symbol end in the report, not in an exception."""
        started, span, error = time.monotonic(), asked, ""
        try:
            span = await self._listed(asked)
            await self._months(span)
            await self._prove_absences(span)
            if self._held_count(span) == 0 and self._rest_problem:
                raise SourceError(self._rest_problem)
        except (SourceError, StoreError) as cause:
            logger.info("%s %s: %s", self.symbol, self.interval, cause)
            error = str(cause)
        return self._report(span, time.monotonic() - started, error)

    async def _listed(self, asked: Span) -> Span:
        """The span on the grid, from the exchange's first candle of the symbol."""
        try:
            await self.rest.read_limit(self.symbol)
            first_ms = await self.rest.first_open_ms(self.symbol, self.interval)
        except UnknownSymbolError:
            # Delisted symbols keep their archives.
            first_ms, self._unknown = None, True
            self._rest_problem = (
                f"the exchange does not know {self.symbol} and has no archive of it in this span;"
                " check the spelling (BTCUSDT)"
            )
        start_ms = _ceil(asked.start_ms, self.interval_ms)
        start_ms = (
            start_ms if first_ms is None else max(start_ms, _ceil(first_ms, self.interval_ms))
        )
        end_ms = _ceil(asked.end_ms, self.interval_ms)
        return Span(start_ms, max(start_ms, end_ms))

    async def _months(self, span: Span) -> None:
        if span.end_ms == span.start_ms:
            return
        months = self._month_spans(span)
        self._drop_stale(list(months))
        self._ledger.widen(span)
        todo = {month: self._ledger.open_spans(month, within) for month, within in months.items()}
        todo = {month: spans for month, spans in todo.items() if spans}
        self._to_do = sum(self._slot_count(spans) for spans in todo.values())
        self._tell(0)
        try:
            async with asyncio.TaskGroup() as group:
                for month, spans in todo.items():
                    group.create_task(self._month_in_turn(month, spans))
        except BaseExceptionGroup as problems:
            # A full disk fails every month under way alike; one of them says it all.
            raise problems.exceptions[0] from problems

    def _month_spans(self, span: Span) -> dict[str, Span]:
        """The months whose slots the span touches -> the part of the span in each."""
        edges = np.array([span.start_ms - WEEK_MS, span.end_ms - 1])
        found = {}
        for month in month_names(edges):
            within = slot_span(month, self.interval_ms)
            start_ms, end_ms = max(within.start_ms, span.start_ms), min(within.end_ms, span.end_ms)
            if start_ms < end_ms:
                found[month] = Span(start_ms, end_ms)
        return found

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
        self._tell(self._slot_count(spans))

    async def _from_archive(self, month: str, spans: list[Span]) -> list[_Piece]:
        """Candles of the spans from the month's archive, else from the archives of its days."""
        if not self.settings.archives:
            return []
        closed_ms, whole = (
            await self.rest.closed_until_ms(self.interval),
            slot_span(month, self.interval_ms),
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

    async def _archives(self, periods: list[str], spans: list[Span]) -> list[_Piece]:
        files = [ArchiveFile(self.symbol, self.interval, period) for period in periods]
        pieces = []
        for first in range(0, len(files), self.settings.concurrency):
            batch = files[first : first + self.settings.concurrency]
            for read in await asyncio.gather(*(self.archives.fetch(file) for file in batch)):
                if read is None:
                    continue
                self._refuse(read.rejected, f"archive:{read.file.name}")
                candles = inside(read.candles, spans)
                pieces.append(_Piece(candles, f"archive:{read.file.name}", read.sha256))
        return pieces

    def _holes(self, pieces: list[_Piece], spans: list[Span]) -> list[Span]:
        held = np.sort(
            np.concatenate([np.empty(0, np.int64)] + [p.candles.open_time for p in pieces])
        )
        return [hole for span in spans for hole in gaps(held, self.interval_ms, span)]

    async def _over_rest(self, holes: list[Span]) -> tuple[list[_Piece], list[Entry]]:
        """Candles that fill the holes, and an entry for each slot still empty."""
        pieces: list[_Piece] = []
        absent: list[Entry] = []
        for span in gaps_to_read(holes, PAGE_ROWS * self.interval_ms):
            mine = [hole for hole in holes if _within(hole, span)]
            try:
                if self._rest_problem:
                    raise SourceError(self._rest_problem)
                read = await self.rest.read(self.symbol, self.interval, span)
            except SourceError as error:
                # One failure after every retry is enough: the other months would only repeat it.
                self._rest_problem = str(error)
                absent += [_missing(hole, reason=str(error)) for hole in mine]
                continue
            self._refuse(read.rejected, "rest")
            candles = inside(read.candles, mine)
            pieces.append(_Piece(candles, "rest"))
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
        for one in sorted(rejected, key=lambda found: found.open_time):
            on_grid = _ceil(one.open_time, self.interval_ms) == one.open_time
            if not on_grid or not start_ms <= one.open_time < hole.end_ms:
                continue
            slot = Span(one.open_time, one.open_time + self.interval_ms)
            entries += absent(Span(start_ms, slot.start_ms))
            entries.append(_missing(slot, reason=f"the exchange's candle is refused: {one.rule}"))
            start_ms = slot.end_ms
        entries += absent(Span(start_ms, hole.end_ms))
        return [found for found in entries if found.end_ms > found.start_ms]

    def _commit(self, month: str, pieces: list[_Piece], absent: list[Entry]) -> None:
        """Write the candles, then record them; the order a kill can interrupt safely."""
        candles = concat([piece.candles for piece in pieces])
        ordered = candles[np.argsort(candles.open_time, kind="stable")]
        written = self.store.write_months(self.symbol, self.interval, ordered, sparse=True)
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
            read = await self.rest.read(self.symbol, self.interval, whole)
        except SourceError as error:
            logger.warning("%s: holes stay unproved: %s", self.symbol, error)
            return
        self._refuse(read.rejected, "rest")
        proved = partial(self._proved, pending=pending, read_ms=read.read_ms)
        for month, within in self._month_spans(whole).items():
            parts = [part for entry in pending if (part := _common(entry.span, within))]
            found = inside(read.candles, parts)
            absent = [
                settled
                for part in parts
                for empty in gaps(found.open_time, self.interval_ms, part)
                for settled in self._empty(empty, read.rejected, proved)
            ]
            async with self._writing:
                await asyncio.to_thread(self._commit, month, [_Piece(found, "rest")], absent)

    def _proved(self, empty: Span, pending: list[Entry], read_ms: int) -> list[Entry]:
        """Exchange-down, but for slots so young that a candle may still appear."""
        first_ms = max(e.reads_ms[0] for e in pending if _common(e.span, empty))
        settled_ms = _ceil(read_ms - self.settings.proof_age_ms, self.interval_ms)
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

    def _held_count(self, span: Span) -> int:
        return self._slot_count([entry.span for entry in self._entries(span, "verified")])

    def _slot_count(self, spans: Sequence[Span]) -> int:
        return sum(span.end_ms - span.start_ms for span in spans) // self.interval_ms

    def _tell(self, slots: int) -> None:
        self._done += slots
        if self._progress is not None:
            self._progress(self.symbol, self._done, self._to_do)

    def _report(self, span: Span, seconds: float, error: str) -> SeriesReport:
        return SeriesReport(
            self.symbol,
            self.interval,
            span,
            expected=self._slot_count([span]),
            held=self._held_count(span),
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


def _common(one: Span, other: Span) -> Span | None:
    """The part two spans share; None when there is none."""
    start_ms, end_ms = max(one.start_ms, other.start_ms), min(one.end_ms, other.end_ms)
    return Span(start_ms, end_ms) if start_ms < end_ms else None


def _within(inner: Span, outer: Span) -> bool:
    return outer.start_ms <= inner.start_ms and inner.end_ms <= outer.end_ms


def _ceil(time_ms: int, interval_ms: int) -> int:
    """The first grid time at or after a time."""
    anchor = interval_anchor_ms(interval_ms)
    return anchor - (anchor - time_ms) // interval_ms * interval_ms


def gaps_to_read(holes: list[Span], join_ms: int) -> list[Span]:
    """Holes joined where they lie closer than `join_ms`, so that few requests read them all."""
    joined: list[Span] = []
    for hole in holes:
        if joined and hole.start_ms - joined[-1].end_ms < join_ms:
            joined[-1] = Span(joined[-1].start_ms, hole.end_ms)
        else:
            joined.append(hole)
    return joined
