"""`cppn-bt desk`: what it refuses, what it says, and that nothing else needs its extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli
from cppncripto_strategy.commands import desk
from cppncripto_strategy.errors import DeskError

pytest.importorskip("fastapi")

WITHOUT_EXTRA = """
import sys
for name in ("fastapi", "uvicorn", "prometheus_client"):
    sys.modules[name] = None
from cppncripto_strategy.cli import main
main(["desk", sys.argv[1]])
"""
EVERYTHING = """
import sys
import cppncripto_strategy.paper.start, cppncripto_strategy.backtest, cppncripto_strategy.cli
print([n for n in ("fastapi", "uvicorn", "prometheus_client", "cppncripto_strategy.desk") if n in sys.modules])
"""  # noqa: E501


def test_without_the_extra_it_says_what_to_install(tmp_path):
    """A traceback where a package is missing."""
    command = [sys.executable, "-c", WITHOUT_EXTRA, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert "pip install 'cppncripto-strategy[desk]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_core_never_imports_it():
    """Paper trading that starts a second later, or not at all, for a page that nobody opened."""
    command = [sys.executable, "-c", EVERYTHING]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"


def test_another_address_is_refused_before_anything_is_made(tmp_path):
    """A token made for a desk that never ran, a desk that everybody reaches."""
    token = tmp_path / "token"
    ran = CliRunner().invoke(
        cli, ["desk", str(tmp_path), "--host", "0.0.0.0", "--token-file", str(token)]
    )
    assert isinstance(ran.exception, DeskError)
    assert not token.exists()


def test_new_token_replaces_the_old_one_and_prints_neither(tmp_path):
    """A token on the screen, and in the history of the terminal."""
    token = tmp_path / "token"
    seen = set()
    for _ in range(2):
        ran = CliRunner().invoke(
            cli, ["desk", str(tmp_path), "--new-token", "--token-file", str(token)]
        )
        assert ran.exit_code == 0
        seen.add(token.read_text())
        assert token.read_text().strip() not in ran.output
    assert len(seen) == 2


def test_a_desk_steps_back_or_says_that_it_cannot(monkeypatch, caplog):
    """A desk that takes its share from a session on a system without an idle priority, silently."""
    steps = []
    monkeypatch.setattr(desk, "lower_priority", steps.append)
    monkeypatch.setattr(desk, "only_when_idle", lambda: False)
    desk._step_back("idle")
    assert "no idle priority" in caplog.text
    desk._step_back("low")
    assert steps == [desk.LOW_NICE]


def test_help_teaches():
    """A command that one has to read the source of."""
    text = CliRunner().invoke(cli, ["desk", "--help"]).output
    for part in ("Examples:", "curl -H", "Read-only", "--behind-proxy", "[desk]"):
        assert part in text
    assert Path("docs/security.md").name in text
