"""Files on disk into the store and its ledger: the exchange's archives and anything importable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

from cppncripto_strategy.arrays import BoolArray, among_ascending
from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.archive import CHECKSUM_SUFFIX, read_archive_file
from cppncripto_strategy.feeds.candles import Candles, Rejected, first_violation, validate
from cppncripto_strategy.feeds.clock import (
    Span,
    fixed_anchor_ms,
    interval_anchor_ms,
    interval_to_ms,
    ms_to_utc,
)
from cppncripto_strategy.feeds.history.foreign import NO_CHOICES, Choices, read_foreign
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    Piece,
    job_lock,
    month_matches,
    name_holes,
    record_month,
)
from cppncripto_strategy.feeds.history.overlap import (
    Overlap,
    changed_rows,
    compare,
    fill,
    merge_filled,
    total,
)
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import CandleStore, MonthState, by_month, check_symbol

FILES_PER_BATCH = 16


@dataclass(frozen=True, slots=True)
class FileReport:
    """What one file gave.

    Parameters
    ----------
    name : of the file.
    dialect : how it was read, in words.
    candles : read from it.
    empty, repeated : rows left out because they hold no numbers, or another one's open time.
    set_aside : rows in quarantine.
    """

    name: str
    dialect: str
    candles: int
    empty: int = 0
    repeated: int = 0
    set_aside: int = 0


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Parameters
    ----------
    files : what each gave.
    months : those whose file changed.
    overlap : candles that were stored already, and how they differ.
    replaced : stored candles that gave way to the file's.
    """

    files: tuple[FileReport, ...]
    months: tuple[str, ...]
    overlap: Overlap
    replaced: int

    @property
    def candles(self) -> int:
        """Candles read from all files."""
        return sum(file.candles for file in self.files)

    @property
    def outcome(self) -> str:
        """What became of candles that were stored already, in words."""
        if not self.overlap.differing:
            return str(self.overlap)
        what = "were replaced" if self.replaced else "stay as they are; `--replace` replaces them"
        return f"{self.overlap}. The stored ones {what}"


@dataclass(frozen=True, slots=True)
class _Read:
    """A file's candles on their way into the store, and what was not taken of it."""

    piece: Piece
    report: FileReport
    rejected: tuple[Rejected, ...] = ()


def import_files(
    store: CandleStore,
    symbol: str,
    interval: str,
    files: Sequence[Path],
    *,
    choices: Choices = NO_CHOICES,
    replace: bool = False,
    workers: int | None = None,
) -> ImportReport:
    """Bring files on disk into the store and its ledger; archives (.zip) and anything importable.

    Files are read, checked and written in batches of sixteen, each batch as a whole or not at all;
    where files overlap, the later in the order given wins. Rows set aside go to the quarantine.
    Candles that are stored already stay as they are; with `replace` those that differ give way, but
    a null never replaces a value.

    Raises
    ------
    SourceError
        When a file cannot be read, or an archive fails its checksum or belongs to another series.
    CandleError
        When a candle breaks a rule; nothing of the batch is then in the store.
    """
    check_symbol(symbol)
    interval_to_ms(interval)
    reports: list[FileReport] = []
    months: set[str] = set()
    overlaps: list[Overlap] = []
    quarantine = Quarantine(store.root)
    read = partial(_read_local, symbol, interval, choices)
    # Two more than cores, so that somebody computes while others wait for the disk.
    threads = workers or min(8, (os.cpu_count() or 2) + 2)
    with job_lock(store), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(files), FILES_PER_BATCH):
            batch = list(pool.map(read, files[first : first + FILES_PER_BATCH]))
            pieces = [file.piece for file in batch]
            changed, overlap = _write_pieces(store, symbol, interval, pieces, pool, replace)
            months.update(changed)
            overlaps.append(overlap)
            for file in batch:
                quarantine.keep_candles(symbol, interval, file.piece.source, [*file.rejected])
                reports.append(file.report)
    overlap = total(overlaps)
    replaced = overlap.differing if replace else 0
    return ImportReport(tuple(reports), tuple(sorted(months)), overlap, replaced)


