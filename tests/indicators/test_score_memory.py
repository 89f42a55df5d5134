"""Scores kept from one pass for the next: the same lines, and never those of other candles."""

import dataclasses

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.indicators import MicroScore, micro
from cppncripto_strategy.indicators.score_memory import ScoreMemory

HOUR_MS = 3_600_000
LINES = ("score", "p_buy", "p_sell", "score_zero")
MACRO = ("drift", "age", "volatility", "range")


class Reader(bt.Strategy):
    """Keeps every line of both indicators at every bar, and the vector of the last one."""

    params = (("timeline", None), ("memory", None))

    def __init__(self):
        self.micro = MicroScore(self.data, bundles=self.p.timeline, memory=self.p.memory)
        self.rows = []

    def next(self):
        values = [getattr(self.micro, line)[0] for line in LINES]
        self.rows.append(values + [getattr(self.micro.macro, line)[0] for line in MACRO])


def run(candles, timeline, memory):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(ReplayFeed(candles=candles, interval_ms=HOUR_MS, name="A"))
    cerebro.addstrategy(Reader, timeline=timeline, memory=memory)
    return cerebro.run()[0]


@pytest.fixture(scope="module")
def market(toy):
    """Candles with a gap over a midnight, and a timeline of two bundles."""
    candles = toy.candles(missing=[20 * 24 - 1, 20 * 24, 530])
    return candles, toy.timeline(toy.grid(candles), toy.settings, sessions=(4, 7))


def test_a_second_pass_reads_the_same_bits_and_scores_nothing(market, monkeypatch):
    """A candidate of a search that pays for scores that are there, or trades others."""
    candles, timeline = market
    memory = ScoreMemory()
    plain, first = run(candles, timeline, None), run(candles, timeline, memory)
    monkeypatch.setattr(micro, "score_sessions", None)
    again = run(candles, timeline, memory)
    assert np.isfinite(np.array(plain.rows)[:, 0]).sum() > 100
    np.testing.assert_array_equal(plain.rows, first.rows)
    np.testing.assert_array_equal(plain.rows, again.rows)
    np.testing.assert_array_equal(plain.micro.macro.vector, again.micro.macro.vector)
    kept, fresh = again.micro.macro.embeddings(), plain.micro.macro.embeddings()
    assert [row[:3] for row in kept] == [row[:3] for row in fresh]
    assert len(memory) == 1


@pytest.mark.parametrize("column", ["open_time", "close", "volume", "taker_buy_volume"])
def test_candles_that_differ_in_one_number_are_scored_anew(market, column):
    """Yesterday's scores on restated candles."""
    candles, timeline = market
    memory = ScoreMemory()
    run(candles, timeline, memory)
    values = getattr(candles, column).copy()
    values[-1] += HOUR_MS if column == "open_time" else 1e-3 * values[-1]
    other = dataclasses.replace(candles, **{column: values})
    if column == "close":
        other = dataclasses.replace(other, high=np.maximum(other.high, other.close))
    changed = run(other, timeline, memory)
    np.testing.assert_array_equal(run(other, timeline, None).rows, changed.rows)
    assert len(memory) == 2


def test_a_memory_of_other_bundles_is_refused(toy, market):
    """Scores of one network taken for those of another."""
    candles, timeline = market
    memory = ScoreMemory()
    run(candles, timeline, memory)
    other = toy.timeline(toy.grid(candles), toy.settings, sessions=(4,))
    with pytest.raises(ValueError, match="one timeline"):
        run(candles, other, memory)
