"""Files that are written whole or not at all. Like `errors`, a leaf: anybody may import it.

A file is written beside its target, synced, and renamed over it, so a reader sees the old file or
the new one. A writer that is killed leaves a file `.NAME.*.tmp`, which `remove_leftovers` removes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file as a whole.

    Raises
    ------
    OSError
        When it cannot be written; the old file is then as it was, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    put({path: stage(path, content)})


def stage(path: Path, content: bytes | memoryview) -> Path:
    """Write a file beside `path`, synced; returns where, for `put`. Raises as `stage_by`."""

    def write(sink: BinaryIO) -> None:
        sink.write(content)

    return stage_by(path, write)


def stage_by(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file beside `path`, synced; returns where, for `put`.

    Threads and processes may stage at once, even the same path.

    Raises
    ------
    OSError
        When it cannot be written; nothing is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as sink:
            write(sink)
            sink.flush()
            os.fsync(sink.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        name_file(error, path)
        raise
    return temporary


def name_file(error: BaseException, path: Path) -> None:
    """Name the file in a system's error: a full disk does not say whose write it refused."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = str(path)


def put(staged: Mapping[Path, Path]) -> None:
    """Rename staged files over their targets, in order, and sync their folders.

    Raises
    ------
    OSError
        When one cannot be renamed; those after it are as they were, and what was staged is gone.
    """
    try:
        for target, temporary in staged.items():
            os.replace(temporary, target)
    except BaseException:
        discard(staged)
        raise
    for folder in dict.fromkeys(target.parent for target in staged):
        sync_folder(folder)


def discard(staged: Mapping[Path, Path]) -> None:
    """Remove staged files that were not put in place."""
    for temporary in staged.values():
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed writers left in a folder, for targets whose name matches a pattern.

    Only for a caller that holds the lock under which those files are written.
    """
    for leftover in folder.glob(f".{name}.*.tmp"):
        logger.warning("removing %s, left by an interrupted write", leftover)
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power cut."""
    if os.name != "posix":  # other systems cannot open a folder to sync it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
