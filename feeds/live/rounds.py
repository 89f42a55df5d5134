"""Rounds: what every symbol did at one closing time, handed from the stream to Backtrader's thread.

A round is published only when each symbol's candle is there, proved absent, or too late to wait
for; so feeds that open rounds together can never be out of step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cppncripto_strategy.feeds.candles import COLUMNS, Candles, Row


@dataclass(frozen=True, slots=True)
class Round:
    """One closing time.

    Parameters
    ----------
    close_ms : UTC milliseconds of the close boundary, open + interval.
    candles : symbol -> row, in the order of `candles.COLUMNS`; the open time is an int.
    gaps : symbols whose candle was proved not to exist.
    stale : symbols left out because they were too late; their candles come in catch-up rounds.
    catch_up : candles and gaps of stale symbols, older than what was already published, all of
        those that catch up at this closing time.
    withdrawn : symbol -> candle that an earlier round called a gap and that has appeared since.
        Feeds do not deliver it: the symbol's later candles may have been shown already.
    received_s : monotonic seconds at which the last candle arrived; 0 for recorded rounds.
    """

    close_ms: int
    candles: Mapping[str, Row]
    gaps: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    catch_up: bool = False
    withdrawn: Mapping[str, Row] = field(default_factory=dict)
    received_s: float = field(default=0.0, compare=False)


def rows_of(candles: Candles) -> list[Row]:
    """The candles as rows."""
    columns = [getattr(candles, name).tolist() for name in COLUMNS]
    return list(zip(*columns, strict=True))


def candles_of(rows: Iterable[Row]) -> Candles:
    """Rows as candles, in the order given."""
    listed = list(rows)
    if not listed:
        return Candles.empty()
    table = np.array([row[1:] for row in listed], dtype=np.float64)
    columns: dict[str, object] = {name: table[:, i] for i, name in enumerate(COLUMNS[1:])}
    columns["open_time"] = np.array([row[0] for row in listed], dtype=np.int64)
    return Candles.from_columns(**columns)


class RoundSource(Protocol):
    """Where a live feed gets its rounds: the stream's queue, or a recorded session."""

    @property
    def current(self) -> Round | None:
        """The round that is open: feeds deliver their candle of it."""

    @property
    def status(self) -> str:
        """DELAYED, LIVE, CONNBROKEN or DISCONNECTED, as of the round that is open."""

    @property
    def finished(self) -> bool:
        """True when no round will ever come again."""

    def open_next(self, wait_s: float) -> Round | None:
        """Open the next round; wait so long for one at most."""

    def waiting(self) -> int:
        """Rounds published and not yet opened."""

    def can_trade(self, symbol: str) -> bool:
        """Whether an order on this symbol is allowed in the round that is open."""


NO_SYMBOLS: frozenset[str] = frozenset()


