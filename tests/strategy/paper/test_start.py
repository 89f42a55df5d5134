"""The paper command from end to end: the demo, the same again, a real kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cppncripto_strategy.feeds.live.journal import line_of, read_lines
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.recording import Recording


def run_command(folder: Path, *arguments: str) -> Any:
    """Invoke the command line in a folder."""
    from cppncripto_strategy.cli import cli

    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(cli, list(arguments))
    finally:
        os.chdir(before)


@pytest.mark.slow
def test_demo_trades_retrains_reports_and_is_the_same_again(papers: Any, tmp_path: Path) -> None:
    """The offline demo is the first thing people run: all of it must work together."""
    (tmp_path / "small.toml").write_text(papers.small)
    arguments = ["paper", "small.toml", "--demo", "--speed", "15000", "--json"]
    result = run_command(tmp_path, *arguments, "--stop-after", "620")
    assert result.exit_code == 0, (result.output, result.exception)
    events = [json.loads(line) for line in result.output.splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds[:2] == ["preparing", "start"]
    assert {"decision", "fill", "day", "stop", "result"} <= set(kinds)
    session = tmp_path / "paper" / "small"
    for name in ("report.html", "tearsheet.html", "metrics.json", "missed.csv", "signals.parquet"):
        assert (session / name).stat().st_size > 0
    events = read_lines(session / "events.jsonl")
    assert "retraining" in [event["kind"] for event in events]
    assert "retraining failed" not in [event["kind"] for event in events]
    assert list((session / "days").iterdir())
    again = run_command(tmp_path, *arguments, "--stop-after", "20")
    assert again.exit_code == 0, (again.output, again.exception)
    parity = run_command(tmp_path, "parity", str(session), "--json")
    assert parity.exit_code == 0, parity.output
    document = json.loads(parity.output)
    assert document["same"]
    assert document["compared"]["backtest: signals"] >= 600
    spoil(session)
    assert run_command(tmp_path, "parity", str(session)).exit_code == 1


@pytest.mark.slow
def test_painted_encoder_trades_the_demo_like_any_other(papers: Any, tmp_path: Path) -> None:
    """An encoder that backtests but cannot go live: its bundle, stream or replay differ."""
    (tmp_path / "small.toml").write_text(
        papers.small.replace("[macro]", '[macro]\nencoder = "cppn"')
    )
    arguments = ["paper", "small.toml", "--demo", "--speed", "15000", "--json", "--no-retrain"]
    result = run_command(tmp_path, *arguments, "--stop-after", "40")
    assert result.exit_code == 0, (result.output, result.exception)
    session = tmp_path / "paper" / "small"
    [bundle] = BundleTimeline.load(session / "bundles").bundles
    assert bundle.info.encoder == "cppn"
    parity = run_command(tmp_path, "parity", str(session), "--json")
    assert parity.exit_code == 0, parity.output
    assert json.loads(parity.output)["compared"]["backtest: signals"] >= 40


def spoil(session: Path) -> None:
    """Change one recorded score."""
    file = session / "decisions.jsonl"
    records = read_lines(file)
    records[-1]["score"] = (records[-1]["score"] or 0.0) + 0.01
    file.write_bytes(b"".join(line_of(record) for record in records))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_process_that_is_killed_or_interrupted_goes_on(
    papers: Any, number: signal.Signals, tmp_path: Path
) -> None:
    """kill -9 and Ctrl-C against the real process, in the middle of its candles."""
    (tmp_path / "small.toml").write_text(papers.small)
    arguments = [sys.executable, "-m", "cppncripto_strategy.cli", "paper", "small.toml", "--demo"]
    arguments += ["--speed", "6000", "--no-retrain", "--json"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    heard = 0
    deadline = time.monotonic() + 120
    for line in process.stdout:
        heard += json.loads(line)["kind"] == "decision"
        if heard == 30:
            process.send_signal(number)
            break
        assert time.monotonic() < deadline
    rest = process.stdout.read()
    code = process.wait(60)
    process.stdout.close()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    session = tmp_path / "paper" / "small"
    assert (session / "metrics.json").exists() == (number == signal.SIGINT)
    assert ('"kind": "result"' in rest) == (number == signal.SIGINT)
    before = Recording.read(session)
    again = run_command(
        tmp_path, "paper", "small.toml", "--demo", "--speed", "6000", "--no-retrain",
        "--stop-after", "30", "--json",
    )  # fmt: skip
    assert again.exit_code == 0, (again.output, again.exception)
    after = Recording.read(session)
    assert after.past[: len(before.past)] == before.past
    assert len(after.past) > len(before.past)
    parity = run_command(tmp_path, "parity", str(session))
    assert parity.exit_code == 0, parity.output
