"""What stands in where the operating system lacks a call, with the calls hidden one at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cppncripto_strategy import system
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.locks import FileLock

PATIENCE_S = 20.0


class Windows:
    """msvcrt's locks as its documentation has them: a range of bytes, per handle."""

    LK_LOCK, LK_NBLCK, LK_UNLCK = 1, 2, 0

    def __init__(self) -> None:
        self.owner: dict[tuple[int, int, int], int] = {}

    def locking(self, handle: int, mode: int, count: int) -> None:
        assert count == 1
        place = (*system._number(handle), os.lseek(handle, 0, os.SEEK_CUR))
        if mode == self.LK_UNLCK:
            assert self.owner.pop(place) == handle
        elif place in self.owner:
            raise PermissionError(13, "Permission denied")
        else:
            self.owner[place] = handle


@pytest.fixture(params=["posix", "windows", "neither"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    if kind == "posix":
        pytest.importorskip("fcntl")
        return kind
    monkeypatch.setattr(system, "_fcntl", None)
    monkeypatch.setattr(system, "_msvcrt", Windows() if kind == "windows" else None)
    monkeypatch.setattr(system, "_said", set())
    return kind


def take(path: Path) -> FileLock:
    return FileLock.take(path, "the place", RecipeError, "wait for it")


def test_a_lock_is_had_once_and_again_when_it_is_free(locks: str, tmp_path: Path) -> None:
    """Two writers of one folder, because this system's locks never refuse."""
    path = tmp_path / ".lock"
    with take(path), pytest.raises(RecipeError, match="the place is in use by this process"):
        take(path)
    with take(path):
        assert path.exists()


def test_waiting_for_a_lock_ends_when_it_is_freed(locks: str, tmp_path: Path) -> None:
    """A search whose second process waits for a lock that nobody holds any more."""
    path = tmp_path / "journal"
    had = threading.Event()
    with path.open("a+b") as first, path.open("a+b") as second:
        assert system.lock_file(first.fileno())

        def wait() -> None:
            assert system.lock_file(second.fileno(), wait=True)
            had.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert not had.is_set()
        system.unlock_file(first.fileno())
        assert had.wait(PATIENCE_S)
        system.unlock_file(second.fileno())
        thread.join(PATIENCE_S)


def test_content_of_a_locked_file_stays_what_it_was(locks: str, tmp_path: Path) -> None:
    """A lock that moves the place where the next bytes go."""
    path = tmp_path / "file"
    with path.open("w+b") as file:
        file.write(b"one ")
        file.flush()
        assert system.lock_file(file.fileno())
        file.write(b"two")
        file.flush()
        system.unlock_file(file.fileno())
    assert path.read_bytes() == b"one two"


def test_without_locks_a_sentence_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A weaker promise that nobody hears of, or hears of at every candle."""
    for name, value in (("_fcntl", None), ("_msvcrt", None), ("_said", set())):
        monkeypatch.setattr(system, name, value)
    for name in ("a", "b"):
        take(tmp_path / name).release()
    assert [r.getMessage() for r in caplog.records if "no file locks" in r.getMessage()] == [
        "this system has no file locks: give each folder of results, sessions and candles to one"
        " process at a time"
    ]


def test_whether_a_process_runs_is_never_asked_where_asking_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """os.kill(pid, 0) on Windows: it ends the process that is asked about."""
    assert system.process_runs(os.getpid()) is True
    asked: list[Any] = []
    monkeypatch.setattr(
        system, "os", SimpleNamespace(name="nt", kill=lambda *pair: asked.append(pair))
    )
    assert system.process_runs(os.getpid()) is None
    assert not asked


def test_memory_is_in_mebibytes_and_none_where_it_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS' bytes taken for kibibytes; an import error at the end of a training of hours."""
    usage = SimpleNamespace(ru_maxrss=512 * 2**20)
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _who: usage)
    monkeypatch.setattr(system, "_resource", fake)
    monkeypatch.setattr(system, "sys", SimpleNamespace(platform="darwin"))
    assert system.peak_memory_mb() == 512
    usage.ru_maxrss = 512 * 2**10
    monkeypatch.setattr(system, "sys", SimpleNamespace(platform="linux"))
    assert system.peak_memory_mb() == 512
    monkeypatch.setattr(system, "_resource", None)
    assert system.peak_memory_mb() is None


def test_content_is_synced_where_there_is_only_fsync(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A journal that cannot be written on macOS, which has no fdatasync."""
    synced: list[int] = []
    monkeypatch.setattr(system, "os", SimpleNamespace(fsync=synced.append))
    system.sync_content(7)
    assert synced == [7]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_a_name_is_given_once_with_and_without_hard_links(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that a second desk replaces while the first one's users are signed in."""
    if not links:

        def refused(*_: object) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    first, second, place = (tmp_path / name for name in ("first", "second", "place"))
    first.write_text("first")
    second.write_text("second")
    system.put_if_absent(first, place)
    with pytest.raises(FileExistsError):
        system.put_if_absent(second, place)
    assert place.read_text() == "first"


@pytest.mark.parametrize("flag", [True, False], ids=["O_NOFOLLOW", "without"])
def test_a_link_is_not_followed_with_and_without_the_flag(
    flag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token read through a link that somebody else put there."""
    if not flag:
        monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("content")
    os.close(system.open_without_following(target))
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(OSError, match=r"link"):
        system.open_without_following(link)


def test_a_process_can_be_started_where_no_signal_can_be_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`run --jobs` on Windows, which has no signal masks."""
    monkeypatch.setattr(system, "signal", SimpleNamespace())
    with system.deaf_to_ctrl_c():
        pass
    monkeypatch.setattr(system, "os", SimpleNamespace(name="nt"))
    system.lower_priority()
    assert not system.read_by_others(0o666)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs an idle priority: Linux")
def test_an_idle_process_is_one_to_the_system() -> None:
    """A desk that is called idle and takes its slices from whatever trades; or its threads do."""
    code = """
import os, threading
from cppncripto_strategy.system import only_when_idle
said, seen = only_when_idle(), []
thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
print(said, {os.sched_getscheduler(0), *seen} == {os.SCHED_IDLE})
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("has", [{}, {"SCHED_IDLE": 5, "sched_param": int}])
def test_without_an_idle_priority_the_lowest_is_taken(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, Any]
) -> None:
    """A system without it, or that refuses it, on which the desk does not start or is not nice."""
    steps: list[int] = []

    def refuse(*_: Any) -> None:
        raise PermissionError("not here")

    if has:
        has = {**has, "sched_setscheduler": refuse}
    monkeypatch.setattr(system, "os", SimpleNamespace(nice=steps.append, **has))
    assert not system.only_when_idle()
    assert steps == [19]


def test_tests_that_need_posix_are_marked() -> None:
    """A suite that is red on Windows for reasons that are the tests' own."""
    needs = re.compile(r"^\s*import (fcntl|resource)$|os\.kill\(|send_signal|SIGKILL", re.M)
    root = Path(__file__).parents[1]
    files = [path for path in sorted(root.rglob("test_*.py")) if path != Path(__file__)]
    found = [path for path in files if needs.search(path.read_text("utf-8"))]
    assert len(found) > 5
    assert [path for path in found if "pytest.mark.posix" not in path.read_text("utf-8")] == []
