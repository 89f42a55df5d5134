"""A paper session on disk: what it saw, what it was allowed, what it decided; all appended.

    <session>/session.json      what it is: symbols, interval, start, account, sources
    <session>/recipe.toml       the recipe it runs
    <session>/bundles/          the networks, and from when each is active (timeline.json)
    <session>/rounds.jsonl      candles, on disk before they are published
    <session>/opened.jsonl      which round was shown next, and who might trade on it
    <session>/decisions.jsonl   one line per symbol and candle
    <session>/embeddings.jsonl  one line per symbol and rollover
    <session>/evidence.jsonl    one line per bet and day with signals
    <session>/fills.jsonl       every fill, refusal and cancellation
    <session>/equity.jsonl      the account after every round
    <session>/events.jsonl      starts, stops, days, retraining, what the exchange did
    <session>/rules.jsonl       the exchange's rules that changed, and from which close on
    <session>/latency.jsonl     how long each live round took; nothing follows from it
    <session>/checkpoint.bin    the state after a day of it, which a restart begins from

Rounds, opened and rules are the session: replayed through the same code they give all the others
again, to the bit, and a restart checks that they do. A session is used by one process at a time.
Left out: any format but ours; reading it without its lock (`recording`); results for people
(`session_report`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from cppncripto_strategy.errors import CheckpointError, SessionError
from cppncripto_strategy.feeds.clock import interval_to_ms, ms_to_utc
from cppncripto_strategy.feeds.live.journal import (
    COMPUTED_AGAIN,
    RESTORE,
    LineJournal,
    read_lines,
    round_from_record,
    round_record,
)
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.foreign import read_object, reading, require_int, sealed, unsealed
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.paper.checkpoint import CHECKPOINT_FILE, Checkpoint, Place, advanced
from cppncripto_strategy.paper.latency import FILE as LATENCY_FILE
from cppncripto_strategy.paper.latency import LatencyJournal
from cppncripto_strategy.paper.rule_changes import RuleJournal
from cppncripto_strategy.results import to_plain, write_json

log = logging.getLogger(__name__)

SESSION_FILE = "session.json"
FORMAT = 2
# Computed again from rounds and opened: written without waiting for the disk.
DERIVED = ("decisions", "embeddings", "evidence", "fills", "equity")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What a session is; fixed when it is made.

    Parameters
    ----------
    symbols, interval : what it is subscribed to; what it only reads is not traded.
    first_ms : open time of the first candle it sees (its warm-up), UTC ms.
    created_ms : the exchange's time when it was made, UTC ms.
    broker : the account: cash, fee_bps, slippage_bps, allow_short.
    filters : exchangeInfo's `symbols` entries by which orders are fitted; recorded, because a
        replay must not depend on tomorrow's rules.
    sources : addresses, for the record.
    made_by : versions and commit.
    """

    symbols: tuple[str, ...]
    interval: str
    first_ms: int
    created_ms: int
    broker: Mapping[str, Any]
    filters: Sequence[Mapping[str, Any]] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval_ms(self) -> int:
        """Length of a candle in milliseconds."""
        return interval_to_ms(self.interval)


