"""Jobs done by workers: all done, heard, bounded by memory, ended with their command."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.spreading import jobs as jobs_module
from cppncripto_strategy.spreading.jobs import Job, affordable, run_jobs
from cppncripto_strategy.spreading.spread import Spread, cores

PATIENCE_S = 60.0
TWO = Spread(workers=2)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A spawned process gets this one's path, and imports the jobs of this module by it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3])


def leave(path, content, progress):
    """Leave a file behind."""
    progress(1, 2, "half")
    path.write_text(content)


def square(number, progress):
    """Hand something back."""
    return number**2


def warn(progress):
    """Say something that belongs into the parent's log."""
    logging.getLogger("cppncripto_strategy.models").warning("too few days")


def fail(progress):
    """End with one of our own errors."""
    raise TrainingError("no candle at all")


def die(progress):
    """End without a word, as one that the kernel killed for its memory does."""
    os._exit(9)


def sleep(path, progress):
    """Say who it is, and never end."""
    path.write_text(str(os.getpid()))
    time.sleep(10 * PATIENCE_S)


def silent(*_):
    """Draw nothing."""


def test_every_job_is_done_and_heard(tmp_path):
    """A job lost in the queue, or a bar that never moves."""
    jobs = [Job(f"job {n}", leave, (tmp_path / f"{n}", str(n))) for n in range(3)]
    heard = []
    assert run_jobs(jobs, TWO, lambda *said: heard.append(said), 1)
    assert [(tmp_path / f"{n}").read_text() for n in range(3)] == ["0", "1", "2"]
    for job in jobs:
        said = [rest for name, *rest in heard if name == job.name]
        assert said == [[1, 2, "half"], [1, 1, "done"]]


def test_failure_is_a_sentence_and_the_others_are_done(tmp_path, caplog):
    """A command that ends because a helper did, or one that never hears of it."""
    jobs = [
        Job("fails", fail, ()),
        Job("warns", warn, ()),
        Job("leaves", leave, (tmp_path / "left", "x")),
    ]
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        assert not run_jobs(jobs, TWO, silent, 1)
    assert (tmp_path / "left").exists()
    assert "fails is left to this process: no candle at all" in caplog.text
    assert "warns: too few days" in caplog.text


def test_results_are_taken_under_their_own_names():
    """A cell kept under another one's key, or one whose result nobody took."""
    taken = []
    jobs = [Job(str(n), square, (n,)) for n in range(5)]
    assert run_jobs(jobs, TWO, silent, 1, taken.append)
    assert sorted(taken) == [0, 1, 4, 9, 16]


@pytest.mark.posix
def test_job_that_kills_every_worker_is_left_to_the_caller(tmp_path, caplog):
    """A command that ends, or tries for ever, because a part of it does not fit into memory."""
    jobs = [Job("dies", die, ()), Job("dies, too", die, ())]
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        assert not run_jobs(jobs, TWO, silent, 1)
    assert "one thing after another" in caplog.text
    assert "workers died 4 times in a row" in caplog.text


@pytest.mark.posix
def test_interrupt_ends_every_process(tmp_path):
    """Ctrl-C that leaves trainings behind, which go on for hours and write."""
    sleeper = tmp_path / "sleeper"

    def interrupt(*_):
        deadline = time.monotonic() + PATIENCE_S
        while not (sleeper.exists() and sleeper.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise KeyboardInterrupt

    jobs = [Job("sleeps", sleep, (sleeper,)), Job("leaves", leave, (tmp_path / "left", "x"))]
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, TWO, interrupt, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(sleeper.read_text()), 0)


def test_memory_bounds_the_processes(monkeypatch, tmp_path, caplog):
    """A machine that swaps, because each of many cores got a training of its own."""
    monkeypatch.setattr(jobs_module, "_free_bytes", lambda: 10 * 2**30)
    assert affordable(16, 3 * 2**30) == 3
    assert affordable(2, 3 * 2**30) == 2
    assert affordable(16, 20 * 2**30) == 1
    jobs = [Job(str(n), leave, (tmp_path / str(n), "x")) for n in range(2)]
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        assert not run_jobs(jobs, TWO, silent, 20 * 2**30)
    assert not list(tmp_path.iterdir())
    assert "do not fit into the memory that is free" in caplog.text
    monkeypatch.setattr(jobs_module, "_free_bytes", lambda: None)
    assert affordable(16, 20 * 2**30) == 16


def test_machine_without_processes_is_said_and_nothing_breaks(monkeypatch, tmp_path, caplog):
    """A container that forbids new processes, and a run that ends there with a traceback."""

    def refused(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(jobs_module, "crew", refused)
    jobs = [Job(str(n), leave, (tmp_path / str(n), "x")) for n in range(2)]
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        assert not run_jobs(jobs, TWO, silent, 1)
    assert "one thing after another: processes cannot be had (Operation not permit" in caplog.text


def test_one_job_or_one_process_is_left_to_the_caller(tmp_path):
    """Seconds spent on starting a process that works alone."""
    jobs = [Job(str(n), leave, (tmp_path / str(n), "x")) for n in range(2)]
    assert not run_jobs(jobs[:1], Spread(workers=8), silent, 1)
    assert not run_jobs(jobs, Spread(workers=1), silent, 1)
    assert not run_jobs(jobs, Spread("none"), silent, 1)
    assert not list(tmp_path.iterdir())
    assert cores() >= 1
