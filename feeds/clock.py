"""The only home of times and intervals: UTC milliseconds as int, their text, and bar stamps.

A time is an int of milliseconds since 1970-01-01 UTC. Backtrader's stamps are days since the year 1
as float; they are converted here and nowhere else. Backtrader itself is not imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import CandleError

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# Binance weeks open on Monday; 1970-01-05 was the first one after the epoch.
FIRST_MONDAY_MS = 4 * DAY_MS
_UNIT_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": WEEK_MS}

# Backtrader counts days from 0001-01-01 (matplotlib's old epoch); 1970-01-01 is day 719163.
EPOCH_DAYS = 719163.0
_MS_PER_DAY = float(DAY_MS)


def interval_to_ms(interval: str) -> int:
    """Milliseconds of a Binance interval such as "5m", "1h", "1d".

    Raises
    ------
    CandleError
        When the text is not a whole number and one of s, m, h, d, w. (Calendar months, "1M", have
        no fixed length and are refused.)
    """
    match = re.fullmatch(r"([1-9]\d*)([smhdw])", interval)
    if match is None:
        raise CandleError(
            f"interval {interval!r} is not understood: expected a number and one of s, m, h, d, w,"
            " such as '5m'"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def interval_anchor_ms(interval_ms: int) -> int:
    """Offset from the epoch on which candles of this interval open (weeks open on Monday)."""
    return FIRST_MONDAY_MS if interval_ms % WEEK_MS == 0 else 0


def ms_to_utc(ms: int) -> str:
    """Human text of a UTC time in milliseconds: '2024-05-01 00:05'."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.strftime("%Y-%m-%d %H:%M" if ms % MINUTE_MS == 0 else "%Y-%m-%d %H:%M:%S.%f")


def ms_to_date(ms: int) -> str:
    """The UTC date of a time in milliseconds: '2024-05-01'."""
    return ms_to_utc(ms)[:10]


def utc_to_ms(text: str) -> int:
    """UTC milliseconds of '20240501', '2024-05-01', or '2024-05-01 00:05' (ISO 8601, UTC).

    Raises
    ------
    CandleError
        When the text is none of these.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as cause:
        raise CandleError(
            f"time {text!r} is not understood: expected 20240501, 2024-05-01 or '2024-05-01 00:05'"
        ) from cause
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of time, [start_ms, end_ms), in UTC milliseconds."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if self.end_ms < self.start_ms:
            raise CandleError(f"span ends before it starts: {self}")

    def __str__(self) -> str:
        return f"{ms_to_utc(self.start_ms)} to {ms_to_utc(self.end_ms)}"


def ms_to_num(ms: IntArray) -> FloatArray:
    """Backtrader's day numbers of UTC milliseconds, bit for bit what `bt.date2num` gives."""
    return ms / _MS_PER_DAY + EPOCH_DAYS


def num_to_ms(num: float) -> int:
    """UTC milliseconds of a Backtrader day number; rounds away its 10 us of float error."""
    return round((num - EPOCH_DAYS) * _MS_PER_DAY)


def nums_to_ms(num: FloatArray) -> IntArray:
    """Array form of `num_to_ms`."""
    return np.rint((num - EPOCH_DAYS) * _MS_PER_DAY).astype(np.int64)
