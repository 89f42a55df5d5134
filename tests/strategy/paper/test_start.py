"""The paper command from end to end: the demo, the same again, a real kill -9."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.live.journal import line_of, read_lines
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper import start
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.recipe import Recipe

BEGUN = """print('{"kind": "begun"}', flush=True)"""
SIGNALS = int(os.environ.get("CPPN_BT_SIGNALS", "0"))


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
    # A checkpoint that is not ready when the session stops is left to the next start.
    assert not {"checkpoint refused", "day process failed"} & {event["kind"] for event in events}
    again = run_command(tmp_path, *arguments, "--stop-after", "20")
    assert again.exit_code == 0, (again.output, again.exception)
    parity = run_command(tmp_path, "parity", str(session), "--json")
    assert parity.exit_code == 0, parity.output
    document = json.loads(parity.output)
    assert document["same"]
    assert document["compared"]["backtest: signals"] >= 400
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


@pytest.mark.slow
def test_a_market_symbol_is_subscribed_and_read_and_not_traded(papers: Any, tmp_path: Path) -> None:
    """A market that a backtest reads and a session does not fetch, or trades."""
    sections = '[features]\nmarket = "BESIDE"\n[macro]\nterms = ["weekday"]'
    (tmp_path / "small.toml").write_text(papers.small.replace("[macro]", sections))
    arguments = ["paper", "small.toml", "--demo", "--speed", "15000", "--json", "--no-retrain"]
    for candles in ("40", "20"):  # the second run resumes the first
        result = run_command(tmp_path, *arguments, "--stop-after", candles)
        assert result.exit_code == 0, (result.output, result.exception)
    session = tmp_path / "paper" / "small"
    recording = Recording.read(session)
    assert set(recording.candles()) == {"PLANTED", "BESIDE"}
    # The warm-up alone is longer than the long window; how many follow depends on the machine.
    assert len(recording.candles()["BESIDE"]) == len(recording.candles()["PLANTED"]) > 288 + 60
    tables = recording.tables()
    assert set(tables["signals"]["symbol"]) == {"PLANTED"}
    assert tables["signals"]["score"].notna().sum() >= 40
    assert "BESIDE" not in set(tables["fills"]["symbol"])
    parity = run_command(tmp_path, "parity", str(session), "--json")
    assert parity.exit_code == 0, parity.output
    assert json.loads(parity.output)["compared"]["backtest: signals"] >= 40


def spoil(session: Path) -> None:
    """Change one recorded score."""
    file = session / "decisions.jsonl"
    records = read_lines(file)
    records[-1]["score"] = (records[-1]["score"] or 0.0) + 0.01
    file.write_bytes(b"".join(line_of(record) for record in records))


@pytest.mark.posix
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


def start_paper(folder: Path, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    """The real process of the demo in a folder, its events on a pipe."""
    begin = f"{before}\nfrom cppncripto_strategy.__main__ import main\nmain()"
    given = ["paper", *arguments, "--demo", "--speed", "6000", "--no-retrain", "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", begin, *given],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hear(process: subprocess.Popen[str], kind: str, times: int = 1) -> None:
    """Read a process's events until one of a kind came so many times."""
    assert process.stdout is not None
    for line in process.stdout:
        times -= json.loads(line)["kind"] == kind
        if times == 0:
            return
    raise AssertionError(f"it ended before: {process.stderr and process.stderr.read()}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.posix
@pytest.mark.slow
def test_second_start_during_the_first_ones_training_changes_nothing(
    papers: Any, tmp_path: Path
) -> None:
    """The second one's recipe and networks in the first one's folder: it could never resume."""
    (tmp_path / "small.toml").write_text(papers.small)
    (tmp_path / "other.toml").write_text(papers.small.replace("seed = 3", "seed = 4"))
    session = tmp_path / "paper" / "shared"
    with start_paper(tmp_path, "small.toml", "--name", "shared") as first:
        try:
            hear(first, "preparing")
            first.send_signal(signal.SIGSTOP)
            before = contents(session)
            with start_paper(tmp_path, "other.toml", "--name", "shared") as second:
                said, complaint = second.communicate(timeout=120)
            assert second.returncode == 1
            assert f"is in use by process {first.pid} (`" in complaint
            assert "another --name" in complaint
            assert "Traceback" not in complaint
            assert said == ""
            assert contents(session) == before
            first.send_signal(signal.SIGCONT)
            hear(first, "decision", 5)
        finally:
            first.kill()
    again = run_command(
        tmp_path, "paper", "small.toml", "--name", "shared", "--demo", "--speed", "6000",
        "--no-retrain", "--stop-after", "10", "--json",
    )  # fmt: skip
    assert again.exit_code == 0, (again.output, again.exception)
    assert "seed = 3" in (session / "recipe.toml").read_text()
    assert not (session / ".lock").exists()


def requires_clean_end(code: int, complaint: str, number: signal.Signals) -> None:
    """A signalled process ended by itself, or with the shell's status and a sentence."""
    assert "Traceback" not in complaint, complaint
    assert code in (0, 128 + number), (code, complaint)
    if code:
        assert "stopped by " in complaint


@pytest.mark.posix
@pytest.mark.slow
def test_signals_from_training_to_report_end_cleanly_and_the_session_resumes(
    papers: Any, tmp_path: Path
) -> None:
    """A half-made folder, a traceback, or a session that nobody can resume, at some moment."""
    (tmp_path / "small.toml").write_text(papers.small)
    moments = [
        ("preparing", signal.SIGKILL, {-signal.SIGKILL}),
        ("preparing", signal.SIGTERM, {128 + signal.SIGTERM}),
        ("start", signal.SIGINT, {0, 128 + signal.SIGINT}),
        ("decision", signal.SIGTERM, {0}),
        ("stop", signal.SIGINT, {0, 128 + signal.SIGINT}),
    ]
    for kind, number, codes in moments:
        with start_paper(tmp_path, "small.toml", "--stop-after", "5") as process:
            hear(process, kind)
            process.send_signal(number)
            _, complaint = process.communicate(timeout=120)
        assert process.returncode in codes, (kind, complaint)
        if number != signal.SIGKILL:
            requires_clean_end(process.returncode, complaint, number)
    again = run_command(
        tmp_path, "paper", "small.toml", "--demo", "--speed", "6000", "--no-retrain",
        "--stop-after", "10", "--json",
    )  # fmt: skip
    assert again.exit_code == 0, (again.output, again.exception)
    assert len(Recording.read(tmp_path / "paper" / "small").past) > 10


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.skipif(not SIGNALS, reason="a campaign: CPPN_BT_SIGNALS says how many signals")
def test_signals_at_many_moments_end_cleanly(papers: Any, tmp_path: Path) -> None:
    """Some moment between the first import and the last report that nobody thought of."""
    (tmp_path / "small.toml").write_text(papers.small)
    rng, codes = random.Random(12), Counter[int]()
    began = time.monotonic()
    with start_paper(tmp_path, "small.toml", "--name", "whole", "--stop-after", "40") as process:
        process.communicate(timeout=300)
    length_s = time.monotonic() - began
    for number in range(SIGNALS):
        what = rng.choice([signal.SIGINT, signal.SIGTERM])
        name = f"s{number // 10}"  # ten signals to a session
        arguments = ("small.toml", "--name", name, "--stop-after", "40")
        with start_paper(tmp_path, *arguments) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3 + rng.random() * length_s)
            process.send_signal(what)
            _, complaint = process.communicate(timeout=300)
        requires_clean_end(process.returncode, complaint, what)
        codes[process.returncode] += 1
    for session in sorted((tmp_path / "paper").iterdir()):
        with start_paper(tmp_path, "small.toml", "--name", session.name, "--stop-after", "5") as p:
            _, complaint = p.communicate(timeout=300)
        assert p.returncode == 0, complaint
        assert run_command(tmp_path, "parity", str(session)).exit_code == 0
    print(dict(codes))


