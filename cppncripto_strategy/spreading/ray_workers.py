"""Machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.spreading.backend import Call, News, make
from cppncripto_strategy.spreading.spread import Spread


def _make(
    function: Call, shared: Any, arguments: tuple[Any, ...], number: int | None, queue: Any
) -> tuple[Any, int]:
    return make(function, shared, arguments, number, lambda *news: queue.put(news))


class RayWorkers:
    """The workers of a cluster; lives for one crew.

    Parameters
    ----------
    ray : the module, connected.
    size : calls in flight; 0 for as many as there are cores.
    shared : what every call gets first; it travels to each machine once.
    """

    def __init__(self, ray: Any, size: int, shared: Any) -> None:
        from ray.util.queue import Queue

        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._remote = ray.remote(max_retries=0)(_make)
        self._kept = ray.put(shared)
        self._queue = Queue(actor_options={"num_cpus": 0})  # a place for what calls say

    def submit(
        self, function: Call, arguments: tuple[Any, ...], number: int | None
    ) -> Future[tuple[Any, int]]:
        """Begin a call."""
        reference = self._remote.remote(function, self._kept, arguments, number, self._queue)
        future: Future[tuple[Any, int]] = reference.future()
        return future

    def news(self) -> list[News]:
        """What calls have said since this was asked last."""
        return [tuple(news) for news in self._queue.get_nowait_batch(self._queue.size())]

    def renew(self) -> None:
        """Nothing: Ray starts new workers by itself."""

    def idle(self) -> bool:
        """Never seen: Ray ends the calls of a worker that dies."""
        return False


@contextmanager
def ray_workers(spread: Spread, shared: Any) -> Iterator[RayWorkers]:
    """The workers of a cluster, begun here where none is known."""
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'cppncripto-strategy[ray]'"
        raise RecipeError(f"backend ray is not installed: {hint}") from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=spread.scheduler)
    try:
        yield RayWorkers(ray, spread.workers, shared)
    finally:
        if started:
            ray.shutdown()
