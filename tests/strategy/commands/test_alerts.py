"""`cppn-bt alerts` as a person uses it, and the watcher as a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("apprise")

from cppncripto_strategy.cli import cli
from cppncripto_strategy.desk.alerts.kinds import KINDS

PATIENCE_S = 60.0
# What a target's program does here: one line per message, in one write.
WRITER = (
    "import os, sys; content = sys.stdin.buffer.read();"
    " os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), content)"
)
# Networks that are trained within seconds.
RECIPE = """
name = "night"
symbols = ["PLANTED"]
seed = 3
candles = {source = "planted", planted = {days = 40, sigma = 0.004}}
macro = {long_window = 288, epochs = 1, encoder_options = {channels = 8}}
micro = {short_window = 24, channels = 8, initialisations = 1, epochs = 1, warm_epochs = 1}
label = {horizon = 6}
walkforward = {train_days = 14, validate_days = 4, retrain_days = 1, macro_retrain_days = 7}
"""


def settings_of(folder: Path, *commands: list[str], batch_s: float = 0.0) -> Path:
    """Settings with a program per target."""
    path = folder / "alerts.toml"
    targets = "".join(
        f"[[target]]\nname = 'hook{n}'\ncommand = {json.dumps(command)}\n"
        for n, command in enumerate(commands)
    )
    path.write_text(f"{targets}[delivery]\nbatch_s = {batch_s}\n")
    path.chmod(0o600)
    return path


def run(*arguments: object) -> Any:
    """The command in this process."""
    return CliRunner().invoke(cli, ["alerts", *map(str, arguments)])


def test_the_example_is_one_to_begin_with(tmp_path):
    """A first file that has to be looked for on the web."""
    made = run("--example")
    assert made.exit_code == 0
    (tmp_path / "alerts.toml").write_text(made.output)
    checked = run("--settings", tmp_path / "alerts.toml")
    assert checked.exit_code != 0
    assert "alert-urls cannot be read" in str(checked.exception)
    (tmp_path / "alert-urls").touch(mode=0o600)
    (tmp_path / "alert-urls").write_text("json://127.0.0.1:1/plantedPath\n")
    checked = run("--settings", tmp_path / "alerts.toml")
    assert checked.exit_code == 0
    assert f"phone: {', '.join(KINDS)}" in checked.output
    assert "planted" not in checked.output


def test_every_kind_is_explained():
    """A name in the settings whose meaning has to be guessed."""
    lines = run("--kinds").output.splitlines()
    assert [line.split()[0] for line in lines] == list(KINDS)
    assert all(len(line.split()) > 4 for line in lines)


def test_a_test_alert_says_per_target_what_came_of_it(tmp_path):
    """A target that never worked, found out on the night it was needed."""
    heard = tmp_path / "heard"
    good, bad = [sys.executable, "-c", WRITER, str(heard)], ["/no/such/program"]
    tried = run("--settings", settings_of(tmp_path, good, bad), "--test")
    assert tried.exit_code == 1
    assert "hook0: delivered" in tried.output
    assert "hook1: not delivered: /no/such/program cannot be run" in tried.output
    message = json.loads(heard.read_text())
    assert message["kind"] == "test"
    assert "arrive here" in message["text"]
    assert run("--settings", settings_of(tmp_path, good), "--test").exit_code == 0


class Watch:
    """A watcher process and what its target has heard."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        self.heard = tmp_path / "heard"
        self._settings = settings_of(tmp_path, [sys.executable, "-c", WRITER, str(self.heard)])
        self._command = [
            sys.executable, "-m", "cppncripto_strategy", "desk", str(folder), "--watch",
            "--alerts", str(self._settings), "--state", str(tmp_path / "state" / "alerts.json"),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Begin, and wait until it watches."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "Watching" in self.process.stdout.readline()

    def end(self, number: int) -> int:
        """Send it a signal; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    @property
    def alerts(self) -> list[tuple[str, str]]:
        """(kind, id) of every alert that arrived."""
        lines = self.heard.read_text().splitlines() if self.heard.exists() else []
        return [(a["kind"], a["id"]) for line in lines for a in json.loads(line)["alerts"]]

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline_s, self.alerts
            time.sleep(0.1)


@pytest.fixture
def watch_of(tmp_path: Path) -> Iterator[Callable[[Path], Watch]]:
    """Function of a folder: a watcher, ended afterwards."""
    made: list[Watch] = []

    def begin(folder: Path) -> Watch:
        made.append(Watch(folder, tmp_path))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


@pytest.mark.posix
@pytest.mark.slow
def test_a_real_session_is_killed_and_its_death_is_heard(watch_of, tmp_path):
    """Everything at once, as it will be on the night: a session over a loopback exchange, kill -9,
    a watcher that is killed too, and started again."""
    folder = tmp_path / "paper"
    folder.mkdir()
    watch = watch_of(folder)
    (tmp_path / "night.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "cppncripto_strategy", "paper", "night.toml", "--demo"]
    trader = subprocess.Popen(
        [*command, "--sessions", str(folder), "--json"], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + 6 * PATIENCE_S  # networks are trained first
        while "started" not in dict(watch.alerts):
            assert time.monotonic() < deadline_s
            assert trader.poll() is None
            time.sleep(0.2)
        watch.end(signal.SIGKILL)
        trader.kill()
        trader.wait(PATIENCE_S)
        watch.start()
        watch.until(lambda: "died" in dict(watch.alerts))
        assert watch.end(signal.SIGTERM) == 143
    finally:
        trader.kill()
        trader.wait()
    kinds = [kind for kind, _ in watch.alerts]
    assert kinds.count("died") == kinds.count("started") == 1
    assert len(set(watch.alerts)) == len(watch.alerts)


def test_one_watcher_per_state(watch_of, tmp_path):
    """Two watchers of one folder, and everything comes twice."""
    (tmp_path / "paper").mkdir()
    watch = watch_of(tmp_path / "paper")
    second = subprocess.run(watch._command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert second.returncode != 0
    assert f"process {watch.process.pid}" in second.stderr
    assert watch.end(signal.SIGTERM) == 143
