"""Memory of things that are gone, given back to the system, and collections that look at less.

A process that has let go of large arrays keeps their pages for itself, in the middle of its heap;
the next step of a run would then be paid for on top of them. A leaf of the package.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

import pyarrow as pa


def give_back() -> None:
    """Collect what refers to itself in circles, and return free pages to the system."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    return_pages()


def return_pages() -> None:
    """Return free pages of the heap to the system, without a look for garbage.

    Where the C library has no way to return them (any but glibc), they stay, to be used again.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def young_garbage_only() -> Iterator[None]:
    """Let collections in the block pass over the objects that were there before it.

    Libraries leave a million objects that never become garbage, and each full collection would
    walk through all of them. Nothing is done where somebody else keeps objects from collections.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
