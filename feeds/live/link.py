"""Whether every symbol is subscribed to, over one connection or several, and since when not."""

from __future__ import annotations

import time
from collections.abc import Callable

from cppncripto_strategy.feeds.live.notices import Connected, ConnectionLost, Listener

# Of an error's text: a server may answer with a whole page.
REASON_LENGTH = 200


class Link:
    """The connections of a stream; lives as long as it, changed only from its loop.

    Parameters
    ----------
    parts : connections that it takes.
    tell : hears `Connected` and `ConnectionLost`, each once per change of the whole.
    steady_s : seconds that only grow.
    """

    def __init__(
        self, parts: int, tell: Listener, steady_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._tell, self._steady_s = parts, tell, steady_s
        self._open: set[int] = set()
        self._lost_s: float | None = None

    @property
    def whole(self) -> bool:
        """Whether every connection stands."""
        return len(self._open) == self._parts

    def opened(self, part: int) -> None:
        """A connection stands."""
        before = self.whole
        self._open.add(part)
        if self.whole and not before:
            lost_s, self._lost_s = self._lost_s, None
            away_s = None if lost_s is None else round(self._steady_s() - lost_s, 3)
            self._tell(Connected(away_s))

    def lost(self, part: int, reason: str) -> None:
        """A connection is gone, or was not made."""
        before = self.whole
        self._open.discard(part)
        if before and not self.whole:
            self._lost_s = self._steady_s()
            self._tell(ConnectionLost(reason[:REASON_LENGTH]))

    def end(self) -> None:
        """The stream has ended: nothing stands, and nobody hears of it."""
        self._open.clear()
