"""What a session leaves for people adds up with what it recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.errors import NothingLiveError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session_report import day_report, evidence_of_day, session_result
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import write_json


def test_report_of_a_session_without_live_candles_says_so(
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """An empty report would look like a session that lost nothing."""
    path, _, _, _ = toy_session
    timeline = SessionTimeline.of_session(path)
    with pytest.raises(NothingLiveError, match="nothing to report"):
        session_result(path, Recipe(symbols=("X",), interval="1h"), timeline)


def test_day_report_adds_up_with_the_tables(
    papers: Any,
    toy_session: tuple[Path, Any, BundleTimeline, int],
) -> None:
    """A day's figures must be those of the ledger, cut at midnight."""
    path, candles, timeline, start_ms = toy_session
    day_ms = timeline.first_session_ms
    papers.trade(path, candles, start_ms, day_ms + 2 * DAY_MS)
    report = day_report(path, day_ms + DAY_MS)
    tables = Recording.read(path).tables()
    equity = tables["equity"].set_index("close_time_ms")["equity"]
    of_day = equity[(equity.index >= day_ms + DAY_MS) & (equity.index < day_ms + 2 * DAY_MS)]
    assert report["candles"] == 24
    assert report["return"] == pytest.approx(of_day.iloc[-1] / of_day.iloc[0] - 1)
    fills = tables["fills"]
    mine = fills[(fills["executed_ms"] // DAY_MS * DAY_MS == day_ms + DAY_MS)]
    assert report["filled"] == int((mine["status"] == "filled").sum())
    assert np.isfinite(report["drift"]["X"])
    [bet] = report["evidence"]
    [row] = tables["evidence"].query("session_ms == @day_ms + @DAY_MS").to_dict("records")
    assert (bet["bet"], bet["wealth"], bet["needed"]) == ("account", row["wealth"], 20.0)
    assert (bet["signals"], bet["mean_net_bps"]) == (row["signals"], row["mean_net_bps"])
    assert bet["signals"] > 0
    assert bet["words"].endswith(", where 20 is enough: no evidence yet, or none any more")


def test_evidence_of_a_quiet_day_is_that_of_the_days_before() -> None:
    """A bet of tomorrow in today's report, or one that vanishes on a day without a signal."""
    row = {"signals": 3, "mean_net_bps": 12.5, "needed": 40.0}
    table = pd.DataFrame(
        [
            {**row, "bet": "A", "session_ms": 0, "wealth": 1.5, "open": 0},
            {**row, "bet": "B", "session_ms": DAY_MS, "wealth": 55.0, "open": 1},
            {**row, "bet": "A", "session_ms": 2 * DAY_MS, "wealth": 9.0, "open": 0},
        ]
    )
    first, second = evidence_of_day(table, DAY_MS)
    assert (first["bet"], first["wealth"], first["signals"]) == ("A", 1.5, 0)
    assert first["mean_net_bps"] is None
    assert (second["bet"], second["signals"], second["mean_net_bps"]) == ("B", 3, 12.5)
    assert second["words"] == "55, where 40 is enough: there is evidence"
    assert [bet["wealth"] for bet in evidence_of_day(table, 2 * DAY_MS)] == [9.0, 55.0]
    assert evidence_of_day(table, -DAY_MS) == []


def test_reason_of_a_bundle_is_the_reason_it_was_made_for(
    papers: Any, toy_session: tuple[Path, Any, BundleTimeline, int]
) -> None:
    """Every later bundle reported as "calendar" by counting, the one that drift asked for too."""
    path, candles, timeline, start_ms = toy_session
    first, second = timeline.bundles
    taken_ms = timeline.first_session_ms + 3 * DAY_MS
    papers.trade(path, candles, start_ms, taken_ms - HOUR_MS)
    why = "drift 1.43 above 1.25"
    repaired = dataclasses.replace(second, info=dataclasses.replace(second.info, reason=why))
    repaired.save(path / "bundles" / repaired.model_hash)
    left = {"bundle": repaired.model_hash, "repair": "recalibrate", "reason": why, "drift": 1.43}
    write_json(path / "bundles" / "next.json", left)
    papers.trade(path, candles, taken_ms - HOUR_MS, taken_ms + 2 * HOUR_MS)
    recipe = Recipe(symbols=("X",), interval="1h")
    rows = session_result(path, recipe, SessionTimeline.of_session(path)).bundles
    assert [row["reason"] for row in rows] == [first.info.reason, why]
    assert [row["valid_from_ms"] for row in rows] == [timeline.first_session_ms, taken_ms]
    assert [row["valid_until_ms"] for row in rows] == [taken_ms, None]
