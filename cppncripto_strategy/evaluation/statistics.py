"""Honest statistics: day-block bootstrap, paired comparison, Diebold-Mariano, PSR, DSR and PBO.

Candles of one day are dependent, and so are the symbols within it: everything is counted per UTC
day first and whole days are resampled. The heavy lifting is done by arch, purgedcv and
dieboldmariano; what is here is the shape of our questions.

Sources: Politis & Romano 1994 (stationary bootstrap); Diebold & Mariano 1995 with Harvey,
Leybourne & Newbold 1997; Bailey & Lopez de Prado 2012 (PSR), 2014 (DSR); Bailey, Borwein, Lopez de
Prado & Zhu 2017 (PBO); Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.returns import DAYS_PER_YEAR, sharpe_of_sums
from cppncripto_strategy.evaluation.undefined import defined
from cppncripto_strategy.feeds.clock import DAY_MS

DEFAULT_RESAMPLES = 2_000
# With fewer days, resampling days says nothing about their deviation.
MIN_BOOTSTRAP_DAYS = 5


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; `low` and `high` are None where an interval is undefined."""

    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class DieboldMariano:
    """Two-sided test of equal loss; a negative statistic means the first loss is lower."""

    statistic: float
    p_value: float
    count: int


def wilson_interval(
    hits: int, count: int, confidence: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """Wilson score interval of a share of independent draws; (None, None) without a draw."""
    if count == 0:
        return None, None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, scale = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def day_totals(time_ms: ArrayLike, columns: ArrayLike) -> FloatArray:
    """Sums of `columns` (N, K) over each UTC day that occurs in `time_ms` (N,): (days, K).

    A candle belongs to the day in which it closes.
    """
    return day_sums(time_ms, np.asarray(columns).T)


def day_sums(time_ms: ArrayLike, columns: Iterable[NDArray[Any]]) -> FloatArray:
    """`day_totals` of columns (N,) that come one by one: no table of them all is made."""
    day = np.asarray(time_ms, dtype=np.int64) // DAY_MS
    day -= day.min() if len(day) else 0
    occurs = np.bincount(day) > 0  # days that do not occur have no row
    sums = [np.bincount(day, np.asarray(c, np.float64), len(occurs)) for c in columns]
    totals: FloatArray = np.stack(sums, axis=1)[occurs].astype(np.float64)
    return totals


def bootstrap_days(
    totals: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    block_days: float | None = None,
) -> FloatArray:
    """Resampled values (resamples, K) of `statistic`, a function of the summed totals (K',).

    Parameters
    ----------
    totals : float array (days, K'), one row per day in order of time.
    statistic : maps the sum over the resampled days to K values; NaN where undefined.
    block_days : mean length of the stationary bootstrap's blocks; default days ** (1/3).
    """
    from arch.bootstrap import StationaryBootstrap

    days = len(totals)
    length = max(1.0, days ** (1 / 3)) if block_days is None else block_days
    bootstrap = StationaryBootstrap(length, np.arange(days), seed=np.random.default_rng(seed))
    values = bootstrap.apply(lambda index: statistic(totals[index].sum(axis=0)), resamples)
    return np.asarray(values, dtype=np.float64)


def ratio_estimates(
    totals: FloatArray,
    pairs: list[tuple[int, int]],
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
) -> list[Estimate]:
    """Ratios of summed columns with day-block percentile intervals, all from one resampling.

    Parameters
    ----------
    totals : float array (days, K).
    pairs : (numerator column, denominator column) of each ratio.
    """
    top, bottom = ([pair[side] for pair in pairs] for side in (0, 1))

    def ratios(sums: FloatArray) -> FloatArray:
        return _safe_divide(sums[top], sums[bottom])

    sums = totals.sum(axis=0)
    values = ratios(sums)
    low, high = _interval(totals, ratios, len(pairs), seed, resamples, confidence)
    return [
        _estimate(values[k], low[k], high[k], int(sums[pair[1]])) for k, pair in enumerate(pairs)
    ]


def ratio_difference(
    totals: FloatArray,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
) -> Estimate:
    """First ratio minus second, paired by day; undefined where a bottom sums to 0.

    Parameters
    ----------
    totals : float array (days, 4) of top a, bottom a, top b, bottom b.
    """

    def difference(sums: FloatArray) -> FloatArray:
        ratios = _safe_divide(sums[[0, 2]], sums[[1, 3]])
        return ratios[:1] - ratios[1:]

    sums = totals.sum(axis=0)
    low, high = _interval(totals, difference, 1, seed, resamples, confidence)
    return _estimate(difference(sums)[0], low[0], high[0], int(min(sums[1], sums[3])))


def paired_hit_difference(
    hit_a: ArrayLike,
    hit_b: ArrayLike,
    time_ms: ArrayLike,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
) -> Estimate:
    """Hit ratio of a minus that of b on the same candles, days resampled.

    Parameters
    ----------
    hit_a, hit_b : bool arrays (N,), whether each arm was right about candle i.
    time_ms : int array (N,), UTC milliseconds of the candle's close.
    """
    a, b = np.asarray(hit_a, dtype=np.float64), np.asarray(hit_b, dtype=np.float64)
    count = np.ones_like(a)
    return ratio_difference(day_sums(time_ms, [a, count, b, count]), seed, resamples)


def sharpe_estimate(
    daily_returns: ArrayLike, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> Estimate:
    """Annual Sharpe ratio of daily returns (days,) with its 95 % interval, days resampled."""
    returns = np.asarray(daily_returns, dtype=np.float64)
    moments = np.stack([np.ones_like(returns), returns, returns**2], axis=1)
    return _estimate_of(moments, lambda sums: _sharpe(sums, 1, 2), seed, resamples)


def sharpe_gap(
    a: ArrayLike, b: ArrayLike, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> Estimate:
    """Annual Sharpe ratio of a minus that of b, daily returns (days,) of the same days, paired."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    moments = np.stack([np.ones_like(x), x, x**2, y, y**2], axis=1)
    return _estimate_of(
        moments, lambda sums: _sharpe(sums, 1, 2) - _sharpe(sums, 3, 4), seed, resamples
    )


def _sharpe(sums: FloatArray, total: int, squares: int) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sharpe_of_sums(sums[:1], sums[[total]], sums[[squares]])


def _estimate_of(
    totals: FloatArray, statistic: Callable[[FloatArray], FloatArray], seed: int, resamples: int
) -> Estimate:
    low, high = _interval(totals, statistic, 1, seed, resamples, 0.95)
    return _estimate(statistic(totals.sum(axis=0))[0], low[0], high[0], len(totals))


def _safe_divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    out: FloatArray = np.full(np.shape(top), np.nan)
    return np.divide(top, bottom, out=out, where=bottom != 0)


def _interval(
    totals: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    width: int,
    seed: int,
    resamples: int,
    confidence: float,
) -> tuple[FloatArray, FloatArray]:
    nothing = np.full(width, np.nan)
    if len(totals) < MIN_BOOTSTRAP_DAYS or resamples == 0:
        return nothing, nothing
    values = bootstrap_days(totals, statistic, seed, resamples)
    tail = (1 - confidence) / 2
    defined = ~np.isnan(values).all(axis=0)
    bounds = np.full((2, width), np.nan)
    if defined.any():
        bounds[:, defined] = np.nanquantile(values[:, defined], [tail, 1 - tail], axis=0)
    return bounds[0], bounds[1]


def _estimate(value: float, low: float, high: float, count: int) -> Estimate:
    return Estimate(defined(value), defined(low), defined(high), count)


def diebold_mariano(loss_a: ArrayLike, loss_b: ArrayLike, horizon: int) -> DieboldMariano | None:
    """Two-sided Diebold-Mariano test of equal mean loss, for forecasts `horizon` steps ahead.

    Parameters
    ----------
    loss_a, loss_b : float arrays (N,), the loss of each arm at the same moments in order of time.
    horizon : steps of the label; the loss difference is autocorrelated up to horizon - 1.

    Returns
    -------
    None when the test is undefined: too few values, or identical losses.
    """
    from dieboldmariano import NegativeVarianceException, ZeroVarianceException, dm_test

    a, b = np.asarray(loss_a, dtype=np.float64), np.asarray(loss_b, dtype=np.float64)
    if len(a) < max(10, 2 * horizon) or np.array_equal(a, b):
        return None
    arguments = ([0.0] * len(a), a.tolist(), b.tolist())
    for estimator in ("acf", "bartlett"):  # the first can come out negative, the second cannot
        try:
            statistic, p_value = dm_test(
                *arguments, loss=_second, h=horizon, variance_estimator=estimator
            )
        except NegativeVarianceException:
            continue
        except ZeroVarianceException:
            return None
        return DieboldMariano(float(statistic), float(p_value), len(a))
    return None


def _second(_actual: float, loss: float) -> float:
    return loss


def probabilistic_sharpe(daily_returns: ArrayLike, benchmark_sharpe: float = 0.0) -> float | None:
    """Probability that the true Sharpe ratio exceeds the benchmark's; None where undefined.

    Parameters
    ----------
    daily_returns : float array (days,).
    benchmark_sharpe : annual Sharpe ratio to beat.

    Source: Bailey & Lopez de Prado 2012, eq. 7, computed by purgedcv on daily values.
    """
    from purgedcv import probabilistic_sharpe_ratio

    returns = np.asarray(daily_returns, dtype=np.float64)
    if not _varies(returns):
        return None
    try:
        return float(
            probabilistic_sharpe_ratio(returns, benchmark_sharpe / math.sqrt(DAYS_PER_YEAR))
        )
    except ValueError:  # too few days for the higher moments, or moments too extreme
        return None


def deflated_sharpe(
    daily_returns: ArrayLike, trials: int, daily_sharpe_variance: float
) -> float | None:
    """Probability that the true Sharpe ratio exceeds what the best of `trials` would show by luck.

    Parameters
    ----------
    daily_returns : float array (days,).
    trials : how many configurations were tried, this one among them.
    daily_sharpe_variance : variance, over the trials, of their daily (not annual) Sharpe ratios.

    Source: Bailey & Lopez de Prado 2014, computed by purgedcv.
    """
    from purgedcv import deflated_sharpe_ratio

    returns = np.asarray(daily_returns, dtype=np.float64)
    if trials < 1 or not _varies(returns) or not math.isfinite(daily_sharpe_variance):
        return None
    try:
        return float(deflated_sharpe_ratio(returns, trials, daily_sharpe_variance))
    except ValueError:
        return None


def _varies(returns: FloatArray) -> bool:
    # A constant series of floats has a standard deviation of 1e-19, not 0.
    return len(returns) >= 4 and bool(np.isfinite(returns).all()) and float(returns.std()) > 1e-12


def overfitting_probability(daily_returns: ArrayLike, splits: int = 16) -> float | None:
    """PBO: how often the configuration best in sample falls below the median out of sample.

    Parameters
    ----------
    daily_returns : float array (configurations, days), the same days in every row.
    splits : even number of blocks the days are cut into; lowered when there are few days.

    Returns
    -------
    None with fewer than 2 configurations or 8 days.

    Source: Bailey, Borwein, Lopez de Prado & Zhu 2017, combinatorially symmetric cross-validation,
    computed by purgedcv.
    """
    from purgedcv import probability_of_backtest_overfitting

    matrix = np.asarray(daily_returns, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < 2 or matrix.shape[1] < 8:
        return None
    blocks = min(splits, matrix.shape[1] // 4 * 2)
    return float(probability_of_backtest_overfitting(matrix, n_splits=blocks).pbo)
