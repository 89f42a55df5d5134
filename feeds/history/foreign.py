"""Candles of a file of any kind that people have: `read_file`.

Parquet, feather, text and JSON, plain or gzipped. The dialect is recognised (`dialects`), columns
and times are understood (`columns`, `dates`), then every candle is judged by the rules of the
schema. What only a person can decide is a `Choices`; an error that one would solve names it.
Nothing is filled in, and nothing left out without being asked for.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from cppncripto_strategy.arrays import BoolArray
from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.candles import (
    FAR_TOO_MANY,
    Candles,
    Rejected,
    candle_text,
    first_violation,
    violations,
    wrong_step,
    wrong_step_text,
)
from cppncripto_strategy.feeds.clock import interval_to_ms
from cppncripto_strategy.feeds.history.columns import Columns, read_columns
from cppncripto_strategy.feeds.history.dialects import (
    Rows,
    decode,
    json_rows,
    layouts_of,
    text_files,
    typed_rows,
)

_TYPED = (".parquet", ".pq", ".feather", ".arrow")
_TEXT = (".csv", ".txt", ".tsv", ".json")
SUFFIXES = (".parquet", ".feather", ".csv.gz", ".csv", ".json.gz", ".json")
# Of rows that do not stand still, so many may contradict a layout before it is another one's file.
_TOLERATED = 0.1
# Names of columns in a row that make it a header.
_HEADER_NAMES = 3


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decides about a file.

    Parameters
    ----------
    sort : order the rows by time.
    drop_empty : leave out rows that have a time but neither prices nor a volume.
    set_aside : leave out rows that cannot be understood or break a rule, and report them.
    duplicates : of rows with one open time keep the 'first' or the 'last'; '' refuses them.
    dates : 'day-first' or 'month-first', for dates such as 03/04/2024.
    dialect : name of one of several dialects that fit, such as 'semicolon-decimal-comma'.
    """

    sort: bool = False
    drop_empty: bool = False
    set_aside: bool = False
    duplicates: Literal["", "first", "last"] = ""
    dates: Literal["", "day-first", "month-first"] = ""
    dialect: str = ""


