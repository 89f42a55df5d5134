"""What the embedding adds: candle by candle, in the score, and how far it has drifted."""

from __future__ import annotations

from cppncripto_strategy.reports.blocks import Chart, Section, Table
from cppncripto_strategy.reports.values import MISSING, interval, percent
from cppncripto_strategy.results import RunResult


def macro(result: RunResult) -> Section:
    """Hit ratios with the embedding and under a zero one, on the same candles."""
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
    return Section(
        "What macro adds, candle by candle",
        Table(["", ""], rows),
        note="Every candle is scored twice: with the day's embedding and with a zero one. Both"
        " scores are compared on the same candles.",
    )


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