class SessionFolder:
    """One session's folder, locked while open; a context manager.

    Parameters
    ----------
    path : the folder.
    locked : the caller holds its `session_lock`, and keeps it longer than this.

    Attributes
    ----------
    facts : SessionFacts.
    checkpoint : the state from which a restart begins, or None; see `checkpoint`.
    past : (round, symbols allowed) of every round that was shown, in order, since the checkpoint.
    unopened : rounds on disk that no strategy has seen yet.
    shown : rounds shown so far, those before the checkpoint included.
    resumed : whether anything was recorded before this process.
    rules : RuleJournal, the exchange's rules that changed.
    latency : LatencyJournal, how long each round took.

    Raises
    ------
    SessionError
        When the folder is no session, another process uses it, or a journal is damaged.
    """

    def __init__(self, path: Path, locked: bool = False) -> None:
        self.path = path
        self.facts = read_facts(path)
        self._lock = None if locked else session_lock(path)
        self._events, self._noting = LineJournal(path / "events.jsonl"), threading.Lock()
        self._events.records = []
        self.checkpoint = self._usable_checkpoint()
        deleted = not (path / "opened.jsonl").exists()
        rounds, opened = self._journal("rounds"), self._journal("opened")
        with reading(path, "session", SessionError):
            self.past, self.unopened = match_rounds(rounds.records, opened.records, path)
        before = 0 if self.checkpoint is None else self.checkpoint.rounds
        self.resumed = bool(before or rounds.records)
        self.shown = before + len(opened.records)
        self._unknown = len(rounds.records) if deleted else 0
        # The records are taken over above; a long session must not hold them twice.
        rounds.records, opened.records = [], []
        self._rounds, self._opened = rounds, opened
        self.rules, self.latency = RuleJournal(path), LatencyJournal(path / LATENCY_FILE)
        self._disk = ThreadPoolExecutor(1, "session-disk")
        self._settling: Future[None] | None = None
        self.derived = self._open_derived()
        self._report_lost_ends()

    def _report_lost_ends(self) -> None:
        """Say what a kill, a power cut or a disk took from the ends of the journals."""
        journals = [self._rounds, self._opened, *(d.journal for d in self.derived.values())]
        for journal in (self._events, *journals):
            if journal.torn is not None:
                self.event("torn line", file=journal.path.name, **asdict(journal.torn))
        lost = self.derived["equity"].left - sum(not moment.catch_up for moment, _ in self.past)
        if self._unknown:
            log.warning(
                "%s was missing beside %d rounds: which of them were shown is not known. They are"
                " shown again, and nothing is traded on them", self._opened.path, self._unknown,
            )  # fmt: skip
        elif lost > 0:
            log.warning(
                "%s lost its end: equity.jsonl knows %d rounds more. They are shown again, and"
                " nothing is traded on them", self._opened.path, lost,
            )  # fmt: skip
        if self._unknown or lost > 0:
            self.event("opened lost", rounds=self._unknown or lost)

    @classmethod
    def create(cls, path: Path, facts: SessionFacts, locked: bool = False) -> SessionFolder:
        """Make a new session; `locked` as for the class.

        Raises
        ------
        SessionError
            When a session already stands there.
        """
        if (path / SESSION_FILE).exists():
            raise SessionError(f"{path} already holds a session: resume it, or choose another name")
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / SESSION_FILE, sealed(to_plain({"format": FORMAT, **asdict(facts)})))
        return cls(path, locked)

    def __enter__(self) -> SessionFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the journals and release the folder."""
        self._disk.shutdown()
        for journal in (self._rounds, self._opened, self._events, self.rules, self.latency):
            journal.close()
        for derived in self.derived.values():
            derived.close()
        if self._lock is not None:
            self._lock.release()

    def journal(self, rounds: Sequence[Round]) -> None:
        """Put rounds on disk; called by the stream before it publishes them."""
        self._rounds.append([round_record(moment) for moment in rounds])

    def opened(self, moment: Round, allowed: frozenset[str], last: bool = True) -> None:
        """Note that a round is about to be shown, and who may trade on it.

        The disk is waited for in `settle`, while the decision is already being made: nothing that
        follows from the round is written or reported before. A round nobody may trade on
        need not wait for the disk unless it is the latest: should it be lost, the restart judges it
        again, and it will be older still.
        """
        record = {"i": self.shown, "t": moment.close_ms, "a": sorted(allowed)}
        self._opened.append([record], synced=False)
        if allowed or last:
            self._settling = self._disk.submit(self._opened.sync)
        self.shown += 1

    def settle(self) -> None:
        """Wait until what was shown is on disk, then write what was made of it."""
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.result()
        for derived in self.derived.values():
            derived.flush()
        self.latency.flush()

    def event(self, kind: str, *, synced: bool = True, **facts: Any) -> None:
        """Note something that happened, with the local time; from any thread.

        Parameters
        ----------
        synced : wait for the disk; False for what nothing follows from.
        """
        record = {"kind": kind, "at_ms": round(time.time() * 1000), **facts}
        with self._noting:
            self._events.append([record], synced)

    def resume_at(self) -> tuple[int, dict[str, int]]:
        """Open time of the next round, and of each symbol's next candle (UTC ms)."""
        rounds = [*(moment for moment, _ in self.past), *self.unopened]
        if self.checkpoint is not None:
            return advanced(self.checkpoint.frontier_ms, self.checkpoint.following, rounds)
        first_ms = self.facts.first_ms
        return advanced(first_ms, dict.fromkeys(self.facts.symbols, first_ms), rounds)

    def standing_gaps(self) -> dict[str, list[int]]:
        """Symbol -> open times (UTC ms) of the gaps that nothing has withdrawn since.

        Of the rounds read at the start: with a checkpoint, those of the last day or so.
        """
        standing: dict[str, dict[int, None]] = {symbol: {} for symbol in self.facts.symbols}
        for moment in (*(shown for shown, _ in self.past), *self.unopened):
            open_ms = moment.close_ms - self.facts.interval_ms
            for symbol in moment.gaps:
                standing[symbol][open_ms] = None
            for symbol in moment.withdrawn:
                standing[symbol].pop(open_ms, None)
        return {symbol: list(opens) for symbol, opens in standing.items()}

    def without_checkpoint(self, reason: str) -> None:
        """Begin at the beginning after all: the replay showed that the checkpoint does not fit.

        Rounds that arrive meanwhile are not disturbed: only what was shown is read again.
        """
        log.warning("the checkpoint is not used, all rounds are replayed: %s", reason)
        self.event("checkpoint unused", reason=reason)
        self.checkpoint = None
        (self.path / CHECKPOINT_FILE).unlink(missing_ok=True)
        with reading(self.path, "session", SessionError):
            rounds = read_lines(self.path / "rounds.jsonl")
            self.past, _ = match_rounds(rounds, read_lines(self.path / "opened.jsonl"), self.path)
        for derived in self.derived.values():
            derived.close()
        self.derived = self._open_derived()

    def _usable_checkpoint(self) -> Checkpoint | None:
        try:
            return Checkpoint.load(self.path)
        except CheckpointError as error:
            log.warning("all rounds are replayed: %s", error)
            self.event("checkpoint unused", reason=str(error))
            return None

    def _journal(self, name: str, synced: bool = True) -> LineJournal:
        start = 0 if self.checkpoint is None else self.checkpoint.places[name].offset
        advice = COMPUTED_AGAIN if name in DERIVED else RESTORE
        return LineJournal(self.path / f"{name}.jsonl", synced, start, advice)

    def _open_derived(self) -> dict[str, _Derived]:
        places = {} if self.checkpoint is None else self.checkpoint.places
        return {
            name: _Derived(self._journal(name, synced=False), places.get(name)) for name in DERIVED
        }

    def forget_past(self) -> None:
        """Drop the rounds read at the start from memory, once they were replayed."""
        self.past, self.unopened = [], []


