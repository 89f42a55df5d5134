"""Ctrl-C and SIGTERM at any moment: a sentence on stderr and an exit status, no traceback.

A signal unwinds the command as an exception, so that screens, locks and folders are left in order.
A second signal, or fifteen seconds in which the command did not end (a long step outside Python, a
library that swallowed the exception), ends the process at once: everything this package writes is
safe against kill -9. A command that stops in a better way installs handlers of its own meanwhile
(`paper` finishes its candle and writes its reports).

Left out: SIGKILL, and the milliseconds before Python reads its first line.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

PATIENCE_S = 15.0
_NAMES = {signal.SIGINT: "Ctrl-C (SIGINT)", signal.SIGTERM: "SIGTERM"}


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end. A KeyboardInterrupt, because asyncio lets those through.

    Parameters
    ----------
    number : the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def stops_cleanly(patience_s: float = PATIENCE_S) -> Iterator[None]:
    """End the process with a sentence and its status when a signal comes in here.

    Installed once, in the main thread only; a signal that is ignored (nohup, a shell's background
    job) stays ignored.

    Parameters
    ----------
    patience_s : seconds from the signal to the end of the process, at most.
    """
    before = {number: signal.getsignal(number) for number in _NAMES}
    inside = any(isinstance(getattr(h, "__self__", None), _Handler) for h in before.values())
    if threading.current_thread() is not threading.main_thread() or inside:
        yield
        return
    handler, hook = _Handler(patience_s), sys.unraisablehook
    sys.unraisablehook = handler.unraisable
    for number, present in before.items():
        if present is not signal.SIG_IGN:
            signal.signal(number, handler.first)
    try:
        yield
    except Stopped as stopped:
        handler.say(stopped)
        sys.exit(stopped.status)  # handlers stay: threads that do not end are the watchdog's
    except BaseException:
        handler.close(before, hook)
        raise
    handler.close(before, hook)


class _Handler:
    """What a first and a second signal do; its watchdog is started beforehand, because a handler
    that interrupts the starting of a thread cannot start another one."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s, self._said, self._stopping = patience_s, False, False
        self._reader, self._writer = os.pipe()
        threading.Thread(target=self._watch, name="stop-watchdog", daemon=True).start()

    def first(self, number: int, frame: FrameType | None) -> None:
        os.write(self._writer, bytes([number]))
        for name in _NAMES:
            signal.signal(name, self.second)
        self._stopping = True
        warnings.simplefilter("ignore")  # of a coroutine that nobody awaits any more
        raise Stopped(number)

    def second(self, number: int, frame: FrameType | None) -> None:
        self._end(Stopped(number))

    def close(self, before: Mapping[signal.Signals, Any], hook: Any) -> None:
        sys.unraisablehook = hook
        for number, present in before.items():
            signal.signal(number, present)
        os.close(self._writer)

    def say(self, stopped: Stopped) -> None:
        said, self._said = self._said, True
        if said:
            return
        # Not through a stream: its lock may be held by what the signal interrupted.
        text = f"\nstopped by {_NAMES[stopped.number]}: what was finished until now is kept\n"
        with suppress(OSError):  # nobody may listen any more
            os.write(2, text.encode())

    def unraisable(self, raised: sys.UnraisableHookArgs) -> None:
        """Nothing of what is destroyed half built, once a signal has cut its building short."""
        if not self._stopping:
            sys.__unraisablehook__(raised)

    def _end(self, stopped: Stopped) -> None:
        self.say(stopped)
        os._exit(stopped.status)

    def _watch(self) -> None:
        heard = os.read(self._reader, 1)
        if heard:
            time.sleep(self._patience_s)
            self._end(Stopped(heard[0]))
        os.close(self._reader)
