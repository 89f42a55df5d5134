"""The only home of times and intervals: UTC milliseconds as int, their text, and bar stamps.

A time is an int of milliseconds since 1970-01-01 UTC. Backtrader's stamps are days since the year 1
as float; they are converted here and nowhere else. Backtrader itself is not imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
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

# An integer below the first bound is no time we know; then seconds, milliseconds, microseconds, and
# from the last bound on nanoseconds. 1e11 s is the year 5138 and 1e11 ms is 1973, so no candle is
# ambiguous.
_MAGNITUDES = (10**8, 10**11, 10**14, 10**17)


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


def fixed_anchor_ms(interval_ms: int) -> int | None:
    """Offset from the epoch on which candles of this interval open, where the interval says so.

    Weeks open on Monday; up to a day the grid begins at midnight. Candles of several days, such as
    3d, open on days that belong to the symbol: None.
    """
    if interval_ms % WEEK_MS == 0:
        return FIRST_MONDAY_MS
    return None if interval_ms > DAY_MS and interval_ms % DAY_MS == 0 else 0


def interval_anchor_ms(interval_ms: int, open_time: IntArray) -> int:
    """Offset from the epoch on which candles of this interval open, learned where it is free.

    Parameters
    ----------
    open_time : open times (N,) received; the day on which most of them open decides.
    """
    fixed = fixed_anchor_ms(interval_ms)
    if fixed is not None:
        return fixed
    offsets, counts = np.unique(
        open_time[open_time % DAY_MS == 0] % interval_ms, return_counts=True
    )
    return int(offsets[np.argmax(counts)]) if len(offsets) else 0


def grid_ceil(time_ms: int, interval_ms: int, anchor_ms: int) -> int:
    """The first grid time at or after a time."""
    return anchor_ms - (anchor_ms - time_ms) // interval_ms * interval_ms


def ms_to_utc(ms: int) -> str:
    """Human text of a UTC time in milliseconds: '2024-05-01 00:05'; the number beyond calendars."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError):  # an error's own text must not fail
        return f"{ms} ms since 1970"
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


def month_names(open_time: IntArray) -> list[str]:
    """The UTC months ('2024-05') that a sorted array of open times (N,) touches, in order."""
    if len(open_time) == 0:
        return []
    first, last = open_time[[0, -1]].astype("datetime64[ms]").astype("datetime64[M]")
    return [str(month) for month in np.arange(first, last + np.timedelta64(1, "M"))]


def month_span(month: str) -> Span:
    """The half-open span of a month '2024-05'."""
    start = np.datetime64(month, "M")
    ends = (
        np.array([start, start + np.timedelta64(1, "M")]).astype("datetime64[ms]").astype(np.int64)
    )
    return Span(int(ends[0]), int(ends[1]))


def day_names(span: Span) -> list[str]:
    """The days ('2024-05-01') that lie wholly inside a span."""
    first = -(-span.start_ms // DAY_MS)
    return [ms_to_utc(day * DAY_MS)[:10] for day in range(first, span.end_ms // DAY_MS)]


def integers_to_ms(values: IntArray, origin: str) -> IntArray:
    """UTC milliseconds (N,) of integers in s, ms, us or ns, by their magnitude, row by row.

    Raises
    ------
    CandleError
        When a value is no time, or not a whole millisecond; the row is named.
    """
    stamps, strange, fractions = read_integers(values)
    if strange.any():
        row = int(np.argmax(strange))
        raise CandleError(
            f"{origin}: row {row}: {values[row]} is not a time: expected seconds, milliseconds,"
            " microseconds or nanoseconds since 1970, or ISO text"
        )
    refuse_fractions(fractions, values, origin)
    return stamps


def read_integers(values: IntArray) -> tuple[IntArray, BoolArray, BoolArray]:
    """`integers_to_ms` that judges nothing: (milliseconds, which are no time, which not whole)."""
    size = np.abs(values)
    # Ticks per millisecond, row by row; 0 stands for seconds.
    per_ms = np.select([size < bound for bound in _MAGNITUDES[1:]], [0, 1, 1_000], 1_000_000)
    if (per_ms == per_ms[:1]).all() and per_ms[:1].any():
        per_ms = per_ms[:1]  # one unit throughout: divide by a scalar, which is much quicker
    ticks = np.maximum(per_ms, 1)
    stamps = cast(IntArray, np.where(per_ms == 0, values * 1_000, values // ticks))
    return stamps, size < _MAGNITUDES[0], values % ticks != 0


def refuse_fractions(broken: Any, values: Any, origin: str) -> None:
    """Raise for the first row whose time is `broken`, that is, not a whole millisecond.

    Raises
    ------
    CandleError
        Naming the row and its value.
    """
    if np.any(broken):
        row = int(np.argmax(broken))
        raise CandleError(
            f"{origin}: row {row}: time {values[row]} is not a whole millisecond (misaligned)"
        )
