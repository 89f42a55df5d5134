"""How long each live round took from its last candle to its last order: `latency.jsonl`.

    {"t": 1716206700000, "s": 0.0042, "lag": 0.31}

`t` is the round's close (UTC ms); `s` is seconds from the arrival of its last candle to the last
order on it; `lag` is seconds from the close to that order by the exchange's clock. A measurement,
and no part of the session: nothing is replayed from it, it is written after everything else of its
round, and a disk that refuses it, or damage to it, stops nothing.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.live.journal import LineJournal

log = logging.getLogger(__name__)

FILE = "latency.jsonl"
# Read when it is opened: enough to find the last whole line.
_TAIL = 4_096


class LatencyJournal:
    """One line per live round; lives as long as its session runs, used by Backtrader's thread.

    Parameters
    ----------
    path : the file; one that is damaged is moved aside.
    """

    def __init__(self, path: Path) -> None:
        self._journal: LineJournal | None = None
        self._waiting: list[dict[str, float]] = []
        try:
            self._journal = _opened(path)
        except (SessionError, OSError) as error:
            log.warning("no latency is written: %s", error)

    def note(self, close_ms: int, latency_s: float, lag_s: float) -> None:
        """A round was decided; written by `flush`."""
        self._waiting.append({"t": close_ms, "s": round(latency_s, 6), "lag": round(lag_s, 3)})

    def flush(self) -> None:
        """Append what waits, without waiting for the disk."""
        waiting, self._waiting = self._waiting, []
        if self._journal is None:
            return
        try:
            self._journal.append(waiting)
        except SessionError as error:
            log.warning("no latency is written any more: %s", error)
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._journal is not None:
            self._journal.close()
        self._journal = None


def _opened(path: Path) -> LineJournal:
    try:
        return LineJournal(path, synced=False, start=_last_line(path))
    except SessionError as error:
        aside = path.with_name(f"{path.name}.damaged")
        os.replace(path, aside)
        log.warning("moved to %s: %s", aside.name, error)
        return LineJournal(path, synced=False)


def _last_line(path: Path) -> int:
    """A byte near the end at which a line begins."""
    if not path.exists() or (size := path.stat().st_size) <= _TAIL:
        return 0
    with path.open("rb") as file:
        file.seek(size - _TAIL)
        cut = file.read(_TAIL).find(b"\n")
    return 0 if cut < 0 else size - _TAIL + cut + 1
