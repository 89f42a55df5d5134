"""Sessions of a recipe: networks that change at a rollover, the command line, a real kill -9."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.errors import BundleError, SessionError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.live import rounds as rounds_module
from cppncripto_strategy.feeds.live.stream import StreamSettings
from cppncripto_strategy.feeds.loopback.server import (
    ExchangeSettings,
    ExchangeThread,
    LoopbackExchange,
    ManualClock,
)
from cppncripto_strategy.market import load_market
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.paper import recipe as paper_recipe
from cppncripto_strategy.paper.parity import compare
from cppncripto_strategy.paper.recipe import Retrainer, SessionTimeline, create_session
from cppncripto_strategy.paper.session import Recording, SessionFacts, SessionFolder
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe, load_recipe
from cppncripto_strategy.results import write_json

PATIENCE_S = 10.0
QUICK = dataclasses.replace(StreamSettings.for_speed(12_000, "1h"), settle_ms=0)
RETRY = Retry(attempts=4, base_s=0.01, cap_s=0.05, timeout_s=1.0)
DAYS = 24


def options(timeline: SessionTimeline) -> dict[str, Any]:
    """A strategy that trades often, on toy networks."""
    recipe = Recipe(symbols=("X",), interval="1h")
    return paper_recipe.strategy_options(recipe, timeline) | {
        "window": 60,
        "quantile": 0.3,
        "hold_candles": 5,
        "fraction": 0.5,
    }


class NoTraining(Retrainer):
    """Takes over what lies ready; starts no process."""

    def _begin(self, session_ms: int) -> None:
        pass


class Stepper(threading.Thread):
    """Lets the next candle close once the last one was shown; stops a session that is stuck."""

    def __init__(self, host: ExchangeThread, session: PaperSession, shown_ms: int) -> None:
        super().__init__(daemon=True)
        self.host, self.session, self.shown_ms = host, session, shown_ms
        self.over, self.stuck = threading.Event(), False

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.over.wait(0.001):
            now_ms = self.host.exchange.now_ms() // HOUR_MS * HOUR_MS
            if self.shown_ms >= now_ms and self.session.stream.connected:
                self.host.advance_to(now_ms + HOUR_MS)
                deadline = time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                self.stuck = True
                self.session.stop()
                return


def trade(path: Path, candles: Any, start_ms: int, until_ms: int) -> None:
    """Run a session on toy candles until a close; each closes once the last was shown."""
    timeline = SessionTimeline.of_session(path)
    retrainer = NoTraining(path, Recipe(symbols=("X",), interval="1h"), timeline, None)
    exchange = LoopbackExchange(
        {"X": candles}, clock=ManualClock(start_ms), settings=ExchangeSettings(interval="1h")
    )

    def before_round(one: Any) -> None:
        stepper.shown_ms = one.close_ms
        retrainer.before_round(one)

    with ExchangeThread(exchange) as host, SessionFolder(path) as folder:
        shown_ms = folder.past[-1][0].close_ms if folder.past else 0
        session = PaperSession(
            folder,
            options(timeline),
            sources=Sources(host.archive_url, host.rest_url, host.stream_url),
            settings=QUICK,
            retry=RETRY,
            before_round=before_round,
            until_ms=until_ms,
        )
        retrainer.attach(session)
        stepper = Stepper(host, session, shown_ms)
        stepper.start()
        try:
            session.run()
        finally:
            stepper.over.set()
            stepper.join()
        assert not stepper.stuck, session.stream.counters


@pytest.fixture
def toy_session(toy: Any, tmp_path: Path) -> tuple[Path, Any, BundleTimeline, int]:
    """A new session of two toy bundles, of which only the first is known yet."""
    candles = toy.candles(days=DAYS)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(3, 5))
    path = tmp_path / "toy"
    first_ms = int(candles.open_time[0])
    start_ms = timeline.first_session_ms + 7 * HOUR_MS
    facts = SessionFacts(
        symbols=("X",),
        interval="1h",
        first_ms=first_ms,
        created_ms=start_ms,
        broker={"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False},
    )
    SessionFolder.create(path, facts).close()
    until = (timeline.bundles[0].info.trained_until_ms,)
    SessionTimeline(timeline.bundles[:1], False, until).save(path)
    return path, candles, timeline, start_ms


def leave_ready(path: Path, bundle: Any) -> None:
    """What the training process leaves."""
    bundle.save(path / "bundles" / bundle.model_hash)
    told = {"repair": "retrain", "reason": "calendar", "drift": None}
    write_json(path / "bundles" / "next.json", {"bundle": bundle.model_hash, **told})


def test_new_bundle_takes_over_at_a_rollover_and_the_replay_knows(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A bundle that came into force unrecorded would make every replay another session."""
    path, candles, timeline, start_ms = toy_session
    day_ms = timeline.first_session_ms
    trade(path, candles, start_ms, day_ms + 3 * DAY_MS - HOUR_MS)
    second = timeline.bundles[1]
    leave_ready(path, second)
    trade(path, candles, day_ms + 3 * DAY_MS - HOUR_MS, day_ms + 5 * DAY_MS)
    kept = SessionTimeline.of_session(path)
    assert kept.valid_from_ms == (day_ms, day_ms + 3 * DAY_MS)
    assert not (path / "bundles" / "next.json").exists()
    recording = Recording.read(path)
    hashes = {row["session_ms"]: row["model_hash"] for row in recording.derived["embeddings"]}
    assert hashes[day_ms + 2 * DAY_MS] == timeline.bundles[0].model_hash
    assert hashes[day_ms + 3 * DAY_MS] == second.model_hash
    assert len(recording.tables()["fills"]) >= 4
    report = compare(path, options(kept))
    assert [str(one) for one in report.differences] == []
    # One more start replays the rollover at which the bundle took over, and must get there again.
    trade(path, candles, day_ms + 5 * DAY_MS, day_ms + 5 * DAY_MS + 3 * HOUR_MS)
    assert len(Recording.read(path).past) > len(recording.past)


