"""Messages on their way: real apprise against a server here, programs; and no address anywhere."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("apprise")

from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.desk.alerts.delivery import Redactor, senders, wanted_by
from cppncripto_strategy.desk.alerts.hook import HookSender
from cppncripto_strategy.desk.alerts.kinds import Alert
from cppncripto_strategy.desk.alerts.outbox import message_of
from cppncripto_strategy.errors import DeskError

SECRETS = ("plantedUser", "plantedPassword", "plantedPath", "plantedQuery")
MESSAGE = message_of("died", [Alert("0" * 16, "died", "real", "", 0, "it is <b>gone</b>")])


class Service:
    """A web service on this machine."""

    def __init__(self) -> None:
        self.status = 200
        self.heard: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                service.heard.append(json.loads(self.rfile.read(length)))
                self.send_response(service.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, port: int | None = None) -> str:
        """Its address, full of secrets."""
        user, password, path, query = SECRETS
        return f"json://{user}:{password}@127.0.0.1:{port or self.port}/{path}?+x={query}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that takes what it is sent."""
    made = Service()
    yield made
    made.close()


def through(acting: Any, *urls: str) -> dict[str, Any]:
    """Senders of a target with these addresses."""
    target = [{"name": "phone", "url_env": "ALERT_URLS"}]
    return senders(acting.parsed({"target": target}), {"ALERT_URLS": " ".join(urls)})


def test_a_message_arrives_as_text(service, acting):
    """Names of sessions that become markup on somebody's telephone."""
    assert through(acting, service.url())["phone"].send(MESSAGE) == ""
    [heard] = service.heard
    assert heard["title"] == "real: died"
    assert heard["message"] == "it is <b>gone</b>"
    assert heard["type"] == "failure"


@pytest.mark.parametrize("fault", ["refused", "status", "no service", "nobody"])
def test_no_part_of_an_address_is_said(service, acting, fault, caplog, capfd):
    """A token in the log that is pasted into a bug report."""
    caplog.set_level(logging.DEBUG)
    url = service.url()
    if fault == "refused":
        service.close()
    service.status = 500 if fault == "status" else 200
    if fault == "no service":
        url = url.replace("json:", "jsno:")
    if fault == "nobody":
        url = url.replace("127.0.0.1", "plantedHost.invalid")
    try:
        reason = through(acting, url)["phone"].send(MESSAGE)
    except DeskError as error:
        reason = f"{error!r} {error.__cause__!r}"
        assert "target phone: address 1" in reason
    out = capfd.readouterr()
    assert reason
    for text in (reason, caplog.text, out.out, out.err):
        assert "planted" not in text


def test_each_address_is_a_target_of_its_own(service, acting):
    """One of two services down, and the other gets everything twice."""
    found = through(acting, service.url(), service.url(1))
    assert list(found) == ["phone", "phone#2"]
    assert found["phone"].send(MESSAGE) == ""
    assert found["phone#2"].send(MESSAGE) != ""
    settings = acting.parsed({"target": [{"name": "phone", "url_env": "X", "kinds": ["gap"]}]})
    assert wanted_by(settings, "phone#2") == ["gap"]


@given(st.text(min_size=8, max_size=30, alphabet="abcdefghijkABCDEFGHIJK0123456789-_"))
def test_a_redactor_leaves_no_part_of_a_secret(part):
    """A reason that quotes the path of an address in another form."""
    redact = Redactor([f"tgram://bot:{part}@host.example/{part[::-1]}?key=%41{part}"])
    said = redact(f"POST https://api.example/{part}/send?x={part[::-1]}&y=A{part.upper()} failed")
    assert part not in said
    assert part[::-1] not in said
    assert "failed" in said


WRITER = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"


def test_a_program_gets_the_message_as_json(tmp_path):
    """A program that has to take sentences apart."""
    heard = tmp_path / "heard.json"
    assert HookSender([sys.executable, "-c", WRITER, str(heard)], 20, ()).send(MESSAGE) == ""
    message = json.loads(heard.read_bytes())
    assert message["text"] == "it is <b>gone</b>"
    assert {name: message[name] for name in MESSAGE} == MESSAGE


def test_no_shell_reads_a_session_s_name(tmp_path):
    """A session called `$(rm -rf ~)`."""
    mark = tmp_path / "executed"
    name = f"`touch {mark}`$(touch {mark}); touch {mark}"
    message = message_of("died", [Alert("0" * 16, "died", name, "", 0, name)])
    for command in ([sys.executable, "-c", "import sys; sys.stdin.read()", name], ["/bin/cat"]):
        assert HookSender(command, 20, ()).send(message) == ""
    assert not mark.exists()


def test_a_program_does_not_get_the_addresses(tmp_path, monkeypatch):
    """A script that prints its environment somewhere."""
    monkeypatch.setenv("ALERT_URLS", "planted")
    monkeypatch.setenv("OTHER", "kept")
    heard = tmp_path / "environment"
    script = "import os, sys; open(sys.argv[1], 'w').write(repr(dict(os.environ)))"
    hook = HookSender([sys.executable, "-c", script, str(heard)], 20, ["ALERT_URLS"])
    assert hook.send(MESSAGE) == ""
    assert "planted" not in heard.read_text()
    assert "kept" in heard.read_text()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no/such/program"], "cannot be run"),
        (["/"], "cannot be run"),
        (["\0"], "cannot be run"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "status 3"),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "status -9"),
    ],
)
def test_a_program_that_fails_is_a_reason(command, words):
    """A script that fails, and nobody tries again."""
    assert words in HookSender(command, 20, ()).send(MESSAGE)


@pytest.mark.posix
def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    """A `curl` that waits without end, one more at every alert."""
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '600']);"
        " open(sys.argv[1], 'w').write(str(child.pid)); time.sleep(600)"
    )
    hook = HookSender([sys.executable, "-c", script, str(pid_file)], 1.0, ())
    assert "did not end within 1 s" in hook.send(MESSAGE)
    child = Path("/proc") / pid_file.read_text()
    state = (child / "stat").read_text().split(") ")[1][0] if child.exists() else "gone"
    assert state in ("Z", "gone")
