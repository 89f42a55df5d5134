"""What operating systems do differently: what POSIX has and others may lack, in one place.

On Linux each of these is the system's own call. Where a system lacks it, something weaker takes its
place, and where that matters to a user a sentence says so, once. Nothing else of the package asks
for `fcntl`, `resource`, or a call that only POSIX has.

Tested on Linux, and on Linux with those modules and calls hidden; never on Windows or macOS.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def _optional(name: str) -> Any:
    """A module of the standard library, or None where this system has none."""
    try:
        return __import__(name)
    except ImportError:
        return None


_fcntl, _msvcrt, _resource = _optional("fcntl"), _optional("msvcrt"), _optional("resource")
# Far behind any content: Windows refuses to read what is locked.
_WINDOWS_BYTE = 2**31 - 2
# Files that are locked where the system has no locks, by device and number; between threads only.
_held: set[tuple[int, int]] = set()
_held_guard = threading.Condition()
_said: set[str] = set()


def lock_file(handle: int, wait: bool = False) -> bool:
    """Lock an open file for this handle alone; whether it was had.

    Freed by `unlock_file`, by closing the file, and by the end of the process. On a system without
    file locks (neither POSIX nor Windows) it holds between threads of one process only.

    Parameters
    ----------
    handle : open for writing.
    wait : until it is free, instead of answering False.
    """
    if _fcntl is not None:
        try:
            _fcntl.flock(handle, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
    if _msvcrt is not None:
        return _lock_on_windows(handle, wait)
    _say_once(
        "this system has no file locks: give each folder of results, sessions and candles to one"
        " process at a time"
    )
    with _held_guard:
        if wait:
            _held_guard.wait_for(lambda: _number(handle) not in _held)
        elif _number(handle) in _held:
            return False
        _held.add(_number(handle))
    return True


def unlock_file(handle: int) -> None:
    """Free a file that `lock_file` locked, before it is closed: a child may have it open, too."""
    if _fcntl is not None:
        _fcntl.flock(handle, _fcntl.LOCK_UN)
    elif _msvcrt is not None:
        _at_windows_byte(handle, _msvcrt.LK_UNLCK)
    else:
        with _held_guard:
            _held.discard(_number(handle))
            _held_guard.notify_all()


def _lock_on_windows(handle: int, wait: bool) -> bool:
    while True:
        try:
            _at_windows_byte(handle, _msvcrt.LK_LOCK if wait else _msvcrt.LK_NBLCK)
        except OSError:
            if not wait:
                return False
        else:
            return True


def _at_windows_byte(handle: int, mode: int) -> None:
    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _WINDOWS_BYTE, os.SEEK_SET)
    try:
        _msvcrt.locking(handle, mode, 1)
    finally:
        os.lseek(handle, before, os.SEEK_SET)


def _number(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _say_once(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        logger.warning("%s", sentence)


def process_runs(pid: int) -> bool | None:
    """Whether a process of this machine runs; None where that cannot be asked.

    Only POSIX can be asked without harm: on Windows the same call would end the process.
    """
    if os.name != "posix":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, and is another user's
    except OverflowError:
        return None
    return True


def peak_memory_mb() -> float | None:
    """The most memory this process has had, MiB; None where the system does not count it."""
    if _resource is None:
        return None
    most: int = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)  # macOS counts bytes


def sync_content(handle: int) -> None:
    """Wait until the disk has an open file's content."""
    getattr(os, "fdatasync", os.fsync)(handle)


def put_if_absent(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless something has that name already.

    A hard link where the file system has them; else an exclusive copy, of which a kill may leave a
    part. The temporary file stays. Raises FileExistsError.
    """
    try:
        os.link(temporary, path)
        return
    except FileExistsError:
        raise
    except (AttributeError, NotImplementedError, OSError):
        content = temporary.read_bytes()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def open_without_following(path: Path) -> int:
    """A handle to read a file with, refused for a symbolic link. Raises OSError."""
    follow = getattr(os, "O_NOFOLLOW", None)
    if follow is None and path.is_symlink():
        raise OSError(f"{path} is a symbolic link")
    return os.open(path, os.O_RDONLY | (follow or 0))


def read_by_others(mode: int) -> bool:
    """Whether a file's mode lets others than its owner open it; False on systems without modes."""
    return os.name == "posix" and bool(mode & 0o077)


def lower_priority(steps: int = 19) -> None:
    """Let every other process go first, where the system has such an order."""
    nice = getattr(os, "nice", None)
    if nice is not None:
        nice(steps)


def only_when_idle() -> bool:
    """Run this process only on processors that no other process wants; whether the system can.

    Linux's SCHED_IDLE. Whoever else wakes up gets the processor at once; from a process that is
    merely nice, at the end of its slice, some milliseconds later. Elsewhere: lower priority.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        lower_priority()
        return False
    return True


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Whatever is started in here does not hear a terminal's Ctrl-C, where a mask is inherited."""
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:
        yield
        return
    before = mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)
