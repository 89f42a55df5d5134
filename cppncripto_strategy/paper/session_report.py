"""What a session leaves for people: results in the form of a backtest's, and a report per day.

Left out: what is recorded while it runs (`session`), and the pages (`reports`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.errors import NothingLiveError, SessionError
from cppncripto_strategy.evaluation.evidence_summary import short
from cppncripto_strategy.evaluation.undefined import defined
from cppncripto_strategy.feeds.binance.filters import stated_filters
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.live.journal import read_lines
from cppncripto_strategy.judgement import judge
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.outcome import bundle_rows, write_outputs
from cppncripto_strategy.paper.day_crosscheck import kept_checks
from cppncripto_strategy.paper.exchange_events import exchange_rows
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.rule_changes import latest_rules
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import RunResult, write_text

# Seconds that another process may take to write the same reports.
REPORT_WAIT_S = 120.0


def session_result(session: Path, recipe: Recipe, timeline: SessionTimeline) -> RunResult:
    """A session's results, in the form of a backtest's.

    Raises
    ------
    NothingLiveError
        When nothing was traded or watched live yet.
    """
    recording = Recording.read(session)
    tables: dict[str, Any] = dict(recording.tables())
    if len(tables["equity"]) < 2:
        raise NothingLiveError(f"{session}: fewer than two live candles so far, nothing to report")
    judged = judge(recipe, tables)
    metrics = judged.metrics
    metrics["session"] = {
        "missed_orders": len(recording.missed()),
        "downtime": recording.downtime(),
        "rounds": len(recording.past),
        "exchange": exchange_rows(recording.events),
        "crosschecks": list(kept_checks(session)),
        "withdrawn": [
            {name: gap[name] for name in ("symbol", "open_ms", "seen_ms", "decided_without")}
            for gap in recording.withdrawn()
        ],
        "late": {symbol: count for symbol, (count, *_) in recording.late().items()},
    }
    return RunResult(
        recipe=recipe.to_plain(),
        manifest={
            **recording.facts.made_by,
            "session": session.name,
            "seed": recipe.seed,
            "plugins": recipe.plugin_digests(),
        },
        metrics=metrics,
        **tables,
        benchmark_equity=judged.benchmark,
        filters=_filters(recording),
        gaps=recording.gaps(),
        bundles=bundle_rows(timeline.bundles, timeline.valid_from_ms, None),
        embeddings=_embeddings(recording),
    )


def _filters(recording: Recording) -> list[dict[str, Any]]:
    """The rules that orders follow at the end: of the session's start, or a later change."""
    facts = recording.facts
    since = {str(change.entry["symbol"]): change.close_ms for change in recording.rule_changes}
    latest = latest_rules(facts.filters, recording.rule_changes)
    stated = stated_filters({"symbols": list(latest.values())}, "the exchange, kept by the session")
    return [
        {
            "symbol": symbol,
            **replace(known, stated_ms=since.get(symbol, facts.created_ms)).to_plain(),
        }
        for symbol, known in stated.items()
    ]


def _embeddings(recording: Recording) -> pd.DataFrame | None:
    since = recording.live_from_ms or 0
    rows = [
        {
            "symbol": row["symbol"],
            "valid_from_ms": row["session_ms"],
            "data_end_ms": row["valid_from_ms"],
            "model_hash": row["model_hash"],
            "drift": np.nan if row["drift"] is None else row["drift"],
            **{f"e{i}": value for i, value in enumerate(row["vector"])},
        }
        for row in recording.derived["embeddings"]
        if row["session_ms"] >= since // DAY_MS * DAY_MS
    ]
    return pd.DataFrame(rows) if rows else None


def write_session_results(session: Path, recipe: Recipe, timeline: SessionTimeline) -> RunResult:
    """Tables, metrics, report, tearsheet and picture into the session's own folder.

    The session may be running; reports are written by one process at a time.
    """
    advice = "wait for it to end, then ask again with --report"
    lock = session / f".reports{LOCK_FILE}"
    with FileLock.take(lock, f"{session}'s reports", SessionError, advice, REPORT_WAIT_S):
        return _write_results(session, recipe, timeline)


