"""What a watcher has read and reported: one JSON file, replaced as a whole, outside the results.

Reading a row and putting its alert into a target's queue are one write: after a kill -9 either both
happened or none did.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.errors import DeskError
from cppncripto_strategy.foreign import read_object, reading, sealed, unsealed, writing
from cppncripto_strategy.locks import FileLock

FORMAT = 1
State = dict[str, Any]


def default_state_file(folder: Path) -> Path:
    """`$XDG_STATE_HOME/cppn-bt/alerts-<hash of the folder>.json`: one per watched folder."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    return Path(base) / "cppn-bt" / f"alerts-{digest}.json"


def state_lock(path: Path) -> FileLock:
    """The right to keep this state: two watchers would send everything twice.

    Raises
    ------
    DeskError
        When another watcher has it.
    """
    advice = "stop that one first, or give this one another --state"
    return FileLock.take(path.with_name(f".{path.name}.lock"), f"{path}", DeskError, advice)


def load_state(path: Path) -> State | None:
    """What was saved; None where nothing was.

    Raises
    ------
    DeskError
        When the file is damaged, or another version's.
    """
    if not path.exists():
        return None
    fix = "Move it away: what happened until now counts as reported then"
    with reading(path, "state of alerts", DeskError, fix):
        values = unsealed(read_object(path))
        if values.pop("format") != FORMAT:
            raise ValueError("another version wrote it")
    return values


def save_state(path: Path, state: State) -> None:
    """Replace the file as a whole, on disk when this returns; a folder made for it has mode 0700.

    Raises
    ------
    DeskError
        When the disk refuses.
    """
    content = json.dumps(sealed({"format": FORMAT, **state}), separators=(",", ":")).encode()
    with writing(path, DeskError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, content)
