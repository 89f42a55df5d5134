"""Work spread over processes or machines: one function, many calls, a lost worker's calls again.

Whoever has work submits calls and takes results as they come, so that what to do next may depend on
them. Backends are joblib's processes (loky), Dask and Ray; none of them runs a call here, one after
another. What all calls share travels once.

A call's result must follow from its arguments alone: it may be made twice, when the worker that
made it is lost before it answers. Left out: what is worth computing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, TypeAlias, get_args

from cppncripto_strategy.errors import RecipeError, TrainingError

log = logging.getLogger(__name__)

BackendName = Literal["processes", "dask", "ray", "none"]
Call: TypeAlias = Callable[..., Any]
# Workers may be lost so often in a row, without one result between, before the work is given up.
_FRUITLESS_LOSSES = 3
_WATCH_S = 2.0
# Calls are out, and workers are seen idle at so many looks in a row: somebody forgot the calls.
_LOOK_S, _IDLE_LOOKS = 10.0, 3
_INSTALL = {
    "dask": "pip install 'cppncripto-strategy[dask]'",
    "ray": "pip install 'cppncripto-strategy[ray]'",
}

# By name, because naming the classes would import backends that are not installed.
_LOST_WORKER = {
    "BrokenExecutor",  # concurrent.futures and loky
    "KilledWorker",  # distributed, after several deaths
    "FutureCancelledError",
    "CancelledError",
    "CommClosedError",
    "WorkerCrashedError",  # ray
    "RayActorError",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Where work is done.

    Parameters
    ----------
    backend : "processes" (joblib's loky, on this machine), "dask", "ray", or "none" (here).
    workers : processes, or calls in flight; 0 for one per core, or for all that dask or ray has.
    scheduler : address of a Dask scheduler ("tcp://host:8786") or a Ray cluster; needed by dask.
    """

    backend: BackendName = "processes"
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in get_args(BackendName):
            known = ", ".join(get_args(BackendName))
            raise RecipeError(f"backend {self.backend!r} is unknown; there are: {known}")
        if self.backend == "dask" and not self.scheduler:
            raise RecipeError(
                "backend dask needs the address of a scheduler: --scheduler tcp://..."
            )


class Crew(Protocol):
    """Who does the work: `function(shared, *arguments)` for every call."""

    size: int
    """Calls that are worth having in flight at once."""

    @property
    def busy(self) -> int:
        """Calls submitted whose results were not taken."""

    def submit(self, key: Any, *arguments: Any) -> None:
        """Ask for a call, named by a key."""

    def completed(self) -> tuple[Any, Any]:
        """The key and the result of some call that is done; waits for one.

        Raises
        ------
        TrainingError
            When workers keep dying.
        Exception
            Whatever the call raised.
        """


@contextmanager
def crew(spread: Spread, function: Call, shared: Any = None) -> Iterator[Crew]:
    """Workers for one function; connections to other machines live as long as this.

    Parameters
    ----------
    function : called as function(shared, *arguments); importable by name.
    shared : travels to each worker once.

    Raises
    ------
    RecipeError
        When the backend is not installed or does not answer.
    """
    if spread.backend == "none":
        yield _Here(function, shared)
        return
    makers = {"processes": _processes, "dask": _dask, "ray": _ray}
    with makers[spread.backend](spread, shared) as backend:
        yield _Apart(backend, function)


class _Here:
    """Calls made in this process, when their results are asked for."""

    size = 1

    def __init__(self, function: Call, shared: Any) -> None:
        self._function, self._shared = function, shared
        self._waiting: deque[tuple[Any, tuple[Any, ...]]] = deque()

    @property
    def busy(self) -> int:
        return len(self._waiting)

    def submit(self, key: Any, *arguments: Any) -> None:
        self._waiting.append((key, arguments))

    def completed(self) -> tuple[Any, Any]:
        key, arguments = self._waiting.popleft()
        return key, self._function(self._shared, *arguments)


class _Backend(Protocol):
    """Where calls go: `submit` gives a future of `concurrent.futures`."""

    size: int

    def submit(self, function: Call, arguments: tuple[Any, ...]) -> Future[Any]:
        """Begin a call."""

    def renew(self) -> None:
        """Make it work again after a worker was lost."""

    def idle(self) -> bool:
        """Whether it has workers, and none of them does anything."""


