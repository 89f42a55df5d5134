"""Whether there is evidence of an edge, when it came and went, and what waiting for it meant."""

from __future__ import annotations

from typing import Any

from cppncripto_strategy.evaluation.evidence_summary import short
from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.reports.blocks import Chart, Content, Section, Table
from cppncripto_strategy.reports.sections.accounts import ACCOUNT_ROWS
from cppncripto_strategy.reports.values import MISSING, number, signed, whole
from cppncripto_strategy.results import RunResult

_COMPARED = {
    "total_return",
    "sharpe",
    "max_drawdown",
    "time_in_market",
    "fees_paid",
    "trades",
    "final_equity",
}
# Heading of the account under each rule of `strategy.evidence`.
_RULES = {"wait": "Waited for evidence", "trade": "Traded all the same"}


def evidence(result: RunResult) -> Section | None:
    """The evidence in words, the account under both rules, each bet, and the wealth by day."""
    found = result.metrics.get("evidence")
    if not found:
        return None
    content: list[Content] = [found["sentence"], *_waiting(result, found)]
    if found["bets"]:
        content.append(Table(_BET_HEAD, [_bet_row(bet) for bet in found["bets"]], text=[6, 7]))
    if result.evidence is not None and len(result.evidence):
        from cppncripto_strategy.reports import charts

        content.append(Chart(charts.evidence_figure(result.evidence), "evidence"))
    return Section(
        "Evidence",
        content,
        note="A bet against luck on every day's signals, traded or not, at this account's costs. If"
        " signals earn nothing, its wealth reaches what is needed with a probability of at most"
        f" {100 * _alpha(found):.3g} %, however often somebody looks. Signals whose outcome closes"
        " on a later day are left out. It says nothing about what a recipe chosen from many shows."
        " Shaded: while there was evidence.",
    )


def _alpha(found: dict[str, Any]) -> float:
    """Probability that luck opens any of the bets."""
    bets = found["bets"]
    return len(bets) / bets[0]["needed"] if bets else 0.0


def _waiting(result: RunResult, found: dict[str, Any]) -> list[Content]:
    """What waiting cost or saved: a sentence and a table of both accounts."""
    other, mine = found["other_rule"], result.metrics["strategy"]
    if other is None:
        return []
    rule = found["rule"]
    waited, traded = (mine, other) if rule == "wait" else (other, mine)
    rows = [
        [label, show(waited[key]), show(traded[key])]
        for label, key, show in ACCOUNT_ROWS
        if key in _COMPARED
    ]
    return [waiting_words(waited, traded), Table(["", _RULES["wait"], _RULES["trade"]], rows)]


def waiting_words(waited: dict[str, Any], traded: dict[str, Any]) -> str:
    """What waiting cost or saved, in a sentence, from `AccountMetrics` of both accounts."""
    ends = waited["final_equity"], traded["final_equity"]
    returns = signed(waited["total_return"]), signed(traded["total_return"])
    beside = f"{returns[0]} with waiting, {returns[1]} without"
    if None in ends:
        return f"What waiting cost or saved is not defined ({beside})."
    difference = float(ends[0] - ends[1])
    if difference == 0:
        return f"Waiting changed nothing: {beside}."
    verb = "saved" if difference > 0 else "cost"
    return f"Waiting {verb} {number(abs(difference))} of the quote currency: {beside}."


_BET_HEAD = (
    "Bet",
    "Wealth",
    "Highest",
    "Needed",
    "Days",
    "Signals judged",
    "Opened and closed (UTC)",
    "Left out",
)


def _bet_row(bet: dict[str, Any]) -> list[str]:
    turns = [(at_ms, "opened") for at_ms in bet["opened_ms"]]
    turns += [(at_ms, "closed") for at_ms in bet["closed_ms"]]
    when = ", ".join(f"{word} {ms_to_date(at_ms)}" for at_ms, word in sorted(turns))
    left_out = f"{bet['crossed']:,} beyond midnight, {bet['incomplete']:,} incomplete"
    counts = whole(bet["days"]), whole(bet["signals"])
    wealth = short(bet["wealth"]), short(bet["highest"]), number(bet["needed"], 0)
    return [bet["bet"], *wealth, *counts, when or MISSING, left_out]
