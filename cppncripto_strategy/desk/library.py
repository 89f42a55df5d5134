"""What a desk knows: the listing of its folder, and the sessions it follows. One per desk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cppncripto_strategy import __version__
from cppncripto_strategy.desk.listing import SESSION, Entry, Listing
from cppncripto_strategy.desk.schema import Health, Session
from cppncripto_strategy.desk.sessions import SessionWatch, Stamp

LibraryStamp = tuple[tuple[str, Stamp], ...]


class UnknownId(LookupError):
    """There is nothing of this kind with this id."""


class Library:
    """Entries by kind and id, and one watch per session, shared by everybody who looks.

    Parameters
    ----------
    root : the folder of results.
    clock : seconds that only grow.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = root.resolve().name
        self.listing = Listing(root, clock)
        self._clock, self._began_s = clock, clock()
        self._watches: dict[str, SessionWatch] = {}
        self._lock = threading.Lock()

    def entry(self, kind: str, id: str) -> Entry:
        """The entry of a kind with an id. Raises UnknownId."""
        found = self.listing.get(kind, id)
        if found is None:
            raise UnknownId(f"there is no {kind} {id}")
        return found

    def watch(self, id: str) -> SessionWatch:
        """The watch of a session. Raises UnknownId."""
        return self._watch(self.entry(SESSION, id))

    def watches(self) -> list[SessionWatch]:
        """One per session, by name; those of sessions that are gone are let go."""
        entries = self.listing.of(SESSION)
        found = [self._watch(entry) for entry in entries]
        with self._lock:
            known = {entry.id for entry in entries}
            for id in [id for id in self._watches if id not in known]:
                del self._watches[id]
        return found

    def sessions(self) -> list[Session]:
        """Every session, running ones first, then by name."""
        found = [watch.summary() for watch in self.watches()]
        return sorted(found, key=lambda session: (session.state != "running", session.name))

    def stamp(self, id: str | None = None) -> LibraryStamp | None:
        """What answers about a session, or about all of them, follow from; see its own `stamp`.

        None where something must be looked at first: then `look`. It neither waits nor reads.
        """
        known = self.listing.known(SESSION)
        if known is None:
            return None
        ids = [entry.id for entry in known if id in (None, entry.id)]
        watches = [self._watches.get(id) for id in ids]
        stamps = [None if watch is None else watch.stamp() for watch in watches]
        whole = [(id, stamp) for id, stamp in zip(ids, stamps, strict=True) if stamp is not None]
        return tuple(whole) if len(whole) == len(ids) else None

    def stirs(self, id: str | None = None) -> int:
        """Grows whenever something new was seen of a session, or of any."""
        watches = list(self._watches.values())
        return sum(watch.stirs for watch in watches if id in (None, watch.entry.id))

    def look(self, id: str | None = None) -> LibraryStamp | None:
        """Look at a session, or at all of them, unless that was done just now; then their stamp."""
        for watch in self.watches():
            if id in (None, watch.entry.id):
                watch.look()
        return self.stamp(id)

    def health(self) -> Health:
        """The desk itself."""
        sessions = self.sessions()
        return Health(
            status="ok",
            version=__version__,
            uptime_s=round(self._clock() - self._began_s, 1),
            sessions=len(sessions),
            running=sum(session.state == "running" for session in sessions),
        )

    def _watch(self, entry: Entry) -> SessionWatch:
        with self._lock:
            if entry.id not in self._watches:
                self._watches[entry.id] = SessionWatch(entry, self._clock)
            return self._watches[entry.id]
