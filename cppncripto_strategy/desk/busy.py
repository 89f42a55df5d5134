"""One long computation at a time: whoever waits too long for it is asked to come again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_S = 5.0


class BusyError(Exception):
    """Others' requests are being computed, and were not ready in time."""


class RationedError(Exception):
    """More was asked for in a while than one address may."""


@contextmanager
def alone(lock: threading.Lock, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold a lock; raises BusyError when others hold it for longer than `wait_s`."""
    if not lock.acquire(timeout=wait_s):
        raise BusyError("another request is being computed: try again")
    try:
        yield
    finally:
        lock.release()
