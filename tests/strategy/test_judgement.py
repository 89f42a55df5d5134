"""One judge for backtests, cells and sessions: the recipe's own costs, horizon and cash."""

import weakref

import pytest

from cppncripto_strategy import judgement
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.judgement import judge
from cppncripto_strategy.replay import replay


@pytest.fixture(scope="module")
def tables(traded, hourly):
    recipe, candles, timeline = traded
    span = Span(timeline.first_session_ms, hourly.day(34))
    return recipe, replay(recipe, candles, timeline, span).tables(span)


def test_cell_without_intervals_has_the_numbers_of_a_run(tables):
    """An experiment that judges its cells by another measure than a run of the same recipe."""
    recipe, traded = tables
    run, cell = judge(recipe, traded), judge(recipe, traded, resamples=0)
    assert cell.metrics["strategy"] == run.metrics["strategy"]
    full, bare = (judged.metrics["signals"]["both"]["hit_ratio"] for judged in (run, cell))
    assert bare["value"] == full["value"]
    assert full["low"] <= full["value"] <= full["high"]
    assert (bare["low"], bare["high"]) == (None, None)


def test_costs_and_cash_are_the_recipes(tables, hourly):
    """A benchmark that trades for free, or with somebody else's cash."""
    recipe, traded = tables
    free = hourly.recipe(broker={"cash": 500.0, "fee_bps": 0, "slippage_bps": 0})
    equity = judge(free, traded).benchmark["equity"]
    charged = judge(recipe, traded).benchmark["equity"]
    assert equity.iloc[0] == pytest.approx(500.0)
    assert equity.iloc[-1] / 500.0 > charged.iloc[-1] / recipe.broker.cash
    assert judge(recipe, traded).metrics["without_macro"] is None
    assert judge(recipe, traded, traded).metrics["without_macro"] is not None


def test_labels_are_gone_before_signals_are_judged(tables, monkeypatch):
    """A label per candle of fifteen symbols that lies in memory while something else is judged."""
    recipe, traded = tables
    labels = traded["signals"][["symbol", "close_time_ms"]]
    made, there = [], []

    def labelled():
        classes = labels.assign(label=1.0, constant_buy=0.4, constant_sell=0.3)
        made.append(weakref.ref(classes))
        return classes

    monkeypatch.setattr(judgement, "give_back", lambda: there.append(made[0]() is not None))
    judged = judge(recipe, traded, classes=labelled())
    assert there == [False]
    assert judged.metrics["probabilities"]["candles"] > 0
    bare = judge(recipe, traded)
    assert (bare.metrics["probabilities"], there) == (None, [False])
    assert bare.metrics["signals"] == judged.metrics["signals"]
