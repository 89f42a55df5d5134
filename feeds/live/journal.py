"""Journals: rounds and other records as JSON lines with a checksum, on disk before they count.

A torn last line, left by a kill, is dropped when read; damage before it is an error.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cppncripto_strategy.atomic import sync_folder
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.live.rounds import Round


class LineJournal:
    """Append-only JSON lines, each with a checksum, on disk before `append` returns.

    Parameters
    ----------
    path : the file; made when absent. A torn last line is cut off when opened.
    synced : wait for the disk; False for what can be computed again.
    """

    def __init__(self, path: Path, synced: bool = True) -> None:
        self.path, self.synced = path, synced
        self.records = read_lines(path)
        kept = sum(len(line_of(record)) for record in self.records)
        self._file = open(path, "ab")  # noqa: SIM115 - held open for the session's life
        self._file.truncate(kept)
        sync_folder(path.parent)

    def append(self, records: Sequence[Mapping[str, Any]], synced: bool | None = None) -> None:
        """Write the records and, where `synced`, wait until the disk has them."""
        if not records:
            return
        self._file.write(b"".join(line_of(record) for record in records))
        self._file.flush()
        if self.synced if synced is None else synced:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything appended so far; from any thread."""
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line of a journal: eight hex digits of its CRC-32, a blank, JSON."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a journal; a torn or damaged last line is left out.

    Raises
    ------
    SessionError
        When a line before the last is damaged: that is no crash, the file was altered.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1]):
        check, _, text = line.partition(b" ")
        if len(check) != 8 or check != b"%08x" % zlib.crc32(text):
            if any(rest for rest in lines[number + 1 :]):
                raise SessionError(
                    f"{path}, line {number + 1} is damaged and lines follow it: expected its"
                    " checksum to match. Restore the file from a copy, or start a new session."
                )
            break
        records.append(json.loads(text))
    return records


def round_record(shown: Round) -> dict[str, Any]:
    """A round as a journal record: {"t":close,"c":{"BTCUSDT":[...]},"g":[...],"s":[...],"u":1}.

    A withdrawn gap stands in "w":{"BTCUSDT":[...]}; what is empty is left out.
    """
    record: dict[str, Any] = {
        "t": shown.close_ms,
        "c": {s: list(r) for s, r in shown.candles.items()},
    }
    if shown.gaps:
        record["g"] = list(shown.gaps)
    if shown.stale:
        record["s"] = list(shown.stale)
    if shown.catch_up:
        record["u"] = 1
    if shown.withdrawn:
        record["w"] = {s: list(r) for s, r in shown.withdrawn.items()}
    return record


def round_from_record(record: Mapping[str, Any]) -> Round:
    """The round of a journal record."""
    return Round(
        close_ms=record["t"],
        candles={symbol: tuple(row) for symbol, row in record["c"].items()},
        gaps=tuple(record.get("g", ())),
        stale=tuple(record.get("s", ())),
        catch_up=bool(record.get("u", 0)),
        withdrawn={symbol: tuple(row) for symbol, row in record.get("w", {}).items()},
    )
