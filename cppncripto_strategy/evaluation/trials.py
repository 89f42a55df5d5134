"""The trial ledger: every configuration that was ever judged, so that luck can be discounted.

One JSON line per trial in `trials.jsonl` beside a recipe's results, appended under a lock and
synced; a line torn by a crash is skipped when reading. The deflated Sharpe ratio takes its number
of trials, and the variance of their Sharpe ratios, from here; a trial's daily returns are kept with
it, because only they say how much trials resemble each other, and results folders get deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.evaluation.many_trials import (
    TrialCount,
    count_trials,
    minimum_backtest_days,
)
from cppncripto_strategy.evaluation.returns import daily_sharpe, sharpe_ratio
from cppncripto_strategy.evaluation.statistics import deflated_sharpe, probabilistic_sharpe
from cppncripto_strategy.foreign import reading, writing
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.results import to_plain

logger = logging.getLogger(__name__)

LEDGER_FILE = "trials.jsonl"
# A line takes milliseconds to append.
LOCK_TIMEOUT_S = 30.0
# Digits after the point of a kept daily return: a hundredth of a bps, so a year is 4 kB.
RETURN_DIGITS = 6
_EPOCH, _LAST_DAY = pd.Timestamp(0), 100_000


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
    first_day : number of the first of the days judged, since 1970-01-01 UTC.
    returns : simple return of each of them, rounded; () where they are unknown, as in entries made
        before they were kept.
    """

    fingerprint: str
    kind: str
    name: str
    seed: int
    daily_sharpe: float | None
    days: int
    folder: str = ""
    recorded: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    first_day: int = 0
    returns: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, mark: str, kind: str, name: str, seed: int, daily: pd.Series[float], folder: str
    ) -> Trial:
        """The trial that left these daily returns, as `returns.daily_returns` gives them.

        `mark` is its fingerprint. Returns that are not all finite (an account that lost everything)
        are not kept.
        """
        values = daily.to_numpy(np.float64)
        ratio, days = daily_sharpe(values), len(values)
        kept = values if days and np.isfinite(values).all() else np.zeros(0)
        first = (pd.DatetimeIndex(daily.index)[0] - _EPOCH).days if len(kept) else 0
        returns = tuple(kept.round(RETURN_DIGITS).tolist())
        return cls(mark, kind, name, seed, ratio, days, folder, first_day=first, returns=returns)


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
                return _checked(Trial(**_fields_of(entry)))
        except SourceError:
            logger.warning("%s has an unreadable line, skipped: %.60r", self.path, line)
            return None


def _fields_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A trial's fields in an entry; the first entries have no returns. Raises KeyError."""
    values = {key: entry[key] for key in _FIELDS}
    return values | {"first_day": entry.get("first_day", 0), "returns": entry.get("returns", ())}


def _checked(trial: Trial) -> Trial:
    """The trial, when its values are of the types that are counted. Raises TypeError, or
    OverflowError where the Sharpe ratio or a return is larger than any float."""
    sharpe = trial.daily_sharpe
    texts = all(isinstance(v, str) for v in (trial.fingerprint, trial.kind, trial.name))
    numbers = all(type(v) is int for v in (trial.seed, trial.days, trial.first_day))
    if not (texts and numbers and (sharpe is None or isinstance(sharpe, int | float))):
        raise TypeError(f"not a trial: {trial}")
    if sharpe is not None:
        float(sharpe)
    if not all(type(v) in (int, float) for v in trial.returns):
        raise TypeError("daily returns that are not numbers")
    returns = tuple(float(v) for v in trial.returns)
    if not (0 <= trial.first_day < _LAST_DAY and np.isfinite(returns).all()):
        raise TypeError("daily returns of no day, or without bounds")
    return replace(trial, returns=returns)


_FIELDS = tuple(item.name for item in fields(Trial) if item.name not in ("first_day", "returns"))


def trial_returns(trials: Sequence[Trial]) -> FloatArray:
    """Daily returns (trials, days) of those that kept them, on the days of all; NaN elsewhere."""
    known = [trial for trial in trials if trial.returns]
    spans = [trial.first_day + np.arange(len(trial.returns)) for trial in known]
    days = np.unique(np.concatenate([np.zeros(0, np.int64), *spans]))
    table = np.full((len(known), len(days)), np.nan)
    for row, trial, span in zip(table, known, spans, strict=True):
        row[np.searchsorted(days, span)] = trial.returns
    return table


def discounted_sharpe(daily_returns: ArrayLike, ledger: TrialLedger) -> dict[str, Any]:
    """How sure the Sharpe ratio is, before and after counting every trial in the ledger.

    Append the run itself first. With one trial the deflated value equals the plain one.

    Returns
    -------
    Mapping with days, trials, effective_trials and what it is the larger of
    (effective_by_order, effective_by_correlation), mean_correlation, probabilistic_sharpe,
    deflated_sharpe (all trials counted), deflated_sharpe_effective (the effective number of them),
    minimum_backtest_days (with all trials counted); None where undefined.
    """
    daily = np.asarray(daily_returns, dtype=np.float64)
    trials = ledger.distinct()
    sharpes = [trial.daily_sharpe for trial in trials]
    known = [value for value in sharpes if value is not None]
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    count = count_trials(sharpes, trial_returns(trials))
    return {
        "days": len(daily),
        **_counts(count),
        "probabilistic_sharpe": probabilistic_sharpe(daily),
        "deflated_sharpe": deflated_sharpe(daily, count.raw, variance),
        "deflated_sharpe_effective": deflated_sharpe(daily, count.effective, variance),
        "minimum_backtest_days": minimum_backtest_days(count.raw, sharpe_ratio(daily)),
    }


def _counts(count: TrialCount) -> dict[str, Any]:
    return {
        "trials": count.raw,
        "effective_trials": count.effective,
        "effective_by_order": count.by_order,
        "effective_by_correlation": count.by_correlation,
        "mean_correlation": count.correlation,
    }
