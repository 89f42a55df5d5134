"""All arms of an experiment at once: does any beat the benchmark, or cash, and which may be best?

A comparison of two arms says nothing of how many arms were tried; here all are counted. Accounts
are compared by their daily returns. On real candles every seed saw the same days, so an arm is the
mean over its seeds; on planted markets every seed is another market, so an arm's days are those of
all seeds, one after the other.

Left out: the tests themselves (`evaluation.superiority`), and hits (`comparison`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.superiority import (
    CASH,
    SIZE,
    ConfidenceSet,
    Superiority,
    confidence_set,
    superiority,
)
from cppncripto_strategy.evaluation.undefined import Refusal
from cppncripto_strategy.results import to_plain

Curves = Mapping[str, Sequence["pd.Series[float]"]]
"""Arm -> per seed, daily returns indexed by day."""


@dataclass(frozen=True)
class Family:
    """The arms of an experiment, compared all at once; a test that was not made is a Refusal.

    Parameters
    ----------
    against_benchmark : the other arms against the second arm of the experiment's main pair, or
        against what nothing known is worth.
    against_cash : all arms against an account in cash; None where arms are no accounts.
    best : the arms among which the best one is.
    """

    benchmark: str
    against_benchmark: Superiority | Refusal
    against_cash: Superiority | Refusal | None
    best: ConfidenceSet | Refusal
    arms: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Plain nested values for JSON; a test that was not made has its `reason`."""
        return {"words": self.words(), **to_plain(asdict(self))}

    def words(self) -> list[str]:
        """What was found, in sentences."""
        sentences = [_beats(self.against_benchmark, self.benchmark)]
        if self.against_cash is not None:
            sentences.append(_beats(self.against_cash, CASH))
            if _found(self.against_benchmark) and not _found(self.against_cash):
                sentences.append("An arm that beats the benchmark and not cash only loses less.")
        return [*sentences, _best(self.best, self.arms)]


def arm_family(curves: Curves, benchmark: str, shared: bool, seed: int = 0) -> Family:
    """Compare the accounts of all arms.

    Parameters
    ----------
    benchmark : name of the arm that the others are measured against.
    shared : whether all seeds saw the same candles. seed : of the resampling of days.
    """
    names = tuple(curves)
    rows = _rows(curves, shared)
    base = names.index(benchmark)
    others = [k for k in range(len(names)) if k != base]
    return Family(
        benchmark=benchmark,
        against_benchmark=superiority(
            rows[others], [names[k] for k in others], rows[base], benchmark, seed
        ),
        against_cash=superiority(rows, names, np.zeros(rows.shape[1]), CASH, seed),
        best=confidence_set(rows, names, seed),
        arms=names,
    )


def _rows(curves: Curves, shared: bool) -> FloatArray:
    """Daily returns (arms, days) on the days that all arms have."""
    if shared:
        every = pd.concat([daily for seeds in curves.values() for daily in seeds], axis=1)
        table = every.dropna().to_numpy(np.float64)  # (days, arms x seeds)
        means: FloatArray = table.reshape(len(table), len(curves), -1).mean(axis=2).T
        return means
    by_seed = [
        pd.concat(list(arms), axis=1, join="inner").dropna().to_numpy(np.float64).T
        for arms in zip(*curves.values(), strict=True)
    ]
    return np.concatenate(by_seed, axis=1)


def _found(test: Superiority | Refusal) -> bool:
    return isinstance(test, Superiority) and test.found


def _beats(test: Superiority | Refusal, benchmark: str) -> str:
    """Whether any arm beats a benchmark, all of them counted."""
    if isinstance(test, Refusal):
        return f"Against {benchmark} nothing is said: {test.reason}."
    counted = f"SPA p = {test.p_value:.2g}, {test.days:,} days, {len(test.compared)} compared"
    if not test.found:
        return f"No arm is shown to do better than {benchmark} ({counted})."
    named = _and(test.superior) or f"{test.best}, though StepM names none,"
    return f"Better than {benchmark}, with all arms counted: {named} ({counted})."


def _best(test: ConfidenceSet | Refusal, arms: Sequence[str]) -> str:
    """Which arms may be the best one."""
    if isinstance(test, Refusal):
        return f"Which arm is best is not said: {test.reason}."
    sure = f"with {100 * (1 - SIZE):g} % confidence"
    if len(test.included) == 1:
        return f"The best of these arms is {test.included[0]}, {sure}."
    if len(test.included) == len(arms):
        return f"Any of the {len(arms)} arms may be the best one ({sure} none is left out)."
    return f"The best of these arms is among {_and(test.included)}, {sure}."


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + "".join(names[-1:])
