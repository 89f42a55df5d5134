"""The coverage ledger: what is known about every slot of a series, and how it is known.

One JSON file, `_ledger.json`, beside the month files of a series. Each span of time is

    verified        its candles are in the store, as the exchange's archive or REST states them (or
                    made from such); source and digest say where they came from
    imported        its candles are in the store, from a file that nobody checked against the
                    exchange
    exchange-down   it has no candles: two complete REST reads, some time apart, showed none
    missing         it has no candles, and there is no proof that it should not

and for each month the sha256 of the file it describes: a month changed by anybody else, or cut off
from its ledger by a kill, no longer matches and is fetched and recorded anew. The ledger never
holds candles, and the store can be read without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.atomic import remove_leftovers
from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import COLUMNS, Candles, gaps
from cppncripto_strategy.feeds.clock import (
    WEEK_MS,
    Span,
    fixed_anchor_ms,
    grid_ceil,
    interval_to_ms,
    month_names,
    month_span,
)
from cppncripto_strategy.feeds.history.month_file import file_digest
from cppncripto_strategy.feeds.history.quarantine import FOLDER as QUARANTINE
from cppncripto_strategy.feeds.history.store import CandleStore, MonthState, write_atomically
from cppncripto_strategy.foreign import read_object, reading, require_int
from cppncripto_strategy.locks import FileLock

logger = logging.getLogger(__name__)

# With a leading underscore, because readers of Parquet folders pass such files over.
FILE = "_ledger.json"
JOB_LOCK = ".job.lock"
FORMAT = 1
Status = Literal["verified", "imported", "exchange-down", "missing"]
STATUSES: tuple[str, ...] = get_args(Status)
# Statuses of spans whose candles are in the store.
STORED: tuple[Status, ...] = ("verified", "imported")
UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known about one span.

    Parameters
    ----------
    start_ms, end_ms : the span, half-open, UTC milliseconds.
    status : verified, imported, exchange-down or missing.
    source : of stored candles: 'archive:BTCUSDT-5m-2024-05', 'rest', 'import:FILE', ...
    digest : sha256 of the archive, or of the candles (`content_digest`) for other sources.
    reads_ms : exchange times of the REST reads that showed no candle here.
    reason : of a missing span, in words.
    """

    start_ms: int
    end_ms: int
    status: Status
    source: str = ""
    digest: str = ""
    reads_ms: tuple[int, ...] = ()
    reason: str = ""

    @property
    def span(self) -> Span:
        """The span as such."""
        return Span(self.start_ms, self.end_ms)

    def same_but_span(self, other: Entry) -> bool:
        """True when only the span differs."""
        return replace(self, start_ms=0, end_ms=0) == replace(other, start_ms=0, end_ms=0)


@dataclass(slots=True)
class MonthRecord:
    """One month: the sha256 of its file ('' where it has none), and its entries in order."""

    file_sha256: str = ""
    entries: list[Entry] = field(default_factory=list)


