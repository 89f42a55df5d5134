"""Where a study is kept: Optuna's journal in a file of its own, or any database Optuna reads.

The journal is one JSON line per operation, appended and synced under a lock that the system frees
when its holder dies; a line torn by a crash is cut off before the next one is written. Nothing here
is ever unpickled: Optuna does so with snapshots of a Redis journal and with the state of its CMA-ES
sampler, so neither is offered.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from cppncripto_strategy.errors import RecipeError, SourceError
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.system import lock_file, unlock_file

logger = logging.getLogger(__name__)

JOURNAL_FILE = "study.journal"
# Optuna's operation that says how a trial ended (or that it begins).
_STATE_OPERATION = 6
_BLOCK = 4096


class Journal(JournalFileBackend):
    """A journal file that survives being cut off in the middle of a line.

    The lock is the system's, on the file itself: Optuna's own outlives a killed process by half a
    minute. A file is synced with every finished trial; what a power cut takes is running ones.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations; what a killed writer left half written before them is cut off."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("a+b") as stream:  # others that append are never overwritten
            lock_file(stream.fileno(), wait=True)  # freed by the end of the process, too
            try:
                self._cut(stream)
                stream.write(text.encode())
                stream.flush()
                if any(log.get("op_code") == _STATE_OPERATION for log in logs):
                    os.fsync(stream.fileno())
            finally:
                unlock_file(stream.fileno())

    def _cut(self, stream: BinaryIO) -> None:
        """Cut off half a line at the end."""
        end = stream.seek(0, os.SEEK_END)
        whole = end
        while whole:
            start = max(0, whole - _BLOCK)
            stream.seek(start)
            found = stream.read(whole - start).rfind(b"\n")
            if found >= 0:
                whole = start + found + 1
                break
            whole = start
        if whole < end:
            logger.warning(
                "%s ends in half a line (%d bytes), left by a process that was killed: it is cut",
                self._path,
                end - whole,
            )
            stream.truncate(whole)


# What brings a database's driver, where the package is called otherwise than its module.
_DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """The journal in a folder, or the database at a URL such as postgresql://user@host/name.

    Raises
    ------
    RecipeError
        When the URL is of no database that may be opened, or it does not answer.
    SourceError
        When the journal is damaged.
    """
    if url is not None:
        return _database(url)
    path = folder / JOURNAL_FILE
    fix = f"Move it away to begin anew, or take {path.name} from a copy"
    with reading(path, "journal of a study", SourceError, fix):
        return JournalStorage(Journal(path))


def _database(url: str) -> BaseStorage:
    if url.startswith("redis"):
        raise RecipeError(
            "a study in Redis is refused: Optuna would unpickle what lies there. Give the URL of a"
            " database (postgresql://, mysql://, sqlite:///), or leave --storage out"
        )
    if "://" not in url:
        raise RecipeError(
            f"--storage {url!r} is no URL such as sqlite:///study.db or postgresql://user@host/name"
        )
    try:
        return get_storage(url)
    except Exception as cause:  # SQLAlchemy's and each driver's own
        text = " ".join(str(cause).split())[:300]
        if isinstance(missing := cause.__cause__, ModuleNotFoundError):
            driver = _DRIVERS.get(missing.name or "", missing.name)
            text = f"its driver, the package {missing.name}, is missing: pip install '{driver}'"
        raise RecipeError(f"the study's database does not open: {text}") from cause
