"""The exchange's rules that changed while a session ran: kept, and obeyed from the same candle on.

    <session>/rules.jsonl    {"t": 1716206700000, "rules": {"symbol": "BTCUSDT", "filters": [...]}}

A change is on disk before the round that closes at `t` is shown, and the account obeys it from the
first bar that closes at `t` or later. That alone decides, so a restart, from whatever checkpoint,
and both replays of parity apply it at the same bar.

Left out: how a change is noticed (`feeds.live.rules`), and the trading status, which each round
states by the symbols that may be traded on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.binance.filters import filters_from_exchange_info
from cppncripto_strategy.feeds.filters import TRADING, SymbolFilters
from cppncripto_strategy.feeds.live.journal import LineJournal, read_lines
from cppncripto_strategy.foreign import reading, require_int

RULES_FILE = "rules.jsonl"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """Rules of one symbol from a closing time on.

    Parameters
    ----------
    close_ms : close of the first bar on which they are obeyed, UTC milliseconds.
    entry : the symbol's entry of exchangeInfo's `symbols`.
    """

    close_ms: int
    entry: Mapping[str, Any]


def session_filters(entries: Sequence[Mapping[str, Any]]) -> dict[str, SymbolFilters]:
    """Filters by symbol as a session's account obeys them, from entries of exchangeInfo.

    Statuses change while a session runs: each round says which symbols could be traded.
    """
    known = filters_from_exchange_info({"symbols": list(entries)})
    return {name: replace(rule, status=TRADING) for name, rule in known.items()}


def read_rule_changes(session: Path) -> list[RuleChange]:
    """The changes that a session recorded, oldest first.

    Raises
    ------
    SessionError
        When the journal is damaged.
    """
    path = session / RULES_FILE
    with reading(path, "journal of rules", SessionError):
        return [_change(record) for record in read_lines(path)]


def latest_rules(
    entries: Sequence[Mapping[str, Any]], changes: Sequence[RuleChange]
) -> dict[str, Mapping[str, Any]]:
    """Symbol -> its entry of exchangeInfo, those of the session's start with all changes made."""
    every = [*entries, *(change.entry for change in changes)]
    return {str(entry["symbol"]): entry for entry in every}


class RuleJournal:
    """Changes on their way from the stream to the account; lives as long as the session is open.

    Attributes
    ----------
    changes : those recorded before.
    """

    def __init__(self, session: Path) -> None:
        self._journal = LineJournal(session / RULES_FILE)
        with reading(session / RULES_FILE, "journal of rules", SessionError):
            self.changes = [_change(record) for record in self._journal.records]
        self._heard: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()

    def hear(self, entry: Mapping[str, Any]) -> None:
        """The exchange states other rules for a symbol; from any thread."""
        with self._lock:
            self._heard.append(entry)

    def before_round(self, close_ms: int) -> list[RuleChange]:
        """What is to be obeyed from the round that closes at `close_ms` on; on disk by now.

        Raises
        ------
        SessionError
            When it cannot be written.
        """
        with self._lock:
            heard, self._heard = self._heard, []
        changes = [RuleChange(close_ms, entry) for entry in heard]
        self._journal.append([{"t": c.close_ms, "rules": dict(c.entry)} for c in changes])
        return changes

    def close(self) -> None:
        """Close the file; a change that no round has followed is heard again by the next start."""
        self._journal.close()


def _change(record: Mapping[str, Any]) -> RuleChange:
    return RuleChange(require_int(record["t"]), {**record["rules"]})


class SessionBroker(SpotBroker):
    """A session's account: SpotBroker whose filters change at closing times.

    Params
    ------
    rule_changes : RuleChange, oldest first; more may follow through `change_rules`.
    bar_ms : callable, close of the newest bar in UTC milliseconds.
    """

    params: Any = (("rule_changes", ()), ("bar_ms", lambda: 0))

    def init(self) -> None:
        """Start a run (called by Cerebro)."""
        super().init()
        self._coming: deque[RuleChange] = deque(self.p.rule_changes)

    def change_rules(self, changes: Sequence[RuleChange]) -> None:
        """Obey these, later ones than all before, from their closing times on."""
        self._coming.extend(changes)

    def next(self) -> None:
        """Obey what has changed by the present bar, then fill orders on it."""
        bar_ms: Callable[[], int] = self.p.bar_ms
        due = []
        while self._coming and self._coming[0].close_ms <= bar_ms():
            due.append(self._coming.popleft().entry)
        if due:
            self.p.filters = {**(self.p.filters or {}), **session_filters(due)}
        super().next()
