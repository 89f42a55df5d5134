"""Files on disk into the store and its ledger: the exchange's archives and anything importable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from pathlib import Path

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.archive import read_archive_file
from cppncripto_strategy.feeds.candles import merge
from cppncripto_strategy.feeds.clock import Span, interval_to_ms, ms_to_utc
from cppncripto_strategy.feeds.history.files import read_file
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    Piece,
    job_lock,
    month_matches,
    name_holes,
    record_month,
)
from cppncripto_strategy.feeds.history.store import CandleStore, MonthState, by_month, check_symbol

FILES_PER_BATCH = 16


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
    store: CandleStore, symbol: str, interval: str, pieces: list[Piece], pool: ThreadPoolExecutor
) -> list[str]:
    """Write and record pieces that may share months, later over earlier; the months changed."""
    shares: dict[str, list[Piece]] = {}
    for piece in pieces:
        for month, part in by_month(piece.candles):
            shares.setdefault(month, []).append(Piece(part, piece.source, piece.digest))
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


def _read_local(symbol: str, interval: str, sort: bool, file: Path) -> Piece:
    if file.suffix.lower() != ".zip":
        return Piece(read_file(file, interval, sort=sort), f"import:{file.name}")
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
    return Piece(read.candles, f"archive:{read.file.name}", read.sha256)
