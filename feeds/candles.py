"""Candles: the schema, and the one rule book by which every candle is judged.

A candle is named by its open time, in UTC milliseconds as int; it closes at open time + interval.
Stream, REST, archive, import and store all judge by the rules here, of all ten columns: what one of
them accepts all accept. Nothing here knows a file format, an exchange or Backtrader.

Left out: whether quote volume lies within low and high times volume. The exchange rounds each
trade's quote amount, so a candle of a few small trades may honestly break that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    Span,
    fixed_anchor_ms,
    interval_anchor_ms,
    ms_to_utc,
    utc_to_ms,
)

PRICE_COLUMNS = ("open", "high", "low", "close")
REQUIRED_COLUMNS = ("open_time", *PRICE_COLUMNS, "volume")
NULLABLE_COLUMNS = ("quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume")
COLUMNS = (*REQUIRED_COLUMNS, *NULLABLE_COLUMNS)

CANDLE_SCHEMA = pa.schema(
    [pa.field("open_time", pa.int64(), nullable=False)]
    + [pa.field(name, pa.float64(), nullable=False) for name in (*PRICE_COLUMNS, "volume")]
    + [
        pa.field("quote_volume", pa.float64()),
        pa.field("trades", pa.int64()),
        pa.field("taker_buy_volume", pa.float64()),
        pa.field("taker_buy_quote_volume", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """A span of candles as columns of equal length (N,), ordered by open time.

    Parameters
    ----------
    open_time : int64 array (N,), UTC milliseconds of the open.
    open, high, low, close : float64 arrays (N,), quote currency per unit of base.
    volume : float64 array (N,), base units.
    quote_volume, trades, taker_buy_volume, taker_buy_quote_volume : float64 arrays (N,), NaN where
        the source did not carry them.

    Examples
    --------
    >>> from cppncripto_strategy import Candles
    >>> candles = Candles.from_columns(
    ...     open_time=[1_700_000_100_000, 1_700_000_400_000],
    ...     open=[100.0, 101.0],
    ...     high=[102.0, 101.5],
    ...     low=[99.5, 100.0],
    ...     close=[101.0, 100.5],
    ...     volume=[12.0, 7.5],
    ... )
    >>> len(candles), float(candles.close[-1])
    (2, 100.5)
    >>> candles.trades  # not carried by this source
    array([nan, nan])
    """

    open_time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    quote_volume: FloatArray
    trades: FloatArray
    taker_buy_volume: FloatArray
    taker_buy_quote_volume: FloatArray

    @classmethod
    def from_columns(cls, **columns: object) -> Candles:
        """Candles from named columns; the four nullable ones may be left out (all NaN).

        Raises
        ------
        CandleError
            When a required column is absent or lengths differ. Values are not judged here: call
            `validate`.
        """
        missing = [name for name in REQUIRED_COLUMNS if columns.get(name) is None]
        if missing:
            raise CandleError(f"candles lack the columns {missing}; required: {REQUIRED_COLUMNS}")
        open_time = np.ascontiguousarray(columns["open_time"], dtype=np.int64)
        arrays: dict[str, FloatArray] = {}
        for name in COLUMNS[1:]:
            column = columns.get(name)
            values = np.full(len(open_time), np.nan) if column is None else column
            arrays[name] = np.ascontiguousarray(values, dtype=np.float64)
            if arrays[name].shape != open_time.shape:
                raise CandleError(
                    f"column {name} has shape {arrays[name].shape}, open_time {open_time.shape}"
                )
        return cls(open_time=open_time, **arrays)

    @classmethod
    def empty(cls) -> Candles:
        """No candles."""
        return cls.from_columns(**{name: np.empty(0) for name in COLUMNS})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Candles:
        """Candles from an Arrow table with at least the required columns; nulls become NaN."""
        columns: dict[str, object] = {}
        for name in COLUMNS:
            if name not in table.column_names:
                continue
            column = table[name].combine_chunks()
            if name != "open_time":
                column = column.cast(pa.float64())
            columns[name] = column.to_numpy(zero_copy_only=False)
        return cls.from_columns(**columns)

    def to_arrow(self) -> pa.Table:
        """The Arrow table in `CANDLE_SCHEMA`; NaN in the nullable columns becomes null."""
        arrays = [pa.array(self.open_time)]
        for name in COLUMNS[1:]:
            values = getattr(self, name)
            absent = np.isnan(values) if name in NULLABLE_COLUMNS else None
            if name == "trades":
                values = np.where(np.isnan(values), 0, values).astype(np.int64)
            arrays.append(pa.array(values, mask=absent))
        return pa.Table.from_arrays(arrays, schema=CANDLE_SCHEMA)

    def __len__(self) -> int:
        return len(self.open_time)

    def __getitem__(self, rows: slice | IntArray | BoolArray) -> Candles:
        return Candles(**{name: getattr(self, name)[rows] for name in COLUMNS})

    def between(self, start_ms: int, end_ms: int) -> Candles:
        """Candles with start_ms <= open_time < end_ms."""
        first, last = np.searchsorted(self.open_time, [start_ms, end_ms])
        return self[int(first) : int(last)]

    def columns(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Each column's name and array, in schema order."""
        for name in COLUMNS:
            yield name, getattr(self, name)

    def replace(self, **columns: object) -> Candles:
        """A copy with some columns replaced."""
        return dataclasses.replace(self, **columns)  # type: ignore[arg-type]

    def equals(self, other: Candles) -> bool:
        """True when every column is equal, NaN equal to NaN."""
        return all(
            np.array_equal(mine, getattr(other, name), equal_nan=name != "open_time")
            for name, mine in self.columns()
        )


