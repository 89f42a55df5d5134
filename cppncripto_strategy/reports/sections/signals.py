"""How good the signals were: hit ratios beside break-even, a week of scores, calibration."""

from __future__ import annotations

import pandas as pd

from cppncripto_strategy.reports.blocks import Chart, Content, Section, Table
from cppncripto_strategy.reports.values import interval, percent, whole
from cppncripto_strategy.results import RunResult

SIDES = ("buy", "sell", "both")
# More symbols than this make the page long; their scores are in signals.parquet all the same.
MAX_DRAWN_SYMBOLS = 6


def signals(result: RunResult) -> Section:
    """Hit ratio, break-even, net return, precision and recall per side."""
    from cppncripto_strategy.reports import charts

    quality = result.metrics["signals"]
    rows = [
        [
            side,
            whole(quality[side]["signals"]),
            interval(quality[side]["hit_ratio"]),
            percent(quality[side]["break_even_hit_ratio"], 1),
            interval(quality[side]["net_return_bps"], 1, " bps"),
            interval(quality[side]["precision"]),
            interval(quality[side]["recall"]),
        ]
        for side in SIDES
    ]
    head = ["", "Signals", "Hit ratio", "Break-even", "Net per signal", "Precision", "Recall"]
    return Section(
        "How good the signals were",
        [Table(head, rows), Chart(charts.quality_figure(quality), "quality")],
        note=f"Judged {quality['horizon']} candles later, close to close. Brackets: 95 % intervals"
        " from resampling whole days."
        f" A round trip costs {quality['round_trip_cost_bps']:g} bps;"
        " the hit ratio pays for itself only above the red bar. Precision and recall count moves"
        f" beyond {quality['label_threshold_bps']:g} bps."
        " Left out because a gap or the end came first:"
        f" {quality['excluded_signals']} signals.",
    )


def week(result: RunResult) -> Section:
    """The last week of every symbol: price with fills, score with thresholds."""
    from cppncripto_strategy.reports import charts

    symbols = [str(symbol) for symbol in pd.unique(result.signals["symbol"])]
    content: list[Content] = [
        Chart(
            charts.week_figure(result, symbol),
            f"week{place}",
            title=f"{symbol}: one week of scores and trades",
        )
        for place, symbol in enumerate(symbols[:MAX_DRAWN_SYMBOLS])
    ]
    rest = symbols[MAX_DRAWN_SYMBOLS:]
    if rest:
        content.append(f"In signals.parquet, not drawn: {', '.join(rest)}.")
    return Section(
        "The last week",
        content,
        note="Triangles are fills, at the open after the signal. A score above the upper threshold"
        " buys, one below the lower threshold sells. The score without macro is that of the"
        " same network under a zero embedding.",
    )


def calibration(result: RunResult) -> Section:
    """Predicted probabilities against observed frequencies."""
    from cppncripto_strategy.reports import charts

    return Section(
        "Calibration",
        Chart(charts.calibration_figure(result), "calibration"),
        note="On the dotted line a probability means what it says. Bars: 95 % Wilson intervals.",
    )
