"""Text and JSON files as tables: the dialects in which people's tools write candles.

`MARKS` says how cells and numbers are separated, `LAYOUTS` which columns a file without a header
has. A reading that does not fit is no candidate; when several fit and differ, the caller refuses.
Lines above the header, blank lines and a header repeated in the middle are left out, and every row
knows its line. pyarrow parses the cells; nothing is converted here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.klines import ROW_FIELDS
from cppncripto_strategy.feeds.history.columns import ABSENT, Notation

SAMPLE_CHARACTERS = 10_000
MOST_ABOVE_HEADER = 10
FEWEST_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Marks:
    """What separates cells, and how numbers are written; by its name on the command line."""

    name: str
    delimiter: str
    notation: Notation = field(default_factory=Notation)


MARKS = (
    Marks("comma", ","),
    Marks("comma-decimal-comma", ",", Notation(",")),
    Marks("semicolon", ";"),
    Marks("semicolon-decimal-comma", ";", Notation(",")),
    Marks("semicolon-thousands-comma", ";", Notation(".", ",")),
    Marks("semicolon-thousands-point", ";", Notation(",", ".")),
    Marks("tab", "\t"),
    Marks("tab-decimal-comma", "\t", Notation(",")),
    Marks("tab-thousands-comma", "\t", Notation(".", ",")),
    Marks("pipe", "|"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of rows without names, in order."""

    name: str
    columns: tuple[str, ...]


_OHLC = ("open", "high", "low", "close")
LAYOUTS = (
    Layout("ohlcv", ("open_time", *_OHLC, "volume")),
    Layout("bitfinex", ("open_time", "open", "close", "high", "low", "volume")),
    Layout("coinbase", ("open_time", "low", "high", "open", "close", "volume")),
    Layout("kraken", ("open_time", *_OHLC, "volume", "trades")),
    Layout("date-time", ("date", "time", *_OHLC, "volume")),
    Layout("binance-11", ROW_FIELDS[:-1]),
    Layout("binance", ROW_FIELDS),
)


@dataclass(frozen=True, slots=True)
class Ragged:
    """A line with too few or too many columns: its row and text."""

    row: int
    text: str
    said: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A file's rows as columns of text or of types, and where each row stood.

    Parameters
    ----------
    table : the columns by the names in the file, or by a layout's.
    row : 0-based row of each in the file, header lines not counted (N,).
    layout : the layout of a file without names, None with names.
    marks : of text, None of JSON and of typed files.
    said : the dialect in words.
    ragged : rows left out because they have another number of columns.
    line : the 1-based line of a row; None where rows are not lines.
    """

    table: pa.Table
    row: IntArray
    said: str
    layout: Layout | None = None
    marks: Marks | None = None
    ragged: tuple[Ragged, ...] = ()
    line: Callable[[int], int] | None = None

    @property
    def notation(self) -> Notation:
        """How its numbers are written."""
        return self.marks.notation if self.marks else Notation()

    @property
    def name(self) -> str:
        """What `--dialect` calls this reading."""
        names = [self.marks.name if self.marks else "", self.layout.name if self.layout else ""]
        return "/".join(filter(None, names))


def typed_rows(table: pa.Table, said: str) -> Rows:
    """Rows of a table that already has names and types."""
    return Rows(table, np.arange(table.num_rows), said)


def decode(data: bytes, origin: str) -> tuple[str, str]:
    """The text of a file, and its encoding where it is not UTF-8.

    UTF-8, UTF-16 (with or without a BOM), else cp1252.

    Raises
    ------
    SourceError
        When it is none of these.
    """
    head = data[:200]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif head[1::2].count(0) > len(head) // 4:
        encodings = ["utf-16-le"]
    elif head[::2].count(0) > len(head) // 4:
        encodings = ["utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        plain = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
        return plain, encoding.removesuffix("-sig").removesuffix("utf-8")
    raise SourceError(
        f"{origin} is no text in UTF-8, UTF-16 or cp1252; save it again as UTF-8 (or Parquet)"
    )


def json_rows(text: str, origin: str) -> list[Rows]:
    """Readings of a JSON list of lists or of objects.

    Raises
    ------
    SourceError
        When it is not JSON, or no such list.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise SourceError(f"{origin} is not JSON: {cause}") from cause
    if not isinstance(document, list) or not document:
        raise SourceError(
            f"{origin} holds no list of candles: expected [[ms, open, high, low, close, volume],"
            " ...] or a list of objects"
        )
    if all(isinstance(row, dict) for row in document):
        names = list(dict.fromkeys(name for row in document for name in row))
        columns = [[row.get(name) for row in document] for name in names]
        return [typed_rows(_json_table(columns, names), "JSON list of objects")]
    width = Counter(len(row) for row in document if isinstance(row, list)).most_common(1)
    if not width:
        raise SourceError(f"{origin}: row 0 is {str(document[0])[:60]!r}, expected a list")
    count = width[0][0]
    kept = [r for r, row in enumerate(document) if isinstance(row, list) and len(row) == count]
    ragged = tuple(
        Ragged(r, str(row)[:200], f"{str(row)[:60]!r}, expected a list of {count} values")
        for r, row in enumerate(document)
        if not (isinstance(row, list) and len(row) == count)
    )
    columns = [[document[r][index] for r in kept] for index in range(count)]
    return [
        Rows(
            _json_table(columns, list(layout.columns)),
            np.array(kept),
            f"JSON list of rows, columns {', '.join(layout.columns)}",
            layout,
            ragged=ragged,
        )
        for layout in layouts_of(count, origin)
    ]


