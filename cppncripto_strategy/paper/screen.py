"""What a person sees of a running paper session: a live screen, plain lines, or JSON events."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cppncripto_strategy.evaluation.evidence_summary import short
from cppncripto_strategy.evidence_meter import ACCOUNT
from cppncripto_strategy.feeds.clock import DAY_MS, MINUTE_MS, ms_to_utc
from cppncripto_strategy.paper.exchange_events import in_words
from cppncripto_strategy.paper.recorder import SessionView, SymbolView
from cppncripto_strategy.paper.session import plain
from cppncripto_strategy.paper.trader import PaperSession

_STATUS = {
    "LIVE": "[bold green]LIVE[/]",
    "DELAYED": "[yellow]catching up[/]",
    "CONNBROKEN": "[bold red]connection lost[/]",
    "DISCONNECTED": "[red]stopped[/]",
}


class JsonEvents:
    """One JSON object per line on stdout for every event; nothing else is printed."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event."""
        click.echo(json.dumps(plain(event), allow_nan=False))

    def attach(self, session: PaperSession) -> None:
        """Nothing to follow: events come by themselves."""

    def close(self) -> None:
        """Nothing to close."""


class PlainLines:
    """A line per closed candle and per fill, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event as a line."""
        line = _line(event)
        if line:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def attach(self, session: PaperSession) -> None:
        """Nothing to follow: events come by themselves."""

    def close(self) -> None:
        """Nothing to close."""


class Screen:
    """A live screen, redrawn four times per second from the session's view.

    It only reads numbers that others write: a redraw never waits for a candle, nor a candle for it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._session: PaperSession | None = None
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=4, transient=False
        )
        self._recent: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        """Keep the last fills and notices to show below the table."""
        if event["kind"] == "decision":
            return
        line = _line(event)
        with self._lock:
            self._recent = [*self._recent, line][-8:] if line else self._recent

    def attach(self, session: PaperSession) -> None:
        """Begin to show a session."""
        self._session = session
        self._live.start()

    def close(self) -> None:
        """Leave the last picture standing."""
        self._live.stop()

    def _draw(self) -> Group:
        session = self._session
        if session is None:
            return Group(Text("starting"))
        with self._lock:
            recent = list(self._recent)
        return Group(
            account_line(session.view, session.stream.clock.now_ms()),
            symbols_table(session.view, session.stream.last_frame, session.stream.clock.now_ms()),
            *(Text(line, style="dim") for line in recent),
        )


def account_line(view: SessionView, now_ms: int) -> Text:
    """Equity, the day's return, drawdown, connection, next rollover, evidence."""
    to_midnight_min = (DAY_MS - now_ms % DAY_MS) / MINUTE_MS if now_ms else math.nan
    state = "replaying the session's own past" if view.replaying else _STATUS.get(view.status, "")
    drawdown = 1 - view.equity / view.peak_equity if view.peak_equity else math.nan
    parts = [
        f"exchange time {ms_to_utc(now_ms - now_ms % 1000)[:19] if now_ms else '-'}",
        state,
        f"equity {_number(view.equity, 2)}",
        f"day {_percent(view.equity / view.day_start_equity - 1)}",
        f"drawdown {_percent(drawdown)}",
        f"rollover in {_number(to_midnight_min, 0)} min",
        f"orders {view.orders}, missed {view.missed}",
        *_evidence(view),
    ]
    return Text.from_markup("   ".join(parts))


def _evidence(view: SessionView) -> list[str]:
    """How every bet stands; green where there is evidence."""
    return [
        f"[green]{text}[/]" if is_open else text
        for name, (wealth, needed, is_open) in list(view.evidence.items())
        for text in [f"evidence {_owner(name)}{short(wealth)} of {needed:,.0f}"]
    ]


def _owner(bet: str) -> str:
    return "" if bet == ACCOUNT else f"for {bet} "


def symbols_table(view: SessionView, frames: dict[str, tuple[float, int]], now_ms: int) -> Table:
    """A row per symbol: last price, age of the last candle, score, thresholds, position."""
    table = Table(expand=False)
    for name in ("symbol", "price", "last close", "age s", "score", "lower", "upper", "position"):
        table.add_column(name, justify="left" if name == "symbol" else "right")
    for symbol, seen in list(view.symbols.items()):
        price = frames.get(symbol, (seen.close, 0))[0]
        age_s = (now_ms - seen.close_time_ms) / 1000 if seen.close_time_ms else math.nan
        table.add_row(
            Text(f"{symbol} (stopped)", style="red") if symbol in view.stopped else symbol,
            _number(price, 2),
            _number(seen.close, 2),
            _number(age_s, 0),
            Text(_number(seen.score, 3), style=_colour(seen)),
            _number(seen.lower, 3),
            _number(seen.upper, 3),
            _number(seen.position, 6),
        )
    return table


def _colour(seen: SymbolView) -> str:
    if seen.score >= seen.upper:
        return "bold green"
    return "bold red" if seen.score <= seen.lower else ""


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.2f} %"


def _line(event: dict[str, Any]) -> str:
    """An event as one line of text; empty for what nobody reads."""
    kind = event["kind"]
    if kind == "decision":
        return (
            f"{ms_to_utc(event['close_time_ms'])} {event['symbol']} close {event['close']:g}"
            f" score {_number(event['score'], 3)} [{_number(event['lower'], 3)},"
            f" {_number(event['upper'], 3)}]"
        )
    if kind == "fill":
        price = "" if math.isnan(event["price"]) else f" at {event['price']:g}"
        return (
            f"{ms_to_utc(event['executed_ms'])} {event['symbol']} {event['side']}"
            f" {event['quantity']:g}{price}: {event['status']}, {event['reason']}"
        )
    if kind == "evidence":
        state = "open" if event["open"] else "closed"
        return (
            f"{ms_to_utc(event['session_ms'])[:10]} evidence {_owner(event['bet'])}"
            f"{short(event['wealth'])} of {event['needed']:,.0f}: {state}"
        )
    words = in_words(event)
    if words:
        return f"{time.strftime('%H:%M:%S')} {words}"
    facts = ", ".join(f"{name} {value}" for name, value in event.items() if name != "kind")
    return f"{time.strftime('%H:%M:%S')} {kind}{': ' + facts if facts else ''}"


def choose_screen(as_json: bool, console: Console) -> JsonEvents | PlainLines | Screen:
    """JSON events when asked for, a live screen on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonEvents()
    return Screen(console) if console.is_terminal else PlainLines(console)
