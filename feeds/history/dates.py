"""Times as other people write them, as UTC milliseconds.

Numbers are seconds to nanoseconds by their magnitude, row by row. Text is tried against the table
`NOTATIONS`; where two notations fit and differ, such as 03/04/2024 throughout, nobody guesses. A
time without a zone is UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cppncripto_strategy.arrays import BoolArray, IntArray
from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.clock import read_integers

DAY_FIRST, MONTH_FIRST = "day-first", "month-first"
# A date, and whether the day or the month comes first where a number alone does not say so. Dots
# are day first in every country that writes them.
_DATES = (
    *(("%Y-%m-%d", ""), ("%Y.%m.%d", ""), ("%Y/%m/%d", ""), ("%d.%m.%Y", ""), ("%d.%m.%y", "")),
    *((f"%d{mark}%m{mark}{year}", DAY_FIRST) for mark in "/-" for year in ("%Y", "%y")),
    *((f"%m{mark}%d{mark}{year}", MONTH_FIRST) for mark in "/-" for year in ("%Y", "%y")),
    *(("%d-%b-%Y", ""), ("%d %b %Y", ""), ("%b %d %Y", ""), ("%b %d, %Y", "")),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I-%p", " %I:%M %p", " %I:%M:%S %p")
# (pandas' format, what it says of day and month)
NOTATIONS = (
    ("ISO8601", ""),
    *((date + clock, order) for (date, order), clock in product(_DATES, _CLOCKS)),
)
_NUMBER = r"-?\d{9,19}(?:\.0*)?"
_ZONE = r"\s*(?:UTC|GMT)$"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Rows that cannot be understood: which (N,), the rule, and a sentence for one of them."""

    rows: BoolArray
    column: str
    rule: str
    say: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Times:
    """UTC milliseconds (N,), 0 where a row is flawed; the flaws; the notation in words."""

    stamps: IntArray
    flaws: tuple[Flaw, ...]
    notation: str


def times_to_ms(column: pa.ChunkedArray, origin: str) -> IntArray:
    """UTC milliseconds (N,) of a column of integers, text, dates or timestamps.

    Raises
    ------
    CandleError
        When a row holds no time, or one that is not a whole millisecond; the first is named.
    SourceError
        When the order of day and month is ambiguous.
    """
    times = read_times(column, origin)
    found = [(int(np.argmax(flaw.rows)), flaw) for flaw in times.flaws if flaw.rows.any()]
    if found:
        row, flaw = min(found, key=lambda pair: pair[0])
        raise CandleError(f"{origin}: row {row}: {flaw.say(row)}")
    return times.stamps


