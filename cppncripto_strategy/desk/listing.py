"""What lies under a folder of results, by kind and id.

Ids are hashes of paths below the folder. A request names an id, which is looked up here: no text of
a request ever becomes a path. Links are not followed, and hidden folders are not entered.

Left out: reading what was found; each kind has its reader.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SESSION, RUN, EXPERIMENT, EVOLUTION = "session", "run", "experiment", "evolution"
TUNING, EMBEDDINGS, CANDLES = "tuning", "embeddings", "candles"
KINDS = (SESSION, RUN, EXPERIMENT, EVOLUTION, TUNING, EMBEDDINGS, CANDLES)
# What is tried: each has verdicts or a state in words, and a page of its own.
TRIED = (EXPERIMENT, EVOLUTION, TUNING)
MAX_DEPTH, MAX_FOLDERS = 8, 20_000
FRESH_S = 2.0

_STAMP = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
_EXPERIMENT_PAGE = re.compile(r"(e\d|transfer)\.json")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing found: its kind, its id, its path, and its name below the folder."""

    kind: str
    id: str
    path: Path
    name: str


class Listing:
    """Entries under a folder, looked up again now and then. Any thread may ask.

    Parameters
    ----------
    root : the folder.
    clock : seconds that only grow.
    fresh_s : age after which they are looked up again.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        fresh_s: float = FRESH_S,
    ) -> None:
        self.root, self._fresh_s = root, fresh_s
        self._clock, self._lock = clock, threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._seen_s = float("-inf")

    def of(self, kind: str) -> list[Entry]:
        """Every entry of a kind, by name."""
        return [entry for entry in self._fresh().values() if entry.kind == kind]

    def get(self, kind: str, id: str) -> Entry | None:
        """The entry of a kind with an id; None when there is none."""
        entry = self._fresh().get(id)
        return entry if entry is not None and entry.kind == kind else None

    def known(self, kind: str) -> list[Entry] | None:
        """As `of`, without looking anything up; None where that is due."""
        if self._clock() - self._seen_s > self._fresh_s:
            return None
        return [entry for entry in self._entries.values() if entry.kind == kind]

    def _fresh(self) -> dict[str, Entry]:
        with self._lock:
            if self._clock() - self._seen_s > self._fresh_s:
                found = sorted(entries(self.root), key=lambda entry: entry.name)
                self._entries = {entry.id: entry for entry in found}
                self._seen_s = self._clock()
            return self._entries


def entries(root: Path) -> Iterator[Entry]:
    """Everything recognised under a folder, the folder itself included; at most 20,000 folders."""
    waiting, seen = [(root, 0)], 0
    while waiting and seen < MAX_FOLDERS:
        folder, depth = waiting.pop()
        seen += 1
        files, folders = _content(folder)
        found = list(_recognised(folder, files, folders))
        yield from (_entry(root, kind, path) for kind, path in found)
        leaf = any(kind in (SESSION, RUN, CANDLES) for kind, _ in found)
        if not leaf and depth < MAX_DEPTH:
            waiting += [(folder / name, depth + 1) for name in folders]


def _content(folder: Path) -> tuple[set[str], set[str]]:
    """Names of files and of folders; nothing where it cannot be read."""
    files: set[str] = set()
    folders: set[str] = set()
    try:
        with os.scandir(folder) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    if not item.name.startswith("."):
                        folders.add(item.name)
                elif item.is_file(follow_symlinks=False):
                    files.add(item.name)
    except OSError:
        return files, folders
    return files, folders


def _recognised(folder: Path, files: set[str], folders: set[str]) -> Iterator[tuple[str, Path]]:
    """(kind, path) of what a folder is, or holds."""
    if "session.json" in files:
        yield SESSION, folder
        if "manifest.json" in files:
            yield RUN, folder
        return
    if "manifest.json" in files or (_STAMP.fullmatch(folder.name) and "log.jsonl" in files):
        yield RUN, folder
        return
    if any(name.startswith("symbol=") for name in folders):
        yield CANDLES, folder
        return
    if {"checkpoint.json", "champion.json"} & files:
        yield EVOLUTION, folder
    if {"study.journal", "search.json"} & files:
        yield TUNING, folder
    for name in sorted(files):
        if _EXPERIMENT_PAGE.fullmatch(name):
            yield EXPERIMENT, folder / name
        elif name.endswith(".parquet") and "embeddings" in name:
            yield EMBEDDINGS, folder / name


def _entry(root: Path, kind: str, path: Path) -> Entry:
    inside = path.relative_to(root)
    digest = hashlib.sha256(f"{kind}:".encode() + os.fsencode(inside)).hexdigest()[:16]
    shown = os.fsencode(inside).decode("utf-8", "replace")
    return Entry(kind, digest, path, root.resolve().name if shown == "." else shown)
