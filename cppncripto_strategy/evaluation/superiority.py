"""Is any of several accounts better than another, with the number of them counted?

Whoever compares ten arms with one finds a better one by luck. Three answers, all on the daily
returns of the same days, resampled in blocks: SPA says whether any arm beats the benchmark at all,
StepM which ones do, and the model confidence set which arms cannot be
distinguished from the best.

Losses are negative daily returns, so an account that trades less on a market that gives nothing
loses less, and "beats" one that trades more: an arm has to beat cash, too, before it earns.

The resampling is arch's. Its SPA does not use its `studentize` (arch 8.0: the p-values are the same
with and without), so differences are divided by their own long-run deviation here, as Hansen 2005
has it; without that, one wild arm hides a good one. Its StepM fails where all accounts are better,
so its steps are taken here. Its model confidence set fails where two accounts are the same: those
stand in it as one.

Sources: Hansen 2005 (SPA, consistent p-value); Romano & Wolf 2005 (StepM); Hansen, Lunde & Nason
2011 (model confidence set); Politis & Romano 1994 (stationary bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.undefined import Refusal

# With fewer days, blocks of them say little about how far apart two means are.
MIN_TEST_DAYS = 30
DEFAULT_RESAMPLES = 1_000
SIZE = 0.05
CASH = "cash"
_LEAST_DEVIATION = 1e-12


@dataclass(frozen=True)
class Superiority:
    """Several accounts against one benchmark.

    Parameters
    ----------
    benchmark : its name. days : that all of them share.
    compared : names of the accounts; those that are the benchmark's own account are not among them.
    p_value : of SPA (consistent): probability that luck alone makes the best of equals or worse
        look this much better than the benchmark.
    superior : accounts that StepM finds better, at most `SIZE` of such findings wrong.
    best : the account with the highest mean return over its deviation, against the benchmark.
    """

    benchmark: str
    days: int
    compared: tuple[str, ...]
    p_value: float
    superior: tuple[str, ...]
    best: str

    @property
    def found(self) -> bool:
        """Whether any account is better, at `SIZE`."""
        return self.p_value <= SIZE


@dataclass(frozen=True)
class ConfidenceSet:
    """The accounts among which the best one is, with a confidence of 1 - `SIZE`.

    Parameters
    ----------
    included : names, in the order given. p_values : of every account, in the order given: the
        smallest size at which it would leave the set.
    """

    days: int
    included: tuple[str, ...]
    p_values: tuple[float, ...]


def superiority(
    returns: ArrayLike,
    names: Sequence[str],
    benchmark: ArrayLike,
    benchmark_name: str,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
) -> Superiority | Refusal:
    """Whether any account beats the benchmark (SPA), and which ones (StepM).

    Parameters
    ----------
    returns : float array (accounts, days) of daily returns, the same days in every row; finite.
    names : of the accounts. benchmark : float array (days,); zeros are cash.
    """
    rows = np.atleast_2d(np.asarray(returns, dtype=np.float64))
    gains = (rows - np.asarray(benchmark, dtype=np.float64)).T  # (days, accounts)
    refused = _refusal(gains)
    if refused is not None:
        return refused
    other = gains.std(axis=0) > _LEAST_DEVIATION
    if not other.any():
        return Refusal(f"no account differs from {benchmark_name}: there is nothing to compare")
    scaled = gains[:, other] / _long_run_deviation(gains[:, other], _block(len(gains)))
    compared = tuple(name for name, differs in zip(names, other, strict=True) if differs)
    p_value, better = _spa_and_stepm(scaled, seed, resamples)
    return Superiority(
        benchmark=benchmark_name,
        days=len(gains),
        compared=compared,
        p_value=p_value,
        superior=tuple(compared[k] for k in better),
        best=compared[int(scaled.mean(axis=0).argmax())],
    )


def _spa_and_stepm(scaled: FloatArray, seed: int, resamples: int) -> tuple[float, list[int]]:
    """Consistent p-value, never 0, and the numbers of the columns (days, K) that are better."""
    from arch.bootstrap import SPA

    days, accounts = scaled.shape
    test = SPA(np.zeros(days), -scaled, block_size=_block(days), reps=resamples, seed=seed)
    test.compute()
    share = float(test.pvalues["consistent"])
    better: list[int] = []
    while found := [int(k) for k in test.better_models(SIZE)]:
        better += found
        if len(better) == accounts:
            break
        test.subset(~np.isin(np.arange(accounts), better))  # StepM: once more, without them
        test.compute()
    return (share * resamples + 1) / (resamples + 1), sorted(better)


def confidence_set(
    returns: ArrayLike, names: Sequence[str], seed: int = 0, resamples: int = DEFAULT_RESAMPLES
) -> ConfidenceSet | Refusal:
    """The accounts that cannot be distinguished from the best one.

    Parameters
    ----------
    returns : float array (accounts, days), as `superiority` takes them. names : of the accounts.
    """
    rows = np.atleast_2d(np.asarray(returns, dtype=np.float64))
    refused = _refusal(rows.T)
    if refused is not None:
        return refused
    _, first, group = np.unique(rows.round(12), axis=0, return_index=True, return_inverse=True)
    if len(first) < 2:
        return Refusal("all accounts are the same: there is no best one among them")
    p_values = _set_p_values(rows[first].T, seed, resamples)[group.ravel()]
    kept = tuple(name for name, p in zip(names, p_values, strict=True) if p > SIZE)
    return ConfidenceSet(rows.shape[1], kept, tuple(float(p) for p in p_values))


def _set_p_values(columns: FloatArray, seed: int, resamples: int) -> FloatArray:
    """p-value (accounts,) of each different account (days, accounts)."""
    from arch.bootstrap import MCS

    test = MCS(-columns, SIZE, reps=resamples, block_size=_block(len(columns)), seed=seed)
    test.compute()
    found = test.pvalues["Pvalue"]
    return np.array([float(found.loc[k]) for k in range(columns.shape[1])])


def _refusal(columns: FloatArray) -> Refusal | None:
    """Why accounts (days, accounts) cannot be compared, or None."""
    days, accounts = columns.shape
    if days < MIN_TEST_DAYS:
        return Refusal(
            f"{days} common days are too few to compare accounts: it takes {MIN_TEST_DAYS}"
        )
    if not accounts:
        return Refusal("there is no account to compare")
    if not np.isfinite(columns).all():
        return Refusal("a daily return is not a finite number: the account lost everything")
    return None


def _block(days: int) -> int:
    """Mean length of resampled blocks in days: the rule of `statistics.bootstrap_days`."""
    return max(1, round(math.cbrt(days)))


def _long_run_deviation(columns: FloatArray, block: int) -> FloatArray:
    """Deviation (K,) of sqrt(days) x mean under the stationary bootstrap, of columns (days, K).

    Source: Politis & Romano 1994, eq. 4. Where the estimate is not positive, the plain deviation.
    """
    days, centred = len(columns), columns - columns.mean(axis=0)
    plain: FloatArray = (centred**2).mean(axis=0)
    variance, keep = plain, 1 - 1 / block
    for lag in range(1, days):
        weight = (1 - lag / days) * keep**lag + lag / days * keep ** (days - lag)
        if weight > 1e-9:
            variance = variance + 2 * weight * (centred[:-lag] * centred[lag:]).sum(axis=0) / days
    deviation: FloatArray = np.sqrt(np.where(variance > 1e-3 * plain, variance, plain))
    return deviation
