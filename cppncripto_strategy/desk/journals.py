"""A session's journals, read while they grow: from a byte on, in bounded pieces, never as a whole.

The last line may be half written: it is left for the next look. A damaged line is counted and left
out, so that one bad sector does not hide a day.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppncripto_strategy.feeds.live.journal import record_of

Record = dict[str, Any]
CHUNK = 1 << 20
# A line longer than this is no line of ours.
LONGEST = 4 << 20
# How much of a journal one page may read.
PAGE_BYTES = 4 << 20
# Of those, so many are read first, and then as many again as were read so far.
PIECE = 64 << 10


class Follower:
    """The records of a journal that came since the last look. One reader; lives as long as it.

    Parameters
    ----------
    path : the journal; it need not exist yet.
    last_bytes : begin so many bytes before its end; None begins at the beginning.
    place : where another follower of it was; its `place`.

    Attributes
    ----------
    damaged : lines left out so far.
    changed_s : when the file was last written, seconds since 1970; None before it exists.
    replaced : whether the file is not the one that was followed, or became shorter.
    """

    def __init__(
        self, path: Path, last_bytes: int | None = None, place: tuple[int, int] = (0, 0)
    ) -> None:
        self.path = path
        self.damaged = 0
        self.changed_s: float | None = None
        self.replaced = False
        self._last_bytes = last_bytes
        self._inode, self._offset = place

    @property
    def place(self) -> tuple[int, int]:
        """The file that is followed (its inode, 0 before there is one), and the next byte of it.

        Within `fresh`, the byte after the record that it gave last.
        """
        return self._inode, self._offset

    def fresh(self) -> Iterator[Record]:
        """Records since the last look; none where the file is absent, replaced or not readable."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                self.replaced = bool(self._inode) and (
                    state.st_ino != self._inode or state.st_size < self._offset
                )
                if self.replaced:
                    return
                if not self._inode:
                    self._offset = _start(file, state.st_size, self._last_bytes)
                self._inode, self.changed_s = state.st_ino, state.st_mtime
                file.seek(self._offset)
                yield from self._records(file)
        except OSError:
            return

    def size(self) -> int:
        """Bytes of the file now; 0 without one."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _records(self, file: Any) -> Iterator[Record]:
        rest = b""
        while piece := file.read(CHUNK):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                record = record_of(line)
                if record is None:
                    self.damaged += 1
                else:
                    yield record
            if len(rest) > LONGEST:
                self.damaged += 1
                self._offset += len(rest)
                rest = b""


def _start(file: Any, size: int, last_bytes: int | None) -> int:
    """The byte of the first whole line among the last ones."""
    if last_bytes is None or size <= last_bytes:
        return 0
    file.seek(size - last_bytes)
    cut = file.read(LONGEST).find(b"\n")
    return size if cut < 0 else size - last_bytes + cut + 1


@dataclass(frozen=True, slots=True)
class Part:
    """Records of a journal from a cursor on; `next` is the byte after them, None at the end."""

    records: list[Record]
    next: int | None
    damaged: int


class CursorError(ValueError):
    """A cursor that is no beginning of a line: not one that was given out."""


def read_part(
    path: Path, cursor: int, limit: int, wanted: Callable[[Record], bool] = lambda _record: True
) -> Part:
    """At most `limit` records from a byte on; fewer where four megabytes hold fewer wanted ones.

    Raises
    ------
    CursorError
        When no line begins at the cursor.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if cursor > size or (cursor and not _line_begins(file, cursor)):
                raise CursorError(f"no line begins at {cursor}: take `next` of the page before")
            file.seek(cursor)
            return _part(file, (cursor, size), limit, wanted)
    except OSError:
        return Part([], None, 0)


def _part(file: Any, span: tuple[int, int], limit: int, wanted: Callable[[Record], bool]) -> Part:
    """The part of a journal that begins where the file stands; `span` is that byte and its size."""
    cursor, size = span
    found: list[Record] = []
    damaged, at, content = 0, 0, b""
    while len(content) < PAGE_BYTES and (piece := file.read(max(PIECE, len(content)))):
        content += piece
        while len(found) < limit and (end := content.find(b"\n", at)) >= 0:
            record = record_of(content[at:end])
            at = end + 1
            if record is None:
                damaged += 1
            elif wanted(record):
                found.append(record)
        if len(found) == limit:
            break
    if not at and len(content) >= PAGE_BYTES:  # one line longer than a page is none of ours
        return Part(found, None, damaged + 1)
    more = content.find(b"\n", at) >= 0 or cursor + len(content) < size
    return Part(found, cursor + at if more else None, damaged)


def last_cursor(path: Path, limit: int) -> int:
    """The cursor of the last `limit` whole lines, or of those in the last four megabytes."""
    try:
        with path.open("rb") as file:
            start = size = os.fstat(file.fileno()).st_size
            content = b""
            while start and len(content) < PAGE_BYTES and content.count(b"\n") <= limit:
                start = max(0, start - max(PIECE, len(content)))
                file.seek(start)
                content = file.read(size - start - len(content)) + content
    except OSError:
        return 0
    *lines, half_written = content.split(b"\n")
    whole = lines[1 if start else 0 :][-limit:]
    return start + len(content) - len(half_written) - sum(len(line) + 1 for line in whole)


def _line_begins(file: Any, cursor: int) -> bool:
    file.seek(cursor - 1)
    return bool(file.read(1) == b"\n")
