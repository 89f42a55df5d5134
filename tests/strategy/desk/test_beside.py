"""A desk and a session beside each other, as real processes: each is killed, the other goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")

from cppncripto_strategy.commands._desk_beside import LOG_FILE, desk_beside

PATIENCE_S = 60.0
# Writes rounds with the session's own journals, fsync included, until it is stopped; says how many.
TRADER = """
import sys, time
from pathlib import Path
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.paper.session import SessionFolder
with SessionFolder(Path(sys.argv[1])) as folder:
    folder.event("start", resumed=True, rounds=folder.shown)
    close_ms, step = folder.past[-1][0].close_ms, folder.facts.interval_ms
    while True:
        close_ms += step
        row = (close_ms - step, 1.0, 2.0, 0.5, 1.5, 1.0, 1.0, 1, 1.0, 1.0)
        moment = Round(close_ms, {symbol: row for symbol in folder.facts.symbols})
        folder.journal([moment])
        folder.opened(moment, frozenset(folder.facts.symbols))
        folder.derived["equity"].add({"t": close_ms, "equity": 1.0, "cash": 1.0})
        folder.settle()
        print(folder.shown, flush=True)
        time.sleep(0.02)
"""


def until(happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Desk:
    """Questions to a desk process."""

    def __init__(self, port: int, token: str) -> None:
        self.base, self.headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {token}"}

    def session(self) -> dict:
        """The one session as the desk tells it; empty while it does not answer."""
        try:
            answer = httpx.get(f"{self.base}/api/v1/sessions", headers=self.headers, timeout=5)
            return dict(answer.json()["items"][0])
        except httpx.HTTPError:
            return {}


@pytest.fixture
def trader(copy_of):
    """A process that trades in the copy's session."""
    folder = copy_of / "paper" / "real"
    for name in ("decisions", "evidence", "fills", "equity"):  # of rounds that it will not replay
        (folder / f"{name}.jsonl").write_bytes(b"")
    process = subprocess.Popen(
        [sys.executable, "-c", TRADER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()


@pytest.mark.posix
def test_killing_either_leaves_the_other_untouched(copy_of, token_file, token, trader):
    """A page that takes the trader down with it, a trader whose death nobody sees."""
    port = free_port()
    options = ("--port", str(port), "--token-file", str(token_file), "--priority", "low")
    desk, folder = Desk(port, token), copy_of / "paper"
    assert trader.stdout is not None
    with desk_beside(folder, *options) as pid:
        until(lambda: desk.session().get("state") == "running")
        seen = desk.session()["rounds"]
        until(lambda: desk.session().get("rounds", 0) > seen)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not desk.session())
        shown = int(trader.stdout.readline())
        while (later := int(trader.stdout.readline())) < shown + 20:
            pass  # it goes on
        assert trader.poll() is None
    with desk_beside(folder, *options) as pid:
        until(lambda: desk.session().get("rounds", 0) >= later)
        trader.kill()
        trader.wait()
        until(lambda: desk.session().get("state") == "died")
        assert desk.session()["problem"] == ""
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):  # the session ended in order, and its desk with it
        os.kill(pid, 0)
    assert token not in (folder / LOG_FILE).read_text()


def test_a_desk_that_cannot_start_says_why_and_disturbs_nothing(copy_of, token_file):
    """A session that does not begin because a port is taken."""
    folder = Path(copy_of) / "paper"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with desk_beside(folder, "--port", str(port), "--token-file", str(token_file)):
            until(lambda: "another desk may run there" in (folder / LOG_FILE).read_text())


def test_paper_starts_one_where_it_is_asked_to(monkeypatch, tmp_path):
    """--desk that does nothing, or a desk for everybody."""
    from contextlib import contextmanager

    from click.testing import CliRunner

    from cppncripto_strategy.cli import cli
    from cppncripto_strategy.commands import _desk_beside, paper

    begun = []

    @contextmanager
    def beside(folder):
        begun.append(folder)
        yield 4711

    monkeypatch.setattr(_desk_beside, "desk_beside", beside)
    monkeypatch.setattr(paper, "_run", lambda *_: None)
    words = ["paper", "--demo", "--sessions", str(tmp_path), "--json"]
    assert CliRunner().invoke(cli, words).output == ""
    ran = CliRunner().invoke(cli, [*words, "--desk"])
    assert json.loads(ran.output)["pid"] == 4711
    assert begun == [tmp_path]
