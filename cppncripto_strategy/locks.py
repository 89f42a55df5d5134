"""One writer at a time: a lock file that names its holder.

    .lock    {"pid": 4711, "command": "cppn-bt paper my.toml", "host": "desk", "since": "..."}

Whoever writes into a shared place takes its lock first, then looks, then writes. The system frees a
lock when its process ends, kill -9 included; a clean release removes the file. A lock is between
processes and between threads: nobody gets it twice.

Left out: locks between machines (a network file system may have none) and readers, who need no
lock because files are replaced as a whole.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.foreign import writing
from cppncripto_strategy.system import lock_file, process_runs, unlock_file

LOCK_FILE = ".lock"
_POLL_S = 0.05
_COMMAND_LENGTH = 120


class FileLock:
    """A lock that is held; made by `take`, a context manager that releases it."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle: int | None = handle

    @classmethod
    def take(
        cls,
        path: Path,
        what: str,
        error: type[CppnError],
        advice: str,
        wait_s: float = 0.0,
        waiting: Callable[[str], None] | None = None,
    ) -> FileLock:
        """Take the lock at `path`; its folder is made.

        Parameters
        ----------
        what : the place it guards, as the message names it.
        advice : what to do, a clause without a full stop.
        wait_s : seconds to wait for another holder; infinity waits until it ends.
        waiting : called once with who holds it, before waiting.

        Raises
        ------
        CppnError
            `error`, naming the holder's process, when it still holds the lock after `wait_s`; or
            when the lock file cannot be made.
        """
        until_s = time.monotonic() + wait_s
        with writing(path, error):
            path.parent.mkdir(parents=True, exist_ok=True)
            while (handle := _try(path)) is None:
                if time.monotonic() >= until_s:
                    raise error(f"{what} is in use by {holder(path)}: {advice}")
                if waiting is not None:
                    waiting(holder(path))
                    waiting = None
                time.sleep(_POLL_S)
            held = cls(path, handle)
            try:
                _sign(handle)
            except OSError:
                held.release()
                raise
        return held

    def release(self) -> None:
        """Give the lock back; harmless when that was done before."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        # While it is still ours: whoever has the old file open sees that it is gone, and makes one.
        with suppress(OSError):
            self.path.unlink()
        unlock_file(handle)  # before closing: a forked child may have it open, too
        os.close(handle)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def holder_runs(path: Path) -> bool | None:
    """Whether the process that signed the lock at `path` still runs; the lock is not touched.

    None where that cannot be known from here: another machine, or a holder that did not sign yet.
    Without a lock file nobody holds it: False. Left out: a process that got the same number since.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        pid, host = int(values["pid"]), str(values["host"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if host != platform.node() or pid <= 0:
        return None
    return process_runs(pid)


def holder(path: Path) -> str:
    """Who holds the lock at `path`, in words; "another process" where it did not say yet."""
    try:
        values = json.loads(path.read_text("utf-8"))
        pid, host = int(values["pid"]), str(values["host"])
        told = f"`{values['command']}`, since {values['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host != platform.node():
        return f"process {pid} on {host} ({told})"
    return f"this process, {pid} ({told})" if pid == os.getpid() else f"process {pid} ({told})"


def _try(path: Path) -> int | None:
    """An open handle that holds the lock, or None while another one does."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock_file(handle):
                os.close(handle)
                return None
            if _is_at(handle, path):
                return handle
            unlock_file(handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed the file between our open and our lock


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one that stands at `path`."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino)


def _sign(handle: int) -> None:
    """Say in the lock file who holds it."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_COMMAND_LENGTH]
    values = {
        "pid": os.getpid(),
        "command": command,
        "host": platform.node(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(values).encode())
