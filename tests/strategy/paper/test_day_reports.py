"""The day's own process: reports of days that are over, and checkpoints that were checked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, ms_to_utc
from cppncripto_strategy.feeds.live.journal import line_of, read_lines
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper import day_reports
from cppncripto_strategy.paper.checkpoint import Checkpoint
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.packing import digest_of
from cppncripto_strategy.paper.session import SessionFolder


@pytest.fixture
def day(
    papers: Any, toy_session: tuple[Path, Any, BundleTimeline, int], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, int, int, str]:
    """A session after its second midnight: folder, that midnight, rounds shown, digest."""
    path, candles, timeline, start_ms = toy_session
    options = papers.options(SessionTimeline.of_session(path))
    monkeypatch.setattr(day_reports, "options_of", lambda _path: options)
    monkeypatch.setattr(os, "nice", lambda _steps: 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    seen: list[tuple[int, str]] = []

    def keep(folder: SessionFolder, strategy: Any) -> None:
        seen.append((folder.shown, digest_of(strategy.snapshot())))

    midnight_ms = timeline.first_session_ms + 2 * DAY_MS
    papers.trade(path, candles, start_ms, midnight_ms, keep)
    return path, midnight_ms, *seen[-1]


def test_days_that_are_over_are_reported_once_and_the_state_is_kept(
    day: tuple[Path, int, int, str],
) -> None:
    """A day that nobody reported because the session stopped at its end, or one reported twice."""
    path, until_ms, rounds, digest = day
    told: list[dict[str, Any]] = []
    day_reports.see_to_day(str(path), until_ms, rounds, digest, told.append)
    names = [ms_to_utc(until_ms - back * DAY_MS)[:10] for back in (2, 1)]
    assert [event["kind"] for event in told] == ["day", "day", "checkpoint"]
    assert [event["day"] for event in told[:2]] == names
    for event in told[:2]:
        kept = json.loads((path / "days" / f"{event['day']}.json").read_text())
        checked = kept.pop("crosscheck")
        assert {"kind": "day", **kept} == event
        assert checked["checked"]
        assert checked["same"]
    assert told[0]["candles"] == 24 - 7
    assert told[1]["candles"] == 24
    checkpoint = Checkpoint.load(path)
    assert checkpoint is not None
    assert (checkpoint.rounds, checkpoint.close_ms) == (rounds, until_ms)
    again: list[dict[str, Any]] = []
    day_reports.see_to_day(str(path), until_ms, rounds, None, again.append)
    assert again == []


def test_wrong_checkpoint_is_replaced_by_one_from_the_beginning(
    day: tuple[Path, int, int, str],
) -> None:
    """A state that leads elsewhere must not be handed from day to day."""
    path, until_ms, rounds, digest = day
    told: list[dict[str, Any]] = []
    day_reports.see_to_day(str(path), until_ms, rounds, digest, told.append)
    good = Checkpoint.load(path)
    assert good is not None
    wrong = Checkpoint(**{name: getattr(good, name) for name in Checkpoint.__slots__})
    wrong.state["account"]["cash"] -= 1.0
    wrong.save(path)
    day_reports.see_to_day(str(path), until_ms, rounds, digest, told.append)
    assert told[-1]["kind"] == "checkpoint"
    assert told[-1]["not"]
    again = Checkpoint.load(path)
    assert again is not None
    assert digest_of(again.state) == digest


def test_session_that_its_journals_do_not_give_gets_no_checkpoint(
    day: tuple[Path, int, int, str],
) -> None:
    """A checkpoint of a session that cannot be replayed would hide exactly that."""
    path, until_ms, rounds, digest = day
    records = read_lines(path / "fills.jsonl")
    records[-1]["price"] = 1.0
    (path / "fills.jsonl").write_bytes(b"".join(map(line_of, records)))
    told: list[dict[str, Any]] = []
    day_reports.see_to_day(str(path), until_ms, rounds, digest, told.append)
    assert told[-1]["kind"] == "checkpoint refused"
    assert "the replay gives" in told[-1]["reason"]
    assert Checkpoint.load(path) is None


def test_report_whose_check_was_cut_off_is_checked_by_the_next_process(
    day: tuple[Path, int, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second engine that loads for seconds, and a session whose end cuts it off for good."""
    path, until_ms, rounds, digest = day
    said: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(day_reports, "add_crosschecks", lambda *_: None)  # ended before
        day_reports.see_to_day(str(path), until_ms, rounds, digest, said.append)
    files = sorted((path / "days").iterdir())
    bare = [json.loads(file.read_text()) for file in files]
    assert [event["kind"] for event in said] == ["day", "day", "checkpoint"]
    assert not any("crosscheck" in report for report in bare)
    day_reports.see_to_day(str(path), until_ms, rounds, None, said.append)
    whole = [json.loads(file.read_text()) for file in files]
    assert all(report.pop("crosscheck")["same"] for report in whole)
    assert whole == bare


class Stream:
    """A session as the day's process sees it, moved on by hand."""

    def __init__(self, resumed: bool = False) -> None:
        self.folder = SimpleNamespace(checkpoint=None, resumed=resumed, shown=0)
        self.source = SimpleNamespace(replaying=False, waiting=lambda: self.behind)
        self.behind = 0

    def show(self, hour: int, *, behind: int = 0, replaying: bool = False) -> None:
        """The round that closes at an hour is over; so many wait behind it."""
        self.folder.shown += 1
        self.behind, self.source.replaying = behind, replaying
        self.source.current = Round(hour * HOUR_MS, {})


class Noted(day_reports.DayReports):
    """Notes what it would begin."""

    def __init__(self, session: Any) -> None:
        super().__init__(Path("none"), lambda _event: None)
        self.begun: list[int] = []
        self.attach(session)

    def _begin(self, strategy: Any, until_ms: int, rounds: int) -> None:
        self.begun.append(until_ms // HOUR_MS)


@pytest.mark.parametrize(("resumed", "first"), [(False, []), (True, [24])])
def test_process_is_begun_at_the_first_quiet_round_of_a_day(resumed: bool, first: Any) -> None:
    """A process per candle, none at all, or one while candles wait for the decision."""
    session: Any = Stream(resumed)
    days, strategy = Noted(session), cast("Any", None)
    for hour in range(30, 80):
        # Midnight's round, and the one after it, are caught up with: the third one is quiet.
        session.show(hour, behind=2 if hour in (48, 49) else 0, replaying=hour < 40)
        days.after_round(strategy)
        if hour == 49:
            assert days.begun == first
        if hour == 50:
            assert days.begun == [*first, 48]
    assert days.begun == [*first, 48, 72]
