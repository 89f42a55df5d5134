"""What a search is worth: its trials' daily returns, handed to `evaluation.search_worth`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.search_worth import SearchReturns, search_worth
from cppncripto_strategy.tuning.found import Found
from cppncripto_strategy.tuning.measures import daily_of


def judge_worth(found: Found) -> dict[str, Any]:
    """The verdict on a finished search as plain values; {} while the sealed days are closed.

    Keys `headline` (the verdict), `detail` (sentences), `edge`, `improved`, and the numbers that
    `search_worth.SearchWorth` names.
    """
    returns = search_returns(found)
    if returns is None:
        return {}
    return search_worth(returns, seed=found.plan.search.seed).to_plain()


def search_returns(found: Found) -> SearchReturns | None:
    """Daily returns of every trial by number, and of the sealed days; None while they are closed.

    A row is NaN on the days of windows that a pruned or failed trial did not reach.
    """
    best, sealed = found.best, found.sealed
    if best is None or sealed is None or not found.untuned:
        return None
    days, untuned = daily_of(found.untuned)
    inner = np.full((max(trial.number for trial in found.trials) + 1, len(days)), np.nan)
    for trial in found.trials:
        inner[trial.number] = _row(*daily_of(trial.steps), days)
    front = [trial.number for trial in found.front if trial.number != best.number]
    return SearchReturns(
        inner=inner,
        chosen=best.number,
        untuned_inner=untuned,
        sealed=daily_of(sealed.chosen)[1],
        untuned_sealed=daily_of(sealed.untuned)[1],
        front=front,
        openings=sealed.opening.earlier + 1,
    )


def _row(known: IntArray, daily: FloatArray, days: IntArray) -> FloatArray:
    row = np.full(len(days), np.nan)
    row[np.searchsorted(days, known)] = daily
    return row
