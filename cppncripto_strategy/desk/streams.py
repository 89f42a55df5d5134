"""Pages that are kept up to date: one look at a session's journals for all who follow it.

Whoever follows hears the same few bytes, and asks for what is new like everybody (`shared`). A page
that reads slowly waits for itself alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from cppncripto_strategy.desk.sessions import SessionWatch

# The journals are looked at so often; a page hears so often that nothing came, and asks anew after
# so long.
LOOK_S, ALIVE_S, STREAM_S = 0.25, 10.0, 600.0
EVENT = b"data: look\n\n"


class Streams:
    """Pages that are kept up to date while they stand open; a bounded number. One event loop's.

    Parameters
    ----------
    most : pages at once.
    """

    def __init__(self, most: int) -> None:
        self._most, self._open, self._stopped = most, 0, False
        self._tails: dict[str, _Tail] = {}

    @property
    def free(self) -> bool:
        """Whether one more page may be kept up to date."""
        return self._open < self._most and not self._stopped

    def stop(self) -> None:
        """End them all: the desk is about to end."""
        self._stopped = True
        for tail in self._tails.values():
            tail.changed()

    async def of(self, watch: SessionWatch) -> AsyncIterator[bytes]:
        """An event at once, whenever the session wrote something, and every ten seconds without."""
        tail = self._tails.get(watch.entry.id) or _Tail(watch)
        self._tails[watch.entry.id] = tail
        self._open += 1
        tail.join()
        try:
            until_s = time.monotonic() + STREAM_S
            while not self._stopped and time.monotonic() < until_s:
                seen = tail.changes
                yield EVENT
                await tail.after(seen)
        finally:
            self._open -= 1
            if tail.leave() == 0 and self._tails.get(watch.entry.id) is tail:
                del self._tails[watch.entry.id]


class _Tail:
    """The ends of one session's journals, looked at while anybody follows them."""

    def __init__(self, watch: SessionWatch) -> None:
        self._watch, self._followers = watch, 0
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking: asyncio.Task[None] | None = None
        self.changes = 0

    def join(self) -> None:
        """One more follows; the first one begins the looking."""
        self._followers += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(self._watch.sizes()))

    def leave(self) -> int:
        """One less follows; how many are left. The last one ends the looking."""
        self._followers -= 1
        if self._followers == 0 and self._looking is not None:
            self._looking.cancel()
            self._looking = None
        return self._followers

    def changed(self) -> None:
        """Wake all who wait."""
        self.changes += 1
        self._next.set_result(None)
        self._next = asyncio.get_running_loop().create_future()

    async def after(self, changes: int) -> None:
        """Return once there were more changes than these, or after ten seconds."""
        if self.changes == changes:
            await asyncio.wait([self._next], timeout=ALIVE_S)

    async def _look(self, sizes: tuple[int, ...]) -> None:
        """Compare the journals with `sizes`, those from before the first page was asked to look."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._watch.sizes()
            if now != sizes:
                sizes = now
                self._watch.stir()  # whoever is woken must see what woke them
                self.changed()