def read_times(column: pa.ChunkedArray, origin: str, order: str = "") -> Times:
    """Times of a column, flawed rows marked rather than raised.

    Parameters
    ----------
    order : 'day-first' or 'month-first' where a person has said so, else ''.

    Raises
    ------
    SourceError
        When the order of day and month is ambiguous and nobody has said it.
    """
    kind = column.type
    absent = column.is_null().to_numpy()
    null = Flaw(absent, "time", "the time is missing", lambda _: "the time is missing (null)")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = _stamps(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        times = _numbers(column)
    else:
        times = _text(column, origin, order)
    return Times(
        np.where(_any(times.flaws, absent), 0, times.stamps), (null, *times.flaws), times.notation
    )


def looks_like_number_of_time(column: pa.ChunkedArray) -> bool:
    """True when a column's first value is a number as large as a time."""
    first = next((value.as_py() for value in column if value.is_valid), None)
    if isinstance(first, str):
        return pd.Series([first.strip()]).str.fullmatch(_NUMBER).item() is True
    return isinstance(first, int | float) and abs(first) >= 1e8


def is_text(kind: pa.DataType) -> bool:
    """True for columns of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _any(flaws: tuple[Flaw, ...], absent: BoolArray) -> BoolArray:
    broken = absent.copy()
    for flaw in flaws:
        broken |= flaw.rows
    return broken


def _stamps(column: pa.ChunkedArray) -> Times:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    values = column.to_numpy().astype(f"datetime64[{column.type.unit}]")
    return _whole(values, "timestamps")


def _whole(values: np.ndarray, notation: str) -> Times:
    """Times of numpy moments; NaT is left to the caller."""
    stamps = values.astype("datetime64[ms]")
    broken = (stamps != values) & ~np.isnat(values)
    flaw = _misaligned(broken, values)
    return Times(cast(IntArray, stamps.astype(np.int64)), (flaw,), notation)


def _misaligned(broken: BoolArray, values: object) -> Flaw:
    def say(row: int) -> str:
        return f"time {values[row]} is not a whole millisecond (misaligned)"  # type: ignore[index]

    return Flaw(broken, "time", "the time is not a whole millisecond", say)


def _numbers(column: pa.ChunkedArray) -> Times:
    values = column.to_numpy()
    broken = np.zeros(len(values), dtype=np.bool_)
    if values.dtype.kind == "f":
        # fmod of NaN and of infinity is NaN, which is not 0 either; beyond int64 is no time at all.
        with np.errstate(invalid="ignore"):
            broken = (np.fmod(values, 1.0) != 0) | (np.abs(values) > 2.0**62)
    part = Flaw(
        broken,
        "time",
        "the time is not a whole number",
        lambda row: f"time {values[row]} is not a whole number",
    )
    # Flawed rows stand for any time, so that they cannot overflow or be reported twice.
    whole = np.where(broken, 10**12, values).astype(np.int64)
    return _sized(whole, part)


def _sized(whole: IntArray, *flaws: Flaw) -> Times:
    stamps, strange, fractions = read_integers(whole)
    size = Flaw(
        strange,
        "time",
        "the time is not understood",
        lambda row: (
            f"{whole[row]} is not a time: expected seconds, milliseconds, microseconds or"
            " nanoseconds since 1970, or ISO text"
        ),
    )
    return Times(stamps, (*flaws, size, _misaligned(fractions, whole)), "numbers since 1970")


def _text(column: pa.ChunkedArray, origin: str, order: str) -> Times:
    if looks_like_number_of_time(column) and not column.null_count:
        try:
            return _numbers(pc.cast(pc.utf8_trim_whitespace(column), pa.int64()))
        except pa.ArrowException:  # 1504018800.0, or a stray text: the long way
            pass
    text = pd.Series(column.to_pandas(), dtype="str").str.strip()
    text = text.str.replace(_ZONE, "", regex=True)
    if looks_like_number_of_time(column):
        fits = text.str.fullmatch(_NUMBER).fillna(False).to_numpy(dtype=np.bool_)
        digits = text.where(fits, "1000000000000").str.partition(".")[0]
        return _sized(digits.to_numpy().astype(np.int64), _unread(~fits & _given(text), text))
    values, notation = _moments(text, origin, order)
    times = _whole(values, notation)
    broken = np.isnat(values) & _given(text)
    return Times(times.stamps, (_unread(broken, text), *times.flaws), times.notation)


def _given(text: pd.Series[str]) -> BoolArray:
    return text.notna().to_numpy()


def _unread(rows: BoolArray, text: pd.Series[str]) -> Flaw:
    return Flaw(
        rows,
        "time",
        "the time is not understood",
        lambda row: (
            f"time {text.iloc[row]!r} is not understood: expected ISO 8601 (2024-05-01 00:05:00)"
            " or a number"
        ),
    )


def _moments(text: pd.Series[str], origin: str, order: str) -> tuple[np.ndarray, str]:
    """Moments (N,), NaT where unread, by the notation that reads most rows; its name.

    Raises
    ------
    SourceError
        When several notations read equally many rows and do not agree.
    """
    sample = text.dropna().iloc[:: max(1, len(text) // 50)]
    best = 1
    readings: list[tuple[str, pd.Series[pd.Timestamp]]] = []
    for notation, says in NOTATIONS:
        if says and order and says != order:
            continue
        if not _parse(sample, notation).notna().any():
            continue
        values = _parse(text, notation)
        count = int(values.notna().sum())
        if count > best or (count == best and not readings):
            best, readings = count, []
        if count == best:
            readings.append((notation, values))
    if not readings:
        return np.full(len(text), "NaT", dtype="datetime64[ns]"), "ISO 8601"
    notation, values = readings[0]
    for other, others in readings[1:]:
        if not others.equals(values):
            first = str(text[values.notna()].iloc[0])
            raise SourceError(
                f"{origin}: the dates are ambiguous: {first!r} may be"
                f" {values.dropna().iloc[0]:%d %B %Y} ({notation}) or"
                f" {others.dropna().iloc[0]:%d %B %Y} ({other}), and no date in the file decides;"
                " say which with `data import --dates day-first` or `--dates month-first`"
            )
    name = "ISO 8601" if notation == "ISO8601" else notation
    return values.dt.tz_localize(None).to_numpy(), name


def _parse(text: pd.Series[str], notation: str) -> pd.Series[pd.Timestamp]:
    return pd.to_datetime(text, utc=True, format=notation, errors="coerce")
