"""A session's whole state at one round, so that a restart replays a day and not a year.

A checkpoint is one file, `checkpoint.bin` (`packing`: numbers and arrays, a SHA-256, no code). It
says how many rounds lie behind it, where each journal goes on from there, and the strategy's
`snapshot`. It is a convenience, never a source: everything in it follows from the journals, one
that does not fit them is not used, and a session without one replays them all.

It is not written by the running session but by a replay of what the session recorded (`replay`), in
another process: of the day since the checkpoint before, from that checkpoint, so that each of them
proves its predecessor. Left out: when that happens (`daily`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cppncripto_strategy import atomic
from cppncripto_strategy.errors import CheckpointError
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.paper.packing import pack, unpack

CHECKPOINT_FILE = "checkpoint.bin"
FORMAT = 3  # 2: with the evidence; 3: rings by the time axis, positions in their order
# Bytes before the place in a journal by which the journal is known again.
TAIL_BYTES = 4096
# What a session is: changed by hand, it is another session.
_BOUND_TO = ("session.json", "recipe.toml")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a journal goes on behind a checkpoint.

    Parameters
    ----------
    offset : byte at which the next record begins.
    records : records before it.
    tail : SHA-256 of up to `TAIL_BYTES` bytes before it, in hexadecimal digits.
    """

    offset: int
    records: int
    tail: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A session's state after a number of rounds.

    Parameters
    ----------
    rounds : rounds that were shown before it.
    close_ms : closing time of the last of them, UTC ms.
    places : journal's name (`rounds`, `opened`, `decisions`, ...) -> where it goes on.
    frontier_ms : closing time of the newest round that was no catching up, UTC ms.
    following : symbol -> open time of its next candle, UTC ms.
    bound_to : SHA-256 over the files that say what the session is.
    state : `PaperStrategy.snapshot`.
    """

    rounds: int
    close_ms: int
    places: Mapping[str, Place]
    frontier_ms: int
    following: Mapping[str, int]
    bound_to: str
    state: dict[str, Any]

    def save(self, session: Path) -> None:
        """Replace the session's checkpoint."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["places"] = {name: asdict(place) for name, place in self.places.items()}
        atomic.write_bytes(session / CHECKPOINT_FILE, pack({"format": FORMAT, **values}))

    @classmethod
    def load(cls, session: Path) -> Checkpoint | None:
        """The session's checkpoint; None when there is none.

        Raises
        ------
        CheckpointError
            When it is damaged, of another format or session, or does not lie on its journals.
        """
        path = session / CHECKPOINT_FILE
        if not path.exists():
            return None
        with reading(path, "checkpoint", CheckpointError):
            values = unpack(path.read_bytes())
            if values.pop("format") != FORMAT:
                raise ValueError(f"it was written by another version: expected format {FORMAT}")
            places = {name: Place(**place) for name, place in values.pop("places").items()}
            found = cls(places=places, **values)
        if found.bound_to != identity(session):
            raise CheckpointError(f"{path} belongs to another session, or its recipe was changed")
        for name, place in places.items():
            if place.tail != tail_of(session / f"{name}.jsonl", place.offset):
                raise CheckpointError(
                    f"{session / name}.jsonl is not the journal that {path} goes on from: the bytes"
                    f" before {place.offset:,} are others"
                )
        return found


def identity(session: Path) -> str:
    """SHA-256 over what a session is: its facts and its recipe."""
    digest = hashlib.sha256()
    for name in _BOUND_TO:
        path = session / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def tail_of(journal: Path, offset: int) -> str:
    """SHA-256 of the bytes before a place in a journal; of nothing, where it is shorter."""
    start = max(0, offset - TAIL_BYTES)
    if not journal.exists() or os.path.getsize(journal) < offset:
        return hashlib.sha256(b"too short").hexdigest()
    with journal.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(offset - start)).hexdigest()


def advanced(
    frontier_ms: int, following: Mapping[str, int], rounds: Sequence[Round]
) -> tuple[int, dict[str, int]]:
    """Frontier and each symbol's next open time (UTC ms) after some more rounds."""
    after = dict(following)
    for moment in rounds:
        for symbol in (*moment.candles, *moment.gaps):
            after[symbol] = moment.close_ms
        if not moment.catch_up:
            frontier_ms = max(frontier_ms, moment.close_ms)
    return frontier_ms, after