def concat(parts: list[Candles]) -> Candles:
    """Candles one after the other, in the order given."""
    if len(parts) < 2:
        return parts[0] if parts else Candles.empty()
    return Candles(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    )


def merge(base: Candles, newer: Candles) -> Candles:
    """Union by open time, sorted; where both hold a candle, `newer` wins."""
    kept = base[~np.isin(base.open_time, newer.open_time)]
    both = concat([kept, newer])
    return both[np.argsort(both.open_time, kind="stable")]


# One candle in the order of COLUMNS: open time (UTC ms), then nine floats.
Row = tuple[float, ...]
_Rules = Iterator[tuple[BoolArray, str]]
# A rule is True of the rows that break it: of arrays (N,) and of single numbers alike. NaN breaks
# no comparison, so a null of an optional column breaks no rule.
_Rule = tuple[Callable[[Any], Any], str]

# Wide enough for every exchange there was or will be, narrow enough that seconds and microseconds
# handed over as milliseconds fall outside.
EARLIEST_MS = utc_to_ms("2000-01-01")
LATEST_MS = utc_to_ms("2200-01-01")
# No market has such a number; sums and products of them overflow.
LARGEST, SMALLEST_PRICE = 1e18, 1e-18
# Trades that no candle has, not even a week's.
FAR_TOO_MANY = 1e9
# A taker's part may exceed the whole by what 32-bit floats lose, as some files keep them.
_WHOLE = 1 + 1e-6
_ROUNDS = 2.0**52  # from here on every float is a whole number


def _optional_rules(name: str) -> tuple[_Rule, _Rule]:
    column = attrgetter(name)
    return (
        (lambda c: column(c) < 0, f"{name} is negative"),
        (lambda c: column(c) > LARGEST, f"{name} is infinite or above {LARGEST:g}"),
    )


# Judged before the grid, which numbers of another unit miss too.
_TIME_RULE: _Rule = (
    lambda c: (c.open_time < EARLIEST_MS) | (c.open_time >= LATEST_MS),
    "its open time is not between 2000 and 2200 in milliseconds (wrong unit?)",
)
_VALUE_RULES: tuple[_Rule, ...] = (
    (
        lambda c: (
            (c.open != c.open)
            | (c.high != c.high)
            | (c.low != c.low)
            | (c.close != c.close)
            | (c.volume != c.volume)
        ),
        "open, high, low, close or volume is NaN",
    ),
    (
        lambda c: (
            (c.open > LARGEST)
            | (c.high > LARGEST)
            | (c.low > LARGEST)
            | (c.close > LARGEST)
            | (c.volume > LARGEST)
        ),
        f"a price or the volume is infinite or above {LARGEST:g}",
    ),
    (
        lambda c: (c.open <= 0) | (c.high <= 0) | (c.low <= 0) | (c.close <= 0),
        "a price is zero or negative",
    ),
    (lambda c: c.high < c.low, "high is below low"),
    (lambda c: (c.low > c.open) | (c.low > c.close), "low is above open or close"),
    (lambda c: (c.high < c.open) | (c.high < c.close), "high is below open or close"),
    (lambda c: c.low < SMALLEST_PRICE, f"a price is below {SMALLEST_PRICE:g}"),
    (lambda c: c.volume < 0, "volume is negative"),
    *(rule for name in NULLABLE_COLUMNS for rule in _optional_rules(name)),
    (
        # Adding 2**52 rounds to a whole number; % 1 does too, sixty times as slowly among NaN.
        lambda c: (
            (c.trades == c.trades) & (c.trades + _ROUNDS - _ROUNDS != c.trades)
            | (c.trades >= FAR_TOO_MANY)
        ),
        f"trades is no whole number below {FAR_TOO_MANY:g}",
    ),
    (lambda c: c.taker_buy_volume > c.volume * _WHOLE, "taker_buy_volume is above volume"),
    (
        lambda c: c.taker_buy_quote_volume > c.quote_volume * _WHOLE,
        "taker_buy_quote_volume is above quote_volume",
    ),
)


