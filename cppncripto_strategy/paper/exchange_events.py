"""What the exchange did besides candles, in words: for screens, and as rows of the report.

The facts are the stream's notices (`feeds.live.notices`), as a session writes them into
events.jsonl. Left out: what the session did itself (starts, stops, retraining).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cppncripto_strategy.feeds.clock import ms_to_utc

Event = Mapping[str, Any]


def in_words(event: Event) -> str:
    """An event as a sentence without its time; empty when the exchange is not who did it."""
    words = _WORDS.get(str(event["kind"]))
    return "" if words is None else words(event)


def exchange_rows(events: Iterable[Event]) -> list[dict[str, Any]]:
    """One row per event of the exchange: at_ms (local clock, UTC ms), kind, symbol, what."""
    return [
        {
            "at_ms": event["at_ms"],
            "kind": event["kind"],
            "symbol": event.get("symbol"),
            "what": in_words(event),
        }
        for event in events
        if in_words(event)
    ]


def _stopped(event: Event) -> str:
    position = event.get("position") or 0.0
    kept = (
        f"its position of {position:g} is kept, not traded, and marked at its last price"
        if position
        else "it holds no position"
    )
    return (
        f"{event['symbol']} is not traded for now: {event['reason']}; {kept}. It is asked for again"
        f" in {event['retry_s']:g} s; {event['running']} symbols run"
    )


def _changed(event: Event) -> str:
    return (
        f"{event['symbol']}: the exchange changed {', '.join(event['changed'])}; orders follow it"
        " from the next candle on"
    )


def _withdrawn(event: Event) -> str:
    return (
        f"{event['symbol']}: the candle of {ms_to_utc(event['open_ms'])} has appeared after all;"
        " what was decided since was decided without it"
    )


def _restated(event: Event) -> str:
    return (
        f"{event['symbol']}: the candle of {ms_to_utc(event['open_ms'])} came again with other"
        f" values (close {event['first'][4]:g}, now {event['now'][4]:g}); the first one counts"
    )


def _clocks(event: Event) -> str:
    readings = ", ".join(f"{name} {ms_to_utc(ms)}" for name, ms in event["readings_ms"].items())
    trusted = event["trusted"]
    rest = f"{trusted} is believed" if trusted else "no symbol is traded until two of them agree"
    return f"the exchange's clocks disagree ({readings}): {rest}"


def _connected(event: Event) -> str:
    away_s = event["away_s"]
    return "connected" if away_s is None else f"connected again after {away_s:.1f} s"


_WORDS: dict[str, Callable[[Event], str]] = {
    "connected": _connected,
    "connection_lost": lambda event: f"the connection was lost ({event['reason']})",
    "symbol_stopped": _stopped,
    "symbol_back": lambda event: f"{event['symbol']} is back and traded again",
    "rules_changed": _changed,
    "gap_withdrawn": _withdrawn,
    "restated": _restated,
    "clock_disagrees": _clocks,
    "clock_agrees": lambda _event: "the exchange's clocks agree again",
}
