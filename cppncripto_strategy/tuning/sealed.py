"""The sealed days: opened for one chosen recipe, and every opening written down.

The ledger, `openings.jsonl`, lies in the recipe's home and not in the study's folder: another study
that opens the same days looks at them a second time, and says so. Left out: what else may have seen
these days (`run` trades the recipe's whole span).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.foreign import reading, writing
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.results import to_plain
from cppncripto_strategy.tuning.evaluation import Ground
from cppncripto_strategy.tuning.measures import StepResult, all_values
from cppncripto_strategy.tuning.plan import Plan

log = logging.getLogger(__name__)

LEDGER_FILE = "openings.jsonl"
_LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Opening:
    """One look at sealed days.

    Parameters
    ----------
    symbols, interval : of the candles that were looked at.
    start_ms, end_ms : the sealed span, UTC ms.
    study : folder of the study that opened it.
    trial : number of the chosen trial, -1 for the recipe as it was.
    changes : what the chosen recipe changes.
    earlier : how many openings of some of these days the ledger held before this one.
    opened : UTC time, ISO 8601.
    """

    symbols: tuple[str, ...]
    interval: str
    start_ms: int
    end_ms: int
    study: str
    trial: int
    changes: dict[str, Any]
    earlier: int
    opened: str

    @property
    def days(self) -> str:
        """The span in words."""
        return f"{ms_to_date(self.start_ms)} to {ms_to_date(self.end_ms)}"

    def sentence(self) -> str:
        """What a reader must know of this opening."""
        if self.earlier == 0:
            return f"The sealed days, {self.days}, were opened once, for this recipe."
        times = "once" if self.earlier == 1 else f"{self.earlier} times"
        return (
            f"The sealed days, {self.days}, had been opened {times} before: this is opening number"
            f" {self.earlier + 1}, and its result has been chosen with these days in sight."
        )


class OpeningLedger:
    """The append-only file of openings at `path`; safe with several processes writing."""

    def __init__(self, home: Path) -> None:
        self.path = home / LEDGER_FILE

    def read(self) -> list[Opening]:
        """Every opening, in order; [] without a ledger.

        Raises
        ------
        SourceError
            When a line cannot be read: an opening that is forgotten would make the next one the
            first.
        """
        if not self.path.exists():
            return []
        with reading(self.path, "ledger of openings", SourceError, "Repair that line by hand"):
            lines = self.path.read_text("utf-8").splitlines()
            return [_parsed(line) for line in lines if line.strip()]

    def record(self, plan: Plan, study: Path, trial: int, changes: Mapping[str, Any]) -> Opening:
        """Write an opening down, before anything is read.

        Raises
        ------
        SourceError
            When the ledger cannot be read or written: then nothing may be opened.
        """
        path = self.path.with_name(f".{self.path.name}{LOCK_FILE}")
        with (
            FileLock.take(path, str(self.path), SourceError, "try again", _LOCK_TIMEOUT_S),
            writing(self.path, SourceError),
        ):
            symbols = tuple(plan.recipe["symbols"])
            opening = Opening(
                symbols=symbols,
                interval=str(plan.recipe["interval"]),
                start_ms=plan.sealed.start_ms,
                end_ms=plan.sealed.end_ms,
                study=str(study),
                trial=trial,
                changes=dict(changes),
                earlier=sum(_overlaps(o, plan, symbols) for o in self.read()),
                opened=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            self._append(json.dumps(to_plain(asdict(opening))) + "\n")
        return opening

    def _append(self, line: str) -> None:
        with open(self.path, "ab") as stream:
            stream.write(line.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())


def _parsed(line: str) -> Opening:
    entry = json.loads(line)
    opening = Opening(**{**entry, "symbols": tuple(entry["symbols"])})
    if not all(type(v) is int for v in (opening.start_ms, opening.end_ms, opening.earlier)):
        raise TypeError(f"not an opening: {line[:80]!r}")
    return opening


def _overlaps(opening: Opening, plan: Plan, symbols: tuple[str, ...]) -> bool:
    """Whether an earlier opening saw some of the plan's sealed candles."""
    days = opening.start_ms < plan.sealed.end_ms and plan.sealed.start_ms < opening.end_ms
    return days and bool(set(opening.symbols) & set(symbols))


@dataclass(frozen=True)
class SealedResult:
    """What sealed days showed.

    Parameters
    ----------
    opening : the line of the ledger.
    chosen, untuned : one step per seed of the networks, for the chosen recipe and for the recipe as
        it was.
    """

    opening: Opening
    chosen: list[StepResult]
    untuned: list[StepResult]

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for a file."""
        parts = {"chosen": self.chosen, "untuned": self.untuned}
        return {
            "opening": to_plain(asdict(self.opening)),
            "sentence": self.opening.sentence(),
            **{name: [step.to_plain() for step in steps] for name, steps in parts.items()},
            "measures": {name: all_values(steps) for name, steps in parts.items()},
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> SealedResult:
        """What `to_plain` gave."""
        steps = (
            [StepResult.from_plain(step) for step in values[name]] for name in ("chosen", "untuned")
        )
        return cls(_parsed(json.dumps(values["opening"])), *steps)


def open_sealed(
    plan: Plan, ledger: OpeningLedger, study: Path, trial: int, changes: Mapping[str, Any]
) -> SealedResult:
    """Trade the sealed days with the chosen recipe and with the recipe as it was.

    Raises
    ------
    CppnError
        When the ledger cannot be written, or a recipe cannot be trained there.
    """
    opening = ledger.record(plan, study, trial, changes)
    if opening.earlier:
        log.warning("%s", opening.sentence())
    ground = Ground(plan, plan.whole_market())
    seeds = range(plan.search.seeds)
    runs = ([ground.run(c, plan.sealed, 0, seed) for seed in seeds] for c in (changes, {}))
    return SealedResult(opening, *runs)
