"""First of all: is there an edge after fees, in a sentence and six numbers."""

from __future__ import annotations

from cppncripto_strategy.reports.blocks import Cards, Section, Table
from cppncripto_strategy.reports.values import number, percent, settings_rows, signed
from cppncripto_strategy.results import RunResult


def verdict(result: RunResult) -> Section:
    """The verdict of `metrics.verdict`, coloured by it."""
    words = result.metrics["verdict"]
    earned = result.metrics["strategy"]["total_return"]
    kind = "good" if words["edge"] else "bad" if earned is not None and earned <= 0 else ""
    return Section(words["headline"], words["detail"], kind=f"verdict {kind}".strip())


def headline(result: RunResult) -> Section:
    """The six numbers a reader looks for first."""
    account, hold = result.metrics["strategy"], result.metrics["benchmark"]
    both = result.metrics["signals"]["both"]
    cards = Cards(
        [
            ("total return", signed(account["total_return"])),
            ("buy and hold", signed(hold["total_return"])),
            ("Sharpe ratio", number(account["sharpe"])),
            ("maximum drawdown", percent(account["max_drawdown"], 1)),
            ("hit ratio", percent(both["hit_ratio"]["value"], 1)),
            ("break-even hit ratio", percent(both["break_even_hit_ratio"], 1)),
        ]
    )
    return Section("", cards, kind="bare")


def planted(result: RunResult) -> Section | None:
    """What a synthetic market holds, beside what was reached; None on real candles."""
    if not result.planted:
        return None
    return Section(
        "What is planted",
        Table(["", ""], settings_rows(result.planted), text=[1]),
        note="These candles are synthetic: the answer is known, so the networks can be judged.",
    )
