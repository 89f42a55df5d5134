"""Jobs of one command done by workers, shown together, and ended with it.

A job is a function of a module, called in a worker with its arguments and a progress callback. A
job that fails, or a machine that gives no processes, costs time and nothing else, because whoever
asked does the work that is missing itself. Warnings of a job come into this process's log.

What it assumes: no more than `affordable` processes fit into this machine's memory; other machines
know their own. Left out: work of which the next part depends on results (`crew`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import PicklingError
from typing import Any

from cppncripto_strategy.errors import CppnError, TrainingError
from cppncripto_strategy.progress import PhaseProgress
from cppncripto_strategy.spreading.crew import crew
from cppncripto_strategy.spreading.spread import Spread, cores

log = logging.getLogger(__name__)

PROCESS_BYTES = 600 * 2**20
"""What a process that trains networks needs before any candle is read."""
_PACKAGE = "cppncripto_strategy"


@dataclass(frozen=True, slots=True)
class Job:
    """A part of the work.

    Parameters
    ----------
    name : what its progress is shown under.
    target : a function of a module, called with `arguments` and then a `progress.Progress`. It may
        be called twice: again, where the worker that did it is lost.
    """

    name: str
    target: Callable[..., Any]
    arguments: tuple[Any, ...]


def affordable(wanted: int, bytes_each: int) -> int:
    """As many processes as are wanted and fit into the memory that is free now; at least one."""
    free = _free_bytes()
    return max(1, wanted if free is None else min(wanted, free // bytes_each))


def _free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the machine does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return None


def run_jobs(
    jobs: Sequence[Job],
    spread: Spread,
    progress: PhaseProgress,
    bytes_each: int = PROCESS_BYTES,
    take: Callable[[Any], None] = lambda result: None,
) -> bool:
    """Do the jobs where `spread` says; on this machine in no more processes than fit into memory.

    Parameters
    ----------
    bytes_each : memory that one process needs.
    take : is given what a job's target returned, as soon as the job is done.

    Returns
    -------
    Whether all were done. Where not, the log says why in a sentence, and the caller does what is
    missing. Where no two processes of this machine would run at a time, nothing is begun.

    Raises
    ------
    RecipeError
        When Dask or Ray is not installed or does not answer.
    TrainingError
        When workers of other machines keep dying.
    """
    if not spread.here:
        return _Display(jobs, progress, take).do(spread)
    wanted = 1 if spread.backend == "none" else min(spread.workers or cores(), len(jobs))
    processes = affordable(wanted, bytes_each)
    if processes < 2:
        if wanted > 1:
            log.warning(
                "one thing after another: two processes of about %d MiB each do not fit into the"
                " memory that is free",
                bytes_each // 2**20,
            )
        return False
    log.info("%d processes, about %d MiB of memory each", processes, bytes_each // 2**20)
    try:
        return _Display(jobs, progress, take).do(replace(spread, workers=processes))
    except (OSError, PicklingError, TrainingError) as cause:
        log.warning("one thing after another: processes cannot be had (%s)", cause)
        return False


class _Display:
    """The jobs of one command as they are done; lives until they are."""

    def __init__(
        self, jobs: Sequence[Job], progress: PhaseProgress, take: Callable[[Any], None]
    ) -> None:
        self._jobs, self._progress, self._take = jobs, progress, take

    def do(self, spread: Spread) -> bool:
        """Do all of them; whether that went well."""
        done = True
        with crew(spread, _do, None, self._hear) as workers:
            for number, job in enumerate(self._jobs):
                workers.submit(number, job)
            while workers.busy:
                number, (failure, result) = workers.completed()
                done &= failure is None
                self._end(self._jobs[number].name, failure, result)
        return done

    def _end(self, name: str, failure: str | None, result: Any) -> None:
        if failure is not None:
            log.warning("%s is left to this process: %s", name, failure)
            return
        self._take(result)
        self._progress(name, 1, 1, "done")

    def _hear(self, number: int, event: Sequence[Any]) -> None:
        name, (kind, *said) = self._jobs[number].name, event
        if kind == "progress":
            self._progress(name, *said)
        else:
            logger, level, text = said
            logging.getLogger(logger).log(level, "%s: %s", name, text)


class _Forwarding(logging.Handler):
    """Hands a job's warnings on to whoever asked for it, whose log they belong to."""

    def __init__(self, say: Callable[[Any], None]) -> None:
        super().__init__(logging.WARNING)
        self._say, self._thread = say, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:  # a worker of Dask may make other calls beside this one
            self._say(["log", record.name, record.levelno, record.getMessage()])


def _do(shared: None, job: Job, say: Callable[[Any], None]) -> tuple[str | None, Any]:
    """In a worker: a job's failure, if any, and its result."""
    package, forwarding = logging.getLogger(_PACKAGE), _Forwarding(say)
    package.addHandler(forwarding)

    def progress(done: int, total: int, text: str) -> None:
        say(["progress", done, total, text])

    try:
        return None, job.target(*job.arguments, progress)
    except Exception as error:  # whatever it was, who asked does the work and meets it itself
        name = "" if isinstance(error, CppnError) else f"{type(error).__name__}: "
        return f"{name}{error}", None
    finally:
        package.removeHandler(forwarding)
