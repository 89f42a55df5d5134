"""One writer at a time, whatever kills the writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.locks import FileLock, holder

HOLD = """
import sys
from pathlib import Path
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.locks import FileLock
lock = FileLock.take(Path(sys.argv[1]), "it", SessionError, "wait")
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""
# Many processes add to a number in a file, each looking before it writes.
COUNT = """
import sys
from pathlib import Path
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.locks import FileLock
folder = Path(sys.argv[1])
for _ in range(40):
    with FileLock.take(folder / ".lock", "it", SessionError, "wait", 60):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


def take(path: Path, wait_s: float = 0.0) -> FileLock:
    return FileLock.take(path, "the folder x", SessionError, "stop that one first", wait_s)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def told(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_lock_of_another_process_names_it_and_what_to_do(tmp_path):
    """ "In use" without a word about by whom: the user hunts through `ps`."""
    path = tmp_path / "new" / ".lock"
    with start(HOLD, path) as process:
        assert said(process) == "held"
        with pytest.raises(SessionError) as refused:
            take(path)
        text = str(refused.value)
        assert text.startswith(f"the folder x is in use by process {process.pid} (`-c ")
        assert text.endswith("UTC): stop that one first")
        process.kill()


def test_lock_is_free_once_its_holder_was_killed(tmp_path):
    """A file that says "locked" after kill -9, to be removed by hand."""
    path = tmp_path / ".lock"
    with start(HOLD, path) as process:
        assert said(process) == "held"
        process.kill()
        process.wait(30)
    assert path.exists()
    with take(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_waiting_ends_with_the_holder(tmp_path):
    """A second training that gives up, or that never starts."""
    path, heard = tmp_path / ".lock", []
    with start(HOLD, path) as process:
        assert said(process) == "held"

        def release(text: str) -> None:
            heard.append(text)
            told(process)

        lock = FileLock.take(path, "it", SessionError, "wait", float("inf"), release)
        assert said(process) == "released"
        assert str(process.pid) in heard[0]
        assert len(heard) == 1
        # The other one's release took the old file away, not ours.
        assert str(os.getpid()) in holder(path)
        lock.release()
        process.kill()


def test_threads_of_one_process_exclude_each_other(tmp_path):
    """Two sessions in one notebook."""
    path = tmp_path / ".lock"
    with take(path), pytest.raises(SessionError, match=f"in use by this process, {os.getpid()}"):
        take(path)
    with take(path) as lock:
        lock.release()
        lock.release()
        with take(path):
            pass


def test_many_processes_lose_no_update(tmp_path):
    """A lock file that is removed while another one has it open: both then hold "the" lock."""
    (tmp_path / "count").write_text("0")
    workers = [start(COUNT, tmp_path) for _ in range(4)]
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    assert (tmp_path / "count").read_text() == "160"


@pytest.mark.posix
def test_release_survives_a_child_that_was_forked_meanwhile(tmp_path):
    """A worker that outlives its parent, and with it the parent's lock."""
    path = tmp_path / ".lock"
    lock = take(path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    lock.release()
    with take(path):
        pass
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)


def test_lock_that_cannot_be_made_is_one_error(tmp_path):
    """A traceback about `.lock` where a folder was mistyped."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match="a file is in the way"):
        take(tmp_path / "file" / ".lock")