class Ledger:
    """The ledger of one series; lives as long as the job that loaded it, saved after each month.

    Attributes
    ----------
    months : month ('2024-05') -> record.
    span : the widest span ever asked for, None before the first.
    anchor_ms : offset of the series' grid from the epoch; None before any candle is known.
    """

    def __init__(self, path: Path, symbol: str, interval: str) -> None:
        self.path, self.symbol, self.interval = path, symbol, interval
        self.months: dict[str, MonthRecord] = {}
        self.span: Span | None = None
        self.anchor_ms = fixed_anchor_ms(interval_to_ms(interval))

    @staticmethod
    def path_of(store: CandleStore, symbol: str, interval: str) -> Path:
        """Where the ledger of a series lives."""
        return store.folder(symbol, interval) / FILE

    @classmethod
    def load(cls, store: CandleStore, symbol: str, interval: str) -> Ledger:
        """The ledger of a series; empty when there is none.

        Raises
        ------
        StoreError
            When the file is no ledger of this series.
        """
        ledger = cls(cls.path_of(store, symbol, interval), symbol, interval)
        ledger.anchor_ms = store.anchor_ms(symbol, interval)
        if ledger.path.exists():
            what = f"coverage ledger of {symbol} {interval}"
            fix = "`cppn-bt data repair` makes a new one"
            with reading(ledger.path, what, StoreError, fix):
                ledger._read(read_object(ledger.path))
        return ledger

    def save(self) -> None:
        """Replace the file as a whole."""
        document = {
            "format": FORMAT,
            "symbol": self.symbol,
            "interval": self.interval,
            "start_ms": self.span.start_ms if self.span else None,
            "end_ms": self.span.end_ms if self.span else None,
            "months": {
                month: {
                    "file_sha256": record.file_sha256,
                    "entries": [_brief(entry) for entry in record.entries],
                }
                for month, record in sorted(self.months.items())
            },
        }
        write_atomically(self.path, (json.dumps(document, indent=1) + "\n").encode())

    def slots_of(self, month: str) -> Span:
        """A month's slots: from its first grid time to the first one of the next month.

        For intervals that divide a day this is the month itself; weeks begin on their first Monday.
        """
        within, interval_ms = month_span(month), interval_to_ms(self.interval)
        anchor = self.anchor_ms or 0
        return Span(
            grid_ceil(within.start_ms, interval_ms, anchor),
            grid_ceil(within.end_ms, interval_ms, anchor),
        )

    def widen(self, span: Span) -> None:
        """Remember that this span was asked for."""
        known = self.span or span
        self.span = Span(min(known.start_ms, span.start_ms), max(known.end_ms, span.end_ms))

    def entries(self) -> list[Entry]:
        """Every entry, in order of time, joined across months where nothing else differs."""
        every = [entry for _, record in sorted(self.months.items()) for entry in record.entries]
        return join(every)

    def spans(self, status: Status) -> list[Span]:
        """The spans of one status, joined where they touch."""
        chosen = [Entry(e.start_ms, e.end_ms, status) for e in self.entries() if e.status == status]
        return [entry.span for entry in join(chosen)]

    def open_spans(self, month: str, wanted: Span) -> list[Span]:
        """The parts of `wanted` that are neither stored nor proved absent."""
        record = self.months.get(month, MonthRecord())
        settled = [entry.span for entry in record.entries if entry.status != "missing"]
        return uncovered(wanted, settled)

    def record(self, month: str, entries: Iterable[Entry]) -> None:
        """Lay newer entries over what is known about a month."""
        month_record = self.months.setdefault(month, MonthRecord())
        for entry in entries:
            if entry.end_ms > entry.start_ms:
                month_record.entries = join(overlay(month_record.entries, entry))

    def _read(self, document: dict[str, Any]) -> None:
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, expected {FORMAT}")
        if (document["symbol"], document["interval"]) != (self.symbol, self.interval):
            raise ValueError(f"it belongs to {document['symbol']} {document['interval']}")
        if document["start_ms"] is not None:
            self.span = Span(require_int(document["start_ms"]), require_int(document["end_ms"]))
        for month, saved in document["months"].items():
            month_span(month)  # raises ValueError when it is none
            entries = [_entry(fields) for fields in saved["entries"]]
            self.months[month] = MonthRecord(_text(saved["file_sha256"]), entries)


def join(entries: list[Entry]) -> list[Entry]:
    """Neighbours that differ in nothing but their span become one."""
    joined: list[Entry] = []
    for entry in entries:
        if joined and joined[-1].end_ms == entry.start_ms and joined[-1].same_but_span(entry):
            joined[-1] = replace(joined[-1], end_ms=entry.end_ms)
        else:
            joined.append(entry)
    return joined