def test_bundle_that_knows_the_session_is_not_put_in_force(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A bundle trained on candles it would then score is in-sample."""
    path, candles, timeline, start_ms = toy_session
    second = timeline.bundles[1]
    leave_ready(path, second)
    trade(path, candles, start_ms, timeline.first_session_ms + DAY_MS)
    assert len(SessionTimeline.of_session(path).bundles) == 1


def test_session_timeline_counts_from_when_a_bundle_was_ready(toy: Any) -> None:
    """A bundle trained until Monday and ready on Tuesday has no say on Monday."""
    timeline = toy.timeline(toy.grid(toy.candles(days=DAYS)), toy.settings, sessions=(3, 5))
    first, second = (bundle.info.trained_until_ms for bundle in timeline.bundles)
    mine = SessionTimeline(timeline.bundles, False, (first, second + DAY_MS))
    days = [first - DAY_MS, first, second, second + DAY_MS]
    assert mine.in_force(days).tolist() == [-1, 0, 0, 1]
    assert timeline.in_force(days).tolist() == [-1, 0, 1, 1]
    assert [start for start, _ in mine.seeds()] == [first, second + DAY_MS]


def test_session_in_the_past_of_its_bundle_is_refused(toy: Any, tmp_path: Path) -> None:
    """Paper trading candles that the networks learned from would be in-sample."""
    candles = toy.candles(days=DAYS)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(5,))
    clock = ManualClock(timeline.first_session_ms - HOUR_MS)
    exchange = LoopbackExchange(
        {"X": candles}, clock=clock, settings=ExchangeSettings(interval="1h")
    )
    recipe = Recipe(symbols=("X",), interval="1h")
    with ExchangeThread(exchange) as host:
        sources = Sources(host.archive_url, host.rest_url, host.stream_url)
        with pytest.raises(BundleError, match="in-sample"):
            create_session(tmp_path / "early", recipe, timeline, sources, RETRY)
    assert not (tmp_path / "early" / "session.json").exists()


def test_report_of_a_session_without_live_candles_says_so(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """An empty report would look like a session that lost nothing."""
    path, _, _, _ = toy_session
    timeline = SessionTimeline.of_session(path)
    with pytest.raises(SessionError, match="nothing to report"):
        paper_recipe.session_result(path, Recipe(symbols=("X",), interval="1h"), timeline)


def test_day_report_adds_up_with_the_tables(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A day's figures must be those of the ledger, cut at midnight."""
    path, candles, timeline, start_ms = toy_session
    day_ms = timeline.first_session_ms
    trade(path, candles, start_ms, day_ms + 2 * DAY_MS)
    report = paper_recipe.day_report(path, day_ms + DAY_MS)
    tables = Recording.read(path).tables()
    equity = tables["equity"].set_index("close_time_ms")["equity"]
    of_day = equity[(equity.index >= day_ms + DAY_MS) & (equity.index < day_ms + 2 * DAY_MS)]
    assert report["candles"] == 24
    assert report["return"] == pytest.approx(of_day.iloc[-1] / of_day.iloc[0] - 1)
    fills = tables["fills"]
    mine = fills[(fills["executed_ms"] // DAY_MS * DAY_MS == day_ms + DAY_MS)]
    assert report["filled"] == int((mine["status"] == "filled").sum())
    assert np.isfinite(report["drift"]["X"])


@pytest.mark.slow
def test_retraining_by_drift_climbs_from_cheap_to_dear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drift that outlives its repair must get the next dearer one, told by the session itself."""
    monkeypatch.setattr(os, "nice", lambda _steps: 0)
    (tmp_path / "small.toml").write_text(
        SMALL.replace("[walkforward]", '[walkforward]\nretrain = "drift"\ndrift_limit = 0.01')
    )
    recipe = load_recipe(tmp_path / "small.toml")
    path = tmp_path / "session"
    start_ms = int(load_market(recipe).candles["PLANTED"].open_time[0]) + 30 * DAY_MS
    market = paper_recipe.closed_market(recipe, start_ms)
    trained = paper_recipe.todays_bundle(recipe, market, start_ms, None, None)
    exchange = LoopbackExchange(market.candles, clock=ManualClock(start_ms))
    with ExchangeThread(exchange) as host:
        sources = Sources(host.archive_url, host.rest_url, host.stream_url)
        create_session(path, recipe, trained, sources, RETRY).close()
    repairs = []
    for day in range(1, 4):
        until_ms = start_ms + day * DAY_MS
        paper_recipe.retrain(str(path), until_ms, None)
        told = json.loads((path / "bundles" / "next.json").read_text())
        repairs.append(told["repair"])
        bundle = Bundle.load(path / "bundles" / told["bundle"])
        assert bundle.info.trained_until_ms == until_ms
        SessionTimeline.of_session(path).with_bundle(bundle, until_ms).save(path)
        with SessionFolder(path) as folder:
            folder.event("retraining decided", session_ms=until_ms, **told)
    assert repairs == ["recalibrate", "retrain_micro", "retrain_macro"]


SMALL = """
name = "small"
symbols = ["PLANTED"]
seed = 3
[candles]
source = "planted"
[candles.planted]
days = 40
sigma = 0.004
[macro]
long_window = 288
epochs = 1
[macro.encoder_options]
channels = 8
[micro]
short_window = 24
channels = 8
initialisations = 1
epochs = 1
warm_epochs = 1
[label]
horizon = 6
[walkforward]
train_days = 14
validate_days = 4
retrain_days = 1
macro_retrain_days = 7
[threshold]
quantile = 0.2
[strategy]
hold_candles = 6
"""


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
def test_demo_trades_retrains_reports_and_is_the_same_again(tmp_path: Path) -> None:
    """The offline demo is the first thing people run: all of it must work together."""
    (tmp_path / "small.toml").write_text(SMALL)
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
    events = rounds_module.read_lines(session / "events.jsonl")
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
def test_painted_encoder_trades_the_demo_like_any_other(tmp_path: Path) -> None:
    """An encoder that backtests but cannot go live: its bundle, stream or replay differ."""
    (tmp_path / "small.toml").write_text(SMALL.replace("[macro]", '[macro]\nencoder = "cppn"'))
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
    records = rounds_module.read_lines(file)
    records[-1]["score"] = (records[-1]["score"] or 0.0) + 0.01
    file.write_bytes(b"".join(rounds_module._line(record) for record in records))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_process_that_is_killed_or_interrupted_goes_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    """kill -9 and Ctrl-C against the real process, in the middle of its candles."""
    (tmp_path / "small.toml").write_text(SMALL)
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
