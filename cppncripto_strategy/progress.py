"""How long work reports progress: a callback, so that nothing but the command line draws a bar."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, text)."""
PhaseProgress = Callable[[str, int, int, str], None]
"""Called with (phase, done, total, text)."""


def silent(phase: str, done: int, total: int, text: str) -> None:
    """A phase progress callback that shows nothing."""
