"""A paper session as its journals tell it, followed while it runs; nothing of it is locked.

The journals are read once and then from where the last look ended, and folded into counters and
bounded windows: memory does not grow with a session's age. Left out: what only the session's
process knows (weights of its requests): no journal holds them.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cppncripto_strategy.desk.journals import Follower, Record
from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.problems import item, readable
from cppncripto_strategy.desk.schema import (
    Event,
    Evidence,
    Instant,
    Session,
    SessionDetail,
    SymbolNow,
)
from cppncripto_strategy.feeds.clock import DAY_MS, SECOND_MS
from cppncripto_strategy.locks import LOCK_FILE, holder_runs
from cppncripto_strategy.paper.exchange_events import in_words
from cppncripto_strategy.paper.session import SESSION_FILE, read_facts

# Of each symbol's candles and decisions, and of the account, what a page draws. A symbol with gaps
# has its candles in more rounds than it has candles.
CANDLES_KEPT, EQUITY_KEPT, FILLS_KEPT, EVENTS_KEPT = 600, 1_200, 500, 200
# Rounds over which latency is judged on pages; and the bounds of its histogram, seconds.
LATENCY_KEPT = 500
LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# Decisions are long lines, of which only the last ones are drawn.
DECISIONS_BYTES = 4 << 20
# Looks at the files are at least so far apart, however many people watch.
LOOK_S = 0.2
# The session itself; the other journals follow from these.
RAW = ("opened", "rounds")
# Of a position, what the rounding of sums leaves.
DUST = 1e-12
Ohlc = tuple[int, float, float, float, float]
Stamp = tuple[int | bool | None, ...]
Scored = tuple[int, float | None, float | None, float | None]


@dataclass(slots=True)
class Folded:
    """Counters and windows made of a session's records so far.

    Parameters
    ----------
    candles : symbol -> its last ones, (close_ms, open, high, low, close).
    scores : symbol -> how its last candles were judged, (close_ms, score, upper, lower).
    judged : symbol -> the whole record of its last candle.
    holes : (symbol, close_ms) of gaps.
    equity : (close_ms, equity, cash, drawdown) of the last rounds since the session went live.
    start_equity, peak, max_drawdown : of the account since then.
    stale, allowed : symbols that were late in, and that might trade on, the last round.
    positions : symbol -> quantity, from the fills.
    connection : "connected", "lost", "connecting", or "none" where no process runs.
    reconnects : connections that were made again, over all starts.
    latency : (seconds from candle to decision, seconds from close to decision) of the last rounds.
    timed, timed_s : rounds whose latency is known, and the sum of theirs.
    latency_counts : of those, how many took at most each of `LATENCY_BOUNDS_S` and more than the
        bound before; the last one counts those above all bounds.
    """

    rounds: int = 0
    gaps: int = 0
    withdrawn: int = 0
    filled: int = 0
    refused: int = 0
    missed: int = 0
    starts: int = 0
    last_ms: int | None = None
    live_ms: int | None = None
    last_run_event: str = ""
    start_equity: float | None = None
    peak: float = 0.0
    max_drawdown: float = 0.0
    stale: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    candles: dict[str, deque[Ohlc]] = field(default_factory=dict)
    holes: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=CANDLES_KEPT))
    scores: dict[str, deque[Scored]] = field(default_factory=dict)
    judged: dict[str, Record] = field(default_factory=dict)
    equity: deque[tuple[int, float, float, float]] = field(
        default_factory=lambda: deque(maxlen=EQUITY_KEPT)
    )
    fills: deque[Record] = field(default_factory=lambda: deque(maxlen=FILLS_KEPT))
    events: deque[Record] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    evidence: dict[str, Record] = field(default_factory=dict)
    positions: dict[str, float] = field(default_factory=dict)
    connection: str = "none"
    reconnects: int = 0
    latency: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LATENCY_KEPT))
    timed: int = 0
    timed_s: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))


class SessionWatch:
    """One session, looked at by any number of people. Any thread may ask.

    Parameters
    ----------
    entry : where it lies.
    clock : seconds that only grow.

    Attributes
    ----------
    version : grows whenever anything new was read.
    stirs : how often somebody saw that there is something new.
    """

    def __init__(self, entry: Entry, clock: Callable[[], float] = time.monotonic) -> None:
        self.entry = entry
        self.version = self.stirs = 0
        self._clock, self._lock = clock, threading.Lock()
        # Of the last look: when it began, of how many stirs it knew, and what it saw.
        self._seen: tuple[float, int, Stamp] = (float("-inf"), 0, ())
        self._begin()

    def _begin(self) -> None:
        path = self.entry.path
        self._followers = {
            name: Follower(path / f"{name}.jsonl", DECISIONS_BYTES if name == "decisions" else None)
            for name in _FOLDS
        }
        self._folded, self._shown = Folded(), Folded()
        self._shown_version = self.version

    def look(self) -> Folded:
        """What is known now; reads what came since the last look.

        Nobody changes what is returned: it may be walked through while others look.
        """
        with self._lock:
            if self.stamp() is None:
                began_s, stirs = self._clock(), self.stirs
                self._read()
                if any(follower.replaced for follower in self._followers.values()):
                    self._begin()
                    self._read()
                self._seen = (began_s, stirs, self._stamp_now())
            if self._shown_version != self.version:
                self._shown, self._shown_version = _copied(self._folded), self.version
            return self._shown

    def _read(self) -> None:
        # What follows from a round is written after it was opened. Read in the other order, no
        # record is of a round that is not known yet.
        derived = {name: list(self._followers[name].fresh()) for name in _FOLDS if name not in RAW}
        for name, follower in self._followers.items():
            records = follower.fresh() if name in RAW else derived[name]
            self.version += _fold(self._folded, follower, records)

    def _stamp_now(self) -> Stamp:
        """What answers follow from: the journals, the facts, the process, for how long silent."""
        silent_s = self._silent_s()
        return (
            self.version,
            sum(self.damaged.values()),
            _changed_ns(self.entry.path / SESSION_FILE),
            holder_runs(self.entry.path / LOCK_FILE),
            None if silent_s is None else int(silent_s),
        )

    def stamp(self) -> Stamp | None:
        """Equal stamps, equal answers; None where the files must be read first, by `look`.

        It neither waits nor reads.
        """
        began_s, stirs, stamp = self._seen
        fresh = stirs == self.stirs and self._clock() - began_s < LOOK_S
        return stamp if fresh else None

    def stir(self) -> None:
        """Something was written: who looks next reads it, however soon after the last look."""
        self.stirs += 1

    def sizes(self) -> tuple[int, ...]:
        """Bytes of every journal now: another tuple says that something was written."""
        return tuple(follower.size() for follower in self._followers.values())

    @property
    def damaged(self) -> dict[str, int]:
        """Journal -> lines left out, of those that have any."""
        return {name: f.damaged for name, f in self._followers.items() if f.damaged}

    def summary(self) -> Session:
        """The session in numbers; damage stands in `problem`."""
        return readable(self.entry, Session, lambda: Session(**self._numbers()))

    def detail(self) -> SessionDetail:
        """As `summary`, with every symbol and the latest events."""
        return readable(self.entry, SessionDetail, self._detail)

    def _detail(self) -> SessionDetail:
        numbers, folded = self._numbers(), self.look()
        now = [_symbol_now(folded, symbol) for symbol in numbers["symbols"]]
        events = [event_of(record) for record in reversed(list(folded.events))]
        return SessionDetail(**numbers, now=now, events=events)

    def _numbers(self) -> dict[str, Any]:
        facts, folded = read_facts(self.entry.path), self.look()
        state = _state(self.entry.path, folded)
        return {
            **item(self.entry),
            **_counted(folded),
            **_money(folded),
            **_timed(folded),
            "problem": "; ".join(
                f"{name}.jsonl: {count} damaged lines are left out"
                for name, count in self.damaged.items()
            ),
            "state": state,
            "connection": folded.connection if state in ("running", "unknown") else "none",
            "symbols": list(facts.symbols),
            "interval": facts.interval,
            "created": Instant.of(facts.created_ms),
            "silent_s": self._silent_s(),
        }

    def _silent_s(self) -> float | None:
        """Seconds since a candle was last written; None before the first."""
        changed_s = self._followers["rounds"].changed_s
        return None if changed_s is None else max(0.0, time.time() - changed_s)


def _changed_ns(path: Path) -> int:
    """When a file was last written, 0 without one."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _copied(folded: Folded) -> Folded:
    """A copy that shares records, and no container, with the original."""
    values: dict[str, Any] = {}
    for part in fields(folded):
        value = getattr(folded, part.name)
        if isinstance(value, dict):
            value = {k: copy(v) if isinstance(v, deque) else v for k, v in value.items()}
        values[part.name] = copy(value) if isinstance(value, deque | list) else value
    return Folded(**values)


