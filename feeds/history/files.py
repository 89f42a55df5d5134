"""Where a run's candles lie: a candle store, or a folder of plain files.

`open_source` tells which. Every candle is validated on the way; nothing is filled or dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.candles import Candles, first_violation, validate
from cppncripto_strategy.feeds.clock import interval_to_ms
from cppncripto_strategy.feeds.history.foreign import NO_CHOICES, SUFFIXES, read_foreign
from cppncripto_strategy.feeds.history.store import CandleStore, check_symbol


class CandleSource(Protocol):
    """Where a run gets its candles: a store or a folder of plain files."""

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have candles of this interval, sorted."""

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound)."""


@dataclass(frozen=True, slots=True)
class StoreSource:
    """Candles of a candle store, validated on every read."""

    store: CandleStore

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have candles of this interval, sorted."""
        have = {symbol for symbol, length in self.store.series() if length == interval}
        return sorted(symbol for symbol in have if self.store.months(symbol, interval))

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound).

        Raises
        ------
        StoreError
            When the series is absent or damaged.
        CandleError
            When a stored candle breaks a rule.
        """
        candles = self.store.read(symbol, interval, start_ms, end_ms)
        # A stored series may be nothing but isolated candles, so the step is not judged here.
        if first_violation(candles, interval_to_ms(interval)) is not None:
            validate(candles, interval_to_ms(interval), f"{self.store.root} {symbol} {interval}")
        return candles


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Candles of plain files named SYMBOL-INTERVAL.parquet (or .feather, .csv, .csv.gz, .json)."""

    folder: Path

    def symbols(self, interval: str) -> list[str]:
        """The symbols that have a file of this interval, sorted."""
        return sorted({symbol for symbol, length in plain_files(self.folder) if length == interval})

    def read(
        self, symbol: str, interval: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> Candles:
        """Validated candles with start_ms <= open_time < end_ms (None: no bound).

        Raises
        ------
        SourceError
            When the folder has no file for them, or the file cannot be read.
        CandleError
            When a candle breaks a rule.
        """
        files = plain_files(self.folder)
        if (check_symbol(symbol), interval) not in files:
            raise SourceError(self._absent(symbol, interval, files))
        candles = read_foreign(files[symbol, interval], interval, NO_CHOICES, symbol).candles
        first = candles.open_time[0] if start_ms is None else start_ms
        last = candles.open_time[-1] + 1 if end_ms is None else end_ms
        return candles.between(int(first), int(last))

    def _absent(self, symbol: str, interval: str, files: dict[tuple[str, str], Path]) -> str:
        names = [" ".join(series) for series in files]
        close = get_close_matches(f"{symbol} {interval}", names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"{symbol} {interval} is not in {self.folder}: there is no {symbol}-{interval}.parquet."
            f"{hint} It holds: {', '.join(sorted(names))}."
        )


def open_source(folder: Path | str) -> CandleSource:
    """The candles of a folder: a candle store where it is one, else plain SYMBOL-5m files.

    Raises
    ------
    SourceError
        When the folder does not exist or holds neither.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(
            f"there is no folder {path}; `cppn-bt fetch` or `cppn-bt data import` makes one"
        )
    if any(path.glob("symbol=*/interval=*/*.parquet")):
        return StoreSource(CandleStore(path))
    if plain_files(path):
        return FolderSource(path)
    raise SourceError(
        f"{path} holds no candles: expected a candle store (symbol=BTCUSDT/interval=5m/...) or"
        " files such as BTCUSDT-5m.parquet"
    )


def plain_files(folder: Path) -> dict[tuple[str, str], Path]:
    """(symbol, interval) -> file, for files named SYMBOL-INTERVAL and a known suffix."""
    files: dict[tuple[str, str], Path] = {}
    for suffix in reversed(SUFFIXES):  # of two files for one series, Parquet wins
        for file in sorted(folder.glob(f"*-*{suffix}")):
            symbol, _, interval = file.name.removesuffix(suffix).rpartition("-")
            try:
                interval_to_ms(interval)
                files[check_symbol(symbol), interval] = file
            except CandleError:  # another kind of file
                continue
    return files
