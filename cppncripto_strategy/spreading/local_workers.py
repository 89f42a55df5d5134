"""Processes of this machine: joblib's loky, with a line back to whoever started them.

A worker is connected to its master by a socket (a named pipe on Windows) that only this user can
open and that asks for a secret. What calls say goes through it, and its end is the master's end:
loky's workers would wait for a master that was killed, always.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from cppncripto_strategy.spreading.backend import Call, News, make
from cppncripto_strategy.spreading.spread import ALGEBRA_THREADS, Spread, cores
from cppncripto_strategy.system import deaf_to_ctrl_c

_SHARED: list[Any] = []
"""What this worker process was given by `_begin`."""
_MASTER: list[Connection] = []
"""The line to its master."""


def _begin(shared: Any, address: str, secret: bytes) -> None:
    """Begin a worker process."""
    _SHARED[:], _MASTER[:] = [shared], [Client(address, authkey=secret)]
    threading.Thread(target=_end_with_master, daemon=True).start()


def _end_with_master() -> None:
    with suppress(EOFError, OSError):
        _MASTER[0].recv_bytes()  # the master never says anything
    os._exit(1)


def _send(number: int, event: str) -> None:
    with suppress(OSError):  # the master is gone: this process ends
        _MASTER[0].send_bytes(json.dumps([number, event]).encode())


def _make(function: Call, arguments: tuple[Any, ...], number: int | None) -> tuple[Any, int]:
    return make(function, _SHARED[0], arguments, number, _send)


class _Lines:
    """The master's ends of all lines; a thread listens to each, until its worker ends."""

    def __init__(self) -> None:
        self.secret = secrets.token_bytes(32)
        self.news: deque[News] = deque()
        self._listener = Listener(backlog=128, authkey=self.secret)
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self._listener.address)

    def _accept(self) -> None:
        while self._open:
            with suppress(AuthenticationError, EOFError, OSError):  # killed in the middle of it
                line = self._listener.accept()
                threading.Thread(target=self._listen, args=(line,), daemon=True).start()
        self._listener.close()

    def _listen(self, line: Connection) -> None:
        with suppress(EOFError, OSError), line:
            while True:
                number, event = json.loads(line.recv_bytes())
                self.news.append((number, event))

    def close(self) -> None:
        self._open = False
        with suppress(AuthenticationError, EOFError, OSError):
            Client(self.address, authkey=self.secret).close()  # which ends the waiting for one


class LocalWorkers:
    """A pool of processes; lives for one crew.

    Parameters
    ----------
    size : processes.
    shared : what every call gets first.
    """

    def __init__(self, size: int, shared: Any) -> None:
        self.size, self._shared = size, shared
        self._lines = _Lines()
        self._pool: Any = self._made()

    def _made(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        start = self._shared, self._lines.address, self._lines.secret
        # Else each worker takes every core: two then run slower than one.
        threads = {library: os.environ.get(library, "1") for library in ALGEBRA_THREADS}
        return ProcessPoolExecutor(self.size, initializer=_begin, initargs=start, env=threads)

    def submit(
        self, function: Call, arguments: tuple[Any, ...], number: int | None
    ) -> Future[tuple[Any, int]]:
        """Begin a call."""
        with deaf_to_ctrl_c():  # a terminal's Ctrl-C is the master's, who ends its workers
            future: Future[tuple[Any, int]] = self._pool.submit(_make, function, arguments, number)
        return future

    def news(self) -> list[News]:
        """What calls have said since this was asked last."""
        news = self._lines.news
        return [news.popleft() for _ in range(len(news))]

    def renew(self) -> None:
        """Another pool: loky's is broken once a worker was lost."""
        self._end()
        self._pool = self._made()

    def idle(self) -> bool:
        """Never seen: a pool ends the calls of a worker that dies."""
        return False

    def close(self) -> None:
        """End the processes."""
        self._end()
        self._lines.close()

    def _end(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def local_workers(spread: Spread, shared: Any) -> Iterator[LocalWorkers]:
    """The processes, for as long as this is entered."""
    workers = LocalWorkers(spread.workers or cores(), shared)
    try:
        yield workers
    finally:
        workers.close()
