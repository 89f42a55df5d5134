"""What a linear forecast of the coming day is made of: HAR's terms, HAR-X's, the last hours'.

HAR: the mean log variance of the last 1, 5 and 22 days (Corsi 2009, eq. 9, in logarithms). HAR-X
adds the weekday of the coming day (known in advance), the market's own three means, yesterday's
return over its volatility (the leverage effect: falls are followed by more volatility than rises),
yesterday's volume against its month, and the share of falls in yesterday's squared returns
(Barndorff-Nielsen, Kinnebrock & Shephard 2010). Days are UTC days; those of a week are five without
a weekend on an exchange that closes, and stay five here, as in the source.

The last hours (`inputs.terms.hours`) stand apart, so that HAR-X stays what others know by that
name. Left out: fitting (`ridge.py`), and jumps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS, FIRST_MONDAY_MS
from cppncripto_strategy.models.forecasting.days import DayTable

HAR_DAYS = (1, 5, 22)
# The month that volume is compared with, and whose mean is the benchmark of R2.
MONTH_DAYS = 30
# A trailing mean needs this share of its days, else it would name a day a month.
MIN_KNOWN_SHARE = 0.5


def har_terms(days: DayTable, session_ms: IntArray) -> FloatArray:
    """Mean log variance of the last 1, 5 and 22 days before each session, (D, 3).

    Over the days that are known, at least half of them; NaN with fewer.
    """
    log_variance = 2 * days.log_volatility
    columns = [trailing_mean(log_variance, days.at(session_ms), span) for span in HAR_DAYS]
    return np.stack(columns, axis=1)


def har_x_terms(days: DayTable, session_ms: IntArray, market: DayTable | None = None) -> FloatArray:
    """The terms of HAR-X at each session: 12, and 3 more where there is a market, (D, 12 or 15).

    NaN where yesterday is not known, or too few of the days before it; in the market's columns
    where the market's are not.

    Parameters
    ----------
    days : statistics of the symbol's days; a session's own day and later ones are not looked at.
    session_ms : int64 (D,), 00:00 UTC of the days to come.
    market : statistics of the market symbol's days.
    """
    row = days.at(session_ms)
    yesterday = {
        name: trailing_mean(getattr(days, name), row, 1)
        for name in ("log_volatility", "log_return", "log_volume", "downward_share")
    }
    usual_volume = trailing_mean(days.log_volume, row, MONTH_DAYS)
    blocks = [
        har_terms(days, session_ms),
        weekday_dummies(session_ms),
        (yesterday["log_return"] / np.exp(yesterday["log_volatility"]))[:, None],
        (yesterday["log_volume"] - usual_volume)[:, None],
        yesterday["downward_share"][:, None],
    ]
    if market is not None:
        blocks.append(har_terms(market, session_ms))
    return np.concatenate(blocks, axis=1)


def hour_terms(days: DayTable, session_ms: IntArray, market: DayTable | None = None) -> FloatArray:
    """Yesterday's hours: 5 terms, and 5 more of the market's, (D, 5 or 10); NaN where unknown."""
    tables = [days] if market is None else [days, market]
    columns = [
        trailing_mean(column, table.at(session_ms), 1)
        for table in tables
        for column in table.hours.T
    ]
    return np.stack(columns, axis=1)


def linear_terms(days: DayTable, session_ms: IntArray, market: DayTable | None) -> FloatArray:
    """HAR-X's terms, then the last hours', (D, 17), or (D, 25) with a market."""
    parts = har_x_terms(days, session_ms, market), hour_terms(days, session_ms, market)
    return np.concatenate(parts, axis=1)


def har_x_count(market: bool) -> int:
    """Terms of HAR-X, without a market symbol or with one."""
    return len(HAR_DAYS) + 6 + 3 + (len(HAR_DAYS) if market else 0)


def weekday_dummies(session_ms: IntArray) -> FloatArray:
    """1 in the column of a session's weekday, Tuesday to Sunday; Monday has none. (D, 6)."""
    weekday = (np.asarray(session_ms) - FIRST_MONDAY_MS) // DAY_MS % 7
    dummies: FloatArray = (weekday[:, None] == np.arange(1, 7)).astype(np.float64)
    return dummies


def usual_log_variance(days: DayTable, session_ms: IntArray) -> FloatArray:
    """Mean log variance of the 30 days before each session: what R2 is counted from, (D,)."""
    return trailing_mean(2 * days.log_volatility, days.at(session_ms), MONTH_DAYS)


def trailing_mean(values: FloatArray, row: IntArray, span: int) -> FloatArray:
    """Mean of the known values (N,) of the `span` rows before each `row` (D,); (D,).

    NaN where fewer than half of them are known. Every mean adds the same numbers in the same order
    wherever the table begins, so a live process gets the bits of the batch.
    """
    index = np.asarray(row)[:, None] + np.arange(-span, 0)  # (D, span)
    inside = (index >= 0) & (index < len(values))
    padded = np.append(values, np.nan)
    window = padded[np.where(inside, index, len(values))]
    known = ~np.isnan(window)
    count = known.sum(axis=1)
    total = np.where(known, window, 0.0).sum(axis=1)
    enough = count >= max(1, int(np.ceil(MIN_KNOWN_SHARE * span)))
    return np.where(enough, total / np.maximum(count, 1), np.nan)


def targets_of(days: DayTable, session_ms: IntArray) -> Mapping[str, FloatArray]:
    """What the day that begins at each session did, (D,) each; NaN where it is not known.

    log_variance : logarithm of its realised variance (the summed squared log returns).
    log_range : logarithm of ln(high / low), NaN where the price did not move.
    """
    row = days.at(session_ms)
    inside = (row >= 0) & (row < len(days.day_ms))
    safe = np.where(inside, row, 0) if len(days.day_ms) else row
    moved = np.where(days.log_range > 0, days.log_range, np.nan)
    return {
        "log_variance": _taken(2 * days.log_volatility, safe, inside),
        "log_range": _taken(np.log(moved), safe, inside),
    }


def _taken(values: FloatArray, row: IntArray, inside: BoolArray) -> FloatArray:
    if len(values) == 0:
        return np.full(len(row), np.nan)
    return np.where(inside, values[row], np.nan)
