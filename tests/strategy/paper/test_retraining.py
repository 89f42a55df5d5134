"""Networks that change at a rollover: known to the replay, never in-sample, repaired by drift."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cppncripto_strategy.feeds.binance.endpoints import Sources
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.market import closed_market, load_market
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import create_session
from cppncripto_strategy.paper.networks import SessionTimeline, todays_bundle
from cppncripto_strategy.paper.parity import compare
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.retraining import Retrainer, retrain
from cppncripto_strategy.paper.session import SessionFolder
from cppncripto_strategy.recipe import Recipe, load_recipe
from cppncripto_strategy.results import write_json


def leave_ready(path: Path, bundle: Any) -> None:
    """What the training process leaves."""
    bundle.save(path / "bundles" / bundle.model_hash)
    told = {"repair": "retrain", "reason": "calendar", "drift": None}
    write_json(path / "bundles" / "next.json", {"bundle": bundle.model_hash, **told})


def test_new_bundle_takes_over_at_a_rollover_and_the_replay_knows(
    papers: Any,
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A bundle that came into force unrecorded would make every replay another session."""
    path, candles, timeline, start_ms = toy_session
    day_ms = timeline.first_session_ms
    papers.trade(path, candles, start_ms, day_ms + 3 * DAY_MS - HOUR_MS)
    second = timeline.bundles[1]
    leave_ready(path, second)
    papers.trade(path, candles, day_ms + 3 * DAY_MS - HOUR_MS, day_ms + 5 * DAY_MS)
    kept = SessionTimeline.of_session(path)
    assert kept.valid_from_ms == (day_ms, day_ms + 3 * DAY_MS)
    assert not (path / "bundles" / "next.json").exists()
    recording = Recording.read(path)
    hashes = {row["session_ms"]: row["model_hash"] for row in recording.derived["embeddings"]}
    assert hashes[day_ms + 2 * DAY_MS] == timeline.bundles[0].model_hash
    assert hashes[day_ms + 3 * DAY_MS] == second.model_hash
    assert len(recording.tables()["fills"]) >= 4
    report = compare(path, papers.options(kept))
    assert [str(one) for one in report.differences] == []
    # One more start replays the rollover at which the bundle took over, and must get there again.
    papers.trade(path, candles, day_ms + 5 * DAY_MS, day_ms + 5 * DAY_MS + 3 * HOUR_MS)
    assert len(Recording.read(path).past) > len(recording.past)


def test_bundle_that_knows_the_session_is_not_put_in_force(
    papers: Any,
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A bundle trained on candles it would then score is in-sample."""
    path, candles, timeline, start_ms = toy_session
    second = timeline.bundles[1]
    leave_ready(path, second)
    papers.trade(path, candles, start_ms, timeline.first_session_ms + DAY_MS)
    assert len(SessionTimeline.of_session(path).bundles) == 1


@pytest.mark.slow
def test_retraining_by_drift_climbs_from_cheap_to_dear(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drift that outlives its repair must get the next dearer one, told by the session itself."""
    monkeypatch.setattr(os, "nice", lambda _steps: 0)
    (tmp_path / "small.toml").write_text(
        papers.small.replace(
            "[walkforward]", '[walkforward]\nretrain = "drift"\ndrift_limit = 0.01'
        )
    )
    recipe = load_recipe(tmp_path / "small.toml")
    path = tmp_path / "session"
    start_ms = int(load_market(recipe).candles["PLANTED"].open_time[0]) + 30 * DAY_MS
    market = closed_market(recipe, start_ms)
    trained = todays_bundle(recipe, market, start_ms, None, None)
    exchange = LoopbackExchange(market.candles, clock=ManualClock(start_ms))
    with ExchangeThread(exchange) as host:
        sources = Sources(host.archive_url, host.rest_url, host.stream_url)
        create_session(path, recipe, trained, Connection(sources, retry=papers.retry)).close()
    repairs = []
    for day in range(1, 4):
        until_ms = start_ms + day * DAY_MS
        retrain(str(path), until_ms, None)
        told = json.loads((path / "bundles" / "next.json").read_text())
        repairs.append(told["repair"])
        bundle = Bundle.load(path / "bundles" / told["bundle"])
        assert bundle.info.trained_until_ms == until_ms
        assert bundle.info.reason == told["reason"]
        assert "drift" in told["reason"]
        SessionTimeline.of_session(path).with_bundle(bundle, until_ms).save(path)
        with SessionFolder(path) as folder:
            folder.event("retraining decided", session_ms=until_ms, **told)
    assert repairs == ["recalibrate", "retrain_micro", "retrain_macro"]


@pytest.mark.slow
def test_training_that_fails_says_why_and_changes_nothing(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A retraining that fails week after week, for a reason on somebody's terminal."""
    path, _, timeline, _ = toy_session  # it has no recipe.toml: the process must fail
    known = SessionTimeline.of_session(path)
    recipe = Recipe(symbols=("X",), interval="1h", walkforward={"retrain_days": 1})
    retrainer, noted = Retrainer(path, recipe, known, None), []
    note = lambda kind, **facts: noted.append({"kind": kind, **facts})  # noqa: E731
    retrainer.attach(SimpleNamespace(folder=SimpleNamespace(event=note)))
    day_ms = timeline.first_session_ms + DAY_MS
    retrainer.before_round(Round(day_ms, {}))
    retrainer._process.process.join(120)
    retrainer.before_round(Round(day_ms + DAY_MS, {}))
    retrainer.stop()
    assert [event["kind"] for event in noted] == ["retraining", "retraining failed", "retraining"]
    assert "recipe.toml is missing" in noted[1]["reason"]
    assert retrainer.timeline is known


ORPHAN = """
import multiprocessing, time
from cppncripto_strategy.paper.beside import end_with_parent
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=end_with_parent)
    child.start()
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_training_ends_with_its_session(tmp_path: Path) -> None:
    """A killed session whose training goes on to write, beside that of the next start."""
    script = tmp_path / "parent.py"
    script.write_text(ORPHAN)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
