"""Journals: rounds and other records as JSON lines with a checksum, on disk before they count.

    8c1f3a70 {"i":41,"t":1716206700000,"a":["BTCUSDT"]}

A torn last line, left by a kill, is dropped when read, and that is reported; damage before it is an
error. A write that the disk refuses (full, read-only, broken) leaves the whole lines before it.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppncripto_strategy.atomic import sync_folder
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.candles import Row
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.system import sync_content

log = logging.getLogger(__name__)

RESTORE = "Restore the file from a copy, or start another session (--name)"
COMPUTED_AGAIN = "It can be computed again: move the file away, and the same command writes it anew"


@dataclass(frozen=True, slots=True)
class Torn:
    """A last line that a kill or a power cut left unfinished, and that was cut off.

    Parameters
    ----------
    after : whole lines before it, those read; size : its bytes.
    """

    after: int
    size: int


class LineJournal:
    """Append-only JSON lines, each with a checksum, on disk before `append` returns.

    Parameters
    ----------
    path : the file; made when absent. A torn last line is cut off when opened, with a warning.
    synced : wait for the disk; False for what can be computed again.
    start : byte at which reading begins, the first of a line; what lies before stays as it is.
    advice : what to do about damage, a sentence.

    Attributes
    ----------
    records : those read when it was opened.
    torn : what was cut off then, if anything.

    Raises
    ------
    SessionError
        When a line before the last is damaged, or the disk refuses the file.
    """

    def __init__(
        self, path: Path, synced: bool = True, start: int = 0, advice: str = RESTORE
    ) -> None:
        self.path, self.synced = path, synced
        self.records, whole, torn = _scan(path, start, advice)
        self.torn = Torn(len(self.records), torn) if torn else None
        if self.torn is not None:
            log.warning(
                "%s ended in an unfinished line of %d bytes after %d whole ones, which a kill or a"
                " power cut leaves: it is cut off", path, self.torn.size, self.torn.after,
            )  # fmt: skip
        self._size = start + whole
        self._refused: OSError | None = None
        try:
            # Unbuffered, so that what a full disk did not take is not written by a later append.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - held for its owner's life
            self._file.truncate(self._size)
            sync_folder(path.parent)
        except OSError as cause:
            raise self._error(cause) from cause

    def append(self, records: Sequence[Mapping[str, Any]], synced: bool | None = None) -> None:
        """Write the records and, where `synced`, wait until the disk has them.

        Raises
        ------
        SessionError
            When the disk refuses them; then, and from then on, nothing is appended.
        """
        if not records:
            return
        self._require_sound()
        content = memoryview(b"".join(line_of(record) for record in records))
        try:
            done = 0
            while done < len(content):
                done += self._file.write(content[done:]) or 0
        except OSError as cause:
            with suppress(OSError):  # at worst a torn last line, as a kill leaves it
                self._file.truncate(self._size)
            raise self._error(cause) from cause
        self._size += len(content)
        if self.synced if synced is None else synced:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything appended so far; from any thread.

        Raises
        ------
        SessionError
            When the disk refuses.
        """
        self._require_sound()
        try:
            sync_content(self._file.fileno())
        except OSError as cause:
            raise self._error(cause) from cause

    def _require_sound(self) -> None:
        if self._refused is not None:
            raise self._error(self._refused)

    def _error(self, cause: OSError) -> SessionError:
        self._refused = cause
        return SessionError(
            f"{self.path} cannot be written: {cause.strerror or cause}. Everything before that is"
            " kept. Make room on the disk, or make it writable, and give the same command again"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line of a journal: eight hex digits of its CRC-32, a blank, JSON."""
    text = _to_text(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


# `json.dumps` would make an encoder per record; no record holds itself.
_to_text = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def read_lines(path: Path, start: int = 0, advice: str = RESTORE) -> list[dict[str, Any]]:
    """The records of a journal from a byte on; a torn or damaged last line is left out.

    Parameters
    ----------
    start, advice : as for `LineJournal`.

    Raises
    ------
    SessionError
        When a line before the last is damaged: that is no crash, the file was altered.
    """
    return _scan(path, start, advice)[0]


def _scan(path: Path, start: int, advice: str) -> tuple[list[dict[str, Any]], int, int]:
    """Records from byte `start` on, the bytes of their lines, and those of a torn last line."""
    if not path.exists():
        return [], 0, 0
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    lines = content.split(b"\n")
    records: list[dict[str, Any]] = []
    whole = 0
    for number, line in enumerate(lines[:-1]):
        record = record_of(line)
        if record is None:
            if any(lines[number + 1 :]):
                raise SessionError(_damage(path, start, records, len(lines) - 1, advice))
            break
        records.append(record)
        whole += len(line) + 1
    return records, whole, len(content) - whole


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its end, None where the line is damaged."""
    check, _, text = line.partition(b" ")
    if len(check) != 8 or check != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _damage(
    path: Path, start: int, whole: Sequence[Mapping[str, Any]], total: int, advice: str
) -> str:
    """What is damaged, what is safe, and what to do."""
    with path.open("rb") as file:
        earlier = file.read(start).count(b"\n")
    safe = earlier + len(whole)
    last = whole[-1].get("t") if whole else None
    until = f", until {ms_to_utc(last)} UTC" if isinstance(last, int) else ""
    kept = f"Lines 1 to {safe} are whole{until}" if safe else "No line before it is whole"
    return (
        f"{path}, line {safe + 1} of {earlier + total} is damaged: its checksum is not that of its"
        f" text. A kill tears the last line alone, so the file was altered, or the disk lost a part"
        f" of it. {kept}. {advice}"
    )


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
    """The round of a journal record. Raises TypeError or ValueError when it is none."""
    return Round(
        close_ms=_time(record["t"]),
        candles={symbol: _row(row) for symbol, row in record["c"].items()},
        gaps=_symbols(record.get("g", ())),
        stale=_symbols(record.get("s", ())),
        catch_up=bool(record.get("u", 0)),
        withdrawn={symbol: _row(row) for symbol, row in record.get("w", {}).items()},
    )


def _time(value: object) -> int:
    """UTC ms, before the year 2248."""
    if type(value) is not int or not 0 <= value < 2**43:
        raise ValueError(f"not a time: {value!r:.40}")
    return value


def _symbols(values: Sequence[object]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"not symbols: {values!r:.80}")
    return tuple(str(value) for value in values)


def _row(values: Sequence[Any]) -> Row:
    """A candle: its open time and nine numbers, as arrays of numbers can hold them."""
    numbers = values[1:]
    if len(numbers) != 9 or not all(
        type(number) is float or (type(number) is int and abs(number) < 2**63) for number in numbers
    ):
        raise ValueError(f"not a candle: {values!r:.80}")
    return (_time(values[0]), *numbers)
