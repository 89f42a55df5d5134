"""Terms: numbers of a session that are known at its rollover, given to the embedding as they are.

An encoder has to learn what a formula says at once: which weekday begins, and how volatile the last
day, week and month were. A recipe names the terms; each is appended to the embedding beside the
session scaler's statistics, so that the embedding starts where a linear forecast of volatility
stands. Days are counted back from the session's 00:00 UTC; a term sees candles that closed by then.

Bitwise start-invariant, like features: a day's sums are a fixed tree of additions, and days are
added one after the other.

Source: the lags of HAR are those of Corsi (2009), of the logarithm, with the month of a market that
never closes beside his 22 days; signed variance after Patton and Sheppard (2015). Means of hourly
logarithms say what the day's summed variance hides: a jump moves one of 24 of them, and the last
hours say where the day was going. Left out: terms of a user's own, which belong into an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, FIRST_MONDAY_MS
from cppncripto_strategy.models.inputs.days_before import (
    DaysBefore,
    hourly_log_variance,
    mean_known,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid

HAR_DAYS = (1, 5, 22, 30)
"""Days behind the lags of `har`: a day, a trading week and month, and a calendar month."""
LAST_HOURS = (1, 3, 6, 12)
"""Hours at the end of the last day that `hours` compares with the whole of it."""


@dataclass(frozen=True, slots=True)
class Term:
    """One entry of the table of terms.

    Parameters
    ----------
    values : (CandleGrid, int64 (D,) 00:00 UTC of sessions) -> float64 (D, size), NaN where unknown.
    signs : one for each number, +1 or -1: its factor in a mirrored market.
    days : whole days before the session that it reads; 0 for the calendar alone.
    market : whether it reads the market symbol's candles.
    """

    values: Callable[[CandleGrid, IntArray], FloatArray]
    signs: tuple[int, ...]
    days: int
    market: bool = False


def session_terms(grid: CandleGrid, session_ms: IntArray, names: Iterable[str]) -> FloatArray:
    """The named terms of sessions, float64 (D, K), in the order of the names; NaN where unknown.

    Raises
    ------
    RecipeError
        When a term is unknown.
    CandleError
        When a term reads the market symbol's candles, and the grid carries none.
    """
    parts = [term.values(grid, session_ms) for term in terms_of(names)]
    return np.concatenate([np.empty((len(session_ms), 0)), *parts], axis=1)


def terms_of(names: Iterable[str]) -> list[Term]:
    """The entries of these names. Raises RecipeError when one is unknown or repeated."""
    names = list(names)
    unknown = sorted(set(names) - set(TERMS))
    if unknown:
        raise RecipeError(
            f"{', '.join(unknown)}: no such term of a session; there are: {', '.join(TERMS)}"
        )
    if len(set(names)) < len(names):
        raise RecipeError(f"terms named more than once: {', '.join(names)}")
    return [TERMS[name] for name in names]


def check_terms(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names, if there are such terms. Raises RecipeError as `terms_of` does."""
    terms_of(names or ())
    return names


def default_terms(objective: str, market: str | None) -> tuple[str, ...]:
    """The terms of a recipe that names none: all that are known, where days are forecast."""
    if objective != "forecast":
        return ()
    return tuple(name for name, term in TERMS.items() if market is not None or not term.market)


def term_rows(names: Iterable[str], day_candles: int) -> int:
    """Rows before a session that its terms read: whole days, and the close before the first."""
    days = max((term.days for term in terms_of(names)), default=0)
    return days * day_candles + 1 if days else 0


def weekday(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """1 for the weekday of the session that begins, else 0; (D, 7), Monday first."""
    days = (session_ms - FIRST_MONDAY_MS) // DAY_MS % 7
    return np.asarray(days[:, None] == np.arange(7), dtype=np.float64)


def har(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """Mean ln realised variance of the last 1, 5, 22 and 30 days, (D, 4).

    Realised variance is the sum of a day's squared log returns, a day with an outage brought to the
    length of a whole one. NaN where fewer than half of the days, or of a day's returns, are known.
    """
    log_variance = DaysBefore(grid, session_ms, max(HAR_DAYS)).log_variance
    return np.stack([mean_known(log_variance[:, :days]) for days in HAR_DAYS], axis=1)


def market_har(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """`har` of the market symbol, (D, 4)."""
    return har(grid.of_market(), session_ms)


def yesterday(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """What the last day was beside its variance, (D, 3).

    Its log return over its realised volatility; the mean ln volume of its candles with trades less
    that of the last 30 days; twice the share of its variance that falls made, less 1. NaN as `har`.
    """
    days = DaysBefore(grid, session_ms, 30)
    drift = days.total[:, 0] / np.exp(0.5 * days.log_variance[:, 0])
    volume = days.log_volume[:, 0] - mean_known(days.log_volume)
    return np.stack([drift, volume, 2.0 * days.fall_share[:, 0] - 1.0], axis=1)


def hours(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """Mean hourly ln variance of the last day, and that of its last hours less it, (D, 5).

    The day first, then the last 1, 3, 6 and 12 hours, each less the day; 0 where fewer than half of
    them are known, so that an outage before midnight says nothing instead of losing the session.
    NaN where fewer than half of the day's hours are known.
    """
    hourly = hourly_log_variance(grid, session_ms)  # (D, hours of a day)
    day = mean_known(hourly)
    parts = [mean_known(hourly[:, : max(1, hourly.shape[1] * n // 24)]) for n in LAST_HOURS]
    return np.stack([day, *(np.where(np.isnan(part), 0.0, part - day) for part in parts)], axis=1)


def market_hours(grid: CandleGrid, session_ms: IntArray) -> FloatArray:
    """`hours` of the market symbol, (D, 5)."""
    return hours(grid.of_market(), session_ms)


TERMS: dict[str, Term] = {
    "weekday": Term(weekday, (1,) * 7, days=0),
    "har": Term(har, (1,) * len(HAR_DAYS), days=max(HAR_DAYS)),
    "market_har": Term(market_har, (1,) * len(HAR_DAYS), days=max(HAR_DAYS), market=True),
    "yesterday": Term(yesterday, (-1, 1, -1), days=30),
    "hours": Term(hours, (1,) * (len(LAST_HOURS) + 1), days=1),
    "market_hours": Term(market_hours, (1,) * (len(LAST_HOURS) + 1), days=1, market=True),
}