def test_reports_that_a_full_disk_refuses_leave_the_session_and_say_so(
    toy_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that looks lost because its last picture could not be drawn."""
    path = toy_session[0]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "fills.parquet"))

    recipe = Recipe(symbols=("X",), interval="1h")
    assert start._results(path, recipe) is None  # nothing was live yet: no error
    monkeypatch.setattr(start, "write_session_results", full)
    with pytest.raises(SessionError, match=r"fills\.parquet: No space left .* --report"):
        start._results(path, recipe)


@pytest.mark.posix
@pytest.mark.slow
def test_disk_that_fills_up_stops_the_session_and_the_same_command_resumes(
    papers: Any, tmp_path: Path
) -> None:
    """A full disk: a traceback, a journal with a hole, a session that never starts again."""
    (tmp_path / "small.toml").write_text(papers.small)
    session = tmp_path / "paper" / "small"
    with start_paper(tmp_path, "small.toml") as first:
        hear(first, "decision", 3)
        first.kill()
    largest = max(path.stat().st_size for path in session.rglob("*.jsonl"))
    room = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest + 4096},) * 2)"
    with start_paper(tmp_path, "small.toml", before=room) as second:
        said, complaint = second.communicate(timeout=120)
    assert second.returncode == 1, complaint
    assert "Traceback" not in complaint
    assert "Everything before that is kept" in complaint
    assert ".jsonl cannot be written: File too large" in complaint
    assert json.loads(said.splitlines()[-1]) == {"kind": "stop", "reason": "error"}
    kept = Recording.read(session)
    with start_paper(tmp_path, "small.toml", "--stop-after", "40") as third:
        said, complaint = third.communicate(timeout=120)
    assert third.returncode == 0, complaint
    past = Recording.read(session).past
    assert past[: len(kept.past)] == kept.past
    assert len(past) > len(kept.past)
