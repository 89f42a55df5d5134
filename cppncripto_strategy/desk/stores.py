"""Candle stores: which series they hold, and how complete each is.

A store can hold years of candles, and reading a series' open times takes a while: what was found is
kept until one of its files changes.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.problems import item, readable, reason
from cppncripto_strategy.desk.schema import Instant, Series, Store
from cppncripto_strategy.feeds.clock import interval_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore

_lock = threading.Lock()


def store(entry: Entry) -> Store:
    """A store with its series."""

    def read() -> Store:
        candles = CandleStore(entry.path)
        found = [_series(entry, symbol, interval) for symbol, interval in candles.series()]
        return Store(**item(entry), series=found)

    return readable(entry, Store, read)


def _series(entry: Entry, symbol: str, interval: str) -> Series:
    try:
        folder = CandleStore(entry.path).folder(symbol, interval)
        files = tuple(
            sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in folder.iterdir())
        )
        with _lock:
            return _covered(entry.path, symbol, interval, files)
    except Exception as error:
        return Series(symbol=symbol, interval=interval, problem=reason(error, entry))


@lru_cache(maxsize=1_024)
def _covered(root: Path, symbol: str, interval: str, files: tuple[object, ...]) -> Series:
    """`files` is the key under which it is remembered."""
    found = CandleStore(root).coverage(symbol, interval)
    step_ms = interval_to_ms(interval)
    return Series(
        symbol=symbol,
        interval=interval,
        first=Instant.of(found.span.start_ms),
        last=Instant.of(found.span.end_ms - step_ms),
        candles=found.count,
        expected=found.expected,
        holes=len(found.gaps),
    )
