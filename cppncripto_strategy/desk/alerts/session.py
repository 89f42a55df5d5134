"""One session seen from outside, look by look: new rows of its journals, and its process.

What needs no row: a process that is gone without a word, candles that stop coming, a connection
that does not come back. The lock is looked at before and after the journals, so that neither a stop
nor a start that falls between is taken for a death.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cppncripto_strategy.desk.alerts.kinds import Alert
from cppncripto_strategy.desk.alerts.rows import ROWS, Reported, Story, fold, story_of
from cppncripto_strategy.desk.alerts.settings import Limits
from cppncripto_strategy.desk.journals import Follower, Record
from cppncripto_strategy.feeds.clock import SECOND_MS
from cppncripto_strategy.locks import LOCK_FILE, holder_runs
from cppncripto_strategy.paper.session import SESSION_FILE, read_facts

# Of these a round's other rows follow: read after them, folded before them.
RAW = ("opened", "rounds")
# Without another limit, so many candles of silence are too many; at speed they take no time.
SILENT_CANDLES, SILENT_LEAST_S = 3, 60.0
_ODD = (KeyError, TypeError, ValueError, IndexError, AttributeError)


class SessionAlerts:
    """What one session gives rise to. One reader; lives as long as its watcher.

    Parameters
    ----------
    path, name : its folder, and what it is called.
    limits : from when on silence and a lost connection count.
    kept : `record` of another one of this session, to continue from; None begins at the beginning.

    Raises
    ------
    SessionError
        When the folder is no session, or what it is cannot be read.
    """

    def __init__(
        self, path: Path, name: str, limits: Limits, kept: dict[str, Any] | None = None
    ) -> None:
        facts = read_facts(path)
        self.path, self.name, self._limits = path, name, limits
        self._created_ms = facts.created_ms
        self._silent_s = limits.silent_s or max(
            SILENT_LEAST_S, SILENT_CANDLES * facts.interval_ms / SECOND_MS
        )
        if kept is not None and kept["created_ms"] != self._created_ms:
            kept = None  # another session in the same place
        self.known = kept is not None
        self.story = Story() if kept is None else story_of(kept["story"])
        self.story.lost_limit_ms = round(limits.connection_lost_s * SECOND_MS)
        self._damaged: dict[str, int] = {} if kept is None else dict(kept["damaged"])
        places = {} if kept is None else kept["places"]
        self._followers = {journal: self._follower(journal, places) for journal in ROWS}
        self._again: set[str] = set()
        self._seen: tuple[tuple[int, int], ...] = ()
        self._identity = _state(path / SESSION_FILE)

    @property
    def replaced(self) -> bool:
        """Whether the folder may hold another session by now."""
        return _state(self.path / SESSION_FILE) != self._identity

    def record(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "created_ms": self._created_ms,
            "story": asdict(self.story),
            "places": {name: list(f.place) for name, f in self._followers.items()},
            "damaged": dict(self._damaged),
        }

    def look(self, now_ms: int) -> list[Alert]:
        """What came since the last look.

        Parameters
        ----------
        now_ms : this machine's time, UTC milliseconds.
        """
        before = holder_runs(self.path / LOCK_FILE)
        found = list(self._rows(now_ms))
        after = holder_runs(self.path / LOCK_FILE)
        if before is False and after is False:
            found += self._alerts("process", self._gone(now_ms))
        elif before is not False and after is not False:
            found += self._alerts("process", self._absent(now_ms))
        return found

    def _rows(self, now_ms: int) -> Iterator[Alert]:
        seen = tuple(_state(follower.path) for follower in self._followers.values())
        if seen == self._seen:
            return
        self._seen = seen
        for journal in [name for name in ROWS if name not in RAW] + list(RAW):
            self._restart_if_replaced(journal)
        fresh = {n: _read(f) for n, f in self._followers.items() if n not in RAW}
        fresh |= {name: _read(self._followers[name]) for name in RAW}
        for journal in ROWS:
            for row, end in fresh[journal]:
                yield from self._alerts(f"{journal}:{end}", self._fold(journal, row))
            yield from self._alerts(journal, self._damage(journal, now_ms))

    def _fold(self, journal: str, row: Record) -> Reported:
        try:
            yield from fold(self.story, journal, row, journal in self._again)
        except _ODD:
            self._followers[journal].damaged += 1

    def _damage(self, journal: str, now_ms: int) -> Reported:
        count = self._followers[journal].damaged
        if count > self._damaged.get(journal, 0):
            self._damaged[journal] = count
            yield "damaged", "", now_ms, f"{journal}.jsonl: {count} damaged lines are left out"

    def _restart_if_replaced(self, journal: str) -> None:
        """A journal that was moved away, and is computed again, is read from its beginning."""
        inode, offset = self._followers[journal].place
        now_inode, size = _state(self._followers[journal].path)
        if inode and now_inode and (now_inode != inode or size < offset):
            self._followers[journal] = self._follower(journal, {})
            self._again.add(journal)

    def _follower(self, journal: str, places: dict[str, Any]) -> Follower:
        inode, offset = places.get(journal, (0, 0))
        follower = Follower(self.path / f"{journal}.jsonl", place=(int(inode), int(offset)))
        follower.damaged = self._damaged.get(journal, 0)
        return follower

    def _gone(self, now_ms: int) -> Reported:
        story = self.story
        if story.run == "start" and not story.died_reported:
            story.died_reported, story.lost_ms = True, None
            yield "died", "", now_ms, "its process is gone and never said that it stopped"

    def _absent(self, now_ms: int) -> Reported:
        """Of a process that runs, or may run: connection and candles that do not come."""
        story = self.story
        if story.run != "start":
            return
        if story.lost_ms is not None and not story.lost_reported:
            if now_ms - story.lost_ms >= story.lost_limit_ms:
                story.lost_reported = True
                since_s = (now_ms - story.lost_ms) / SECOND_MS
                yield "connection_lost", "", now_ms, f"has not been connected for {since_s:.0f} s"
        elif story.lost_ms is None and not story.silent_reported:
            wrote_ms = max(story.linked_ms, _written_ms(self.path / "rounds.jsonl"))
            if now_ms - wrote_ms >= self._silent_s * SECOND_MS:
                story.silent_reported = True
                since_s = (now_ms - wrote_ms) / SECOND_MS
                yield "silent", "", now_ms, f"runs, and has written no candle for {since_s:.0f} s"

    def _alerts(self, where: str, reported: Reported) -> Iterator[Alert]:
        for number, (kind, symbol, at_ms, text) in enumerate(reported):
            key = f"{self.name}\n{self._created_ms}\n{where}\n{number}\n{kind}\n{at_ms}"
            id = hashlib.sha256(key.encode()).hexdigest()[:16]
            yield Alert(id, kind, self.name, symbol, at_ms, text)


def _read(follower: Follower) -> list[tuple[Record, int]]:
    """New records, each with the byte after it."""
    return [(record, follower.place[1]) for record in follower.fresh()]


def _state(path: Path) -> tuple[int, int]:
    """Inode and size; zeros without a file."""
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0
    return state.st_ino, state.st_size


def _written_ms(path: Path) -> int:
    """When a file was last written (local, UTC ms); 0 without one."""
    try:
        return round(path.stat().st_mtime * 1000)
    except OSError:
        return 0
