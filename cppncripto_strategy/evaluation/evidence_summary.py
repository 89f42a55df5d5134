"""What the evidence of a run came to: numbers for metrics.json, and a sentence.

Left out: how it is weighed (`evidence`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.evaluation.undefined import defined
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_date


def evidence_summary(
    table: pd.DataFrame, rule: str, other_rule: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The evidence of a run as plain nested values.

    Parameters
    ----------
    table : one row per bet and day, as in `results.RunResult.evidence`.
    rule : "wait" or "trade", `strategy.evidence` of the run.
    other_rule : `AccountMetrics` of the same run under the other rule, or None.

    Returns
    -------
    Mapping with rule; open, whether any bet has evidence at the end; sentence; bets, one mapping
    each: bet, wealth (after its last day), highest, needed, open, opened_ms and closed_ms (00:00
    UTC after the day that decided it, ms), days and signals judged, crossed and incomplete signals
    left out, mean_net_bps of the days; and other_rule.
    """
    bets = [_bet(str(name), rows) for name, rows in table.groupby("bet", sort=False)]
    return {
        "rule": rule,
        "open": any(bet["open"] for bet in bets),
        "sentence": sentence(bets, rule),
        "bets": bets,
        "other_rule": other_rule,
    }


def _bet(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    after_ms = rows["session_ms"].to_numpy(np.int64) + DAY_MS
    opened = rows["open"].to_numpy(np.int64)
    turns = np.diff(opened, prepend=0)
    judged = rows[rows["signals"] > 0]
    return {
        "bet": name,
        "wealth": float(rows["wealth"].iloc[-1]),
        "highest": float(rows["wealth"].max()),
        "needed": float(rows["needed"].iloc[-1]),
        "open": bool(opened[-1]),
        "opened_ms": after_ms[turns > 0].tolist(),
        "closed_ms": after_ms[turns < 0].tolist(),
        "days": len(judged),
        "signals": int(rows["signals"].sum()),
        "crossed": int(rows["crossed"].sum()),
        "incomplete": int(rows["incomplete"].sum()),
        "mean_net_bps": defined(judged["mean_net_bps"].mean()),
    }


def sentence(bets: list[dict[str, Any]], rule: str) -> str:
    """The evidence in one sentence, with what it meant for the account."""
    if not any(bet["days"] for bet in bets):
        ending = "the account stayed in cash" if rule == "wait" else "the account traded without it"
        return f"Evidence: none, no signal's outcome was known on its own day; {ending}."
    if len(bets) == 1:
        return f"Evidence: {_state(bets[0], rule)}."
    reached = sum(bool(bet["opened_ms"]) for bet in bets)
    best = max(bets, key=lambda bet: float(bet["highest"]))
    others = "the others stayed in cash" if rule == "wait" else "the account traded all the same"
    if not reached and rule == "wait":
        others = "the account stayed in cash"
    return (
        f"Evidence: enough for {reached} of {len(bets)} symbols, where a test bet of 1 on the"
        f" signals has to reach {best['needed']:,.0f}; the highest was {best['bet']} with"
        f" {short(best['highest'])}; {others}."
    )


def _state(bet: dict[str, Any], rule: str) -> str:
    needed, wealth = f"{bet['needed']:,.0f}", short(bet["wealth"])
    stands = f"a test bet of 1 on the signals stands at {wealth}, and {needed} is enough"
    if not bet["opened_ms"]:
        ending = "stayed in cash" if rule == "wait" else "traded without it"
        return f"not enough yet: {stands}; the account {ending}"
    last = ms_to_date(bet["opened_ms"][-1])
    if bet["open"]:
        ending = f"traded from {last} on" if rule == "wait" else "did not wait for it"
        return f"enough since {last}: {stands}; the account {ending}"
    gone = ms_to_date(bet["closed_ms"][-1])
    ending = "sent no entry from then on" if rule == "wait" else "traded all the same"
    return (
        f"enough on {last}, when a test bet of 1 on the signals reached {needed}, and gone on"
        f" {gone}; the account {ending}"
    )


def short(wealth: float) -> str:
    """A wealth as people read it: 0.0042, 0.43, 3.1, 1,250."""
    return f"{wealth:,.0f}" if wealth >= 10 else f"{wealth:.2g}"
