"""The candle store: a folder of Parquet files, one for each symbol, interval and month.

    root/symbol=BTCUSDT/interval=5m/2024-05.parquet

pyarrow, DuckDB and pandas read the folder as it is (Hive partitions, zstd, page checksums). A write
checks everything first, then writes every month to a temporary file, then renames them: an error, a
full disk or a kill leaves each month either old or new, never half. The same candles give the same
bytes. What the store does not do: it never fills a gap and never judges where candles came from
(`feeds.ledger` does).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cppncripto_strategy import atomic
from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import CandleError, StoreError
from cppncripto_strategy.feeds.candles import (
    EARLIEST_MS,
    LATEST_MS,
    Candles,
    concat,
    first_violation,
    gaps,
    validate,
)
from cppncripto_strategy.feeds.clock import (
    Span,
    fixed_anchor_ms,
    interval_anchor_ms,
    interval_to_ms,
    month_names,
    month_span,
    ms_to_utc,
)
from cppncripto_strategy.feeds.history.month_file import (
    file_digest,
    month_files,
    read_month,
    row_count,
    write_month,
)
from cppncripto_strategy.locks import LOCK_FILE, FileLock

LOCK_TIMEOUT_S = 30.0
# Named here because inside the class `list` is the method.
_Paths = list[Path]
_Strings = list[str]
_Pairs = list[tuple[str, str]]
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,49}")


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One symbol and interval in the store; [start_ms, end_ms) runs to the last candle's close."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a series holds between its first and last candle (or inside the span asked for)."""

    symbol: str
    interval: str
    span: Span
    count: int
    gaps: tuple[Span, ...]

    @property
    def expected(self) -> int:
        """Candles there would be without gaps."""
        return (self.span.end_ms - self.span.start_ms) // interval_to_ms(self.interval)

    @property
    def fraction(self) -> float:
        """Candles held over candles expected; 1.0 for an empty span."""
        return self.count / self.expected if self.expected else 1.0


@dataclass(frozen=True, slots=True)
class MonthState:
    """One month as it is on disk.

    Parameters
    ----------
    open_time : of its candles, UTC ms, int64 (N,).
    read : gives its candles; those of a month just written are read again, once it is in place.
    file_sha256 : of its file, '' without one.
    """

    month: str
    open_time: IntArray
    read: Callable[[], Candles]
    file_sha256: str
    changed: bool = False

    @classmethod
    def of(cls, month: str, candles: Candles, file_sha256: str = "") -> MonthState:
        """The state of a month whose candles are at hand."""
        return cls(month, candles.open_time, lambda: candles, file_sha256)

    @property
    def candles(self) -> Candles:
        """The month's candles, perhaps read from its file."""
        return self.read()


_States = list[MonthState]  # as above


def check_symbol(symbol: str) -> str:
    """The symbol itself, when it can name a folder.

    Raises
    ------
    StoreError
        When it is not 1 to 50 of A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit.
    """
    if _SYMBOL.fullmatch(symbol) is None:
        upper = symbol.upper()
        hint = f"; did you mean {upper!r}?" if _SYMBOL.fullmatch(upper) else ""
        raise StoreError(
            f"symbol {symbol!r} is not valid: expected letters A-Z, digits, '.', '_' or '-', such"
            f" as 'BTCUSDT'{hint}"
        )
    return symbol


