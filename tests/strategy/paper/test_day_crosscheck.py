"""A session's day by the second engine, with what the session knew and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.crosscheck import portfolio
from cppncripto_strategy.errors import NothingLiveError, SessionError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.day_crosscheck import DayChecks, check_session, kept_checks
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.recording import Recording


@pytest.fixture(scope="module")
def session(
    papers: Any, toy_session_of: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, Any]:
    """A session of three days, down while it held: folder, 00:00 of its second day, options."""
    path, candles, timeline, start_ms = toy_session_of(tmp_path_factory.mktemp("session"))
    first: BundleTimeline = timeline
    day_ms = first.first_session_ms + DAY_MS
    papers.trade(path, candles, start_ms, day_ms + 2 * HOUR_MS)
    papers.trade(path, candles, day_ms + 9 * HOUR_MS, day_ms + 2 * DAY_MS)
    return path, day_ms, papers.options(SessionTimeline.of_session(path))


def test_session_is_rebuilt_with_the_candles_it_could_trade_on(
    session: tuple[Path, int, Any],
) -> None:
    """Orders on candles that closed while the session was down, which it never sent."""
    path, _, options = session
    check = check_session(path, options)
    assert [str(difference) for difference in check.differences] == []
    recording = Recording.read(path)
    assert len(recording.missed()) > 0
    assert check.compared["orders"] == len(recording.tables()["fills"]) > 3


def test_day_has_its_own_part_and_its_own_first_difference(
    session: tuple[Path, int, Any], tmp_path: Path
) -> None:
    """A day reported as good because another one was, or bad for another's fault."""
    path, day_ms, options = session
    recording = Recording.read(path)
    fills = recording.derived["fills"]
    place = next(
        i
        for i, fill in enumerate(fills)
        if fill["status"] == "filled" and day_ms <= fill["executed_ms"] < day_ms + DAY_MS - HOUR_MS
    )
    good = DayChecks(recording, lambda: options).of_day(day_ms)
    assert good["checked"]
    assert good["same"]
    marks = [row for row in recording.derived["equity"] if row["t"] < day_ms + DAY_MS]
    assert good["equity"] == pytest.approx(marks[-1]["equity"], abs=0.005)
    moved = {**fills[place], "executed_ms": fills[place]["executed_ms"] + HOUR_MS}
    recording.derived["fills"][place] = moved
    checks = DayChecks(recording, lambda: options)
    assert checks.of_day(day_ms - DAY_MS)["same"]
    bad = checks.of_day(day_ms)
    assert not bad["same"]
    assert "filled at: recorded" in bad["first_difference"]


def test_without_the_extra_the_day_says_what_to_install(
    session: tuple[Path, int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day's report that cannot be made, because an optional library is missing."""
    path, day_ms, _ = session
    monkeypatch.setattr(portfolio, "find_spec", lambda _name: None)
    found = DayChecks(Recording.read(path), lambda: 1 / 0).of_day(day_ms)  # type: ignore[arg-type,return-value]
    assert found == {"checked": False, "why": f"vectorbt is not installed: {portfolio.EXTRA}"}


def test_fault_of_the_second_engine_costs_no_report(session: tuple[Path, int, Any]) -> None:
    """A day without its report, because a library broke."""
    path, day_ms, _ = session
    found = DayChecks(Recording.read(path), lambda: 1 / 0).of_day(day_ms)  # type: ignore[arg-type,return-value]
    assert found == {"checked": False, "why": "ZeroDivisionError: division by zero"}


def test_session_that_cannot_be_followed_is_refused_by_name(
    session: tuple[Path, int, Any], toy_session: Any
) -> None:
    """A green check of sizes that nobody could know."""
    path, _, options = session
    with pytest.raises(SessionError, match="forecast"):
        check_session(path, {**options, "sizing": "volatility"})
    with pytest.raises(NothingLiveError):
        check_session(toy_session[0], options)


def test_kept_reports_are_read_in_order(tmp_path: Path) -> None:
    """A table of days out of order, or one that a report of an older version breaks."""
    (tmp_path / "days").mkdir()
    for day, found in (("2024-01-02", {"checked": False, "why": "x"}), ("2024-01-01", None)):
        values = {} if found is None else {"crosscheck": found}
        (tmp_path / "days" / f"{day}.json").write_text(json.dumps(values))
    assert list(kept_checks(tmp_path)) == [{"day": "2024-01-02", "checked": False, "why": "x"}]
    (tmp_path / "days" / "2024-01-03.json").write_text("[")
    with pytest.raises(SessionError, match="2024-01-03"):
        list(kept_checks(tmp_path))