def _write_pieces(
    store: CandleStore,
    symbol: str,
    interval: str,
    pieces: list[Piece],
    pool: ThreadPoolExecutor,
    replace: bool,
) -> tuple[list[str], Overlap]:
    """Write and record pieces that may share months, later over earlier; the months changed."""
    shares: dict[str, list[Piece]] = {}
    for piece in pieces:
        for month, part in by_month(piece.candles):
            shares.setdefault(month, []).append(dataclasses.replace(piece, candles=part))
    _same_grid(pieces, interval_to_ms(interval), store.anchor_ms(symbol, interval))
    ledger = Ledger.load(store, symbol, interval)
    stale = [month for month in shares if not month_matches(ledger, store, month)]

    def stage(month: str) -> tuple[MonthState, list[Entry], Overlap]:
        parts, stored = shares[month], store.month_state(symbol, interval, month).candles
        newest = reduce(merge_filled, [part.candles for part in parts])
        taken = fill(stored, newest)[_taken(stored, newest, replace)]
        state = batch.stage(month, taken)
        entries = []
        for part in parts:
            mine = part.candles[among_ascending(part.candles.open_time, taken.open_time)]
            entries += dataclasses.replace(part, candles=mine).entries(interval)
        return state, entries, compare(stored, newest)

    with store.writing(symbol, interval) as batch:
        staged = list(pool.map(stage, shares))
    opens = [int(piece.candles.open_time[row]) for piece in pieces for row in (0, -1)]
    ledger.anchor_ms = store.anchor_ms(symbol, interval)
    ledger.widen(Span(min(opens), max(opens) + interval_to_ms(interval)))
    for state, entries, _ in staged:
        if state.month in stale:
            ledger.months.pop(state.month, None)
        record_month(ledger, state, entries)
    name_holes(ledger, store)
    ledger.save()
    changed = [state.month for state, *_ in staged if state.changed]
    return changed, total(overlap for *_, overlap in staged)


def _same_grid(pieces: list[Piece], interval_ms: int, anchor_ms: int | None) -> None:
    """Refuse files whose candles open on other days than the stored ones, or than each other's.

    Raises
    ------
    CandleError
        Naming the file and its first row off the grid.
    """
    if anchor_ms is None:
        anchor_ms = interval_anchor_ms(interval_ms, pieces[0].candles.open_time)
    for piece in pieces if fixed_anchor_ms(interval_ms) is None else []:
        if first_violation(piece.candles, interval_ms, anchor_ms) is not None:
            validate(piece.candles, interval_ms, piece.source, anchor_ms)


def _taken(stored: Candles, newest: Candles, replace: bool) -> BoolArray:
    """Rows (N,) of the files' candles that go into the store."""
    if replace:
        return changed_rows(stored, newest)
    return ~among_ascending(newest.open_time, stored.open_time)


def _read_local(symbol: str, interval: str, choices: Choices, file: Path) -> _Read:
    if file.suffix.lower() == ".zip":
        return _read_archive(symbol, interval, choices, file)
    read = read_foreign(file, interval, choices, symbol)
    counts = (len(read.candles), read.empty, read.repeated, len(read.rejected))
    report = FileReport(file.name, read.dialect, *counts)
    piece = Piece(read.candles, f"import:{file.name}", status="imported")
    return _Read(piece, report, read.rejected)


def _read_archive(symbol: str, interval: str, choices: Choices, file: Path) -> _Read:
    read = read_archive_file(file)
    if (read.file.symbol, read.file.interval) != (symbol, interval):
        raise SourceError(f"{file.name} is not an archive of {symbol} {interval}")
    if read.rejected and not choices.set_aside:
        first = read.rejected[0]
        raise CandleError(
            f"{file.name}: the candle of {ms_to_utc(first.open_time)} is refused ({first.values}):"
            f" {first.rule}. Nothing was written. `data import --set-aside` leaves such rows out"
            " and keeps them in quarantine"
        )
    if len(read.candles) == 0:
        raise SourceError(f"{file.name} holds no candles")
    report = FileReport(
        file.name, "the exchange's archive", len(read.candles), set_aside=len(read.rejected)
    )
    # Its name alone proves nothing: verified is what matches a published checksum.
    checked = file.with_name(file.name + CHECKSUM_SUFFIX).exists()
    piece = Piece(
        read.candles,
        f"archive:{read.file.name}",
        read.sha256,
        "verified" if checked else "imported",
    )
    return _Read(piece, report, read.rejected)
