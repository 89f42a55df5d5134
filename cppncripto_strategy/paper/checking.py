"""The next checkpoint of a session: a replay of what it recorded, which must give all of it again.

The replay begins at the checkpoint before and ends at a given round. Every decision, fill,
embedding and equity on the way must be the one that was recorded, to the bit, and the state at its
end the one that the session itself had, by its SHA-256. So a checkpoint is used only after its
predecessor has proved to lead to where the session really was.

Left out: when it is made, and in which process (`day_reports`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import CheckpointError
from cppncripto_strategy.feeds.live.journal import line_of, read_lines
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.paper.checkpoint import Checkpoint, Place, advanced, identity, tail_of
from cppncripto_strategy.paper.packing import digest_of
from cppncripto_strategy.paper.recorder import PaperStrategy, Recorder
from cppncripto_strategy.paper.rule_changes import RuleChange, read_rule_changes
from cppncripto_strategy.paper.session import (
    DERIVED,
    Record,
    SessionFacts,
    Sink,
    match_rounds,
    plain,
    read_facts,
)
from cppncripto_strategy.paper.trader import paper_cerebro, recorded_rounds


class _Journal:
    """A recorded journal from a checkpoint on, read alongside the replay."""

    def __init__(self, path: Path, before: Checkpoint | None) -> None:
        place = None if before is None else before.places[path.stem]
        self.path = path
        self.offset, self.records = (0, 0) if place is None else (place.offset, place.records)
        self._coming = deque(read_lines(path, self.offset))

    def take(self, count: int) -> list[Record]:
        """The next records, fewer where there are fewer."""
        taken = [self._coming.popleft() for _ in range(min(count, len(self._coming)))]
        self.offset += sum(len(line_of(record)) for record in taken)
        self.records += len(taken)
        return taken

    def add(self, record: Record) -> None:
        """The replay's next record. Raises CheckpointError when another one was recorded."""
        known, given = self.take(1), plain(record)
        if known != [given]:
            found = known[0] if known else "nothing"
            raise CheckpointError(
                f"{self.path}: record {self.records} is {found}, the replay gives {given}"
            )

    def place(self) -> Place:
        """Where it goes on."""
        return place_of(self.path, self.offset, self.records)


def place_of(journal: Path, offset: int, records: int) -> Place:
    """The place in a journal behind so many bytes and records."""
    return Place(offset, records, tail_of(journal, offset))


def next_checkpoint(
    session: Path, strategy: Mapping[str, Any], rounds: int, digest: str, whole: bool = False
) -> Checkpoint:
    """Replay a session from its checkpoint up to a round.

    Parameters
    ----------
    session : its folder; it may be running.
    strategy : the options it runs with.
    rounds : rounds that the session had shown.
    digest : `digest_of` its state then.
    whole : replay from the beginning, whatever checkpoint there is.

    Raises
    ------
    CheckpointError
        When the replay gives anything else than the session.
    """
    facts = read_facts(session)
    before = None if whole else Checkpoint.load(session)
    begun = 0 if before is None else before.rounds
    shown, opened = (_Journal(session / f"{n}.jsonl", before) for n in ("rounds", "opened"))
    with reading(session, "session", CheckpointError):
        count = rounds - begun
        past, _ = match_rounds(shown.take(count), opened.take(count), session)
    if len(past) != count or not past:
        raise CheckpointError(
            f"{session}: {rounds} rounds were shown, {begun + len(past)} are recorded, and the"
            f" checkpoint lies behind round {begun}"
        )
    derived = {name: _Journal(session / f"{name}.jsonl", before) for name in DERIVED}
    resume = None if before is None else before.state
    state = _replayed(facts, past, resume, read_rule_changes(session), derived, strategy)
    if digest_of(state) != digest:
        raise CheckpointError(
            f"{session}: after round {rounds} the replay is in another state than the session was"
        )
    first_ms = facts.first_ms
    frontier, following = first_ms, dict.fromkeys(facts.symbols, first_ms)
    if before is not None:
        frontier, following = before.frontier_ms, dict(before.following)
    frontier, following = advanced(frontier, following, [moment for moment, _ in past])
    journals = {"rounds": shown, "opened": opened, **derived}
    return Checkpoint(
        rounds=rounds,
        close_ms=past[-1][0].close_ms,
        places={name: journal.place() for name, journal in journals.items()},
        frontier_ms=frontier,
        following=following,
        bound_to=identity(session),
        state=state,
    )


def _replayed(
    facts: SessionFacts,
    past: Sequence[tuple[Round, frozenset[str]]],
    resume: dict[str, Any] | None,
    changes: Sequence[RuleChange],
    derived: Mapping[str, Sink],
    strategy: Mapping[str, Any],
) -> dict[str, Any]:
    """The state after the last of these rounds; what follows from them goes to `derived`."""
    source = recorded_rounds(past, resume)
    states: list[dict[str, Any]] = []

    def keep(playing: PaperStrategy) -> None:
        if source.finished:  # now: at the end of the run what still waits is cancelled
            states.append(playing.snapshot())

    cerebro = paper_cerebro(
        source, facts.symbols, facts.interval_ms, facts.broker, facts.filters, changes
    )
    recorder = Recorder(derived, source, after_round=keep)
    cerebro.addstrategy(
        PaperStrategy, recorder=recorder, resume=resume, keep_rows=False, **strategy
    )
    cerebro.run()
    return states[0]
