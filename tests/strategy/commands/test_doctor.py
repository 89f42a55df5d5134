"""`cppn-bt doctor`: what is wrong is found, with what to do, and the status says it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cppncripto_strategy import installation
from cppncripto_strategy.cli import cli
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.installation import local_findings

NOW_S = 1_672_531_200.0 + 30 * 86_400


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments])


def states(done: Result) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(done.stdout)["findings"]}


@pytest.fixture
def host(toy: Any) -> Iterator[ExchangeThread]:
    """A loopback exchange whose clock stands at NOW_S."""
    clock = ManualClock(int(1e3 * NOW_S))
    settings = ExchangeSettings(interval="1h")
    exchange = LoopbackExchange({"BTCUSDT": toy.candles(days=31)}, clock=clock, settings=settings)
    with ExchangeThread(exchange) as thread:
        yield thread


def addresses(host: ExchangeThread) -> list[str]:
    urls = {"rest": host.rest_url, "archive": host.archive_url, "stream": host.stream_url}
    return [word for name, url in urls.items() for word in (f"--{name}-url", url)]


@pytest.mark.parametrize(("ahead_s", "state"), [(0.0, "ok"), (-20.0, "note"), (7200.0, "fault")])
def test_exchange_answers_and_our_clock_is_compared(
    host: ExchangeThread, monkeypatch: pytest.MonkeyPatch, ahead_s: float, state: str
) -> None:
    """A laptop two hours off that is called healthy."""
    monkeypatch.setattr(installation.time, "time", lambda: NOW_S + ahead_s)
    done = doctor("--json", *addresses(host))
    found = states(done)
    assert {found[name]["state"] for name in ("REST", "archives", "stream")} == {"ok"}
    assert found["clock"]["state"] == state
    assert f"{ahead_s:+.1f} s" in found["clock"]["found"]
    assert bool(found["clock"]["advice"]) == (state != "ok")
    assert done.exit_code == (1 if state == "fault" else 0)


def test_addresses_that_do_not_answer_are_faults_and_are_not_waited_for() -> None:
    """A check that hangs where it should say that the network is down."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        port = silent.getsockname()[1]
        urls = ("--rest-url", f"http://127.0.0.1:{port}", "--archive-url", "http://127.0.0.1:1")
        done = doctor("--json", "--timeout", "0.3", *urls, "--stream-url", f"ws://127.0.0.1:{port}")
    found = states(done)
    assert done.exit_code == 1
    for name in ("REST", "archives", "stream"):
        assert found[name]["state"] == "fault"
        assert "cppn-bt run demo" in found[name]["advice"]
    assert found["clock"]["state"] == "note"


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network that cannot even ask about itself."""
    monkeypatch.setattr(installation, "network_findings", lambda *_: 1 / 0)
    done = doctor("--offline")
    assert done.exit_code == 0, done.output
    assert "ready" in done.output


def local(folder: Path = Path()) -> dict[str, installation.Finding]:
    return {finding.check: finding for finding in local_findings(folder)}


def test_missing_and_unfit_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that was half upgraded."""
    real = installation.version

    def version(name: str) -> str:
        if name == "arch":
            raise PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(installation, "version", version)
    finding = local()["dependencies"]
    assert finding.state == "fault"
    assert "arch is missing" in finding.found
    assert "torch is 1.0, needed is" in finding.found
    assert "pip install" in finding.advice


def test_full_disk_and_old_python_are_faults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A night's fetch that ends on a full disk."""
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))
    monkeypatch.setattr(installation.platform, "python_version", lambda: "3.9.1")
    found = local(tmp_path / "not" / "yet" / "made")
    assert found["disk"].state == found["Python"].state == "fault"
    assert str(tmp_path) in found["disk"].found
    assert "3.11" in found["Python"].advice


def test_where_links_cannot_be_made_it_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone that works without links, called broken; or a missing folder, called whole."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert local()["symbolic links"].state == "note"
    monkeypatch.setattr(installation, "LINKED", ("feeds", "nowhere"))
    finding = local()["symbolic links"]
    assert finding.state == "fault"
    assert finding.found.startswith("nowhere ")


def test_hours_are_those_of_the_toy_market() -> None:
    """A clock that stands outside the candles it serves."""
    assert int(1e3 * NOW_S) % HOUR_MS == 0