class _Apart:
    """Calls made in workers; those whose worker is lost are made again."""

    def __init__(self, backend: _Backend, function: Call) -> None:
        self.size = backend.size
        self._backend, self._function = backend, function
        self._calls: dict[Future[Any], tuple[Any, tuple[Any, ...]]] = {}
        self._losses = self._idle = 0

    @property
    def busy(self) -> int:
        return len(self._calls)

    def submit(self, key: Any, *arguments: Any) -> None:
        try:
            future = self._backend.submit(self._function, arguments)
        except Exception as error:  # the pool broke since, and nobody has looked
            if not is_lost_worker(error):
                raise
            future = Future()
            future.set_exception(error)
        self._calls[future] = key, arguments

    def completed(self) -> tuple[Any, Any]:
        while True:
            done, _ = wait(self._calls, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            if not done:
                self._look()
                continue
            self._idle = 0
            lost = {future: error for future in done if (error := _loss(future)) is not None}
            if lost:
                self._again(lost)
                continue
            # In the order of submission, so that a run does not depend on a set's order.
            future = next(future for future in self._calls if future in done)
            key, _ = self._calls.pop(future)
            self._losses = 0
            return key, future.result()

    def _look(self) -> None:
        """Make calls again that nobody has: Dask once forgot those of a killed worker, silently."""
        self._idle = self._idle + 1 if self._backend.idle() else 0
        if self._idle < _IDLE_LOOKS:
            return
        self._idle = 0
        forgotten = TimeoutError(f"workers did nothing for {_IDLE_LOOKS * _LOOK_S:.0f} s")
        self._again(dict.fromkeys(self._calls, forgotten))

    def _again(self, lost: dict[Future[Any], BaseException]) -> None:
        error = next(iter(lost.values()))
        self._losses += 1
        if self._losses > _FRUITLESS_LOSSES:
            raise TrainingError(
                f"workers died {self._losses} times in a row without one result: they may lack"
                " memory, or this package; try fewer workers or --backend none"
            ) from error
        log.warning(
            "a worker was lost (%s); what it did is done again: %d calls",
            type(error).__name__,
            len(lost),
        )
        self._backend.renew()
        for key, arguments in [
            self._calls.pop(future) for future in tuple(self._calls) if future in lost
        ]:
            self.submit(key, *arguments)


def _loss(future: Future[Any]) -> BaseException | None:
    """The error of a finished future, where it says that a worker went away."""
    if future.cancelled():
        return RuntimeError("cancelled")
    error = future.exception()
    return error if error is not None and is_lost_worker(error) else None


def is_lost_worker(error: BaseException) -> bool:
    """Whether the error says that a worker went away, in any backend's words."""
    return any(kind.__name__ in _LOST_WORKER for kind in type(error).__mro__)


# ---------------------------------------------------------------------- processes of this machine
_SHARED: list[Any] = []
"""What this worker process was given by `_begin`."""


def _begin(shared: Any, master: int) -> None:
    """Begin a worker process."""
    _SHARED[:] = [shared]
    _end_with(master)


@cache
def _end_with(master: int) -> None:
    """End this worker process once its master is gone: loky's would always wait for it."""

    def watch() -> None:
        while os.getppid() == master:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call_shared(function: Call, arguments: tuple[Any, ...]) -> Any:
    return function(_SHARED[0], *arguments)


class _Processes:
    def __init__(self, size: int, shared: Any) -> None:
        self.size, self._shared = size, shared
        self._pool: Any = self._made()

    def _made(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        start = self._shared, os.getpid()
        return ProcessPoolExecutor(self.size, initializer=_begin, initargs=start)

    def submit(self, function: Call, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = self._pool.submit(_call_shared, function, arguments)
        return future

    def renew(self) -> None:
        self.close()
        self._pool = self._made()

    def idle(self) -> bool:
        return False  # a pool ends the calls of a worker that dies

    def close(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def _processes(spread: Spread, shared: Any) -> Iterator[_Backend]:
    pool = _Processes(spread.workers or os.cpu_count() or 1, shared)
    try:
        yield pool
    finally:
        pool.close()


# --------------------------------------------------------------------------------- other machines
def _call(function: Call, shared: Any, *arguments: Any) -> Any:
    return function(shared, *arguments)


class _Dask:
    def __init__(self, client: Any, size: int, shared: Any) -> None:
        self._client, self._shared = client, shared
        self._executor = client.get_executor(pure=False)
        self.size = size or max(1, sum(client.nthreads().values()))
        self._kept = self._scattered()

    def _scattered(self) -> Any:
        return self._client.scatter([self._shared], broadcast=True, hash=False)[0]

    def submit(self, function: Call, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = self._executor.submit(_call, function, self._kept, *arguments)
        return future

    def renew(self) -> None:
        self._kept = self._scattered()

    def idle(self) -> bool:
        try:
            processing = self._client.processing()
        except OSError:  # the scheduler does not answer; the calls will end when it is gone
            return False
        return bool(processing) and not any(processing.values())


@contextmanager
def _dask(spread: Spread, shared: Any) -> Iterator[_Backend]:
    try:
        from distributed import Client
    except ImportError as error:
        raise RecipeError(f"backend dask is not installed: {_INSTALL['dask']}") from error
    try:
        client = Client(spread.scheduler, set_as_default=False, timeout=20)
    except OSError as error:
        raise RecipeError(f"no Dask scheduler answers at {spread.scheduler}: {error}") from error
    with client:
        yield _Dask(client, spread.workers, shared)


class _Ray:
    def __init__(self, ray: Any, size: int, shared: Any) -> None:
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._remote = ray.remote(max_retries=0)(_call)
        self._kept = ray.put(shared)

    def submit(self, function: Call, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = self._remote.remote(function, self._kept, *arguments).future()
        return future

    def renew(self) -> None:
        """Nothing: Ray starts new workers by itself."""

    def idle(self) -> bool:
        return False  # Ray ends the calls of a worker that dies


@contextmanager
def _ray(spread: Spread, shared: Any) -> Iterator[_Backend]:
    try:
        import ray
    except ImportError as error:
        raise RecipeError(f"backend ray is not installed: {_INSTALL['ray']}") from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=spread.scheduler)
    try:
        yield _Ray(ray, spread.workers, shared)
    finally:
        if started:
            ray.shutdown()
