"""Arrays in one file that several processes map: what each of them reads lies in memory once.

What was laid out can be read by whoever has the file, until it is removed; a process that has it
mapped keeps it. Left out: anything but arrays (the rest of an object goes the usual way).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 64  # bytes: a cache line, and more than any number asks for


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array lies in the file.

    Parameters
    ----------
    offset : bytes; dtype, shape : numpy's; order : "C" or "F", which axis runs fastest.
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]
    order: Literal["C", "F"]


def lay_out(value: Any, path: Path) -> Any:
    """Write every array in `value` to a new file; returns `value` with their places instead.

    Looked into are dataclasses, lists, tuples and dictionaries. An array that occurs more than once
    is written once.

    Raises
    ------
    OSError
        When the file cannot be written; then it is gone.
    """
    with path.open("xb") as file:
        try:
            return _changed(value, _Writer(file).place)
        except OSError:
            path.unlink()
            raise


def taken_up(laid: Any, path: Path) -> Any:
    """What `lay_out` was given; its arrays are views of the file that cannot be written to."""
    # A file of nothing but empty arrays cannot be mapped.
    content = np.memmap(path, np.uint8, "r") if path.stat().st_size else b""

    def array(found: Any) -> Any:
        if not isinstance(found, _Place):
            return found
        return np.ndarray(found.shape, found.dtype, content, found.offset, order=found.order)

    return _changed(laid, array)


class _Writer:
    """Appends arrays to a file; lives for one `lay_out`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, 0
        self._known: dict[Any, _Place] = {}

    def place(self, value: Any) -> Any:
        """The place of an array; anything else as it is."""
        if not isinstance(value, np.ndarray):
            return value
        key = (value.__array_interface__["data"], value.shape, value.strides, value.dtype.str)
        if key not in self._known:
            self._known[key] = self._write(value)
        return self._known[key]

    def _write(self, array: NDArray[Any]) -> _Place:
        columns = array.flags.f_contiguous and not array.flags.c_contiguous
        content = np.ascontiguousarray(array.T if columns else array)
        self._end += self._file.write(b"\0" * (-self._end % _ALIGNED))
        offset = self._end
        self._end += self._file.write(content.data.cast("B")) if content.size else 0
        return _Place(offset, array.dtype.str, array.shape, "F" if columns else "C")


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a value with `change` made of every leaf."""
    if isinstance(value, _Place):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        made = {name: _changed(getattr(value, name), change) for name in names}
        return dataclasses.replace(value, **made)
    if isinstance(value, list | tuple):
        return type(value)([_changed(part, change) for part in value])
    if isinstance(value, dict):
        return {key: _changed(part, change) for key, part in value.items()}
    return change(value)
