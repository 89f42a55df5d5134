"""How many of the trials behind a result were independent, and how long a record they call for.

Trials of one search resemble each other, so that their number overstates how often luck was tried.
Two estimates, neither exact: by the order of the search (a sampler that follows its best trials
leaves Sharpe ratios in runs), and by the correlation of the trials' daily returns. The larger one
counts: a smaller number deflates less, so an estimate that is too small would flatter.

Left out: the deflation itself (`statistics`), and where trials are kept (`trials`).

Sources: Bailey & Lopez de Prado 2014 ("The deflated Sharpe ratio", the implied number of
independent trials); Geyer 1992 (initial positive sequence); Bailey, Borwein, Lopez de Prado & Zhu
2014 ("Pseudo-mathematics and financial charlatanism", minimum backtest length).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.returns import DAYS_PER_YEAR

# Fewer common days say nothing about how two trials move together.
MIN_COMMON_DAYS = 20
# The mean correlation of more trials is taken from as many of them, evenly spaced.
MAX_CORRELATED = 500


@dataclass(frozen=True)
class TrialCount:
    """How many trials there were, and how many of them were independent.

    Parameters
    ----------
    raw : trials that were judged.
    by_order : independent ones by the order of their Sharpe ratios (`order_count`).
    by_correlation : independent ones by the correlation of their returns; None where the returns of
        fewer than two trials are known.
    correlation : mean correlation of daily returns over all pairs of trials; None likewise.
    """

    raw: int
    by_order: int
    by_correlation: int | None = None
    correlation: float | None = None

    @property
    def effective(self) -> int:
        """The larger estimate: the number of independent trials, at least 1."""
        return max(self.by_order, self.by_correlation or 1)


def count_trials(
    sharpes: Sequence[float | None], returns: Sequence[FloatArray] | FloatArray
) -> TrialCount:
    """Count the trials of a search.

    Parameters
    ----------
    sharpes : daily Sharpe ratio of every trial in the order of the search; None where undefined (an
        account that stayed in cash). Such a trial counts as an independent one.
    returns : float arrays (days,) of the trials whose daily returns are known, on the same days;
        NaN on days that a trial did not see.
    """
    raw = max(len(sharpes), 1)
    known = [value for value in sharpes if value is not None]
    by_order = order_count(known) + len(sharpes) - len(known)
    rows = np.asarray(returns, dtype=np.float64)
    correlation = mean_correlation(rows) if rows.ndim == 2 else None
    by_correlation = None if correlation is None else correlated_count(raw, correlation)
    return TrialCount(raw, max(by_order, 1), by_correlation, correlation)


def order_count(sharpes: Sequence[float]) -> int:
    """Independent trials behind Sharpe ratios in the order of the search; 0 for none.

    Their number over the integrated autocorrelation time, computed by purgedcv. It sees runs of
    like trials and is blind to likeness out of order: two recipes tried in turns count in full.
    """
    from purgedcv import effective_n_trials

    return effective_n_trials(np.asarray(sharpes, dtype=np.float64)) if len(sharpes) else 0


def correlated_count(trials: int, correlation: float) -> int:
    """Independent trials among `trials` of this mean correlation: rho + (1 - rho) x trials.

    Rounded up; a negative correlation counts as 0. Source: Bailey & Lopez de Prado 2014.
    """
    rho = min(max(correlation, 0.0), 1.0)
    return max(1, math.ceil(rho + (1 - rho) * trials - 1e-9))


def mean_correlation(returns: ArrayLike) -> float | None:
    """Mean correlation of daily returns over all pairs of trials.

    Parameters
    ----------
    returns : float array (trials, days), NaN on days that a trial did not see. A pair with fewer
        than `MIN_COMMON_DAYS` common days, or one without deviation, counts as uncorrelated. Of
        more than `MAX_CORRELATED` trials as many are taken, evenly spaced.

    Returns
    -------
    None with fewer than two trials.
    """
    rows = np.asarray(returns, dtype=np.float64)
    if len(rows) < 2:
        return None
    if len(rows) > MAX_CORRELATED:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_CORRELATED).round().astype(np.int64)]
    table = _correlations(rows)
    pairs = np.triu_indices(len(rows), 1)
    return float(table[pairs].mean())


def _correlations(rows: FloatArray) -> FloatArray:
    """Pairwise correlations (trials, trials) over common days; 0 where undefined."""
    seen = np.isfinite(rows)
    x, ones = np.where(seen, rows, 0.0), seen.astype(np.float64)
    days = ones @ ones.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (x @ ones.T) / days  # of the first trial over the days of both
        square = ((x * x) @ ones.T) / days - mean * mean
        found = ((x @ x.T) / days - mean * mean.T) / np.sqrt(square * square.T)
    known = (days >= MIN_COMMON_DAYS) & (square > 1e-18) & (square.T > 1e-18)
    return np.where(known, np.clip(found, -1.0, 1.0), 0.0)


def minimum_backtest_days(trials: int, annual_sharpe: float | None) -> float | None:
    """Days of record below which the best of `trials` shows this Sharpe ratio by luck alone.

    Parameters
    ----------
    trials : independent trials; 1 needs no day, because nothing was selected.
    annual_sharpe : the Sharpe ratio that is claimed; None and values of at most 0 give None.

    Source: Bailey, Borwein, Lopez de Prado & Zhu 2014, theorem 1 (expected maximum of `trials`
    normal draws over the Sharpe ratio, squared, in years), computed by purgedcv; 365 days per year.
    """
    from purgedcv import minimum_backtest_length

    if annual_sharpe is None or annual_sharpe <= 0 or not math.isfinite(annual_sharpe):
        return None
    return DAYS_PER_YEAR * float(minimum_backtest_length(max(trials, 1), annual_sharpe))
