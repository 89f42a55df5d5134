"""Equity to returns, and returns to risk: Sharpe, Sortino, drawdown, CAGR.

Risk is measured on daily UTC returns with 365 days per year and a riskless rate of 0; drawdown on
every bar. A ratio that is undefined (too few days, no deviation) is None, never 0 and never
infinite. Left out: how sure a Sharpe ratio is (`statistics`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.undefined import defined
from cppncripto_strategy.feeds.clock import DAY_MS

DAYS_PER_YEAR = 365
YEAR_MS = DAYS_PER_YEAR * DAY_MS
MIN_ANNUAL_DAYS = 30
# Rounding leaves constant returns a deviation of 1e-19, and sums of squares one of 1e-9.
_LEAST_DEVIATION = 1e-12
_LEAST_VARIANCE_OF_SUMS = 1e-18


@dataclass(frozen=True)
class Drawdown:
    """The maximum drawdown of an equity curve; `depth` is a share of the peak, 0 to 1.

    `recovered_ms` is the first stamp at or above the peak again, or None.
    """

    depth: float
    peak_ms: int | None
    trough_ms: int | None
    recovered_ms: int | None


def daily_equity(equity: pd.DataFrame) -> pd.Series[float]:
    """Equity at the first stamp, at each UTC midnight, and at the last stamp.

    A midnight takes the last equity at or before it, so a day without bars is carried.

    Parameters
    ----------
    equity : table with close_time_ms (ordered) and equity.

    Returns
    -------
    Series indexed by stamp in UTC milliseconds (int64); empty for an empty table.
    """
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    if len(stamps) == 0:
        return pd.Series(dtype=np.float64, index=pd.Index([], dtype=np.int64))
    first, last = int(stamps[0]), int(stamps[-1])
    midnights = np.arange(first // DAY_MS + 1, -(-last // DAY_MS), dtype=np.int64) * DAY_MS
    bounds = np.unique(np.concatenate([[first], midnights, [last]]))
    values = equity["equity"].to_numpy(np.float64)
    return pd.Series(values[np.searchsorted(stamps, bounds, side="right") - 1], index=bounds)


def daily_returns(equity: pd.DataFrame) -> pd.Series[float]:
    """Simple return of each UTC day, indexed by the day (naive datetime); they compound exactly.

    The first and last day may be partial. Equity that reaches 0 leaves NaN after it.
    """
    marks = daily_equity(equity)
    values = marks.to_numpy(np.float64)
    before = np.where(values[:-1] > 0, values[:-1], np.nan)
    ends = marks.index.to_numpy(np.int64)[1:]
    days = pd.to_datetime((ends - 1) // DAY_MS, unit="D")
    return pd.Series(values[1:] / before - 1.0, index=days, name="return")


def total_return(equity: FloatArray) -> float | None:
    """Last over first of an equity (bars,), less 1; None for one bar, equity of 0, or NaN."""
    return defined(equity[-1] / equity[0] - 1.0) if len(equity) > 1 and equity[0] > 0 else None


def sharpe_ratio(daily: ArrayLike) -> float | None:
    """Annual Sharpe ratio: mean over sample standard deviation of daily returns, times sqrt(365).

    Parameters
    ----------
    daily : float array (days,); NaN, infinity, fewer than 2 days or no deviation give None.
    """
    ratio = _mean_over_deviation(daily, ddof=1)
    return None if ratio is None else defined(ratio * math.sqrt(DAYS_PER_YEAR))


def daily_sharpe(daily: ArrayLike) -> float | None:
    """Mean over population deviation of daily returns (days,), not annual; None as above.

    The deflated Sharpe ratio works with this one: it takes the moments of a population.
    """
    return _mean_over_deviation(daily, ddof=0)


def sharpe_of_sums(count: FloatArray, total: FloatArray, squares: FloatArray) -> FloatArray:
    """`sharpe_ratio` from sums alone, for resampled days: any number of samples at once.

    Parameters
    ----------
    count, total, squares : float arrays (...): days, and the sums of their returns and of the
        squares of these.

    Returns
    -------
    Float array (...); NaN where undefined.
    """
    variance = (squares - total * total / count) / np.maximum(count - 1, 1)
    deviation = np.sqrt(np.where(variance > _LEAST_VARIANCE_OF_SUMS, variance, np.nan))
    return np.asarray(total / count / deviation * math.sqrt(DAYS_PER_YEAR))


def _mean_over_deviation(daily: ArrayLike, ddof: int) -> float | None:
    returns = np.asarray(daily, dtype=np.float64)
    if len(returns) < 2 or not np.isfinite(returns).all():
        return None
    deviation = returns.std(ddof=ddof)
    return float(returns.mean() / deviation) if deviation >= _LEAST_DEVIATION else None


def sortino_ratio(daily: FloatArray) -> float | None:
    """Annual Sortino ratio: mean over root mean square of the losses, times sqrt(365).

    Parameters
    ----------
    daily : float array (days,), where gaining days count as losses of 0; NaN, fewer than 2 days or
        no loss give None.
    """
    if len(daily) < 2:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(daily, 0.0) ** 2)))
    if downside <= _LEAST_DEVIATION:
        return None
    return defined(daily.mean() / downside * math.sqrt(DAYS_PER_YEAR))


def drawdown_series(equity: FloatArray) -> FloatArray:
    """Fall from the highest equity so far, as a share of it: float (bars,), 0 to 1.

    0 while that highest equity is not positive, and from a NaN on.
    """
    peaks = np.maximum.accumulate(equity)
    return np.where(peaks > 0, 1.0 - equity / np.where(peaks > 0, peaks, 1.0), 0.0)


def max_drawdown(equity: pd.DataFrame) -> Drawdown:
    """The maximum drawdown over all bars, with its span; depth 0 where equity never fell."""
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    values = equity["equity"].to_numpy(np.float64)
    falls = drawdown_series(values)
    if len(falls) == 0 or falls.max() <= 0:
        return Drawdown(0.0, None, None, None)
    trough = int(falls.argmax())
    peak = int(values[: trough + 1].argmax())
    back = np.flatnonzero(values[trough:] >= values[peak])
    recovered = int(stamps[trough + back[0]]) if len(back) else None
    return Drawdown(float(falls[trough]), int(stamps[peak]), int(stamps[trough]), recovered)


def compound_annual_growth(growth: float | None, span_ms: int) -> float | None:
    """Compound annual growth rate of a total return over a span, 365 days per year.

    None for a span under MIN_ANNUAL_DAYS: a good afternoon is no CAGR of a trillion percent.
    """
    if growth is None or growth <= -1 or span_ms < MIN_ANNUAL_DAYS * DAY_MS:
        return None
    exponent = YEAR_MS / span_ms * math.log1p(growth)
    return defined(math.expm1(exponent)) if exponent < 700 else None