class CandleStore:
    """Candles on disk; any number of readers, one writer at a time per series.

    Parameters
    ----------
    root : folder of the store; made on the first write.
    lock_timeout_s : seconds a writer waits for another one on the same series.

    Examples
    --------
    >>> from cppncripto_strategy import CandleStore
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> market = generate(PlantedSettings(days=3, interval="5m"))
    >>> store = CandleStore("candles")
    >>> store.write("PLANTED", "5m", market.candles)
    ('2023-01',)
    >>> start_ms = int(market.candles.open_time[0])
    >>> len(store.read("PLANTED", "5m", start_ms, start_ms + 86_400_000))
    288
    """

    def __init__(self, root: Path | str, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.root = Path(root)
        self.lock_timeout_s = lock_timeout_s

    def folder(self, symbol: str, interval: str) -> Path:
        """Where a series lives, whether it exists or not."""
        interval_to_ms(interval)
        return self.root / f"symbol={check_symbol(symbol)}" / f"interval={interval}"

    def write(
        self, symbol: str, interval: str, candles: Candles, *, sparse: bool = False
    ) -> tuple[str, ...]:
        """Merge candles into the store, newer over older, and name the months that changed.

        Parameters
        ----------
        candles : sorted, unique, aligned candles; gaps are kept as gaps.
        sparse : True says that the candles may be few and far between (a repair, a live feed), so
            that a step larger than the interval is no sign of a wrong interval.

        Raises
        ------
        CandleError
            When a candle breaks a rule (its row and the rule are named).
        StoreError
            When the store cannot be written, or a month already there is damaged. After either
            error every month is as it was.
        """
        written = self.write_months(symbol, interval, [candles], sparse=sparse)
        return tuple(state.month for state in written if state.changed)

    def write_months(
        self, symbol: str, interval: str, parts: Sequence[Candles], *, sparse: bool = False
    ) -> _States:
        """`write` of several parts that share no candle; returns every month touched as it is now.

        For keepers of a ledger, and for those who hold a month of seconds in parts.
        """
        anchor_ms, origin = self.anchor_ms(symbol, interval), f"{symbol} {interval}"
        for candles in parts:
            _check_candles(candles, interval_to_ms(interval), origin, sparse, anchor_ms)
        _require_disjoint(parts, origin)
        months: dict[str, list[Candles]] = {}
        for candles in parts:
            for month, part in by_month(candles):
                months.setdefault(month, []).append(part)
        if not months:
            return []
        with self.writing(symbol, interval) as batch:
            return [batch.stage(month, *months[month]) for month in sorted(months)]

    @contextlib.contextmanager
    def writing(self, symbol: str, interval: str) -> Iterator[WriteBatch]:
        """Several months written as one: staged inside the block, in place when it ends well.

        Raises
        ------
        StoreError
            When the store cannot be written, or another writer holds the series; every month is
            then as it was.
        """
        folder = self.folder(symbol, interval)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._lock(folder):
                atomic.remove_leftovers(folder, "*.parquet")
                batch = WriteBatch(folder)
                try:
                    yield batch
                    batch.commit()
                finally:
                    batch.discard()
        except OSError as cause:
            raise StoreError(
                f"{symbol} {interval}: the store at {self.root} could not be written ({cause}); it"
                " was left as it was. Is the disk full, or the folder read-only?"
            ) from cause

    def read(
        self,
        symbol: str,
        interval: str,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Candles:
        """Candles with start_ms <= open_time < end_ms (None: from the first, to the last).

        Raises
        ------
        StoreError
            When the series is not in the store, or a file of it is damaged or has another schema.
        """
        start = EARLIEST_MS if start_ms is None else start_ms
        end = LATEST_MS if end_ms is None else end_ms
        files = [
            file
            for file in self._series_files(symbol, interval)
            if month_span(file.stem).start_ms < end and start < month_span(file.stem).end_ms
        ]
        return concat([read_month(file) for file in files]).between(start, end)

    def month_state(self, symbol: str, interval: str, month: str) -> MonthState:
        """One month as it is on disk.

        Raises
        ------
        StoreError
            When its file is damaged or has another schema.
        """
        path = self.month_path(symbol, interval, month)
        if not path.exists():
            return MonthState.of(month, Candles.empty())
        return MonthState.of(month, read_month(path), file_digest(path))

    def anchor_ms(self, symbol: str, interval: str) -> int | None:
        """Offset from the epoch of a series' grid; None where nothing stored tells it yet.

        The interval fixes it up to a day and for weeks. Where candles of several days open belongs
        to the symbol, and is learned from the first month stored that can be read.
        """
        interval_ms = interval_to_ms(interval)
        fixed = fixed_anchor_ms(interval_ms)
        if fixed is not None:
            return fixed
        for file in month_files(self.folder(symbol, interval)):
            with contextlib.suppress(StoreError):
                open_time = read_month(file, ("open_time",)).open_time
                return interval_anchor_ms(interval_ms, open_time)
        return None

    def months(self, symbol: str, interval: str) -> _Strings:
        """The months of a series that have a file, in order; empty when there is no series."""
        return [file.stem for file in month_files(self.folder(symbol, interval))]

    def month_path(self, symbol: str, interval: str, month: str) -> Path:
        """The file of one month, whether it exists or not."""
        return self.folder(symbol, interval) / f"{month}.parquet"

    def series(self) -> _Pairs:
        """(symbol, interval) of everything that has a folder here, a damaged series included."""
        pairs = [(symbol, interval) for symbol, interval, _ in self._walk()]
        return sorted(pairs, key=lambda pair: (pair[0], interval_to_ms(pair[1])))

    def list(self) -> list[StoredSeries]:
        """Every series in the store, by symbol and then interval length."""
        stored = [
            self._summary(symbol, interval, files)
            for symbol, interval, files in self._walk()
            if files
        ]
        return sorted(stored, key=lambda series: (series.symbol, interval_to_ms(series.interval)))

    def coverage(self, symbol: str, interval: str, span: Span | None = None) -> Coverage:
        """How complete a series is, inside `span` or from its first candle to its last.

        Raises
        ------
        StoreError
            When the series is not in the store, or a file of it is damaged.
        """
        interval_ms = interval_to_ms(interval)
        files = self._series_files(symbol, interval)
        open_time = np.concatenate([read_month(file, ("open_time",)).open_time for file in files])
        whole = span or Span(int(open_time[0]), int(open_time[-1]) + interval_ms)
        inside = (open_time >= whole.start_ms) & (open_time < whole.end_ms)
        holes = tuple(gaps(open_time, interval_ms, whole))
        return Coverage(symbol, interval, whole, int(inside.sum()), holes)

    def _series_files(self, symbol: str, interval: str) -> _Paths:
        files = month_files(self.folder(symbol, interval))
        if not files:
            raise StoreError(self._absent(symbol, interval))
        return files

    def _absent(self, symbol: str, interval: str) -> str:
        names = [f"{symbol} {interval}" for symbol, interval, files in self._walk() if files]
        close = get_close_matches(f"{symbol} {interval}", names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        there = ", ".join(sorted(names)) or "nothing yet; use `cppn-bt data import` or `fetch`"
        return f"{symbol} {interval} is not in the store at {self.root}.{hint} It holds: {there}."

    def _walk(self) -> Iterator[tuple[str, str, _Paths]]:
        for folder in sorted(self.root.glob("symbol=*/interval=*")):
            symbol = folder.parent.name.removeprefix("symbol=")
            interval = folder.name.removeprefix("interval=")
            with contextlib.suppress(CandleError):  # a stray folder is not a series
                interval_to_ms(interval)
                check_symbol(symbol)
                yield symbol, interval, month_files(folder)

    def _summary(self, symbol: str, interval: str, files: _Paths) -> StoredSeries:
        first = read_month(files[0], ("open_time",)).open_time
        last = read_month(files[-1], ("open_time",)).open_time
        end_ms = int(last[-1]) + interval_to_ms(interval)
        count = sum(row_count(file) for file in files)
        return StoredSeries(symbol, interval, int(first[0]), end_ms, count)

    def _lock(self, folder: Path) -> FileLock:
        advice = f"it still was after {self.lock_timeout_s:g} s; wait for it to end, then try again"
        return FileLock.take(
            folder / LOCK_FILE, str(folder), StoreError, advice, self.lock_timeout_s
        )


class WriteBatch:
    """Months on their way into a locked series; made by `CandleStore.writing`, lives as long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staged: dict[Path, Path] = {}

    def stage(self, month: str, *newer: Candles) -> MonthState:
        """Merge valid candles of one month with what is there and write them beside the old file.

        Later parts count over earlier ones. Threads may stage different months at once; a month is
        staged once.

        Raises
        ------
        StoreError
            When the month's present file is damaged.
        """
        target = self.folder / f"{month}.parquet"
        stored = target if target.exists() else None
        written: list[IntArray] = []

        def write(sink: BinaryIO) -> None:
            written.append(write_month(sink, stored, newer))

        staged = atomic.stage_by(target, write)
        digest = file_digest(staged)
        changed = digest != file_digest(target)
        if changed:
            self._staged[target] = staged
        else:
            atomic.discard({target: staged})
        return MonthState(month, written[0], partial(read_month, target), digest, changed)

    def commit(self) -> None:
        """Put every staged month in place."""
        atomic.put(self._staged)
        self._staged = {}

    def discard(self) -> None:
        """Remove what was staged and not put in place."""
        atomic.discard(self._staged)
        self._staged = {}


def by_month(candles: Candles) -> list[tuple[str, Candles]]:
    """(month, its candles) for every month with candles, in order."""
    parts = []
    for month in month_names(candles.open_time):
        within = month_span(month)
        part = candles.between(within.start_ms, within.end_ms)
        if len(part):
            parts.append((month, part))
    return parts


def write_atomically(target: Path, data: bytes) -> None:
    """Replace a file as a whole (`atomic.write_bytes`).

    Raises
    ------
    StoreError
        When it cannot be written; the old file is then as it was.
    """
    try:
        atomic.write_bytes(target, data)
    except OSError as cause:
        raise StoreError(
            f"{target} could not be written ({cause}); it was left as it was. Is the disk full, or"
            " the folder read-only?"
        ) from cause


def _require_disjoint(parts: Sequence[Candles], origin: str) -> None:
    """Refuse a candle that two parts hold: nobody could say which of them counts."""
    if len(parts) < 2:
        return
    stamps = np.sort(np.concatenate([part.open_time for part in parts]))
    twice = stamps[1:][np.diff(stamps) == 0]
    if len(twice):
        raise CandleError(
            f"{origin}: the candle of {ms_to_utc(int(twice[0]))} came from two sources (duplicate)."
            " Nothing was written."
        )


def _check_candles(
    candles: Candles, interval_ms: int, origin: str, sparse: bool, anchor_ms: int | None
) -> None:
    if not sparse:
        validate(candles, interval_ms, origin, anchor_ms)
        return
    violation = first_violation(candles, interval_ms, anchor_ms)
    if violation is not None:
        # The first offending row alone decides the message, as it does for a dense series.
        validate(candles, interval_ms, origin, anchor_ms)
