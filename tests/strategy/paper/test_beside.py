"""Processes beside a session: one that the session ends itself has not failed."""

import signal
import threading
from pathlib import Path

import pytest

from cppncripto_strategy.paper.beside import FAILED, Beside


def waits(says):
    """Say that it runs, and never end."""
    says({"kind": "runs"})
    threading.Event().wait()


@pytest.fixture
def running(monkeypatch):
    """A process that says it runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))  # the process imports this file
    process = Beside(waits)
    assert process._heard.poll(60)
    assert process.events() == [{"kind": "runs"}]
    yield process
    process.stop()


def test_process_that_the_session_ends_has_not_failed(running):
    """A failure in every session that stops while a day's report is being made."""
    running.stop(0.0)
    assert not running.running
    assert running.events() == []


@pytest.mark.posix
def test_process_that_somebody_else_kills_has_failed(running):
    """A day without report and checkpoint, and no word about it."""
    running.process.kill()
    running.process.join(60)
    (event,) = running.events()
    assert event == {"kind": FAILED, "reason": f"its process ended with {-signal.SIGKILL}"}
