"""A crew of workers: one function, many calls, a lost worker's calls made again.

Whoever has work submits calls and takes results as they come, so that what to do next may depend on
them, and may hear what calls say while they are made. Backends are joblib's processes (loky), Dask
and Ray; "none" makes the calls here, one after another. What all calls share travels once.

A call's result must follow from its arguments alone: it may be made twice, when the worker that
made it is lost before it answers. Left out: what is worth computing.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.spreading.backend import Backend, Call
from cppncripto_strategy.spreading.dask_workers import dask_workers
from cppncripto_strategy.spreading.local_workers import local_workers
from cppncripto_strategy.spreading.ray_workers import ray_workers
from cppncripto_strategy.spreading.spread import Spread

log = logging.getLogger(__name__)

Hear: TypeAlias = Callable[[Any, Any], None]
"""Called with a call's key and an event that the call said."""

# Workers may be lost so often in a row, without one result between, before the work is given up.
_FRUITLESS_LOSSES = 3
_LISTEN_S = 0.2
# What a call said travels by another way than its result: so long it may come after it.
_LAST_WORDS_S = 5.0
# Calls are out, and workers are seen idle at so many looks in a row: somebody forgot the calls.
_LOOK_S, _IDLE_LOOKS = 10.0, 3

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

_BACKENDS: dict[str, Callable[[Spread, Any], AbstractContextManager[Backend]]] = {
    "processes": local_workers,
    "dask": dask_workers,
    "ray": ray_workers,
}


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
def crew(
    spread: Spread, function: Call, shared: Any = None, hear: Hear | None = None
) -> Iterator[Crew]:
    """Workers for one function; connections to other machines live as long as this.

    Parameters
    ----------
    function : called as function(shared, *arguments); importable by name.
    shared : travels to each worker once.
    hear : called while results are waited for; then the function's last argument is what it says
        events with, one plain value at a time.

    Raises
    ------
    RecipeError
        When the backend is not installed or does not answer.
    """
    if spread.backend == "none":
        yield _Here(function, shared, hear)
        return
    with _BACKENDS[spread.backend](spread, shared) as backend:
        yield _Apart(backend, function, hear)


class _Here:
    """Calls made in this process, when their results are asked for."""

    size = 1

    def __init__(self, function: Call, shared: Any, hear: Hear | None) -> None:
        self._function, self._shared, self._hear = function, shared, hear
        self._waiting: deque[tuple[Any, tuple[Any, ...]]] = deque()

    @property
    def busy(self) -> int:
        return len(self._waiting)

    def submit(self, key: Any, *arguments: Any) -> None:
        self._waiting.append((key, arguments))

    def completed(self) -> tuple[Any, Any]:
        key, arguments = self._waiting.popleft()
        say = () if self._hear is None else (partial(self._hear, key),)
        return key, self._function(self._shared, *arguments, *say)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that is out, under a number that no other one has: made again, it gets another."""

    key: Any
    arguments: tuple[Any, ...]
    number: int


class _Apart:
    """Calls made in workers; those whose worker is lost are made again."""

    def __init__(self, backend: Backend, function: Call, hear: Hear | None = None) -> None:
        self.size = backend.size
        self._backend, self._function, self._hear = backend, function, hear
        self._calls: dict[Future[tuple[Any, int]], _Asked] = {}
        self._heard: Counter[int] = Counter()
        self._keys: dict[int, Any] = {}
        self._losses = self._idle = self._numbers = 0

    @property
    def busy(self) -> int:
        return len(self._calls)

    def submit(self, key: Any, *arguments: Any) -> None:
        self._numbers += 1
        asked = _Asked(key, arguments, self._numbers)
        self._keys[asked.number] = key
        number = None if self._hear is None else asked.number
        try:
            future = self._backend.submit(self._function, arguments, number)
        except Exception as error:  # the pool broke since, and nobody has looked
            if not is_lost_worker(error):
                raise
            future = Future()
            future.set_exception(error)
        self._calls[future] = asked

    def completed(self) -> tuple[Any, Any]:
        while True:
            done = self._wait()
            lost = {future: error for future in done if (error := _loss(future)) is not None}
            if lost:
                self._again(lost)
                continue
            # In the order of submission, so that a run does not depend on a set's order.
            future = next(future for future in self._calls if future in done)
            asked = self._calls.pop(future)
            self._losses = 0
            result, said = future.result()
            self._hear_out(asked.number, said)
            return asked.key, result

    def _wait(self) -> set[Future[tuple[Any, int]]]:
        """Some calls that are done, one at least; meanwhile what calls say is heard."""
        look = time.monotonic() + _LOOK_S
        while True:
            pause = min(_LISTEN_S, _LOOK_S)
            done, _ = wait(self._calls, timeout=pause, return_when=FIRST_COMPLETED)
            self._listen()
            if done:
                self._idle = 0
                return done
            if time.monotonic() >= look:
                self._look()
                look = time.monotonic() + _LOOK_S

    def _listen(self) -> None:
        if self._hear is None:
            return
        for number, event in self._backend.news():
            self._heard[number] += 1
            if number in self._keys:  # else of a call that was given up, and is made again
                self._hear(self._keys[number], json.loads(event))

    def _hear_out(self, number: int, said: int) -> None:
        """Hear what a finished call said before anybody acts upon its result."""
        until = time.monotonic() + _LAST_WORDS_S
        while self._heard[number] < said and time.monotonic() < until:
            self._listen()
            time.sleep(0.01)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._keys.pop(number, None)
        self._heard.pop(number, None)

    def _look(self) -> None:
        """Make calls again that nobody has: Dask once forgot those of a killed worker, silently."""
        self._idle = self._idle + 1 if self._backend.idle() else 0
        if self._idle < _IDLE_LOOKS:
            return
        self._idle = 0
        forgotten = TimeoutError(f"workers did nothing for {_IDLE_LOOKS * _LOOK_S:.0f} s")
        self._again(dict.fromkeys(self._calls, forgotten))

    def _again(self, lost: dict[Future[tuple[Any, int]], BaseException]) -> None:
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
        for asked in [self._calls.pop(future) for future in tuple(self._calls) if future in lost]:
            self._forget(asked.number)
            self.submit(asked.key, *asked.arguments)


def _loss(future: Future[Any]) -> BaseException | None:
    """The error of a finished future, where it says that a worker went away."""
    if future.cancelled():
        return RuntimeError("cancelled")
    error = future.exception()
    return error if error is not None and is_lost_worker(error) else None


def is_lost_worker(error: BaseException) -> bool:
    """Whether the error says that a worker went away, in any backend's words."""
    return any(kind.__name__ in _LOST_WORKER for kind in type(error).__mro__)
