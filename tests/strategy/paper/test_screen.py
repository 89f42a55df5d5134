"""What a person sees of a running session."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from cppncripto_strategy.feeds.clock import HOUR_MS, utc_to_ms
from cppncripto_strategy.paper.recorder import SessionView, SymbolView
from cppncripto_strategy.paper.screen import (
    JsonEvents,
    PlainLines,
    Screen,
    account_line,
    choose_screen,
    symbols_table,
)

NOW_MS = utc_to_ms("2024-05-01 21:00")


def shown(renderable: Any) -> str:
    """The text of a renderable, wide enough not to wrap."""
    console = Console(file=io.StringIO(), width=200, no_color=True)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def view(**changes: Any) -> SessionView:
    """A session in the middle of its day."""
    seen = SymbolView(
        close=60_000.0,
        close_time_ms=NOW_MS - 120_000,
        score=0.4,
        upper=0.3,
        lower=-0.3,
        position=0.015,
    )
    values: dict[str, Any] = {
        "symbols": {"BTCUSDT": seen},
        "equity": 9_900.0,
        "cash": 9_000.0,
        "day_start_equity": 10_000.0,
        "peak_equity": 11_000.0,
        "status": "LIVE",
        "orders": 3,
        "missed": 2,
    }
    return SessionView(**{**values, **changes})


def test_account_line_shows_day_drawdown_connection_and_rollover() -> None:
    """The numbers a person decides by must be the right ones, with the right sign."""
    line = account_line(view(), NOW_MS).plain
    assert "equity 9,900.00" in line
    assert "day -1.00 %" in line
    assert "drawdown +10.00 %" in line
    assert f"rollover in {3 * HOUR_MS // 60_000} min" in line
    assert "orders 3, missed 2" in line
    assert "LIVE" in line


@pytest.mark.parametrize(
    ("status", "word"), [("CONNBROKEN", "connection lost"), ("DELAYED", "catching up")]
)
def test_lost_connection_is_told(status: str, word: str) -> None:
    """A screen that looks live while it is blind is worse than none."""
    assert word in account_line(view(status=status), NOW_MS).plain


def test_table_has_price_age_score_thresholds_and_position() -> None:
    """The forming price comes from frames, the age from the last closed candle."""
    text = shown(symbols_table(view(), {"BTCUSDT": (60_123.5, NOW_MS)}, NOW_MS))
    for piece in ("BTCUSDT", "60,123.50", "60,000.00", "120", "0.400", "-0.300", "0.300"):
        assert piece in text
    assert "0.015000" in text


def test_screen_before_the_first_candle_shows_dashes() -> None:
    """NaN on a screen looks like a fault."""
    empty = SessionView(symbols={"BTCUSDT": SymbolView()})
    assert "nan" not in shown(symbols_table(empty, {}, 0)).lower()
    assert "nan" not in account_line(empty, 0).plain.lower()


def test_json_events_are_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN is no JSON: a reader in another language would stop at the first undefined score."""
    JsonEvents()({"kind": "decision", "symbol": "X", "score": math.nan})
    told = json.loads(capsys.readouterr().out)
    assert told == {"kind": "decision", "symbol": "X", "score": None}


def test_plain_lines_say_what_filled_and_why() -> None:
    """Logs of a session without a terminal must carry every fill and refusal."""
    console = Console(file=io.StringIO(), width=200)
    lines = PlainLines(console)
    fill = {
        "kind": "fill", "executed_ms": NOW_MS, "symbol": "BTCUSDT", "side": "buy",
        "quantity": 0.5, "price": math.nan, "status": "refused", "reason": "can_trade",
    }  # fmt: skip
    lines(fill)
    lines({**fill, "status": "filled", "price": 60_000.0, "reason": "signal"})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2024-05-01 21:00 BTCUSDT buy 0.5: refused, can_trade" in text
    assert "buy 0.5 at 60000: filled, signal" in text


def test_screen_is_chosen_by_where_it_is_shown() -> None:
    """A live screen in a log file would be thousands of lines of control characters."""
    pipe = Console(file=io.StringIO())
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(choose_screen(True, terminal), JsonEvents)
    assert isinstance(choose_screen(False, pipe), PlainLines)
    assert isinstance(choose_screen(False, terminal), Screen)


@pytest.mark.parametrize(
    ("bets", "expected"),
    [
        ({}, ""),
        ({"account": (0.43, 20.0, False)}, "evidence 0.43 of 20"),
        ({"BTCUSDT": (412.0, 40.0, True)}, "evidence for BTCUSDT 412 of 40"),
    ],
)
def test_account_line_shows_the_evidence(bets: Any, expected: str) -> None:
    """A session that waits, and does not say for what."""
    line = account_line(view(evidence=bets), NOW_MS).plain
    assert expected in line
    assert ("evidence" in line) == bool(bets)


def test_a_weighed_day_is_one_line_and_one_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Evidence that opens without a word in the log."""
    event = {
        "kind": "evidence",
        "bet": "account",
        "session_ms": utc_to_ms("2024-05-01"),
        "wealth": 21.4,
        "needed": 20.0,
        "open": 1,
        "mean_net_bps": math.nan,
    }
    output = io.StringIO()
    PlainLines(Console(file=output, width=200))(event)
    assert output.getvalue() == "2024-05-01 evidence 21 of 20: open\n"
    JsonEvents()(event)
    read = json.loads(capsys.readouterr().out)
    assert (read["kind"], read["wealth"], read["mean_net_bps"]) == ("evidence", 21.4, None)