NO_CHOICES = Choices()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file gave.

    Parameters
    ----------
    candles : validated.
    dialect : how it was read, in words.
    empty : rows left out because they hold no numbers.
    repeated : rows left out because another one has their open time.
    rejected : rows set aside.
    """

    candles: Candles
    dialect: str
    empty: int = 0
    repeated: int = 0
    rejected: tuple[Rejected, ...] = ()


def read_file(path: Path | str, interval: str, choices: Choices = NO_CHOICES) -> Candles:
    """Candles of a file (`read_foreign`), nothing but the candles.

    Raises
    ------
    SourceError
        When the file cannot be read, lacks a column, or may mean several things.
    CandleError
        When a row breaks a rule; the row (0-based, header not counted), its line, the column, the
        value and the rule are named.
    """
    return read_foreign(path, interval, choices).candles


def read_foreign(path: Path | str, interval: str, choices: Choices, symbol: str = "") -> Reading:
    """Candles of a file, validated against the interval, and how it was read.

    Parameters
    ----------
    symbol : tells the base from the quote where volumes are named by coin.

    Raises
    ------
    SourceError
        When the file cannot be read, lacks a column, or may mean several things.
    CandleError
        When a row breaks a rule and `choices` do not leave it out.
    """
    file = Path(path)
    rows, columns = _recognise(file, choices, symbol)
    if columns.open_time.size == 0 and not rows.ragged:
        raise SourceError(f"{file} holds no rows")
    sheet = _Sheet(file.name, rows, columns, interval_to_ms(interval))
    return sheet.reading(choices)


def _recognise(file: Path, choices: Choices, symbol: str) -> tuple[Rows, Columns]:
    """The file's rows and columns in the one dialect that fits it.

    Raises
    ------
    SourceError
        When the file cannot be read, none fits, or several that differ.
    """

    def understand(rows: Rows) -> tuple[Rows, Columns]:
        return rows, read_columns(
            rows.table, file.name, symbol=symbol, order=choices.dates, notation=rows.notation
        )

    name = file.name.lower().removesuffix(".gz")
    if not name.endswith((*_TYPED, *_TEXT)):
        raise SourceError(f"{file} is of an unknown kind; expected one of {', '.join(SUFFIXES)}")
    try:
        data = b"" if name.endswith(_TYPED) else _bytes(file)
        if name.endswith(_TYPED):
            return understand(typed_rows(_typed_table(file, name), name.rpartition(".")[2]))
    except (OSError, EOFError, zlib.error, pa.ArrowException) as cause:
        raise SourceError(f"{file} cannot be read: {cause}") from cause
    text, encoding = decode(data, file.name)
    if not text.strip():
        raise SourceError(f"{file} cannot be read: it is empty")
    rows = json_rows(text, file.name) if text.lstrip()[0] in "[{" else _text_rows(text, file.name)
    readings = [understand(reading) for reading in _chosen(rows, choices, file.name)]
    found, columns = _only_reading(readings, file.name)
    return replace(found, said=f"{found.said} ({encoding})" if encoding else found.said), columns


def _typed_table(file: Path, name: str) -> pa.Table:
    if name.endswith((".parquet", ".pq")):
        return pq.ParquetFile(file).read()
    return pyarrow.feather.read_table(file)


def _bytes(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def _text_rows(text: str, origin: str) -> list[Rows]:
    return [
        file.rows(layout)
        for file in text_files(text, origin)
        for layout in ([None] if file.header else layouts_of(file.width, origin))
    ]


def _chosen(rows: list[Rows], choices: Choices, origin: str) -> list[Rows]:
    """The readings that a person has chosen, or all of them.

    Raises
    ------
    SourceError
        When the dialect chosen is none of them.
    """
    chosen = [reading for reading in rows if choices.dialect in ("", reading.name)]
    if not chosen:
        names = ", ".join(repr(reading.name) for reading in rows)
        raise SourceError(f"{origin} is not in the dialect {choices.dialect!r}; it may be {names}")
    return chosen


def _only_reading(readings: list[tuple[Rows, Columns]], origin: str) -> tuple[Rows, Columns]:
    """The reading that the rows do not contradict; equal ones are one.

    Raises
    ------
    SourceError
        When several fit and differ, or none can be explained.
    """
    fitting = [reading for reading in readings if _contradicted(reading[1]) <= _TOLERATED]
    layout = readings[0][0].layout
    if not fitting and layout and "trades" in layout.columns:
        raise SourceError(
            f"{origin} has no header row and {len(layout.columns)} columns that are in no known"
            " order; write the names of the columns into its first line"
        )
    # Where none fits, the first one's errors say most: its layout is the most common.
    first, *others = fitting or readings[:1]
    differing = [other for other in others if not _same(first[1], other[1])]
    if differing:
        names = " or ".join(
            f"{rows.name!r} ({', '.join(_first_row(columns))})"
            for rows, columns in (first, *differing)
        )
        raise SourceError(
            f"{origin} may be read in several ways: {names}; say which with"
            " `data import --dialect NAME`"
        )
    return first


def _contradicted(columns: Columns) -> float:
    """Share of the rows that a layout cannot explain, among those that are not flat."""
    if not len(columns.open_time):
        return 0.0
    prices = [columns.numbers[name] for name in ("open", "high", "low", "close")]
    begin, high, low, close = prices
    flat = (begin == high) & (high == low) & (low == close)
    with np.errstate(invalid="ignore"):
        wrong = (high < np.maximum(begin, close)) | (low > np.minimum(begin, close))
        if "trades" in columns.numbers:  # a count, not an average price nor a time
            trades = columns.numbers["trades"]
            wrong |= (trades % 1 != 0) & ~np.isnan(trades) | (trades >= FAR_TOO_MANY)
            flat &= ~wrong
    broken = columns.broken()
    judged = ~flat & ~np.isnan(np.stack(prices)).any(axis=0) | broken
    return float((wrong | broken)[judged].mean()) if judged.any() else 0.0


def _same(one: Columns, other: Columns) -> bool:
    return np.array_equal(one.broken(), other.broken()) and one.candles().equals(other.candles())


def _first_row(columns: Columns) -> list[str]:
    return [
        f"{name} {values[0]:.12g}"
        for name, values in columns.numbers.items()
        if len(values) and not np.isnan(values[0])
    ]


class _Sheet:
    """A file's rows on their way to candles; knows where each stood. Lives for one reading."""

    def __init__(self, origin: str, rows: Rows, columns: Columns, interval_ms: int) -> None:
        self.origin, self.rows, self.columns, self.interval_ms = origin, rows, columns, interval_ms
        self.candles = columns.candles()
        # Positions in the table of the rows still to be candles, in the order of the candles.
        self.kept = np.arange(len(columns.open_time))
        self.rejected: list[Rejected] = []
        self.said = f"{rows.said}; {columns.said}"

    def reading(self, choices: Choices) -> Reading:
        """The candles that remain, validated.

        Raises
        ------
        CandleError
            When a row cannot be understood or breaks a rule, and nobody asked to leave it out.
        SourceError
            When nothing remains.
        """
        self._leave_flawed(choices)
        empty = self._leave_empty() if choices.drop_empty else 0
        self._order(choices)
        repeated = self._leave_repeated(choices.duplicates) if choices.duplicates else 0
        self._judge(choices)
        candles = self._candles()
        if len(candles) == 0:
            raise SourceError(f"{self.origin}: no candle remains of {len(self.candles):,} rows")
        return Reading(candles, self.said, empty, repeated, tuple(self.rejected))

    def _candles(self) -> Candles:
        return self.candles[self.kept]

    def _leave_flawed(self, choices: Choices) -> None:
        """Rows that are no rows, or whose cells cannot be understood."""
        broken = self.columns.broken()
        self._refuse_other_header(broken)
        if not choices.set_aside:
            self._raise_flaw(broken)
            return
        for bad in self.rows.ragged:
            self.rejected.append(
                Rejected(0, "another number of columns", self._at(bad.row, bad.text))
            )
        for position in np.flatnonzero(broken).tolist():
            flaw = next(flaw for flaw in self.columns.flaws if flaw.rows[position])
            cells = ", ".join(str(column[position].as_py()) for column in self.rows.table.columns)
            stamp = int(self.candles.open_time[position])
            text = self._at(int(self.rows.row[position]), cells)
            self.rejected.append(Rejected(stamp, flaw.rule, text))
        self.kept = self.kept[~broken]

    def _refuse_other_header(self, broken: BoolArray) -> None:
        """A header that is not the file's own: columns change their places in the middle.

        Raises
        ------
        SourceError
            Naming its row.
        """
        names = {name.lower() for name in self.rows.table.column_names}
        texts = [(bad.row, re.split(r"[,;\t|]", bad.text)) for bad in self.rows.ragged]
        for position in np.flatnonzero(broken).tolist():
            cells = [str(column[position].as_py()) for column in self.rows.table.columns]
            texts.append((int(self.rows.row[position]), cells))
        for row, cells in texts:
            if len(names & {cell.strip().lower() for cell in cells}) >= _HEADER_NAMES:
                raise SourceError(
                    f"{self.origin}: row {row}: another header, {', '.join(cells)}, after"
                    f" {', '.join(self.rows.table.column_names)}{self._line(row)}. Split the file"
                    " there and import both parts"
                )

    def _raise_flaw(self, broken: BoolArray) -> None:
        row, said = min(
            [(bad.row, bad.said) for bad in self.rows.ragged[:1]]
            + [
                (int(self.rows.row[position]), flaw.say(position))
                for flaw in self.columns.flaws
                if flaw.rows.any() and (position := int(np.argmax(flaw.rows))) is not None
            ],
            default=(-1, ""),
            key=lambda pair: pair[0],
        )
        if row >= 0:
            raise CandleError(
                f"{self.origin}: row {row}: {said}{self._line(row)}. Nothing was written."
                f"{_hint('--set-aside', 'leaves such rows out')}"
            )

    def _leave_empty(self) -> int:
        empty = self.columns.without_numbers()[self.kept]
        self.kept = self.kept[~empty]
        return int(empty.sum())

    def _order(self, choices: Choices) -> None:
        """Newest first is turned round where every row says so; any other order is a person's."""
        stamps = self.candles.open_time[self.kept]
        steps = np.diff(stamps)
        if choices.sort:
            self.kept = self.kept[np.argsort(stamps, kind="stable")]
        elif len(steps) and (steps <= 0).all() and (steps < 0).any():
            self.kept = self.kept[::-1]
            self.said += "; newest first"

    def _leave_repeated(self, keep: str) -> int:
        stamps, rows = self.candles.open_time[self.kept], self.rows.row[self.kept]
        order = np.lexsort((rows if keep == "first" else -rows, stamps))
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = np.diff(stamps[order]) != 0
        chosen = np.sort(order[first])
        count = len(self.kept) - len(chosen)
        self.kept = self.kept[chosen]
        return count

    def _judge(self, choices: Choices) -> None:
        candles = self._candles()
        violation = first_violation(candles, self.interval_ms)
        if violation is not None and choices.set_aside:
            found = violations(candles, self.interval_ms)
            for position, rule in found:
                row = int(self.rows.row[self.kept[position]])
                text = self._at(row, candle_text(candles, position))
                self.rejected.append(Rejected(int(candles.open_time[position]), rule, text))
            self.kept = np.delete(self.kept, [position for position, _ in found])
        elif violation is not None:
            position, rule = violation
            row = int(self.rows.row[self.kept[position]])
            raise CandleError(
                f"{self.origin}: row {row} {candle_text(candles, position)}: {rule}"
                f"{self._line(row)}. Nothing was written.{self._remedy(position, rule)}"
            )
        # Rows left out for their values still show how far the file's rows lie apart.
        stamps = np.unique(self.candles.open_time[~self.columns.broken()])
        step = wrong_step(stamps, self.interval_ms)
        if step is not None:
            position = int(np.argmax(self.candles.open_time == stamps[step]))
            row = int(self.rows.row[position])
            said = wrong_step_text(stamps, self.interval_ms)
            raise CandleError(f"{self.origin}: row {row}: {said}")

    def _remedy(self, position: int, rule: str) -> str:
        """The option that would solve it, in a sentence."""
        stamps = np.sort(self.candles.open_time[self.kept])
        repeats = bool((np.diff(stamps) == 0).any())
        which = "keep the first or the last of rows with one open time"
        if "unsorted" in rule:
            more = f", then `--first` or `--last` {which}" if repeats else ""
            return _hint("--sort", f"orders the rows by time{more}")
        if "duplicate" in rule:
            return _hint("--first` or `--last", which)
        if self.columns.without_numbers()[self.kept[position]]:
            return _hint("--drop-empty", "leaves rows without numbers out")
        return _hint("--set-aside", "leaves such rows out and keeps them in quarantine")

    def _line(self, row: int) -> str:
        return f" (line {self.rows.line(row)} of the file)" if self.rows.line else ""

    def _at(self, row: int, text: str) -> str:
        where = f"line {self.rows.line(row)}" if self.rows.line else f"row {row}"
        return f"{where}: {text}"


def _hint(option: str, does: str) -> str:
    return f" `data import {option}` {does}"
