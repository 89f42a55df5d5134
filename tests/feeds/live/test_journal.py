"""Journals on disks that are full, broken or altered."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.live.journal import COMPUTED_AGAIN, LineJournal, Torn, read_lines

MAY_2024_MS = 1_714_521_600_000  # 2024-05-01 00:00 UTC
FILL = """
import resource, signal, sys
from pathlib import Path
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.live.journal import LineJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
journal = LineJournal(Path(sys.argv[1]))
for number in range(1000):
    try:
        journal.append([{"n": number}, {"n": -number}])
    except SessionError as error:
        print(error)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    journal.append([{"n": "after"}])
except SessionError as error:
    print(error)
journal.close()
"""


def journal_of(path: Path, count: int) -> Path:
    journal = LineJournal(path)
    journal.append([{"t": MAY_2024_MS + 60_000 * number} for number in range(count)])
    journal.close()
    return path


@pytest.mark.posix
def test_disk_that_fills_up_leaves_whole_lines_and_is_named(tmp_path: Path) -> None:
    """Half a line in the middle of a journal, once there is room again: damage for ever."""
    path = tmp_path / "rounds.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"{path} cannot be written: File too large. Everything before that")
    numbers = [record["n"] for record in read_lines(path)]
    assert 0 < path.stat().st_size <= 1000
    assert numbers == [value for n in range(len(numbers) // 2) for value in (n, -n)]
    journal = LineJournal(path)
    assert journal.torn is None
    journal.append([{"n": "again"}])
    journal.close()
    assert [record["n"] for record in read_lines(path)] == [*numbers, "again"]


def test_disk_that_breaks_at_the_sync_is_named(tmp_path: Path) -> None:
    """A round that counts as safe because the second try of a failed fsync says so."""
    journal = LineJournal(tmp_path / "opened.jsonl")
    reader, writer = os.pipe()  # a pipe cannot be synced: EINVAL
    kept, journal._file = journal._file, open(writer, "wb", buffering=0)  # noqa: SIM115
    for _ in range(2):
        with pytest.raises(SessionError, match=r"opened\.jsonl cannot be written: Invalid arg"):
            journal.append([{"n": 1}])
    journal.close()
    kept.close()
    os.close(reader)


def test_torn_last_line_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line that vanishes without a word."""
    path = journal_of(tmp_path / "opened.jsonl", 3)
    assert LineJournal(path).torn is None
    path.write_bytes(path.read_bytes()[:-5])
    size = path.stat().st_size
    journal = LineJournal(path)
    assert journal.torn == Torn(2, size - path.stat().st_size)
    assert f"{path} ended in an unfinished line" in caplog.text
    assert "after 2 whole ones" in caplog.text


def test_damage_names_its_line_what_is_safe_and_what_to_do(tmp_path: Path) -> None:
    """A trader in front of a broken file, who does not know what of it is left."""
    path = journal_of(tmp_path / "rounds.jsonl", 9)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"t", b"T", 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(SessionError) as refused:
        read_lines(path)
    text = str(refused.value)
    assert f"{path}, line 5 of 9 is damaged" in text
    assert "Lines 1 to 4 are whole, until 2024-05-01 00:03 UTC" in text
    assert "Restore the file from a copy, or start another session (--name)" in text
    start = sum(map(len, lines[:2]))
    with pytest.raises(SessionError, match=r"line 5 of 9 .* Lines 1 to 4 are whole"):
        read_lines(path, start)
    with pytest.raises(SessionError, match="move the file away"):
        read_lines(path, advice=COMPUTED_AGAIN)
    lines[0] = b"nonsense" + lines[0]
    path.write_bytes(b"".join(lines))
    with pytest.raises(SessionError, match=r"line 1 of 9 is damaged.* No line before it is whole"):
        LineJournal(path)


def test_line_that_is_no_record_is_damage(tmp_path: Path) -> None:
    """A line with a right checksum over something else: a TypeError an hour later."""
    path = journal_of(tmp_path / "rounds.jsonl", 2)
    content = path.read_bytes()
    number = b"%08x 12\n" % zlib.crc32(b"12")
    path.write_bytes(number + content)
    with pytest.raises(SessionError, match="line 1 of 3 is damaged"):
        read_lines(path)