def _order_rules(before: IntArray, open_time: IntArray) -> _Rules:
    """Rules that compare each row after the first with the row `before` it."""
    step = open_time - np.concatenate([open_time[:1] - 1, before[:-1]])
    yield step == 0, "its open time repeats the row before it (duplicate)"
    yield step < 0, "its open time is earlier than the row before it (unsorted)"


def _row_rules(candles: Candles, interval_ms: int, anchor_ms: int | None) -> _Rules:
    """Rules that judge each row by itself, one at a time: all at once take a third of the rows."""
    anchor = anchor_ms
    if anchor is None:
        anchor = interval_anchor_ms(interval_ms, candles.open_time)
    off_grid = (candles.open_time - anchor) % interval_ms != 0
    yield np.asarray(_TIME_RULE[0](candles)), _TIME_RULE[1]
    yield off_grid, _misaligned(interval_ms, anchor)
    for broken, rule in _VALUE_RULES:
        yield np.asarray(broken(candles)), rule


class _One(NamedTuple):
    """A row by the names of its columns, for the rules."""

    open_time: float
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trades: float
    taker_buy_volume: float
    taker_buy_quote_volume: float


def row_problem(row: Sequence[float], interval_ms: int, anchor_ms: int | None = None) -> str | None:
    """The rule that one row (in the order of `COLUMNS`) breaks, or None: as `first_violation`.

    `anchor_ms` is an open time of the series; it counts where the interval alone has no grid (3d).
    """
    candle, fixed = _One(*row), fixed_anchor_ms(interval_ms)
    anchor = (anchor_ms or 0) % interval_ms if fixed is None else fixed
    if _TIME_RULE[0](candle):
        return _TIME_RULE[1]
    if (candle.open_time - anchor) % interval_ms != 0:
        return _misaligned(interval_ms, anchor)
    return next((rule for broken, rule in _VALUE_RULES if broken(candle)), None)


def _misaligned(interval_ms: int, anchor_ms: int) -> str:
    if fixed_anchor_ms(interval_ms) is not None:
        grid = f"a multiple of the interval of {interval_ms} ms"
    else:
        day, of = anchor_ms // DAY_MS, interval_ms // DAY_MS
        grid = f"a day congruent to {day} modulo {of} from the epoch, as the series' others are"
    return f"its open time is not {grid} (misaligned)"


def first_violation(
    candles: Candles, interval_ms: int, anchor_ms: int | None = None
) -> tuple[int, str] | None:
    """The first row that breaks a rule, and the rule in words; None when all is well.

    `anchor_ms` is the series' own, where it is known; None learns it from these candles.
    """
    rules = chain(
        _order_rules(candles.open_time, candles.open_time),
        _row_rules(candles, interval_ms, anchor_ms),
    )
    broken = [(int(np.argmax(bad)), rule) for bad, rule in rules if bad.any()]
    return min(broken, key=lambda violation: violation[0]) if broken else None


def validate(
    candles: Candles, interval_ms: int, origin: str = "candles", anchor_ms: int | None = None
) -> None:
    """Check every rule of the schema; `anchor_ms` as for `first_violation`.

    Raises
    ------
    CandleError
        Naming the first offending row (0-based), its open time, its values and the rule. When the
        smallest step between rows is a larger multiple of the interval, says that the interval is
        probably wrong.
    """
    violation = first_violation(candles, interval_ms, anchor_ms)
    if violation is not None:
        row, rule = violation
        raise CandleError(
            f"{origin}: row {row} {candle_text(candles, row)}: {rule}. Nothing was written."
        )
    second = wrong_step(candles.open_time, interval_ms)
    if second is not None:
        raise CandleError(
            f"{origin}: row {second}: {wrong_step_text(candles.open_time, interval_ms)}"
        )


