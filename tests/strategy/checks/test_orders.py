"""Decisions and fills: those that know the future are caught, whatever they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.checks.orders import order_verdicts
from cppncripto_strategy.checks.plan import plan_of
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.recipe import parse_recipe

DAY = 288


def tables_of(
    grids: Mapping[str, CandleGrid], timeline: BundleTimeline, span: Span, ahead: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A toy strategy: the score is the close's return, a rise is bought at the next open.

    With `ahead` a LEAK: it knows the close of so many candles later.
    """
    signals, fills = [], []
    for symbol, grid in grids.items():
        later = np.minimum(np.arange(len(grid)) + ahead, len(grid) - 1)
        score = grid.close[later] / grid.open - 1
        stamp = {"symbol": symbol, "close_time_ms": grid.close_time, "score": score}
        frame = pd.DataFrame({**stamp, "score_zero": 0.0, "upper": np.nan, "lower": np.nan})
        inside = (frame["close_time_ms"] > span.start_ms) & (frame["close_time_ms"] <= span.end_ms)
        signals.append(frame[inside])
        bought = np.flatnonzero((score > 0)[:-1] & np.isfinite(grid.open[1:])) + 1
        rows = {"symbol": symbol, "executed_ms": grid.close_time[bought], "status": "filled"}
        price = {"price": grid.open[bought], "quantity": 1.0, "notional": 1.0, "fee": 0.0}
        fills.append(pd.DataFrame({**rows, **price}))
    return pd.concat(signals), pd.concat(fills)


def two_symbols(grid: CandleGrid) -> dict[str, CandleGrid]:
    """The grid under two names, the second one begun an hour later."""
    return {"ONE": grid.rows(20 * DAY, len(grid)), "TWO": grid.rows(20 * DAY + 12, len(grid))}


def test_honest_orders_pass(grid: CandleGrid, timeline: BundleTimeline) -> None:
    """Kills a comparison that counts the bar after the cut, or mixes up symbols."""
    verdicts = order_verdicts(tables_of, two_symbols(grid), timeline)
    assert [verdict.name for verdict in verdicts] == ["prefix", "perturbation"]
    assert all(verdict.passed for verdict in verdicts), verdicts
    assert all("decisions and fills unchanged" in verdict.detail for verdict in verdicts)


@pytest.mark.parametrize("ahead", [1, 5])
def test_orders_that_know_a_later_close_are_caught(
    ahead: int, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills a strategy that decides on a candle which has not closed."""

    def leaky(*arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        return tables_of(*arguments, ahead=ahead)

    for verdict in order_verdicts(leaky, two_symbols(grid), timeline):
        assert not verdict.passed
        assert verdict.first_offending_time_ms is not None
        assert verdict.first_offending_time_ms > timeline.first_session_ms
        assert "ONE score at" in verdict.detail


@pytest.mark.parametrize("column", ["price", "quantity", "fee"])
def test_a_fill_that_changes_with_the_future_is_caught(
    column: str, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills fills that read the day's low, or a size that reads the final equity."""

    def leaky(grids: Any, *arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        signals, fills = tables_of(grids, *arguments)
        fills[column] += 1e-9 * np.nanmean(grids["ONE"].close)
        return signals, fills

    for verdict in order_verdicts(leaky, two_symbols(grid), timeline):
        assert not verdict.passed
        assert column in verdict.detail


def test_a_fill_that_vanishes_is_caught(grid: CandleGrid, timeline: BundleTimeline) -> None:
    """Kills a comparison of as many rows as both runs have."""

    def leaky(grids: Any, *arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        signals, fills = tables_of(grids, *arguments)
        return signals, fills.iloc[: len(fills) if len(grids["ONE"]) == 14 * DAY else 0]

    prefix, _ = order_verdicts(leaky, two_symbols(grid), timeline)
    assert not prefix.passed
    assert "absent without" in prefix.detail


def test_orders_of_a_strategy_that_never_scores_do_not_pass(
    grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills the green tick of a comparison of nothing."""

    def idle(*arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        return tables_of(*arguments)[0].assign(score=np.nan), pd.DataFrame()

    assert not any(v.passed for v in order_verdicts(idle, two_symbols(grid), timeline))


BESIDE = {
    "interval": "1h",
    "symbols": ["P"],
    "candles": {"source": "planted", "planted": {"days": 75}},
    "features": {"market": "R"},
    "macro": {"long_window": 288},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 7},
    "label": {"horizon": 6},
    "threshold": {"window": 60, "quantile": 0.2},
    "strategy": {"hold_candles": 3},
}
honest_alignment = CandleGrid.with_market


def one_candle_late(self: CandleGrid, candles: Any) -> CandleGrid:
    """LEAK: a market's candle stands where the one before it closes."""
    early = None
    if candles is not None:
        names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
        columns = {name: getattr(candles, name) for name in names}
        early = Candles.from_columns(open_time=candles.open_time - self.interval_ms, **columns)
    return honest_alignment(self, early)


@pytest.mark.parametrize("leak", [False, True], ids=["honest", "one candle late"])
def test_orders_beside_a_market_symbol_know_no_candle_of_it_too_early(
    toy: Any, leak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills checks whose orders are traded without the market, or with the market's future."""
    plan = plan_of(parse_recipe(BESIDE))
    timeline = toy.timeline(plan.grids["P"], plan.learn.session, sessions=(30,))
    grids = {"P": plan.grids["P"].rows(0, len(plan.grids["P"]) - 8 * 24)}
    if leak:
        monkeypatch.setattr(CandleGrid, "with_market", one_candle_late)
    assert plan.trade is not None
    verdicts = {v.name: v for v in order_verdicts(plan.trade, grids, timeline)}
    details = [verdict.detail for verdict in verdicts.values()]
    assert [verdict.passed for verdict in verdicts.values()] == [not leak] * 2, details
