"""One pass through Cerebro: no order crosses a gap, no day of the span is lost or in-sample."""

import dataclasses
import gc
import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from cppncripto_strategy import replay as passes
from cppncripto_strategy import strategy as strategies
from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, Span
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.replay import replay
from cppncripto_strategy.replay import traded as kept_of
from cppncripto_strategy.runonce import indicator_clocks
from cppncripto_strategy.strategy import MacroMicroStrategy


def test_no_order_crosses_a_gap(hourly, traded):
    """A decision before an outage filled at the first price after it."""
    recipe, candles, timeline = traded
    start = timeline.first_session_ms
    passed = replay(recipe, candles, timeline, Span(start, hourly.day(34)))
    fills = passed.strategy.fills
    filled = fills[fills["status"] == "filled"]
    assert len(filled) > 40
    assert (filled["executed_ms"] - filled["created_ms"] == HOUR_MS).all()
    for symbol, columns in candles.items():
        closes = set((columns.open_time + HOUR_MS).tolist())
        mine = fills[fills["symbol"] == symbol]
        late = [ms + HOUR_MS not in closes for ms in mine["created_ms"]]
        assert (mine["status"][late] != "filled").all()
    crossing = fills[
        (fills["status"] != "filled") & (fills["created_ms"] < hourly.day(34) - HOUR_MS)
    ]
    assert len(crossing) > 0  # some orders did meet a gap


def test_first_day_of_the_span_is_scored_whatever_lies_before_it(hourly, traded):
    """The first day lost because the warm-up happened to begin in a gap."""
    recipe, candles, timeline = traded
    warmup_ms = timeline.session.warmup * HOUR_MS
    start = timeline.bundles[1].info.trained_until_ms
    for hole in (0, 1, 5, 20):
        row = (start - warmup_ms - hourly.start_ms) // HOUR_MS
        kept = np.ones(len(candles["B"].open_time), dtype=bool)
        kept[row : row + hole] = False
        every = candles["B"]
        part = type(every)(
            **{f.name: getattr(every, f.name)[kept] for f in dataclasses.fields(every)}
        )
        passed = replay(recipe, {"B": part}, timeline, Span(start, start + 2 * DAY_MS))
        scored = passed.strategy.signals.dropna(subset=["score"])["close_time_ms"]
        closes = part.open_time + HOUR_MS
        expected = closes[(closes >= start) & (closes <= start + 2 * DAY_MS)]
        np.testing.assert_array_equal(scored, expected)
        assert expected[0] == start


def test_a_market_symbol_is_read_and_not_traded(hourly, toy):
    """Orders on a feed that is only there to be read, or scores that never saw it."""
    settings = dataclasses.replace(
        toy.settings, names=(*DEFAULT_COLUMNS, *MARKET_COLUMNS), market="M"
    )
    own, market = toy.candles(days=34), toy.candles(days=34, seed=3, missing=[500, 501])
    grid = toy.grid(own).with_market(market)
    timeline = toy.timeline(grid, settings, sessions=(6,))
    recipe = hourly.recipe(features={"market": "M"})
    span = Span(timeline.first_session_ms, hourly.day(33))
    passed = replay(recipe, {"M": market, "A": own}, timeline, span)
    signals, fills = passed.strategy.signals, passed.strategy.fills
    assert set(signals["symbol"]) == set(fills["symbol"]) == {"A"}
    assert set(passed.filters) == {"A"}
    scored = signals.dropna(subset=["score"])
    expected = score_span("A", grid, timeline).score[
        [grid.row_of(ms - HOUR_MS) for ms in scored["close_time_ms"]]
    ]
    assert len(scored) > 300
    np.testing.assert_allclose(scored["score"], expected, atol=1e-6)
    with pytest.raises(RecipeError, match=r"read the candles of M beside A, and Cerebro has no"):
        replay(recipe, {"A": own}, timeline, span)


def test_in_sample_span_is_refused(hourly, traded):
    """A backtest of the days the network learned from."""
    recipe, candles, timeline = traded
    with pytest.raises(BundleError, match="in-sample"):
        replay(recipe, candles, timeline, Span(timeline.first_session_ms - 1, hourly.day(34)))


