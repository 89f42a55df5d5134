"""Files written whole or not at all."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from cppncripto_strategy import atomic


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    """A full disk that costs the file that was there, or litters the folder."""
    target = tmp_path / "a.json"
    atomic.write_bytes(target, b"old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as broken:
            broken.setattr(os, function, lambda *_: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(OSError, match="full"):
                atomic.write_bytes(target, b"new")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"old"}


def test_a_file_is_as_readable_as_any_other(tmp_path):
    """Results that only their writer may read, because a temporary file is private."""
    atomic.write_bytes(tmp_path / "atomic", b"")
    (tmp_path / "plain").touch()
    atomic_mode, plain_mode = (
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("atomic", "plain")
    )
    assert atomic_mode == plain_mode


def test_threads_may_write_the_same_file(tmp_path):
    """Two writers that share a temporary file: half of one, half of the other."""
    target, contents = tmp_path / "a", [bytes([n]) * 100_000 for n in range(8)]
    threads = [threading.Thread(target=atomic.write_bytes, args=(target, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [target]


def test_only_leftovers_of_the_names_asked_for_are_removed(tmp_path):
    """A clean-up under one lock that removes what another writer has under way."""
    kept = {tmp_path / "a.json", tmp_path / ".b.parquet.1-2.tmp", tmp_path / ".hidden"}
    for path in (*kept, tmp_path / ".a.json.1-2.tmp"):
        path.touch()
    atomic.remove_leftovers(tmp_path, "*.json")
    assert kept == set(tmp_path.iterdir())
