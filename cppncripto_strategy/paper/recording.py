"""What a session has recorded, read without its lock: it may be running meanwhile.

Left out: writing any of it (`session`), and what is made of it for people (`session_report`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.live.journal import COMPUTED_AGAIN, read_lines
from cppncripto_strategy.feeds.live.rounds import Round, candles_of
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.paper.rule_changes import RuleChange, read_rule_changes
from cppncripto_strategy.paper.session import (
    DERIVED,
    Record,
    SessionFacts,
    match_rounds,
    read_facts,
)
from cppncripto_strategy.results import FILL_COLUMNS, SIGNAL_COLUMNS
from cppncripto_strategy.tables import equity_from_marks, evidence_table, trades_table


@dataclass(frozen=True, eq=False)
class Recording:
    """Everything a session has recorded, read without its lock (it may be running).

    Parameters
    ----------
    facts : SessionFacts.
    past : (round, symbols allowed) of every round that was shown.
    derived : the derived journals' records by name.
    rule_changes : the exchange's rules that changed, and from when on.
    events : what happened besides, as it was noted.
    """

    facts: SessionFacts
    past: list[tuple[Round, frozenset[str]]]
    derived: dict[str, list[Record]]
    rule_changes: Sequence[RuleChange] = ()
    events: Sequence[Record] = ()

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read a session's folder.

        Raises
        ------
        SessionError
            As `SessionFolder` does, and when there are rounds and nothing says which were shown.
        """
        with reading(path, "session", SessionError):
            derived = {
                name: read_lines(path / f"{name}.jsonl", advice=COMPUTED_AGAIN) for name in DERIVED
            }
            opened, rounds = read_lines(path / "opened.jsonl"), read_lines(path / "rounds.jsonl")
            _require_opened(path, len(rounds))
            past, _ = match_rounds(rounds, opened, path)
        events = read_lines(path / "events.jsonl")
        return cls(read_facts(path), past, derived, read_rule_changes(path), events)

    @property
    def live_from_ms(self) -> int | None:
        """Close of the first round anybody might trade on; None when there was none yet."""
        return next((moment.close_ms for moment, allowed in self.past if allowed), None)

    def candles(self) -> dict[str, Candles]:
        """Each symbol's candles in the order shown."""
        return {
            symbol: candles_of(
                moment.candles[symbol] for moment, _ in self.past if symbol in moment.candles
            )
            for symbol in self.facts.symbols
        }

    def gaps(self) -> list[dict[str, Any]]:
        """Proved gaps: symbol, start_ms, end_ms, candles; touching ones joined.

        Those that were withdrawn are none: see `withdrawn`.
        """
        appeared = {
            (symbol, moment.close_ms) for moment, _ in self.past for symbol in moment.withdrawn
        }
        joined: list[dict[str, Any]] = []
        step = self.facts.interval_ms
        for symbol in self.facts.symbols:
            shut = (moment.close_ms for moment, _ in self.past if symbol in moment.gaps)
            for close_ms in (ms for ms in shut if (symbol, ms) not in appeared):
                last = joined[-1] if joined else None
                if last and last["symbol"] == symbol and last["end_ms"] == close_ms - step:
                    last["end_ms"], last["candles"] = close_ms, last["candles"] + 1
                else:
                    start_ms = close_ms - step
                    joined.append(
                        {"symbol": symbol, "start_ms": start_ms, "end_ms": close_ms, "candles": 1}
                    )
        return joined

    def withdrawn(self) -> list[dict[str, Any]]:
        """Gaps whose candle appeared later: symbol, open_ms, row, seen_ms, decided_without.

        seen_ms is the newest close shown when it appeared; decided_without counts the decisions on
        the symbol from the gap on until then. They stay as they were, and so do all later ones: the
        strategy never sees the candle.
        """
        found: list[dict[str, Any]] = []
        newest_ms = 0
        for moment, _ in self.past:
            newest_ms = max(newest_ms, moment.close_ms)
            found += [
                {"symbol": symbol, "open_ms": int(row[0]), "row": row, "seen_ms": newest_ms}
                for symbol, row in moment.withdrawn.items()
            ]
        stamps: dict[str, list[int]] = {one["symbol"]: [] for one in found}
        for decision in self.derived["decisions"] if found else ():
            stamps.get(decision["symbol"], []).append(decision["close_time_ms"])
        for one in found:
            after = [ms for ms in stamps[one["symbol"]] if one["open_ms"] < ms <= one["seen_ms"]]
            one["decided_without"] = len(after)
        return found

    def late(self) -> dict[str, tuple[int, int, int]]:
        """Symbol -> how many of its candles came after newer ones of others; first, last close."""
        behind: dict[str, list[int]] = {}
        for moment, _ in self.past:
            for symbol in moment.candles if moment.catch_up else ():
                behind.setdefault(symbol, []).append(moment.close_ms)
        return {symbol: (len(ms), min(ms), max(ms)) for symbol, ms in behind.items()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """signals, fills, trades and equity since the session went live, as a backtest gives them.

        What the strategy would have done during the warm-up is history and is left out. Evidence is
        whole: it counts the days that the networks scored before the session went live.

        Raises
        ------
        SessionError
            When a record is not what was written.
        """
        with reading(Path("decisions.jsonl, fills.jsonl or equity.jsonl"), "journal", SessionError):
            return self._tables()

    def _tables(self) -> dict[str, pd.DataFrame]:
        since = self.live_from_ms
        start = since if since is not None else 2**62
        signals = self.decisions()
        fills = _table(self.derived["fills"], FILL_COLUMNS)
        marks = [
            (row["t"], row["equity"], row["cash"])
            for row in self.derived["equity"]
            if row["t"] >= start
        ]
        signals = signals[signals["close_time_ms"] >= start].reset_index(drop=True)
        fills = fills[fills["created_ms"] >= start].reset_index(drop=True)
        steps = dict.fromkeys(self.facts.symbols, self.facts.interval_ms)
        return {
            "signals": signals,
            "fills": fills,
            "trades": trades_table(fills, signals, steps),
            "equity": equity_from_marks(marks),
            "evidence": evidence_table(self.derived["evidence"]),
        }

    def decisions(self) -> pd.DataFrame:
        """The `signals` table of every candle, the warm-up's among them."""
        return _table(self.derived["decisions"], SIGNAL_COLUMNS)

    def missed(self) -> pd.DataFrame:
        """Orders the strategy would have sent while the session could not trade: fills' columns.

        Never invented, never filled: refused, because the candle was seen too late.
        """
        fills = self.tables()["fills"]
        late = (fills["status"] == "refused") & (fills["reason"] == "can_trade")
        return fills[late].reset_index(drop=True)

    def downtime(self) -> list[dict[str, int]]:
        """Stretches after the start in which nothing could be traded: start_ms, end_ms, rounds."""
        stretches: list[dict[str, int]] = []
        since = self.live_from_ms
        before = None
        for moment, allowed in self.past:
            if since is None or moment.close_ms < since or moment.catch_up:
                continue
            if not allowed and moment.candles:
                if before == "down":
                    stretches[-1]["end_ms"] = moment.close_ms
                    stretches[-1]["rounds"] += 1
                else:
                    stretches.append(
                        {"start_ms": moment.close_ms, "end_ms": moment.close_ms, "rounds": 1}
                    )
                before = "down"
            else:
                before = "up"
        return stretches


def _require_opened(path: Path, rounds: int) -> None:
    if rounds and not (path / "opened.jsonl").exists():
        raise SessionError(
            f"{path / 'opened.jsonl'} is missing beside {rounds} rounds: nothing says which of them"
            " were shown, and what was traded on. Restore it from a copy; or start the session"
            " again, which shows the rounds anew and trades on none of them"
        )


def _table(records: Sequence[Record], columns: Sequence[str]) -> pd.DataFrame:
    """Records as a table of these columns with the tables' own types."""
    whole = {"signal", "candles_held"}
    text = {"symbol", "side", "reason", "status", "detail"}
    made = {}
    for name in columns:
        values = [record[name] for record in records]
        if name in text:
            made[name] = pd.Series(values, dtype="str")
        elif (name.endswith("_ms") and name != "age_ms") or name in whole:
            made[name] = pd.Series(values, dtype=np.int64)
        else:
            made[name] = pd.Series(
                [math.nan if value is None else value for value in values], dtype=np.float64
            )
    return pd.DataFrame(made)
