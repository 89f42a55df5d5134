"""What macro adds: candle by candle, in probabilities, in the score; and how far it has drifted."""

from __future__ import annotations

from typing import Any

from cppncripto_strategy.reports.blocks import Chart, Content, Section, Table
from cppncripto_strategy.reports.values import MISSING, interval, number, percent
from cppncripto_strategy.results import RunResult


def macro(result: RunResult) -> Section:
    """Hit ratios with the embedding and under a zero one; proper scores with and without macro."""
    found = result.metrics.get("macro") or {}
    test = found.get("diebold_mariano")
    shown = (
        MISSING if test is None else f"{test['p_value']:.3g} (statistic {test['statistic']:.2f})"
    )
    rows = [
        ["Hit ratio of the score, all candles", percent(found.get("hit_ratio_with"), 1)],
        ["The same under a zero embedding", percent(found.get("hit_ratio_without"), 1)],
        ["Difference, percentage points", interval(found.get("hit_difference"), 100, "")],
        ["Diebold-Mariano p (negative statistic: macro errs less)", shown],
    ]
    note = (
        "Every candle is scored twice: with the day's embedding and with a zero one. Both"
        " scores are compared on the same candles."
    )
    judged = result.metrics.get("probabilities")
    content: list[Content] = [Table(["", ""], rows)]
    if judged is not None:
        note += (
            " Below, probabilities: lower scores are better; brackets are 95 % intervals from"
            " resampling whole days. Without macro is a network that was trained so."
        )
        content += [class_words(judged, result.uses_macro), class_table(judged, result.uses_macro)]
    return Section("What macro adds, candle by candle", content, note=note)


_SCORES = {"log_loss": "Log loss", "brier": "Brier score"}
# Key of a difference in `class_scores.class_scores` -> what it compares.
_GAPS = {
    "over_without": "with macro − without",
    "over_constant": "with macro − constant",
    "without_over_constant": "without macro − constant",
}


def class_table(judged: dict[str, Any], uses_macro: bool) -> Table:
    """Log loss and Brier score of each forecast, and their differences with intervals."""
    both = judged["log_loss"]["without_macro"] is not None
    means = {"traded": "With macro" if uses_macro else "Strategy (no macro)"}
    means |= {"without_macro": "Without macro"} if both else {}
    means |= {"constant": "Constant: how often each class came on the training days"}
    rows = [[name, *(number(judged[s][key], 4) for s in _SCORES)] for key, name in means.items()]
    gaps = _GAPS if both else {"over_constant": f"{means['traded']} − constant"}
    rows += [
        [f"Difference, {name[:1].lower()}{name[1:]}", *(_gap(judged[s][key]) for s in _SCORES)]
        for key, name in gaps.items()
    ]
    return Table(["Probabilities of buy, nothing, sell", *_SCORES.values()], rows)


def class_words(judged: dict[str, Any], uses_macro: bool) -> str:
    """Whether macro made the probabilities better, in a sentence, by the log loss."""
    found = judged["log_loss"]
    whose = " with macro" if uses_macro else ""
    constant = f"{_relation(found['over_constant'])} that of the constant forecast"
    if found["over_without"] is not None:
        other = f"{_relation(found['over_without'])} that of a network trained without it"
        constant = f"{other}, and {constant}"
    return (
        f"On {judged['candles']:,} candles with a label, the log loss of the probabilities{whose}"
        f" is {constant}."
    )


def _relation(gap: dict[str, Any]) -> str:
    if gap["low"] is not None and gap["high"] < 0:
        return "lower than"
    if gap["low"] is not None and gap["low"] > 0:
        return "higher than"
    return "not shown to differ from"


def _gap(gap: dict[str, Any]) -> str:
    text = f"{gap['value']:+.4f}"
    return text if gap["low"] is None else f"{text} [{gap['low']:+.4f}, {gap['high']:+.4f}]"


def contribution(result: RunResult) -> Section:
    """Distribution of what the embedding did to the score."""
    from cppncripto_strategy.reports import charts

    return Section(
        "How far macro moved the score",
        Chart(charts.contribution_figure(result), "contribution"),
        note="All weight at 0 means that the embedding is ignored.",
    )


def drift(result: RunResult) -> Section:
    """Drift of every day's embedding, and when bundles became active."""
    from cppncripto_strategy.reports import charts

    return Section(
        "Embedding drift",
        Chart(charts.drift_figure(result), "drift"),
        note="Distance of each day's embedding from the nearest of its bundle's training days that"
        " shares no candle with it, as a multiple of the median of that distance among the training"
        " days: 1 is as usual. Dotted lines: a new bundle becomes active.",
    )
