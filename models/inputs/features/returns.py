"""Log return, volatility over the last 12, 24 and 48 candles, and the logarithm of the first."""

from __future__ import annotations

from functools import partial

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.features.windows import (
    too_few,
    trailing,
    trailing_counts,
    trailing_last,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid

QUIET = 3e-5
"""Added to a volatility before its logarithm: below it, ticks decide."""


def log_returns(grid: CandleGrid) -> FloatArray:
    """ln(close / close one candle before), (T,); NaN after a gap of one candle or more."""
    return _returns_of(grid.close)


def last_log_return(grid: CandleGrid) -> float:
    """The last row of `log_returns`."""
    return float(_returns_of(grid.close[-2:])[-1])


def volatility(grid: CandleGrid, window: int) -> FloatArray:
    """Square root of the mean squared log return over `window` candles, (T,).

    NaN where fewer than half of the window's returns exist, or the window begins before the grid.
    """
    returns = log_returns(grid)
    known = ~np.isnan(returns)
    squares = np.where(known, returns * returns, 0.0)
    counts = trailing_counts(known, window)
    result = np.sqrt(trailing(squares, window) / np.maximum(counts, 1))
    # The first return needs a close before the grid, so a full window of returns ends at `window`.
    result[too_few(counts, window, first=window)] = np.nan
    return result


def last_volatility(grid: CandleGrid, window: int) -> float:
    """The last row of `volatility`."""
    if len(grid) <= window:
        return float("nan")
    tail = _returns_of(grid.close[-window - 1 :])[1:]
    known = ~np.isnan(tail)
    count = np.count_nonzero(known)
    if count * 2 < window:
        return float("nan")
    squares = np.where(known, tail * tail, 0.0)
    return float(np.sqrt(trailing_last(squares, window) / count))


def log_volatility(grid: CandleGrid, window: int) -> FloatArray:
    """ln of `volatility` plus a third of a basis point, (T,): a crash is steps away, not units.

    NaN as `volatility`.
    """
    return np.asarray(np.log(volatility(grid, window) + QUIET))


def last_log_volatility(grid: CandleGrid, window: int) -> float:
    """The last row of `log_volatility`."""
    # Of an array, as numpy's scalar logarithm may differ in the last bit.
    return float(np.log(np.array([last_volatility(grid, window)]) + QUIET)[0])


def _returns_of(close: FloatArray) -> FloatArray:
    returns = np.full(len(close), np.nan)
    np.log(close[1:] / close[:-1], out=returns[1:])
    return returns


def _volatility_feature(window: int) -> Feature:
    return Feature(
        partial(volatility, window=window),
        memory=window + 1,
        live=partial(last_volatility, window=window),
    )


LOG_RETURN = Feature(log_returns, memory=2, live=last_log_return, sign=-1)
VOLATILITY_12 = _volatility_feature(12)
VOLATILITY_24 = _volatility_feature(24)
VOLATILITY_48 = _volatility_feature(48)
LOG_VOLATILITY_12 = Feature(
    partial(log_volatility, window=12),
    memory=13,
    live=partial(last_log_volatility, window=12),
)