def layouts_of(count: int, origin: str) -> list[Layout]:
    """The layouts of so many columns.

    Raises
    ------
    SourceError
        When there is none.
    """
    layouts = [layout for layout in LAYOUTS if len(layout.columns) == count]
    if not layouts:
        raise SourceError(
            f"{origin} has no header row and {count} columns; expected 6 (time, open, high, low,"
            " close, volume), 7 (with trades, or with date and time apart) or the exchange's own"
            " 12. Write the names of the columns into its first line"
        )
    return layouts


def _json_table(columns: list[list[Any]], names: list[str]) -> pa.Table:
    return pa.Table.from_arrays([_json_column(column) for column in columns], names=names)


def _json_column(values: list[Any]) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowException, OverflowError):  # numbers and text mixed
        text = [None if value is None else str(value) for value in values]
        return pa.chunked_array([pa.array(text, pa.string())])


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text with what its first lines say, read with given marks.

    Parameters
    ----------
    text : the whole text, lines ended by \\n.
    marks : how cells are separated.
    above : the lines above the header or the first row.
    header : the header line, '' where there is none.
    columns : its names, empty without a header.
    width : how many columns.
    """

    text: str
    marks: Marks
    above: tuple[str, ...]
    header: str
    columns: tuple[str, ...]
    width: int

    def rows(self, layout: Layout | None) -> Rows:
        """The rows parsed under the header's names or a layout's."""
        drop = _repeated(self.text, (*self.above, self.header))
        names = layout.columns if layout else self.columns
        table, ragged, count = _parse(_without(self.text, drop), names, self.marks.delimiter)
        kept = np.delete(np.arange(count), [bad.row for bad in ragged])
        return Rows(
            table, kept, self._said(layout), layout, self.marks, ragged, _Lines(self.text, drop)
        )

    def _said(self, layout: Layout | None) -> str:
        said = self.marks.name.replace("-", ", ", 1).replace("-", " ")
        if layout:
            said += f", no header, columns {', '.join(layout.columns)}"
        if self.above:
            said += f", {len(self.above)} line{'s' * (len(self.above) > 1)} above the header"
        return said


def text_files(text: str, origin: str) -> list[TextFile]:
    """The readings of a text that separate it into columns of numbers; usually there is one.

    Of marks with one delimiter those stay that read most numbers. A mark that occurs in no number
    decides nothing and is no reading of its own.

    Raises
    ------
    SourceError
        When there is none.
    """
    sample = [line for line in _sample(text).split("\n") if line.strip()]
    best: dict[str, int] = {}
    files: list[tuple[int, TextFile]] = []
    for marks in MARKS:
        rows = [_cells(line, marks) for line in sample]
        width = Counter(map(len, rows)).most_common(1)[0][0]
        count, evidence = _numbers_read([row for row in rows if len(row) == width], marks.notation)
        if width < FEWEST_COLUMNS or not count or not evidence:
            continue
        files.append((count, _text_file(text, marks, sample, width)))
        best[marks.delimiter] = max(count, best.get(marks.delimiter, 0))
    chosen = [file for count, file in files if count == best[file.marks.delimiter]]
    if not chosen and len(sample) == 1:
        raise SourceError(f"{origin} holds no rows")
    if not chosen:
        raise SourceError(
            f"{origin}: no dialect fits: expected five or more columns, four of them numbers,"
            " separated by comma, semicolon, tab or |"
        )
    return chosen


def _numbers_read(rows: list[list[str]], notation: Notation) -> tuple[int, bool]:
    """How many cells are numbers in this notation (0 where fewer than four columns are), and
    whether one of them shows the marks that make it another one than a plain notation."""
    pattern = re.compile(f"(?:{notation.pattern()})|(?i:{'|'.join(map(re.escape, ABSENT))})")
    read = [[bool(pattern.fullmatch(cell)) for cell in row] for row in rows]
    columns = [sum(column) for column in zip(*read, strict=True)]
    if sum(2 * count >= len(rows) for count in columns) < FEWEST_COLUMNS - 1:
        return 0, False
    mark = notation.thousands or notation.decimal
    shown = notation == Notation() or any(
        mark in cell and fits
        for row, fit in zip(rows, read, strict=True)
        for cell, fits in zip(row, fit, strict=True)
    )
    return sum(columns), shown


def _text_file(text: str, marks: Marks, sample: list[str], width: int) -> TextFile:
    rows = [_cells(line, marks) for line in sample[: MOST_ABOVE_HEADER + 1]]
    first = next((k for k, row in enumerate(rows) if len(row) == width), 0)
    if any(_is_number(cell) for row in rows[:first] for cell in row):
        first = 0  # a short row of numbers is a damaged row, not a title
    named = len(rows[first]) == width and not any(map(_is_number, rows[first]))
    header = sample[first] if named else ""
    return TextFile(
        text, marks, tuple(sample[:first]), header, tuple(rows[first]) if named else (), width
    )


def _sample(text: str) -> str:
    """The first and the last lines of a text; all of a short one."""
    if len(text) <= 4 * SAMPLE_CHARACTERS:
        return text
    head, tail = text[:SAMPLE_CHARACTERS], text[-SAMPLE_CHARACTERS:]
    return head[: head.rfind("\n") + 1] + tail[tail.find("\n") + 1 :]


def _cells(line: str, marks: Marks) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=marks.delimiter), [])]


def _is_number(cell: str) -> bool:
    """True for numbers of any notation, which no header has."""
    return bool(re.fullmatch(r"[+-]?[\d.,]*\d([eE][+-]?\d+)?", cell))


def _repeated(text: str, lines: tuple[str, ...]) -> list[tuple[int, int]]:
    """(start, end) of blank lines and of every repetition of the lines above the first row."""
    known = "|".join(re.escape(line) for line in dict.fromkeys(lines) if line)
    blank = r"^[ \t]*\n" if not known else rf"^[ \t]*(?:{known})?[ \t]*(?:\n|\Z)"
    return [m.span() for m in re.finditer(blank, text, re.MULTILINE) if m.end() > m.start()]


def _without(text: str, spans: list[tuple[int, int]]) -> bytes:
    parts, position = [], 0
    for start, end in spans:
        parts.append(text[position:start])
        position = end
    return "".join([*parts, text[position:]]).encode()


class _Lines:
    """The 1-based line of each row; worked out when somebody asks."""

    def __init__(self, text: str, dropped: list[tuple[int, int]]) -> None:
        self._text, self._spans = text, dropped
        self._dropped: list[int] | None = None

    def __call__(self, row: int) -> int:
        if self._dropped is None:
            self._dropped = [self._text.count("\n", 0, start) for start, _ in self._spans]
        line = row
        for dropped in self._dropped:  # in order
            line += dropped <= line
        return line + 1


def _parse(
    data: bytes, names: tuple[str, ...], delimiter: str
) -> tuple[pa.Table, tuple[Ragged, ...], int]:
    """All cells as text, the rows of another width, and how many rows there were."""
    invalid: list[Any] = []

    def note(row: Any) -> str:
        invalid.append(row)
        return "skip"

    if not data.strip():
        empty = pa.table({name: pa.array([], pa.string()) for name in names})
        return empty, (), 0
    table = pyarrow.csv.read_csv(
        io.BytesIO(data),
        read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, invalid_row_handler=note, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    ragged = tuple(
        Ragged(
            row.number - 1,
            row.text[:200],
            f"{row.actual_columns} columns, expected {row.expected_columns}: {row.text[:60]!r}",
        )
        for row in invalid
    )
    return table, ragged, table.num_rows + len(ragged)
