"""The trial ledger: every configuration that was ever judged, so that luck can be discounted.

One JSON line per trial in `trials.jsonl` beside a recipe's results, appended under a lock and
synced; a line torn by a crash is skipped when reading. The deflated Sharpe ratio takes its number
of trials, and the variance of their Sharpe ratios, from here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.evaluation.statistics import deflated_sharpe, probabilistic_sharpe
from cppncripto_strategy.foreign import reading, writing
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.results import to_plain

logger = logging.getLogger(__name__)

LEDGER_FILE = "trials.jsonl"
# A line takes milliseconds to append.
LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Trial:
    """One judged configuration.

    Parameters
    ----------
    fingerprint : hash of settings, seed and data; the same trial run again is not a new one.
    kind : "run", or the experiment that tried it ("e1" ...).
    name : recipe, or cell of the experiment.
    seed : the run's seed.
    daily_sharpe : mean over deviation of daily returns, not annualised; None where undefined.
    days : days judged.
    folder : where the results lie, relative to the ledger where possible.
    recorded : UTC time of the entry, ISO 8601.
    """

    fingerprint: str
    kind: str
    name: str
    seed: int
    daily_sharpe: float | None
    days: int
    folder: str = ""
    recorded: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def fingerprint(settings: Mapping[str, Any], seed: int, data_hash: str) -> str:
    """Hash of what makes two trials the same: settings, seed and data."""
    content = json.dumps([to_plain(settings), seed, data_hash], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:32]


class TrialLedger:
    """The append-only file of trials at `path`; safe with several processes writing."""

    def __init__(self, path: Path) -> None:
        self.path = path / LEDGER_FILE if path.suffix != ".jsonl" else path

    def append(self, trial: Trial) -> None:
        """Add one line and sync it; a half-written last line is closed off first.

        Raises
        ------
        SourceError
            When the file cannot be written.
        """
        line = json.dumps(to_plain(asdict(trial)), allow_nan=False) + "\n"
        with writing(self.path, SourceError):
            self._append(line)

    def _append(self, line: str) -> None:
        with self._lock(), open(self.path, "a+b") as stream:
            if stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else "\n" + line
            stream.write(line.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())

    def _lock(self) -> FileLock:
        path = self.path.with_name(f".{self.path.name}{LOCK_FILE}")
        return FileLock.take(path, str(self.path), SourceError, "try again", LOCK_TIMEOUT_S)

    def read(self) -> list[Trial]:
        """Every readable trial, in order; [] where there is no ledger yet.

        Raises
        ------
        SourceError
            When the file cannot be read at all; a line that cannot is skipped, with a warning.
        """
        if not self.path.exists():
            return []
        with reading(self.path, "trial ledger", SourceError):
            lines = self.path.read_text("utf-8", errors="replace").split("\n")
        return [trial for line in lines if (trial := self._parse(line)) is not None]

    def distinct(self) -> list[Trial]:
        """The last entry of each fingerprint: what counts as a trial."""
        return list({trial.fingerprint: trial for trial in self.read()}.values())

    def _parse(self, line: str) -> Trial | None:
        if not line.strip():
            return None
        try:
            with reading(self.path, "trial", SourceError):
                entry = json.loads(line)
                return _checked(Trial(**{key: entry[key] for key in _FIELDS}))
        except SourceError:
            logger.warning("%s has an unreadable line, skipped: %.60r", self.path, line)
            return None


def _checked(trial: Trial) -> Trial:
    """The trial, when its values are of the types that are counted. Raises TypeError, or
    OverflowError where the Sharpe ratio is larger than any float."""
    sharpe = trial.daily_sharpe
    texts = all(isinstance(v, str) for v in (trial.fingerprint, trial.kind, trial.name))
    numbers = all(type(v) is int for v in (trial.seed, trial.days))
    if not (texts and numbers and (sharpe is None or isinstance(sharpe, int | float))):
        raise TypeError(f"not a trial: {trial}")
    if sharpe is not None:
        float(sharpe)
    return trial


_FIELDS = tuple(item.name for item in fields(Trial))


def discounted_sharpe(daily_returns: ArrayLike, ledger: TrialLedger) -> dict[str, Any]:
    """How sure the Sharpe ratio is, before and after counting every trial in the ledger.

    Append the run itself first. With one trial the deflated value equals the plain one.

    Returns
    -------
    Mapping with trials, probabilistic_sharpe, deflated_sharpe; None where undefined.
    """
    trials = ledger.distinct()
    sharpes = [t.daily_sharpe for t in trials if t.daily_sharpe is not None]
    variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    count = max(len(trials), 1)
    return {
        "trials": count,
        "probabilistic_sharpe": probabilistic_sharpe(daily_returns),
        "deflated_sharpe": deflated_sharpe(daily_returns, count, variance)
        if math.isfinite(variance)
        else None,
    }