def _fold(folded: Folded, follower: Follower, records: Iterable[Record]) -> int:
    """Take records in; one that is not what its journal holds counts as damaged."""
    fold, count = _FOLDS[follower.path.stem], 0
    for record in records:
        try:
            fold(folded, record)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            follower.damaged += 1
        count += 1
    return count


def _opened(folded: Folded, record: Record) -> None:
    folded.allowed = frozenset(record["a"])
    if folded.live_ms is None and folded.allowed:
        folded.live_ms = int(record["t"])


def _round(folded: Folded, record: Record) -> None:
    close_ms = int(record["t"])
    for symbol, row in record["c"].items():
        kept = folded.candles.setdefault(symbol, deque(maxlen=CANDLES_KEPT))
        first, high, low, last = (float(number) for number in row[1:5])
        kept.append((close_ms, first, high, low, last))
    folded.rounds += 1
    folded.gaps += len(record.get("g", ()))
    folded.holes.extend((str(symbol), close_ms) for symbol in record.get("g", ()))
    folded.withdrawn += len(record.get("w", ()))
    folded.stale = frozenset(record.get("s", ()))
    folded.last_ms = max(close_ms, folded.last_ms or 0)


def _equity(folded: Folded, record: Record) -> None:
    close_ms, equity, cash = int(record["t"]), float(record["equity"]), float(record["cash"])
    if folded.live_ms is None or close_ms < folded.live_ms:
        return  # warm-up
    folded.start_equity = equity if folded.start_equity is None else folded.start_equity
    folded.peak = max(folded.peak, equity)
    drawdown = 1 - equity / folded.peak
    folded.max_drawdown = max(folded.max_drawdown, drawdown)
    folded.equity.append((close_ms, equity, cash, drawdown))


