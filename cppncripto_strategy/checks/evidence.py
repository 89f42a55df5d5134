"""Does the evidence count outcomes before they are known?

Evidence that a signal's outcome entered one horizon early would make any recipe trade on what it
cannot know, and look right. Every day's row is counted again from what had closed by its midnight;
and around one midnight the recipe is traded again without a future, and with another one. Cuts are
made at midnight, because that is when a day is weighed. Left out: whether the signals themselves
know the future (`causality`, `orders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pandas as pd

from cppncripto_strategy.checks.plan import Weigh
from cppncripto_strategy.evaluation.evidence import weigh
from cppncripto_strategy.evaluation.shadow import DayResults, daily_means, daily_results
from cppncripto_strategy.evidence_meter import EvidenceMeter
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_date
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.judging.leaks import LeakVerdict, perturb_from

PEEKING = "peeking outcomes"
_Difference: TypeAlias = tuple[str, int, float]
_COUNTS = ("signals", "crossed", "incomplete")


def evidence_verdicts(
    trade: Weigh, grids: Mapping[str, CandleGrid], timeline: BundleTimeline, seed: int = 0
) -> list[LeakVerdict]:
    """Whether each day's evidence follows from what had closed by its end, to the last bit."""
    start_ms = timeline.first_session_ms
    end_ms = max(grid.end_ms for grid in grids.values())
    strategy = trade(grids, timeline, Span(start_ms, end_ms))
    table, meter = strategy.evidence, strategy.meter
    if meter is None:
        words = "evidence: none is counted, no outcome could be known on the day of its signal"
        return [LeakVerdict(PEEKING, True, words, subject="evidence")]
    if not table["signals"].sum():
        words = "evidence: no signal was judged, so nothing could be compared; give more candles"
        return [LeakVerdict(PEEKING, False, words, subject="evidence")]
    difference = first_unknown(table, strategy.signals, meter)
    if difference is None:
        difference = _future_changes(trade, grids, timeline, table, seed)
    if difference is not None:
        words, when, value = difference
        return [LeakVerdict(PEEKING, False, f"evidence: {words}", when, value, "evidence")]
    words = f"evidence: {len(table):,} days with signals follow from what had closed by their end"
    return [LeakVerdict(PEEKING, True, words, subject="evidence")]


def first_unknown(
    table: pd.DataFrame, signals: pd.DataFrame, meter: EvidenceMeter
) -> _Difference | None:
    """The first row of evidence that does not follow from the candles closed by its midnight.

    Parameters
    ----------
    table, signals : what a strategy recorded. meter : its settings and measures.

    Returns
    -------
    Words, 00:00 UTC of the day and the wealth that was recorded, or None.
    """
    for name, rows in table.groupby("bet", sort=False):
        shadows = meter.shadows if name not in meter.shadows else {name: meter.shadows[str(name)]}
        measures = {str(symbol): shadow.measure for symbol, shadow in shadows.items()}
        known: list[DayResults] = []
        for row in rows.to_dict("records"):
            day_ms = int(row["session_ms"])
            seen = signals[signals["close_time_ms"].between(day_ms, day_ms + DAY_MS - 1)]
            day = daily_results(seen, measures, day_ms + DAY_MS).get(day_ms, DayResults())
            known.append(day)
            counts = (len(day.net_bps), day.crossed, day.incomplete)
            recorded = tuple(int(row[column]) for column in _COUNTS)
            net = daily_means(known)
            x = np.array([meter.settings.clipped(value) for value in net])
            path = weigh(x, meter.settings, float(row["needed"]))
            wealth = float(path.wealth[-1]) if len(net) else 1.0
            if counts != recorded or (day.net_bps and wealth != row["wealth"]):
                words = (
                    f"{name} counts {recorded} signals (judged, crossed, incomplete) on"
                    f" {ms_to_date(day_ms)}, wealth {row['wealth']:.9g}; what had closed by its end"
                    f" makes {counts}, wealth {wealth:.9g}"
                )
                return words, day_ms, float(row["wealth"])
    return None


def _future_changes(
    trade: Weigh,
    grids: Mapping[str, CandleGrid],
    timeline: BundleTimeline,
    whole: pd.DataFrame,
    seed: int,
) -> _Difference | None:
    """What changes before a midnight in the middle, without the candles after it or with others."""
    start_ms, end_ms = timeline.first_session_ms, max(grid.end_ms for grid in grids.values())
    cut_ms = start_ms + max(1, (end_ms - start_ms) // DAY_MS // 2) * DAY_MS
    until = {name: grid.rows(0, grid.row_of(cut_ms)) for name, grid in grids.items()}
    other = {name: perturb_from(g, g.row_of(cut_ms), seed) for name, g in grids.items()}
    for candles, last_ms in ((until, cut_ms), (other, end_ms)):
        rows = trade(candles, timeline, Span(start_ms, last_ms)).evidence
        found = _unlike(whole, rows[rows["session_ms"] < cut_ms], cut_ms)
        if found is not None:
            return found
    return None


def _unlike(whole: pd.DataFrame, part: pd.DataFrame, cut_ms: int) -> _Difference | None:
    """The first row before the cut in which the run over all candles differs from the other.

    The last day may be absent from the other run: it is weighed by the first candle after it.
    """
    theirs = {(row["bet"], row["session_ms"]): row for row in part.to_dict("records")}
    for ours in whole[whole["session_ms"] < cut_ms].to_dict("records"):
        row, day_ms = theirs.get((ours["bet"], ours["session_ms"])), int(ours["session_ms"])
        if repr(row) != repr(ours) and (row is not None or day_ms < cut_ms - DAY_MS):
            said = "no row" if row is None else str(row)
            words = f"{ours['bet']}, {ms_to_date(day_ms)} is {ours} with the future, {said} without"
            return words, day_ms, float(ours["wealth"])
    return None
