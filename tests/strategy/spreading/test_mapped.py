"""Arrays that processes share through a file: what comes back is what was laid out."""

from __future__ import annotations

import errno
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cppncripto_strategy.spreading import mapped
from cppncripto_strategy.spreading.mapped import lay_out, taken_up


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    name: str
    values: Any
    inner: Any = None


arrays = hnp.arrays(
    st.sampled_from([np.float64, np.int64, np.float32, np.bool_, np.int8]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(arrays, max_size=6), columns=st.booleans())
def test_arrays_come_back_as_they_were(parts, columns, tmp_path_factory):
    """A place off by the padding, a shape or an order of axes lost, a type taken for another."""
    path = tmp_path_factory.mktemp("laid") / "arrays"
    parts = [np.asfortranarray(part) if columns else part for part in parts]
    box = Box("a", parts, {"b": Box("c", tuple(parts), None), "d": 3})
    laid = pickle.loads(pickle.dumps(lay_out(box, path)))
    found = taken_up(laid, path)
    assert (found.name, found.inner["d"], found.inner["b"].name) == ("a", 3, "c")
    for again in (found.values, found.inner["b"].values):
        assert len(again) == len(parts)
        for one, other in zip(again, parts, strict=True):
            assert (one.dtype, one.shape, one.tobytes()) == (
                other.dtype,
                other.shape,
                other.tobytes(),
            )
            assert one.flags.f_contiguous == other.flags.f_contiguous
            assert not one.flags.writeable or one.size == 0


def test_an_array_held_twice_is_written_once(tmp_path):
    """The market symbol's candles beside those of fifteen symbols: fifteen times the file."""
    shared = np.arange(1000.0)
    lay_out([Box("a", shared), Box("b", shared), Box("c", shared[1:])], tmp_path / "arrays")
    assert (tmp_path / "arrays").stat().st_size < 2.1 * shared.nbytes


def test_a_file_that_is_there_is_not_touched(tmp_path):
    """Another run's features under this run's feet."""
    (tmp_path / "arrays").write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        lay_out([np.ones(3)], tmp_path / "arrays")
    assert (tmp_path / "arrays").read_bytes() == b"somebody else's"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    """Half a file of features for every run that finds the disk full."""
    written = mapped._Writer._write

    def second_time(self, array):
        if self._known:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, array)

    monkeypatch.setattr(mapped._Writer, "_write", second_time)
    with pytest.raises(OSError, match="No space left"):
        lay_out([np.ones(3), np.ones(4)], tmp_path / "arrays")
    assert not list(tmp_path.iterdir())