def candle_text(candles: Candles, row: int) -> str:
    """A candle in words for an error: '(open_time 1714521600000, 2024-05-01 00:00; open=...)'."""
    values = ", ".join(
        f"{name}={getattr(candles, name)[row]:.12g}" for name in (*PRICE_COLUMNS, "volume")
    )
    stamp = int(candles.open_time[row])
    return f"(open_time {stamp}, {ms_to_utc(stamp)}; {values})"


def wrong_step(open_time: IntArray, interval_ms: int) -> int | None:
    """The second row of the smallest step between sorted candles, where that step is larger than
    the interval; None where it is not, or there is no step."""
    steps = np.diff(open_time)
    return int(np.argmin(steps)) + 1 if len(steps) and steps.min() > interval_ms else None


def wrong_step_text(open_time: IntArray, interval_ms: int) -> str:
    """The error of candles that all lie further apart than the interval."""
    return (
        f"the smallest step between candles is {int(np.diff(open_time).min())} ms, the interval"
        f" asked for is {interval_ms} ms (wrong interval). Nothing was written."
    )


def gaps(open_time: IntArray, interval_ms: int, span: Span | None = None) -> list[Span]:
    """Stretches without candles inside `span` (default: first to last candle), ordered."""
    if span is None:
        if len(open_time) == 0:
            return []
        span = Span(int(open_time[0]), int(open_time[-1]) + interval_ms)
    inside = open_time[(open_time >= span.start_ms) & (open_time < span.end_ms)]
    starts = np.concatenate([[span.start_ms], inside + interval_ms])
    ends = np.concatenate([inside, [span.end_ms]])
    open_ = ends > starts
    return [Span(int(a), int(b)) for a, b in zip(starts[open_], ends[open_], strict=True)]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candle that broke a rule: its open time (UTC ms), its values as text, and the rule."""

    open_time: int
    rule: str
    values: str


def broken_rules(candles: Candles, interval_ms: int, anchor_ms: int | None = None) -> IntArray:
    """For each row (N,) the number of the rule it breaks, from 1, or 0; see `violations`."""
    return _judged(candles, interval_ms, anchor_ms)[0]


def violations(
    candles: Candles, interval_ms: int, anchor_ms: int | None = None
) -> list[tuple[int, str]]:
    """(row, rule) of the rows without which the others keep every rule, in order."""
    broken, rules = _judged(candles, interval_ms, anchor_ms)
    return [(int(row), rules[broken[row] - 1]) for row in np.flatnonzero(broken)]


def _judged(
    candles: Candles, interval_ms: int, anchor_ms: int | None
) -> tuple[IntArray, list[str]]:
    """The first rule that each row breaks, and the rules; a row is compared with those kept."""
    broken, rules = np.zeros(len(candles), dtype=np.int64), []
    for bad, rule in _row_rules(candles, interval_ms, anchor_ms):
        rules.append(rule)
        broken[bad & (broken == 0)] = len(rules)
    # What is kept ascends, so the row kept last is the latest so far, those left out included.
    kept = np.flatnonzero(broken == 0)
    stamps = candles.open_time[kept]
    for bad, rule in _order_rules(np.maximum.accumulate(stamps), stamps):
        rules.append(rule)
        broken[kept[bad]] = len(rules)
    return broken, rules


def split_valid(
    candles: Candles, interval_ms: int, anchor_ms: int | None = None
) -> tuple[Candles, list[Rejected]]:
    """The candles that keep every rule, and those that do not, in order."""
    if first_violation(candles, interval_ms, anchor_ms) is None:
        return candles, []
    found = violations(candles, interval_ms, anchor_ms)
    rejected = [
        Rejected(
            int(candles.open_time[row]),
            rule,
            ", ".join(f"{name}={getattr(candles, name)[row]:.12g}" for name in COLUMNS[1:]),
        )
        for row, rule in found
    ]
    return candles[np.delete(np.arange(len(candles)), [row for row, _ in found])], rejected


def inside(candles: Candles, spans: list[Span]) -> Candles:
    """The candles whose open time lies in one of the spans."""
    keep = np.zeros(len(candles), dtype=np.bool_)
    for span in spans:
        first, last = np.searchsorted(candles.open_time, [span.start_ms, span.end_ms])
        keep[int(first) : int(last)] = True
    return candles if keep.all() else candles[keep]