def test_a_backtest_scores_where_its_recipe_says(hourly, traded, monkeypatch):
    """`device = "cuda"` that only training minds, or a silent fall back to the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    with pytest.raises(RecipeError, match="no CUDA device"):
        replay(recipe.model_copy(update={"device": "cuda"}), candles, timeline, span)


@pytest.mark.parametrize("evidence", ["trade", "wait"])
def test_both_loops_of_a_replay_leave_the_same_tables(hourly, traded, evidence):
    """Networks, thresholds with seeds and gaps: a recipe whose results hang on the loop."""
    recipe, candles, timeline = traded
    rules = {"hold_candles": 2, "evidence": evidence, "max_daily_loss_pct": 0.5}
    recipe = hourly.recipe(symbols=["A", "B"], strategy=rules)
    span = Span(timeline.first_session_ms, hourly.day(34))
    fast, plain = (
        replay(recipe, candles, timeline, span, plain_loop=plain) for plain in (False, True)
    )
    assert fast.strategy._fast_loop.passed > 0
    assert plain.strategy._fast_loop is None
    left, right = fast.tables(span), plain.tables(span)
    assert len(left["fills"]) > 10
    for name, table in left.items():
        pd.testing.assert_frame_equal(table, right[name], check_exact=True)
    assert fast.strategy.broker.ledger == plain.strategy.broker.ledger


def test_what_is_kept_of_a_pass_are_its_tables_and_not_its_strategy(hourly, traded, monkeypatch):
    """A table that was read from lines already given up; a strategy that stays in memory."""
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    whole = replay(recipe, candles, timeline, span)
    strategies = []

    def watched(*args, **options):
        passed = replay(*args, **options)
        strategies.append(weakref.ref(passed.strategy))
        assert all(len(state.score.lines.score.array) == 0 for state in passed.strategy.states)
        return passed

    monkeypatch.setattr(passes, "replay", watched)
    some = ("symbol", "close_time_ms", "p_buy")
    kept = kept_of(recipe, candles, timeline, span, signals=some)
    gc.collect()
    assert [gone() for gone in strategies] == [None]
    for name, table in whole.tables(span).items():
        expected = table[list(some)] if name == "signals" else table
        pd.testing.assert_frame_equal(kept.tables[name], expected, check_exact=True)
    macros = [state.score.macro for state in whole.strategy.states]
    expected = [
        [("A", "B")[place], start, until, digest, drift, *vector.tolist()]
        for place, macro in enumerate(macros)
        for start, until, digest, drift, vector in macro.embeddings()
        if span.start_ms <= start <= span.end_ms
    ]
    assert len(expected) > 10
    pd.testing.assert_frame_equal(
        kept.embeddings, pd.DataFrame(expected, columns=kept.embeddings.columns), check_exact=True
    )
    assert (kept.bars, kept.filters) == (whole.bars, whole.filters)


def test_signals_that_are_used_up_are_the_same_and_no_longer_there(hourly, traded):
    """A column lost on the way, or fifteen symbols' signals twice in memory."""
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    passed = replay(recipe, candles, timeline, span)
    for columns in (["symbol", "close_time_ms", "score"], list(passed.strategy.signals)):
        kept, table = passed.tables(span, columns), passed.strategy.signals.copy()
        used = passed.tables(span, columns, keep=False)
        for name in kept:
            pd.testing.assert_frame_equal(used[name], kept[name], check_exact=True)
        assert passed.strategy.signals.empty
        passed.strategy.signals = table


def test_a_pass_for_its_tables_alone_leaves_no_lines(hourly, traded):
    """Candles that lie in memory twice when a run is judged."""
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    strategy = replay(recipe, candles, timeline, span, keep_lines=False).strategy
    lines = [line for data in strategy.datas for line in data.lines]
    lines += [line for _, buffers in indicator_clocks(strategy) for line in buffers]
    assert len(lines) > 20
    assert [line for line in lines if len(line.array)] == []


def test_lines_are_gone_from_memory_before_the_next_ones_are_read(hourly, traded, monkeypatch):
    """Lines given up that somebody still holds while the table of all symbols fills."""
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    arrays, left = [], []

    class Watched(MacroMicroStrategy):
        def stop(self):
            buffers = [list(data.lines) for data in self.datas]
            buffers += [own for _, own in indicator_clocks(self)]
            arrays[:] = [weakref.ref(line.array) for own in buffers for line in own]
            super().stop()

    def count_lines():
        left.append(len({id(there) for array in arrays if (there := array()) is not None}))

    monkeypatch.setattr(strategies, "return_pages", count_lines)
    passed = replay(recipe, candles, timeline, span, strategy_class=Watched)
    assert left == []  # lines that are kept leave no pages
    assert all(array() is not None for array in arrays)
    del passed
    replay(recipe, candles, timeline, span, strategy_class=Watched, keep_lines=False)
    assert len(candles) > 1
    assert len(left) == len(candles) + 1  # before each symbol is read, and after the last
    assert left == sorted(set(left), reverse=True)
    assert left[-1] == 2 * len(candles)  # stamps and closes, for the equity table
