"""Machines of a Dask cluster.

Networks are trained with torch's random numbers, of which a process has one state: calls of one
worker process are made one at a time, however many threads it has.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.spreading.backend import Call, News, make
from cppncripto_strategy.spreading.spread import Spread

log = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.Lock()


def _make(
    function: Call, shared: Any, arguments: tuple[Any, ...], number: int | None, topic: str
) -> tuple[Any, int]:
    from distributed import get_worker

    worker = get_worker()

    def send(number: int, event: str) -> None:
        worker.log_event(topic, [number, event])

    with _ONE_AT_A_TIME:
        return make(function, shared, arguments, number, send)


class DaskWorkers:
    """The workers of a cluster; lives for one crew.

    Parameters
    ----------
    client : a connected `distributed.Client`.
    size : calls in flight; 0 for as many as there are worker processes.
    shared : what every call gets first; it travels to each worker once.
    """

    def __init__(self, client: Any, size: int, shared: Any) -> None:
        self._client, self._shared = client, shared
        self._executor = client.get_executor(pure=False)
        self.size = size or max(1, len(client.nthreads()))
        self._topic = f"cppncripto-{uuid.uuid4().hex}"
        self._news: deque[News] = deque()
        client.subscribe_topic(self._topic, lambda event: self._news.append(tuple(event[1])))
        self._kept = self._scattered()

    def _scattered(self) -> Any:
        return self._client.scatter([self._shared], broadcast=True, hash=False)[0]

    def submit(
        self, function: Call, arguments: tuple[Any, ...], number: int | None
    ) -> Future[tuple[Any, int]]:
        """Begin a call."""
        future: Future[tuple[Any, int]] = self._executor.submit(
            _make, function, self._kept, arguments, number, self._topic
        )
        return future

    def news(self) -> list[News]:
        """What calls have said since this was asked last."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def renew(self) -> None:
        """Hand out again what all calls share: the worker that was lost may have had it."""
        self._kept = self._scattered()

    def idle(self) -> bool:
        """Whether no worker does anything: Dask once forgot the calls of a killed one."""
        try:
            processing = self._client.processing()
        except OSError:  # the scheduler does not answer; the calls will end when it is gone
            return False
        return bool(processing) and not any(processing.values())


@contextmanager
def dask_workers(spread: Spread, shared: Any) -> Iterator[DaskWorkers]:
    """The workers that a scheduler has; the connection lives as long as this is entered."""
    try:
        from distributed import Client
    except ImportError as error:
        hint = "pip install 'cppncripto-strategy[dask]'"
        raise RecipeError(f"backend dask is not installed: {hint}") from error
    try:
        client = Client(spread.scheduler, set_as_default=False, timeout=20)
    except OSError as error:
        raise RecipeError(f"no Dask scheduler answers at {spread.scheduler}: {error}") from error
    with client:
        _warn_of_threads(client.nthreads())
        yield DaskWorkers(client, spread.workers, shared)


def _warn_of_threads(threads: dict[str, int]) -> None:
    many = [count for count in threads.values() if count > 1]
    if many:
        log.warning(
            "%d of %d Dask workers have several threads and make one call at a time all the same:"
            " start them with `dask worker ADDRESS --nworkers %d --nthreads 1`",
            len(many),
            len(threads),
            max(many),
        )