class Sink(Protocol):
    """Takes records one by one."""

    def add(self, record: Record) -> None:
        """Take the next record."""


class Collected:
    """A sink that keeps its records in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, record: Record) -> None:
        """Take the next record."""
        self.records.append(plain(record))


class _Derived:
    """A journal of what can be computed again: known records are compared with what the replay
    gives, later ones wait for `flush` and are appended."""

    def __init__(self, journal: LineJournal, checkpoint: Place | None) -> None:
        self.journal = journal
        self._known, journal.records = deque(journal.records), []
        self._waiting: list[Record] = []
        self.count = 0 if checkpoint is None else checkpoint.records
        self._error = SessionError if checkpoint is None else CheckpointError

    def add(self, record: Record) -> None:
        """The next record.

        Raises
        ------
        SessionError
            When the session recorded another one: its state was not rebuilt. A CheckpointError
            where the state came from a checkpoint.
        """
        record = plain(record)
        if self._known:
            known = self._known.popleft()
            if known != record:
                raise self._error(
                    f"{self.journal.path}: record {self.count + 1} was {known}, the replay gives"
                    f" {record}. The session cannot resume from here: the recipe, a bundle or this"
                    " package changed since it was made, or opened.jsonl lost its end; start a new"
                    " session"
                )
        else:
            self._waiting.append(record)
        self.count += 1

    @property
    def left(self) -> int:
        """Known records that the replay has not reached yet."""
        return len(self._known)

    def flush(self) -> None:
        """Append what waits."""
        waiting, self._waiting = self._waiting, []
        self.journal.append(waiting)

    def close(self) -> None:
        """Close the file."""
        self.journal.close()


def plain(record: Mapping[str, Any]) -> Record:
    """A record as JSON holds it: NaN as null, numpy numbers as numbers."""
    made: Record = {}
    for name, value in record.items():
        if type(value) not in _PLAIN:
            if isinstance(value, np.ndarray):
                value = [float(number) for number in value]
            elif isinstance(value, np.generic):
                value = value.item()
        made[name] = value if value == value else None  # NaN alone is not itself
    return made


_PLAIN = (float, str, int, bool)


def read_facts(path: Path) -> SessionFacts:
    """What a session is. Raises SessionError when the folder is none, or its file is damaged."""
    file = path / SESSION_FILE
    if not file.exists():
        raise SessionError(
            f"{path} holds no paper session ({SESSION_FILE} is missing): `cppn-bt paper` makes one"
        )
    with reading(file, "session", SessionError, "Take it from a copy, or start a new session"):
        values = read_object(file)
        if values.get("format") != FORMAT:
            raise SessionError(f"{path} was written by another version: expected format {FORMAT}")
        values = unsealed(values)
        del values["format"]
        facts = SessionFacts(**{**values, "symbols": tuple(values["symbols"])})
        _check_facts(facts)
    return facts


def _check_facts(facts: SessionFacts) -> None:
    """Raises what `reading` turns into a SessionError, when a value is of another kind."""
    require_int(facts.first_ms)
    require_int(facts.created_ms)
    if facts.interval_ms <= 0 or not facts.symbols:
        raise ValueError("it names no symbol or no interval")
    if not all(isinstance(symbol, str) for symbol in facts.symbols):
        raise TypeError(f"symbols are texts, found {facts.symbols}")
    for name in ("cash", "fee_bps", "slippage_bps"):
        if not math.isfinite(facts.broker[name]):
            raise ValueError(f"broker.{name} is {facts.broker[name]}")
    for part in (facts.sources, facts.made_by, *facts.filters):
        if not isinstance(part, Mapping):
            raise TypeError(f"expected an object, found {part!r}")


def session_lock(path: Path) -> FileLock:
    """The right to write into a session's folder; taken before looking at what is there.

    Raises
    ------
    SessionError
        When another process has it, or the folder cannot be made.
    """
    advice = "stop that one first, or give this one another --name"
    return FileLock.take(path / LOCK_FILE, f"the session {path}", SessionError, advice)


def match_rounds(
    rounds: Sequence[Mapping[str, Any]], opened: Sequence[Mapping[str, Any]], path: Path
) -> tuple[list[tuple[Round, frozenset[str]]], list[Round]]:
    """Rounds that were shown, with what was allowed, and rounds that were not.

    Raises
    ------
    SessionError
        When the records contradict each other.
    """
    if len(opened) > len(rounds):
        raise SessionError(
            f"{path} says that {len(opened)} rounds were shown, but holds only {len(rounds)}:"
            " rounds.jsonl was altered"
        )
    past = []
    for record, shown in zip(rounds, opened, strict=False):
        if record["t"] != shown["t"]:
            raise SessionError(
                f"{path}: round {shown['i']} closes at {ms_to_utc(record['t'])}, but"
                f" {ms_to_utc(shown['t'])} was shown: rounds.jsonl or opened.jsonl was altered"
            )
        past.append((round_from_record(record), frozenset(shown["a"])))
    return past, [round_from_record(record) for record in rounds[len(opened) :]]