def _write_results(session: Path, recipe: Recipe, timeline: SessionTimeline) -> RunResult:
    result = session_result(session, recipe, timeline)
    write_outputs(result, session)
    recording = Recording.read(session)
    store = CandleStore(session / "candles")
    for symbol, candles in recording.candles().items():
        store.write(symbol, recipe.interval, candles)
    missed = recording.missed()
    write_text(session / "missed.csv", missed.to_csv(index=False))
    return result


def day_report(session: Path, day_ms: int, recording: Recording | None = None) -> dict[str, Any]:
    """One UTC day of a session: account, signals, orders, evidence, drift, missed, retraining.

    Parameters
    ----------
    day_ms : 00:00 UTC of the day.
    recording : the session's, where it was read already.
    """
    recording = recording or Recording.read(session)
    tables = recording.tables()

    def of_day(table: pd.DataFrame, column: str) -> pd.DataFrame:
        return table[(table[column] >= day_ms) & (table[column] < day_ms + DAY_MS)]

    equity = of_day(tables["equity"], "close_time_ms")["equity"].to_numpy()
    fills = of_day(tables["fills"], "executed_ms")
    signals = of_day(tables["signals"], "close_time_ms")
    missed = of_day(recording.missed(), "created_ms")
    peak = np.maximum.accumulate(equity) if len(equity) else equity
    return {
        "day": ms_to_utc(day_ms)[:10],
        "candles": len(signals),
        "equity": float(equity[-1]) if len(equity) else None,
        "return": float(equity[-1] / equity[0] - 1) if len(equity) else None,
        "drawdown": float((1 - equity / peak).max()) if len(equity) else None,
        "filled": int((fills["status"] == "filled").sum()),
        "fees": float(fills["fee"].sum()),
        "missed": len(missed),
        "signals": int((signals["signal"] != 0).sum()),
        "evidence": evidence_of_day(tables["evidence"], day_ms),
        "drift": {
            str(symbol): _last_finite(rows["drift"]) for symbol, rows in signals.groupby("symbol")
        },
        "retraining": [
            {key: value for key, value in event.items() if key != "at_ms"}
            for event in read_lines(session / "events.jsonl")
            if day_ms < event.get("session_ms", 0) <= day_ms + DAY_MS
        ],
    }


def evidence_of_day(table: pd.DataFrame, day_ms: int) -> list[dict[str, Any]]:
    """How every bet stands after a day, with what the day itself brought; [] before the first.

    Parameters
    ----------
    table : one row per bet and day with signals, as in `results.RunResult.evidence`.
    day_ms : 00:00 UTC of the day; it is weighed at the midnight after it.

    Returns
    -------
    Per bet: bet, wealth, needed, open, in words; signals and mean_net_bps of the day's judged
    signals, 0 and None on a day without any.
    """
    known = table[table["session_ms"] <= day_ms]
    rows = []
    for name, bets in known.groupby("bet", sort=False):
        last = bets.iloc[-1]
        judged = int(last["signals"]) if last["session_ms"] == day_ms else 0
        wealth, needed, is_open = float(last["wealth"]), float(last["needed"]), bool(last["open"])
        state = "there is evidence" if is_open else "no evidence yet, or none any more"
        rows.append(
            {
                "bet": str(name),
                "words": f"{short(wealth)}, where {needed:,.0f} is enough: {state}",
                "wealth": wealth,
                "needed": needed,
                "open": is_open,
                "signals": judged,
                "mean_net_bps": defined(float(last["mean_net_bps"])) if judged else None,
            }
        )
    return rows


def _last_finite(values: pd.Series[float]) -> float | None:
    known = values.dropna()
    return float(known.iloc[-1]) if len(known) else None
