"""A process beside a session: behind everything else, and never longer than its session.

Ctrl-C in a terminal reaches every process of it; this one is deaf to it, and the session ends it.
What goes wrong in it is said through a pipe, in words, not as a traceback on somebody's terminal.
Left out: what it does (`retraining`, `day_reports`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.system import deaf_to_ctrl_c, lower_priority

FAILED = "failed"
Says = Callable[[dict[str, Any]], None]
"""Sends an event (a dictionary with its `kind`) to the session; nothing when that is gone."""


class Beside:
    """One such process; lives until it has ended and was heard.

    Parameters
    ----------
    target : a function of a module, called in the process with `arguments` and then a `Says`.
        What it raises becomes {"kind": FAILED, "reason": ...} and the exit status 1.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._heard, says = context.Pipe(duplex=False)
        self._given_up = False
        self.process = context.Process(target=_run, args=(target, arguments, says), daemon=True)
        with deaf_to_ctrl_c():
            self.process.start()
        says.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def events(self) -> list[dict[str, Any]]:
        """What it said since it was asked last; one that died without a word has FAILED, too.

        One that `stop` ended has not: what it did is left to the next start.
        """
        ended, found = not self.running, []
        with suppress(EOFError, OSError):
            while self._heard.poll():
                found.append(self._heard.recv())
        code = self.process.exitcode
        silent = ended and code and not self._given_up
        if silent and not any(event["kind"] == FAILED for event in found):
            found.append({"kind": FAILED, "reason": f"its process ended with {code}"})
        return found

    def stop(self, patience_s: float = 0.0) -> None:
        """Wait so many seconds for it, then end it."""
        self.process.join(patience_s)
        if self.running:
            self._given_up = True
            self.process.terminate()
            self.process.join(5)


def end_with_parent() -> None:
    """Wait for the parent's end, then end: nobody would hear this process any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(target: Callable[..., None], arguments: tuple[Any, ...], says: Connection) -> None:
    lower_priority()
    threading.Thread(target=end_with_parent, daemon=True).start()

    def say(event: dict[str, Any]) -> None:
        with suppress(OSError):  # the session is gone: the files say the same
            says.send(event)

    try:
        target(*arguments, say)
    except Exception as error:  # whatever it was, the session goes on and says so
        name = "" if isinstance(error, CppnError) else f"{type(error).__name__}: "
        say({"kind": FAILED, "reason": f"{name}{error}"})
        sys.exit(1)