class RoundQueue:
    """Rounds from the stream's thread to Backtrader's; lives as long as its stream.

    Parameters
    ----------
    judge : round -> symbols that may be traded on it; asked once, when the round is opened. It is
        never asked about catch-up rounds, which may not be traded on.
    on_open : called with (round, allowed) before the round is shown to any feed: the session writes
        both down, so that a replay knows what was allowed.
    held : show nothing until `release`; a restarted session holds until it is connected, for what
        happened meanwhile decides what is fresh.
    """

    def __init__(
        self,
        judge: Callable[[Round], frozenset[str]] = lambda shown: frozenset(shown.candles),
        on_open: Callable[[Round, frozenset[str]], None] = lambda _round, _allowed: None,
        held: bool = False,
    ) -> None:
        self._ready = threading.Condition()
        self._rounds: deque[Round] = deque()
        self._closed = False
        self._held = held
        self._failure: BaseException | None = None
        self._status = "DELAYED"
        self._connection = "DELAYED"
        self.judge, self.on_open = judge, on_open
        self.current: Round | None = None
        self.allowed = NO_SYMBOLS
        self.opened = 0

    def put(self, rounds: Sequence[Round]) -> None:
        """Publish rounds: all of them at once; none any more once closed or abandoned."""
        with self._ready:
            if self._closed:
                return
            self._rounds.extend(rounds)
            self._ready.notify_all()

    def release(self) -> None:
        """Show what is held, now and from now on."""
        with self._ready:
            self._held = False
            self._ready.notify_all()

    def connection(self, status: str) -> None:
        """The connection's own state, shown when no round is waiting."""
        with self._ready:
            self._connection = status
            self._ready.notify_all()

    def close(self, failure: BaseException | None = None) -> None:
        """No round will come any more; what is waiting is still delivered, unless it failed."""
        with self._ready:
            self._closed, self._failure, self._held = True, failure, False
            self._ready.notify_all()

    def abandon(self) -> None:
        """Stop after the round that is open: what waits is in the journal, for the next start."""
        with self._ready:
            self._rounds.clear()
            self._closed = True
            self._ready.notify_all()

    def waiting(self) -> int:
        """Rounds published and not yet opened."""
        return 0 if self._held else len(self._rounds)

    @property
    def finished(self) -> bool:
        """True when closed and empty."""
        return self._closed and not self._rounds

    @property
    def status(self) -> str:
        """DELAYED, LIVE, CONNBROKEN or DISCONNECTED."""
        return self._status

    def open_next(self, wait_s: float) -> Round | None:
        """Open the next round, waiting for one at most `wait_s` wall seconds.

        Raises
        ------
        BaseException
            What stopped the stream's thread, if it failed: a feed must not wait forever.
        """
        with self._ready:
            if not self.waiting() and not self._closed and wait_s > 0:
                self._ready.wait(wait_s)
            if self._failure is not None:
                raise self._failure
            if not self.waiting():
                broken = self._connection in ("CONNBROKEN", "DISCONNECTED")
                self._status = self._connection if broken else self._status
                self.current, self.allowed = None, NO_SYMBOLS
                return None
            coming = self._rounds.popleft()
        self.allowed = NO_SYMBOLS if coming.catch_up else self.judge(coming)
        self.on_open(coming, self.allowed)
        self._status = "LIVE" if self.allowed else "DELAYED"
        self.opened += 1
        self.current = coming
        return coming

    def can_trade(self, symbol: str) -> bool:
        """Whether the open round may be traded on and holds this symbol's candle."""
        return symbol in self.allowed


class RecordedRounds:
    """Rounds of the past with what was allowed in each; a `RoundSource` that never waits.

    Parameters
    ----------
    rounds : (round, symbols allowed) in the order in which they were opened.
    """

    def __init__(self, rounds: Sequence[tuple[Round, frozenset[str]]]) -> None:
        self._rounds = deque(rounds)
        self.current: Round | None = None
        self.allowed = NO_SYMBOLS
        self.status = "DELAYED"

    @property
    def finished(self) -> bool:
        """True when every round was opened."""
        return not self._rounds

    def waiting(self) -> int:
        """Rounds not yet opened."""
        return len(self._rounds)

    def open_next(self, wait_s: float) -> Round | None:
        """Open the next recorded round."""
        if not self._rounds:
            self.current, self.allowed = None, NO_SYMBOLS
            return None
        self.current, self.allowed = self._rounds.popleft()
        self.status = "LIVE" if self.allowed else "DELAYED"
        return self.current

    def can_trade(self, symbol: str) -> bool:
        """What was allowed then."""
        return symbol in self.allowed


class ChainedRounds:
    """A recorded past followed by the live present; a `RoundSource`."""

    def __init__(self, past: RecordedRounds, present: RoundQueue) -> None:
        self.past, self.present = past, present
        self._source: RoundSource = past

    @property
    def replaying(self) -> bool:
        """True while the open round is one of the past."""
        return self._source is self.past

    @property
    def current(self) -> Round | None:
        """The round that is open."""
        return self._source.current

    @property
    def status(self) -> str:
        """Status of the source in use."""
        return self._source.status

    @property
    def finished(self) -> bool:
        """True when both are done."""
        return self.past.finished and self.present.finished

    def waiting(self) -> int:
        """Rounds not yet opened, past and present."""
        return self.past.waiting() + self.present.waiting()

    def open_next(self, wait_s: float) -> Round | None:
        """The next recorded round, and when there is none left, the next live one."""
        if self.past.finished:
            self._source = self.present
        return self._source.open_next(wait_s)

    def can_trade(self, symbol: str) -> bool:
        """What the source in use allows."""
        return self._source.can_trade(symbol)


def now_s() -> float:
    """Monotonic seconds, the clock of `Round.received_s`."""
    return time.monotonic()
