"""Jobs of one command in processes of their own, shown together, and ended with it.

Each job is a function of a module, called in a fresh process with its arguments and a progress
callback. What it makes it leaves on disk: a job that fails, or a machine that gives no processes,
costs time and nothing else, because whoever asked does the work that is missing itself. Processes
are spawned, not forked: torch and a terminal that is drawn on do not survive a fork.

What it assumes: no more than `affordable` processes fit into memory. Left out: other machines
(`models.hyperneat.workers` has them), and results handed back.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from pickle import PicklingError
from typing import Any

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.progress import PhaseProgress
from cppncripto_strategy.system import deaf_to_ctrl_c

log = logging.getLogger(__name__)

PROCESS_BYTES = 600 * 2**20
"""What a process that trains networks needs before any candle is read."""
_LISTEN_S = 0.2
_END_S = 5.0
_PACKAGE = "cppncripto_strategy"


@dataclass(frozen=True, slots=True)
class Job:
    """A part of the work.

    Parameters
    ----------
    name : what its progress is shown under.
    target : a function of a module, called with `arguments` and then a `progress.Progress`.
    """

    name: str
    target: Callable[..., None]
    arguments: tuple[Any, ...]


def cores() -> int:
    """Processor cores that this process may use."""
    ask = getattr(os, "sched_getaffinity", None)
    return len(ask(0)) if ask is not None else os.cpu_count() or 1


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
    jobs: Sequence[Job], wanted: int, progress: PhaseProgress, bytes_each: int = PROCESS_BYTES
) -> bool:
    """Do the jobs, at most `wanted` at a time and no more than fit into memory.

    Parameters
    ----------
    bytes_each : memory that one process needs.

    Returns
    -------
    Whether all were done. Where not, the log says why in a sentence, and the caller does what is
    missing. Where no two processes would run at a time, nothing is begun.
    """
    processes = affordable(min(wanted, len(jobs)), bytes_each)
    if processes < 2:
        if min(wanted, len(jobs)) > 1:
            log.warning(
                "one thing after another: two processes of about %d MiB each do not fit into the"
                " memory that is free",
                bytes_each // 2**20,
            )
        return False
    log.info("%d processes, about %d MiB of memory each", processes, bytes_each // 2**20)
    waiting, running, done = list(reversed(jobs)), list[_Running](), True
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_Running(waiting.pop()))
            wait([job.heard for job in running], _LISTEN_S)
            for job in list(running):
                job.listen(progress)
                if job.ended:
                    running.remove(job)
                    done &= job.report()
    except (OSError, PicklingError) as cause:
        log.warning("one thing after another: processes cannot be had (%s)", cause)
        return False
    finally:
        for job in running:
            job.end()
    return done


class _Running:
    """A job in its process; lives until that has ended."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._job, self._failure, self.ended = job, "", False
        self.heard, says = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(job, says), daemon=True)
        try:
            start_deaf(self._process)
        finally:
            says.close()

    def listen(self, progress: PhaseProgress) -> None:
        """Pass on what it said."""
        try:
            while self.heard.poll():
                kind, *said = self.heard.recv()
                if kind == "progress":
                    progress(self._job.name, *said)
                elif kind == "log":
                    name, level, text = said
                    logging.getLogger(name).log(level, "%s: %s", self._job.name, text)
                else:
                    self._failure = said[0]
        except (EOFError, OSError):
            self._process.join(_END_S)
            self.ended = True

    def report(self) -> bool:
        """Whether it did its work; the log says why not."""
        code = self._process.exitcode
        if code == 0 and not self._failure:
            return True
        reason = self._failure or f"its process ended with {code}"
        log.warning("%s is left to this process: %s", self._job.name, reason)
        return False

    def end(self) -> None:
        """End it now: what it had not finished is not kept."""
        self._process.terminate()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_S)


class _Forwarding(logging.Handler):
    """Hands warnings on to the parent, whose log they belong to."""

    def __init__(self, says: Connection) -> None:
        super().__init__(logging.WARNING)
        self._says = says

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._says.send(("log", record.name, record.levelno, record.getMessage()))


def _work(job: Job, says: Connection) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.getLogger(_PACKAGE).addHandler(_Forwarding(says))

    def report(done: int, total: int, text: str) -> None:
        says.send(("progress", done, total, text))

    try:
        job.target(*job.arguments, report)
        report(1, 1, "done")
    except Exception as error:  # whatever it was, the parent does the work and meets it itself
        name = "" if isinstance(error, CppnError) else f"{type(error).__name__}: "
        with suppress(OSError):
            says.send(("failed", f"{name}{error}"))


def start_deaf(process: BaseProcess) -> None:
    """Start a process that does not hear a terminal's Ctrl-C: its parent ends it."""
    with deaf_to_ctrl_c():
        process.start()


def end_with_parent() -> None:
    """Wait for the parent's end, then end: nobody would hear this process any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
