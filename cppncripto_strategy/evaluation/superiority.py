"""Is any of several accounts better than another, with the number of them counted?

Whoever compares ten arms with one finds a better one by luck. Three answers, all on the daily
returns of the same days, resampled in blocks: SPA says whether any arm beats the benchmark at all,
StepM which ones do, and the model confidence set which arms cannot be
distinguished from the best.

Losses are negative daily returns, so an account that trades less on a market that gives nothing
loses less, and "beats" one that trades more: an arm has to beat cash, too, before it earns.

With few days the bootstrap understates how far means stray: in its textbook form SPA found
something among four equal accounts in 8 % of null runs of 30 days, and the confidence set lost one
of them in 9 % (`benchmarks/selection.py`). Means are therefore shrunk (`_small_sample`), after
which neither did so in more than 4 %.

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
from statistics import NormalDist

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
        look this much better than the benchmark; 1 where none of them was better.
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
    block, number = _block(len(gains)), int(other.sum())
    scaled = gains[:, other] / _long_run_deviation(gains[:, other], block)
    scaled = _shrunk(scaled, _small_sample(len(gains), block, number))
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
    # As in Hansen 2005 the statistic is at least 0; arch leaves that out.
    share = float(test.pvalues["consistent"]) if (scaled.mean(axis=0) > 0).any() else 1.0
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

    days, accounts = columns.shape
    factor = _small_sample(days, _block(days), accounts * (accounts - 1))
    losses = -_shrunk(columns, factor)
    test = MCS(losses, SIZE, reps=resamples, block_size=_block(days), seed=seed)
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


def _weights(days: int, block: int) -> FloatArray:
    """Weights (days - 1,) of the autocovariances at lags 1, 2, ... under the stationary bootstrap.

    Source: Politis & Romano 1994, eq. 4.
    """
    lag, keep = np.arange(1, days), 1 - 1 / block
    weights: FloatArray = (1 - lag / days) * keep**lag + lag / days * keep ** (days - lag)
    return weights


def _small_sample(days: int, block: int, comparisons: int) -> float:
    """Factor, at most 1, that makes up for how the bootstrap understates the deviation of means.

    Two parts. Of days without memory the bootstrap's variance is too small, in expectation, by its
    weights times the negative autocovariances that subtracting the mean leaves. And it is itself an
    estimate, so the statistic follows Student's distribution, with days / (1 + 2 x the sum of
    squared weights) degrees of freedom: the factor is the normal quantile over Student's at `SIZE`
    over `comparisons` (by the expansion of Cornish & Fisher 1937).
    """
    weights, lag = _weights(days, block), np.arange(1, days)
    bias = 1 - 1 / days - 2 * float((weights * (days - lag)).sum()) / days**2
    freedom = days / (1 + 2 * float((weights**2).sum()))
    z = NormalDist().inv_cdf(1 - SIZE / max(comparisons, 1))
    first = (z**3 + z) / (4 * freedom)
    student = z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return math.sqrt(bias) * z / student


def _shrunk(columns: FloatArray, factor: float) -> FloatArray:
    """The columns (days, K) with their means times `factor` and their deviations as they were."""
    shrunk: FloatArray = columns + (factor - 1) * columns.mean(axis=0)
    return shrunk


def _long_run_deviation(columns: FloatArray, block: int) -> FloatArray:
    """Deviation (K,) of sqrt(days) x mean under the stationary bootstrap, of columns (days, K).

    Where the estimate is not positive, the plain deviation.
    """
    days, centred = len(columns), columns - columns.mean(axis=0)
    plain: FloatArray = (centred**2).mean(axis=0)
    variance = plain
    for lag, weight in enumerate(_weights(days, block), 1):
        if weight > 1e-9:
            variance = variance + 2 * weight * (centred[:-lag] * centred[lag:]).sum(axis=0) / days
    deviation: FloatArray = np.sqrt(np.where(variance > 1e-3 * plain, variance, plain))
    return deviation