def _fill(folded: Folded, record: Record) -> None:
    late = record["status"] == "refused" and record["reason"] == "can_trade"
    live = folded.live_ms is not None and int(record["created_ms"]) >= folded.live_ms
    if record["status"] == "filled":
        sign = 1 if record["side"] == "buy" else -1
        symbol = record["symbol"]
        quantity = folded.positions.get(symbol, 0.0) + sign * float(record["quantity"])
        folded.positions[symbol] = 0.0 if abs(quantity) < DUST else quantity
        folded.filled += 1
    elif live:
        folded.missed += late
        folded.refused += not late
    if live:
        folded.fills.append(record)


def _decision(folded: Folded, record: Record) -> None:
    symbol, close_ms = record["symbol"], int(record["close_time_ms"])
    score, upper, lower = (_known(record.get(name)) for name in ("score", "upper", "lower"))
    kept = folded.scores.setdefault(symbol, deque(maxlen=CANDLES_KEPT))
    kept.append((close_ms, score, upper, lower))
    folded.judged[symbol] = record


def _known(value: Any) -> float | None:
    """A number; None for what is none, or not finite."""
    number = value if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else None


def _evidence(folded: Folded, record: Record) -> None:
    folded.evidence[str(record["bet"])] = record


def _event(folded: Folded, record: Record) -> None:
    kind = str(record["kind"])
    folded.events.append(record)
    folded.starts += kind == "start"
    if kind in ("start", "stop"):
        folded.last_run_event = kind
    folded.connection = _CONNECTION.get(kind, folded.connection)
    if kind == "connected":
        folded.reconnects += record["away_s"] is not None


