"""Checks 1 and 2 of what Backtrader makes of the candles: decisions and fills.

The recipe is traded again on candles without their future, and on candles with another one; what
was decided and filled by then must stay as it was. Left out: the networks behind it (`causality`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import pandas as pd

from cppncripto_strategy.checks.plan import Trade
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.judging.leaks import (
    PERTURBATION,
    PREFIX,
    LeakVerdict,
    mid_session_cuts,
    perturb_from,
)

# Batches of another shape round differently in single precision; a leak is far larger.
SCORE_TOLERANCE = 1e-5


def order_verdicts(
    trade: Trade, grids: Mapping[str, CandleGrid], timeline: BundleTimeline, seed: int = 0
) -> list[LeakVerdict]:
    """Prefix and perturbation of what Backtrader makes of the candles: decisions and fills.

    For each of two mid-session cuts the recipe is traded on the candles before it, and on those
    candles followed by another market. Scores and thresholds of bars that close by the cut, and the
    fills on them, must be those of a run over all candles; fills to the last digit.
    """
    first, start_ms = next(iter(grids.values())), timeline.first_session_ms
    end_ms = max(grid.end_ms for grid in grids.values())
    whole = trade(grids, timeline, Span(start_ms, end_ms))
    differences: dict[str, _Difference | None] = {PREFIX: None, PERTURBATION: None}
    compared = 0
    for number, row in enumerate(mid_session_cuts(first, 2, first_row=first.row_of(start_ms) + 1)):
        cut_ms = first.start_ms + row * first.interval_ms
        known = _known_by(whole, cut_ms)
        compared += sum(len(table) for table in known)
        until_cut = {name: grid.rows(0, grid.row_of(cut_ms)) for name, grid in grids.items()}
        perturbed = {
            name: perturb_from(grid, grid.row_of(cut_ms), seed + number)
            for name, grid in grids.items()
        }
        for name, candles, until in (
            (PREFIX, until_cut, cut_ms),
            (PERTURBATION, perturbed, end_ms),
        ):
            again = _known_by(trade(candles, timeline, Span(start_ms, until)), cut_ms)
            differences[name] = differences[name] or _first_difference(known, again)
    return [_order_verdict(name, difference, compared) for name, difference in differences.items()]


_Difference = tuple[str, int, float]
_DECISION = ["close_time_ms", "symbol", "score", "score_zero", "upper", "lower"]
_FILL = ["executed_ms", "symbol", "quantity", "price", "notional", "fee"]


def _known_by(
    tables: tuple[pd.DataFrame, pd.DataFrame], cut_ms: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scored decisions and filled orders by the cut, each in order of time and symbol."""
    signals, fills = tables
    scored = signals[signals["score"].notna() & (signals["close_time_ms"] <= cut_ms)][_DECISION]
    if len(fills) == 0:
        return scored.sort_values(_DECISION[:2]), pd.DataFrame(columns=_FILL)
    filled = fills[(fills["status"] == "filled") & (fills["executed_ms"] <= cut_ms)][_FILL]
    return scored.sort_values(_DECISION[:2]), filled.sort_values(_FILL[:2], kind="stable")


def _first_difference(
    known: tuple[pd.DataFrame, pd.DataFrame], again: tuple[pd.DataFrame, pd.DataFrame]
) -> _Difference | None:
    """Words, time and value of the first decision or fill that differs; None when none does."""
    for whole, other, tolerance in zip(known, again, (SCORE_TOLERANCE, 0.0), strict=True):
        for mine, theirs in zip_longest(_rows(whole), _rows(other)):
            index = _unlike(mine, theirs, tolerance)
            if index is not None:
                return _words(whole.columns[index], index, mine, theirs)
    return None


_Row = tuple[Any, ...]


def _rows(table: pd.DataFrame) -> Iterator[_Row]:
    return iter(table.itertuples(index=False, name=None))


def _words(column: str, index: int, mine: _Row | None, theirs: _Row | None) -> _Difference:
    """What differs, when, and the value of the run that knew the future (NaN for no row)."""
    when, symbol = (mine or theirs or (0, ""))[:2]
    texts = ["absent" if row is None else f"{row[index]:.9g}" for row in (mine, theirs)]
    words = f"{symbol} {column} at {ms_to_utc(int(when))} is {texts[0]} with the future"
    value = math.nan if mine is None else float(mine[index])
    return f"{words}, {texts[1]} without", int(when), value


def _unlike(mine: _Row | None, theirs: _Row | None, tolerance: float) -> int | None:
    """The column in which two rows differ (the first value's, for another bar or none)."""
    if mine is None or theirs is None or mine[:2] != theirs[:2]:
        return 2
    for index in range(2, len(mine)):
        a, b = mine[index], theirs[index]
        if not (a == b or abs(a - b) <= tolerance or (math.isnan(a) and math.isnan(b))):
            return index
    return None


def _order_verdict(name: str, difference: _Difference | None, compared: int) -> LeakVerdict:
    if difference is not None:
        words, when, value = difference
        return LeakVerdict(name, False, f"orders: {words}", when, value, subject="orders")
    if compared == 0:
        detail = "orders: nothing was decided or filled before the cuts; give more candles"
        return LeakVerdict(name, False, detail, subject="orders")
    detail = f"orders: {compared:,} decisions and fills unchanged"
    return LeakVerdict(name, True, detail, subject="orders")
