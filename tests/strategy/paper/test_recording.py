"""What a recording says of gaps, of those that were none, and of candles that came late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session import DERIVED, SessionFacts, SessionFolder

FACTS = SessionFacts(
    symbols=("X", "Y"),
    interval="1h",
    first_ms=0,
    created_ms=0,
    broker={"cash": 1.0, "fee_bps": 0.0, "slippage_bps": 0.0},
)
ALL = frozenset({"X", "Y"})


def row(hour: int) -> tuple[float, ...]:
    """The candle that opens at an hour."""
    return (hour * HOUR_MS, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def shown(hour: int, *symbols: str, **rest: Any) -> Round:
    """The round of the candles that open at an hour."""
    return Round((hour + 1) * HOUR_MS, {symbol: row(hour) for symbol in symbols}, **rest)


def recording(*rounds: Round) -> Recording:
    """Rounds that were shown, with a decision per candle."""
    derived: dict[str, list[dict[str, Any]]] = {name: [] for name in DERIVED}
    derived["decisions"] = [
        {"symbol": symbol, "close_time_ms": one.close_ms}
        for one in rounds
        for symbol in one.candles
    ]
    return Recording(FACTS, [(one, ALL) for one in rounds], derived)


def test_gap_that_was_withdrawn_is_no_gap_and_says_what_was_decided_without_it() -> None:
    """A candle that exists, reported as missing always; or decisions that changed later."""
    late = shown(1, catch_up=True, withdrawn={"X": row(1)})
    kept = recording(
        shown(0, "X", "Y"),
        shown(1, "Y", gaps=("X",)),
        shown(2, "Y", gaps=("X",)),
        shown(3, "X", "Y"),
        shown(4, "X", "Y"),
        late,
        shown(5, "X", "Y"),
    )
    step = HOUR_MS
    assert kept.gaps() == [{"symbol": "X", "start_ms": 2 * step, "end_ms": 3 * step, "candles": 1}]
    [gap] = kept.withdrawn()
    assert (gap["symbol"], gap["open_ms"], gap["row"]) == ("X", step, row(1))
    # Of X, the candles of hours 3 and 4 were judged before it came; that of hour 5 after.
    assert (gap["seen_ms"], gap["decided_without"]) == (5 * step, 2)
    assert [int(ms) for ms in kept.candles()["X"].open_time] == [0, 3 * step, 4 * step, 5 * step]


def test_late_candles_are_counted_by_symbol() -> None:
    """Candles that a backtest cannot show in that order must be named, with when they were."""
    kept = recording(
        shown(0, "X", "Y"),
        shown(1, "X", stale=("Y",)),
        shown(2, "X", stale=("Y",)),
        shown(1, "Y", catch_up=True),
        shown(2, catch_up=True, gaps=("Y",)),
    )
    assert kept.late() == {"Y": (1, 2 * HOUR_MS, 2 * HOUR_MS)}
    assert kept.withdrawn() == []


def test_deleted_record_of_what_was_shown_is_reported(tmp_path: Path, caplog: Any) -> None:
    """Rounds that were traded on, called never shown because one file is gone."""
    path = tmp_path / "session"
    with SessionFolder.create(path, FACTS) as folder:
        rounds = [shown(hour, "X", "Y") for hour in range(3)]
        folder.journal(rounds)
        for one in rounds:
            folder.opened(one, ALL)
        folder.settle()
    (path / "opened.jsonl").unlink()
    with pytest.raises(SessionError, match=r"opened\.jsonl is missing beside 3 rounds"):
        Recording.read(path)
    with SessionFolder(path) as folder:
        assert (folder.past, len(folder.unopened), folder.shown) == ([], 3, 0)
    assert "opened.jsonl was missing beside 3 rounds" in caplog.text
    [event] = [e for e in Recording.read(path).events if e["kind"] == "opened lost"]
    assert event["rounds"] == 3