_CONNECTION = {
    "start": "connecting",
    "connected": "connected",
    "connection_lost": "lost",
    "stop": "none",
}


def _latency(folded: Folded, record: Record) -> None:
    seconds, lag_s = float(record["s"]), float(record["lag"])
    folded.latency.append((seconds, lag_s))
    folded.latency_counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
    folded.timed += 1
    folded.timed_s += seconds


# In this order: what is live is known before what follows from it.
_FOLDS: dict[str, Callable[[Folded, Record], None]] = {
    "opened": _opened,
    "rounds": _round,
    "equity": _equity,
    "fills": _fill,
    "decisions": _decision,
    "evidence": _evidence,
    "events": _event,
    "latency": _latency,
}


def _state(path: Path, folded: Folded) -> str:
    runs = holder_runs(path / LOCK_FILE)
    if runs is None:
        return "unknown"
    if runs:
        return "running"
    return "died" if folded.last_run_event == "start" else "stopped"


def _counted(folded: Folded) -> dict[str, Any]:
    rollover_ms = None if folded.last_ms is None else (folded.last_ms // DAY_MS + 1) * DAY_MS
    return {
        "live_from": Instant.of(folded.live_ms),
        "last_round": Instant.of(folded.last_ms),
        "next_rollover": Instant.of(rollover_ms),
        "rounds": folded.rounds,
        # A withdrawn gap is none: its candle appeared after all.
        "gaps": max(0, folded.gaps - folded.withdrawn),
        "withdrawn": folded.withdrawn,
        "fills": folded.filled,
        "refused": folded.refused,
        "missed": folded.missed,
        "starts": folded.starts,
        "reconnects": folded.reconnects,
        "evidence": [_bet(record) for record in folded.evidence.values()],
    }


def _money(folded: Folded) -> dict[str, Any]:
    if not folded.equity or not folded.start_equity:
        return {}
    _, equity, cash, drawdown = folded.equity[-1]
    return {
        "equity": equity,
        "cash": cash,
        "total_return": equity / folded.start_equity - 1,
        "drawdown": drawdown,
        "max_drawdown": folded.max_drawdown,
    }


def _timed(folded: Folded) -> dict[str, Any]:
    if not folded.latency:
        return {}
    seconds = sorted(taken for taken, _ in folded.latency)
    return {
        "latency_s": seconds[len(seconds) // 2],
        "latency_p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
        "lag_s": folded.latency[-1][1],
    }


def _bet(record: Record) -> Evidence:
    return Evidence(
        bet=str(record["bet"]),
        wealth=record.get("wealth"),
        needed=record.get("needed"),
        open=bool(record.get("open")),
        session=Instant.of(record.get("session_ms")),
    )


def _symbol_now(folded: Folded, symbol: str) -> SymbolNow:
    last = folded.judged.get(symbol, {})
    age_ms = last.get("age_ms")
    return SymbolNow(
        symbol=symbol,
        close=last.get("close"),
        close_time=Instant.of(last.get("close_time_ms")),
        score=last.get("score"),
        upper=last.get("upper"),
        lower=last.get("lower"),
        drift=last.get("drift"),
        embedding_age_s=None if age_ms is None else age_ms / SECOND_MS,
        position=folded.positions.get(symbol, 0.0),
        tradable=symbol in folded.allowed,
        stale=symbol in folded.stale,
    )


def event_of(record: Record) -> Event:
    """An event as it is shown: words where the exchange did it, else its facts."""
    facts = {name: value for name, value in record.items() if name not in ("kind", "at_ms")}
    try:
        words = in_words(record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        words = ""
    return Event(
        kind=str(record["kind"]), at=Instant.of(record.get("at_ms")), what=words, facts=facts
    )