def named(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries for a reader: neighbours of one status and reason as one, whenever they were read."""
    return tuple(join([replace(entry, reads_ms=()) for entry in entries]))


def overlay(entries: list[Entry], newer: Entry) -> list[Entry]:
    """The entries with `newer` over them: older ones are cut where they overlap."""
    kept: list[Entry] = []
    for entry in entries:
        if entry.start_ms < newer.start_ms:
            kept.append(replace(entry, end_ms=min(entry.end_ms, newer.start_ms)))
        if entry.end_ms > newer.end_ms:
            kept.append(replace(entry, start_ms=max(entry.start_ms, newer.end_ms)))
    return sorted([*kept, newer], key=lambda entry: entry.start_ms)


def uncovered(wanted: Span, covered: list[Span]) -> list[Span]:
    """The parts of `wanted` that no span of `covered` (ordered, disjoint) touches."""
    rest, start_ms = [], wanted.start_ms
    for span in covered:
        if span.end_ms <= wanted.start_ms or span.start_ms >= wanted.end_ms:
            continue
        if span.start_ms > start_ms:
            rest.append(Span(start_ms, span.start_ms))
        start_ms = max(start_ms, span.end_ms)
    if start_ms < wanted.end_ms:
        rest.append(Span(start_ms, wanted.end_ms))
    return rest


def runs(open_time: IntArray, interval_ms: int) -> list[Span]:
    """The unbroken stretches of candles, in order."""
    if len(open_time) == 0:
        return []
    breaks = np.flatnonzero(np.diff(open_time) != interval_ms) + 1
    firsts = open_time[np.concatenate([[0], breaks]).astype(int)]
    lasts = open_time[np.concatenate([breaks - 1, [len(open_time) - 1]]).astype(int)]
    return [Span(int(a), int(b) + interval_ms) for a, b in zip(firsts, lasts, strict=True)]


def entries_of(
    candles: Candles,
    interval: str,
    source: str,
    digest: str | None = None,
    status: Status = "verified",
) -> list[Entry]:
    """Entries of stored candles, one for each unbroken stretch of candles from one source."""
    entries = []
    for run in runs(candles.open_time, interval_to_ms(interval)):
        sha256 = digest or content_digest(candles.between(run.start_ms, run.end_ms))
        entries.append(Entry(run.start_ms, run.end_ms, status, source, sha256))
    return entries


@dataclass(frozen=True, slots=True)
class Piece:
    """Candles from one source, to be written and recorded together."""

    candles: Candles
    source: str
    digest: str | None = None
    status: Status = "verified"

    def entries(self, interval: str) -> list[Entry]:
        """Ledger entries of these candles."""
        return entries_of(self.candles, interval, self.source, self.digest, self.status)


def content_digest(candles: Candles) -> str:
    """sha256 of the candles themselves, whatever file they are in."""
    digest = hashlib.sha256()
    for name in COLUMNS:
        values = np.ascontiguousarray(getattr(candles, name))
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def month_matches(ledger: Ledger, store: CandleStore, month: str) -> bool:
    """True when the ledger describes exactly the file that is there."""
    record = ledger.months.get(month)
    path = store.month_path(ledger.symbol, ledger.interval, month)
    return record is not None and record.file_sha256 == file_digest(path)


@contextlib.contextmanager
def job_lock(store: CandleStore) -> Iterator[None]:
    """One job (fetch, repair, import, resample) at a time on a store.

    Raises
    ------
    StoreError
        At once, when another job holds the store, or its folder cannot be written.
    """
    advice = "wait for it to end, then try again (nothing was changed)"
    with FileLock.take(store.root / JOB_LOCK, f"the store {store.root}", StoreError, advice):
        # The months' own leftovers are the store's to remove, under the lock of their series.
        for folder in store.root.glob("symbol=*/interval=*"):
            remove_leftovers(folder, FILE)
        for folder in store.root.glob("symbol=*"):
            remove_leftovers(folder)  # the symbol's filters
        remove_leftovers(store.root / QUARANTINE)
        yield


def write_recorded(
    store: CandleStore,
    symbol: str,
    interval: str,
    candles: Candles,
    source: str,
    digest: str | None = None,
    *,
    sparse: bool = False,
    unchecked: IntArray | None = None,
) -> tuple[str, ...]:
    """Write candles that did not come from a fetch and record where they came from.

    Call it inside `job_lock`. Returns the months whose file changed.

    Parameters
    ----------
    unchecked : open times, UTC ms, of candles that are recorded as imported, the others as
        verified; None: all are verified.

    Raises
    ------
    CandleError, StoreError
        As `CandleStore.write`; nothing is changed then.
    """
    ledger = Ledger.load(store, symbol, interval)
    interval_ms = interval_to_ms(interval)
    months = month_names(candles.open_time)
    stale = [month for month in months if not month_matches(ledger, store, month)]
    states = store.write_months(symbol, interval, [candles], sparse=sparse)
    ledger.anchor_ms = store.anchor_ms(symbol, interval)
    ledger.widen(Span(int(candles.open_time[0]), int(candles.open_time[-1]) + interval_ms))
    for state in states:
        if state.month in stale:
            ledger.months.pop(state.month, None)
        within = ledger.slots_of(state.month)
        part = candles.between(within.start_ms, within.end_ms)
        imported = np.isin(part.open_time, [] if unchecked is None else unchecked)
        entries = entries_of(part[~imported], interval, source, digest)
        entries += entries_of(part[imported], interval, source, digest, "imported")
        record_month(ledger, state, entries)
    name_holes(ledger, store)
    ledger.save()
    return tuple(state.month for state in states if state.changed)


def months_between(span: Span) -> list[str]:
    """The months whose slots a span may touch, in order; a week may begin the month before."""
    return month_names(np.array([span.start_ms - WEEK_MS, span.end_ms - 1]))


def record_month(ledger: Ledger, state: MonthState, entries: list[Entry]) -> None:
    """Lay entries over a month, name its holes inside the wanted span, and bind it to its file."""
    record = ledger.months.setdefault(state.month, MonthRecord())
    ledger.record(state.month, entries)
    within = ledger.slots_of(state.month)
    record.entries = settle(record.entries, state, ledger, within)
    record.file_sha256 = state.file_sha256


def name_holes(ledger: Ledger, store: CandleStore) -> None:
    """Record as missing what a widened span lacks beyond the months just written.

    Writing March where January ends on the 30th leaves a hole at January's end and all of February,
    which no record of March shows.
    """
    asked, interval_ms = ledger.span, interval_to_ms(ledger.interval)
    if asked is None or asked.start_ms == asked.end_ms:
        return
    for month in month_names(np.array([asked.start_ms, asked.end_ms - interval_ms])):
        within = ledger.slots_of(month)
        start, end = max(within.start_ms, asked.start_ms), min(within.end_ms, asked.end_ms)
        known = [entry.span for entry in ledger.months.get(month, MonthRecord()).entries]
        if start < end and uncovered(Span(start, end), known):
            record_month(ledger, store.month_state(ledger.symbol, ledger.interval, month), [])


def settle(entries: list[Entry], state: MonthState, ledger: Ledger, within: Span) -> list[Entry]:
    """Entries that agree with what is stored: no stored span without candles, no candle without
    an entry, no hole inside the wanted span unnamed."""
    interval_ms = interval_to_ms(ledger.interval)
    asked = ledger.span or within
    wanted = Span(
        max(within.start_ms, asked.start_ms),
        max(within.start_ms, asked.start_ms, min(within.end_ms, asked.end_ms)),
    )
    settled = entries
    known = [e.span for e in settled if e.status in STORED]
    unknown = [part for run in runs(state.open_time, interval_ms) for part in uncovered(run, known)]
    stored = state.candles if unknown else Candles.empty()
    for part in unknown:
        digest = content_digest(stored.between(part.start_ms, part.end_ms))
        settled = overlay(settled, Entry(*_ends(part), "imported", UNRECORDED, digest))
    for hole in gaps(state.open_time, interval_ms, within):
        for part in _overlaps(settled, hole):
            settled = overlay(settled, Entry(*_ends(part), "missing", reason="lost from the file"))
    for part in uncovered(wanted, [entry.span for entry in settled]):
        settled = overlay(settled, Entry(*_ends(part), "missing", reason="never fetched"))
    return join(settled)


def _overlaps(entries: list[Entry], hole: Span) -> list[Span]:
    """The parts of stored entries that lie in a hole."""
    return [
        Span(max(e.start_ms, hole.start_ms), min(e.end_ms, hole.end_ms))
        for e in entries
        if e.status in STORED and e.start_ms < hole.end_ms and hole.start_ms < e.end_ms
    ]


def _ends(span: Span) -> tuple[int, int]:
    return span.start_ms, span.end_ms


def _brief(entry: Entry) -> dict[str, object]:
    """An entry's fields, the empty ones left out."""
    return {name: value for name, value in asdict(entry).items() if value not in ("", ())}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r}")
    return value


def _entry(fields: dict[str, Any]) -> Entry:
    if fields["status"] not in STATUSES:
        raise ValueError(f"unknown status {fields['status']!r}")
    reads = tuple(require_int(read) for read in fields.pop("reads_ms", ()))
    entry = Entry(**fields, reads_ms=reads)
    if not 0 <= require_int(entry.start_ms) < require_int(entry.end_ms):
        raise ValueError(f"a span from {entry.start_ms} to {entry.end_ms}")
    for text in (entry.source, entry.digest, entry.reason):
        _text(text)
    # Before there was 'imported', such candles were called verified.
    unchecked = entry.source.startswith("import:") or entry.source == UNRECORDED
    return replace(entry, status="imported") if entry.status == "verified" and unchecked else entry
