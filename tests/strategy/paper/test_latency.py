"""Latency is written beside a session, and never in its way."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.feeds.live.journal import read_lines
from cppncripto_strategy.paper.latency import FILE, LatencyJournal


def write(path: Path, *numbers: int) -> None:
    """One start of a session that notes these rounds."""
    journal = LatencyJournal(path)
    for number in numbers:
        journal.note(number, number / 1e3, number / 10)
        journal.flush()
    journal.close()


def test_rounds_follow_each_other_over_restarts(tmp_path: Path) -> None:
    """A restart that reads a year of lines, loses the last one, or begins in the middle of one."""
    path = tmp_path / FILE
    write(path, *range(300))
    write(path, *range(300, 310))
    assert [row["t"] for row in read_lines(path)] == list(range(310))
    assert read_lines(path)[7] == {"t": 7, "s": 0.007, "lag": 0.7}


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """A kill in the middle of a line, and the next round is glued to it."""
    path = tmp_path / FILE
    write(path, *range(200))
    path.write_bytes(path.read_bytes()[:-9])
    write(path, 500)
    assert [row["t"] for row in read_lines(path)] == [*range(199), 500]


def test_damage_is_moved_aside(tmp_path: Path) -> None:
    """A session that cannot resume because a measurement of it is damaged."""
    path = tmp_path / FILE
    write(path, 1, 2, 3)
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    write(path, 4)
    assert [row["t"] for row in read_lines(path)] == [4]
    assert path.with_name(f"{FILE}.damaged").read_bytes().startswith(b"nonsense")


def test_a_disk_that_refuses_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk that ends a session at the one file that it does not need; or in silence."""

    class Full:
        def write(self, _content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def truncate(self, _size: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    journal = LatencyJournal(tmp_path / FILE)
    assert journal._journal is not None
    journal._journal.close()
    monkeypatch.setattr(journal._journal, "_file", Full())
    for number in range(3):
        journal.note(number, 0.1, 0.1)
        journal.flush()
    journal.close()
    assert caplog.text.count("No space left on device") == 1


def test_a_folder_in_its_place_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that does not start because of a measurement."""
    (tmp_path / FILE).mkdir()
    write(tmp_path / FILE, 1)
    assert "no latency is written" in caplog.text
