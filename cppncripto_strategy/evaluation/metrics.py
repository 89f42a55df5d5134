"""Everything that metrics.json holds about a run, and the verdict on it.

The parts are measured in `account` and `signals`; here they are put side by side and judged.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from cppncripto_strategy.evaluation.account import Account, account_metrics
from cppncripto_strategy.evaluation.signals import (
    Yardstick,
    drift_summary,
    macro_contribution,
    signal_quality,
)


def run_metrics(
    signals: pd.DataFrame,
    account: Account,
    benchmark_equity: pd.DataFrame,
    yardstick: Yardstick,
    without_macro: Account | None = None,
    evidence: dict[str, Any] | None = None,
    probabilities: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All metrics of a run as plain nested values, ready for metrics.json.

    Parameters
    ----------
    signals : table with one row per symbol and candle; see `results`.
    account : what the strategy's account did.
    benchmark_equity : equity of `account.buy_and_hold`.
    yardstick : what the signals are measured against.
    without_macro : the account that traded without macro, or None where it was not run.
    evidence : what `evidence_summary.evidence_summary` gives, or None where none was counted.
    probabilities : what `class_scores.class_scores` gives, or None where there are none.

    Returns
    -------
    Mapping with strategy, without_macro (None where it was not run), benchmark (`AccountMetrics`
    each), signals (`SignalQuality`), macro (`macro_contribution`), probabilities, drift,
    evidence, verdict.
    """
    metrics: dict[str, Any] = {
        "strategy": asdict(account_metrics(account)),
        "without_macro": without_macro and asdict(account_metrics(without_macro)),
        "benchmark": asdict(account_metrics(Account(benchmark_equity))),
        "signals": asdict(signal_quality(signals, yardstick)),
        "macro": macro_contribution(signals, yardstick),
        "probabilities": probabilities,
        "drift": drift_summary(signals),
        "evidence": evidence,
    }
    metrics["verdict"] = verdict(metrics, account.fills)
    return metrics


def verdict(metrics: dict[str, Any], fills: pd.DataFrame | None = None) -> dict[str, Any]:
    """Whether there is an edge after costs, in words a person can act on.

    An edge needs all of these: money made, a Sharpe ratio that is positive with 95 % probability,
    and that beats the luck of the best of all trials with as much where trials were counted (under
    `statistics`, as `trials.discounted_sharpe` gives them); signals whose mean net return has its
    whole 95 % interval above 0; and, where it was weighed, evidence that was reached and is not
    gone. Its sentence comes first. Without a trade, the reasons in `fills` are counted.
    """
    found = _judgement(metrics, fills)
    evidence = metrics.get("evidence")
    if evidence is None:
        return found
    return {**found, "detail": f"{evidence['sentence']} {found['detail']}"}


def _judgement(metrics: dict[str, Any], fills: pd.DataFrame | None) -> dict[str, Any]:
    account, signals = metrics["strategy"], metrics["signals"]["both"]
    earned = account["total_return"]
    net, certainty = signals["net_return_bps"], account["probabilistic_sharpe"]
    if not account["trades"] and not account["orders_filled"]:
        detail = _why_no_trade(fills)
        return {"edge": False, "headline": "No trade was made", "detail": detail}
    profitable = earned is not None and earned > 0
    trials = metrics.get("statistics")
    certain = all(
        sure is not None and sure >= 0.95
        for sure in (certainty, trials["deflated_sharpe"] if trials else certainty)
    )
    paying = net["low"] is not None and net["low"] > 0
    evidence = metrics.get("evidence")
    edge = profitable and certain and paying and (evidence is None or evidence["open"])
    headline = (
        "An edge after fees"
        if edge
        else "Profit, but no proven edge after fees"
        if profitable
        else "No edge after fees"
    )
    return {"edge": edge, "headline": headline, "detail": _verdict_detail(account, signals, trials)}


def _why_no_trade(fills: pd.DataFrame | None) -> str:
    if fills is None or len(fills) == 0:
        return "Nothing to judge: no decision to trade was made."
    counted = (
        fills["reason"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    )
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in counted.items())
    return f"Nothing to judge: of {len(fills):,} decisions to trade none was filled ({reasons})."


def _verdict_detail(
    account: dict[str, Any], signals: dict[str, Any], trials: dict[str, Any] | None
) -> str:
    hit, needed = signals["hit_ratio"], signals["break_even_hit_ratio"]
    parts = [f"The account returned {_percent(account['total_return'])}"]
    if account["fees_paid"] is not None:
        parts[0] += f" after {account['fees_paid']:,.2f} of fees"
    if hit["value"] is not None:
        parts.append(
            f"{_percent(hit['value'])} of the signals were right"
            + (
                f" (95 % interval {_percent(hit['low'])} to {_percent(hit['high'])})"
                if hit["low"] is not None
                else ""
            )
            + (f"; breaking even needs {_percent(needed)}" if needed is not None else "")
        )
    if account["probabilistic_sharpe"] is not None:
        chance = _chance(account["probabilistic_sharpe"])
        parts.append(f"the true Sharpe ratio is above 0 with a probability of {chance}")
    if trials and trials["trials"] > 1:
        parts.append(_trials_counted(trials))
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _trials_counted(trials: dict[str, Any]) -> str:
    """What counting the trials makes of the Sharpe ratio, and whether the record is long enough."""
    words = (
        f"that it is more than the luck of the best of {trials['trials']:,} trials has a"
        f" probability of {_chance(trials['deflated_sharpe'])}"
        f" ({_chance(trials['deflated_sharpe_effective'])} with about"
        f" {trials['effective_trials']:,} independent ones)"
    )
    needed, days = trials["minimum_backtest_days"], trials["days"]
    if needed is not None and needed > days:
        words += (
            f"; luck alone shows as much on records shorter than {needed:,.0f} days, and this one"
            f" has {days:,}"
        )
    return words


def _chance(value: float | None) -> str:
    if value is None:
        return "an unknown size"
    return "over 99.9 %" if value > 0.999 else "under 0.1 %" if value < 0.001 else _percent(value)


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"
