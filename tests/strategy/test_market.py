"""Candles and traded span of a recipe: what is read, what is refused, what is cut."""

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError, RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.market import (
    Market,
    load_market,
    session_tables,
    traded_span,
)
from cppncripto_strategy.models.learning.calendar import calendar


def test_span_without_timerange_begins_on_a_stamp_after_training(hourly, toy):
    """A first bundle short of training days, or days left out at the start."""
    recipe = hourly.recipe()
    market = Market({"A": toy.candles(days=90)})
    span = traded_span(recipe, market)
    warmup_days = (288 + 288) / 24
    assert span.end_ms == hourly.day(90)
    assert calendar(span.start_ms, span.end_ms, 7)[0] == span.start_ms
    earliest = hourly.day(20 + 15 + warmup_days)
    assert earliest <= span.start_ms <= earliest + 8 * DAY_MS


def test_span_is_the_timerange_cut_where_candles_end(hourly, toy, caplog):
    """Days traded without candles; a timerange silently shortened."""
    market = Market({"A": toy.candles(days=90)})
    inside = traded_span(hourly.recipe(timerange=hourly.timerange(70, 80)), market)
    assert (inside.start_ms, inside.end_ms) == (hourly.day(70), hourly.day(80))
    beyond = traded_span(hourly.recipe(timerange=hourly.timerange(70, 200)), market)
    assert (beyond.start_ms, beyond.end_ms) == (hourly.day(70), hourly.day(90))
    assert "candles end at 2023-04-01 00:00" in caplog.text


def test_span_that_cannot_be_is_explained(hourly, toy):
    """An empty backtest, or an error about spans nobody gave."""
    market = Market({"A": toy.candles(days=50)})
    with pytest.raises(TrainingError, match="after 60 days of training nothing is left"):
        traded_span(hourly.recipe(), market)
    with pytest.raises(CandleError, match=r"candles end at .*before timerange"):
        traded_span(hourly.recipe(timerange=hourly.timerange(100, 120)), market)


def test_taker_feature_without_taker_volumes_is_refused(hourly, toy):
    """A column of NaN that trains a network on nothing."""
    recipe = hourly.recipe(features={"columns": ["log_return", "taker_imbalance", "present"]})
    settings = recipe.learn_settings().session
    bare = dataclasses.replace(toy.candles(days=3), taker_buy_volume=np.full(72, np.nan))
    with pytest.raises(RecipeError, match=r"'taker_imbalance' needs .* carry no taker_buy_volume"):
        session_tables(Market({"A": bare}), settings)


def test_candles_come_from_a_store_up_to_the_end_of_the_timerange(hourly, toy, tmp_path):
    """Candles after the timerange read, trained on or traded."""
    candles = toy.candles(days=40)
    CandleStore(tmp_path).write("A", "1h", candles)
    values = {"candles": {"folder": str(tmp_path)}, "timerange": hourly.timerange(20, 30)}
    market = load_market(hourly.recipe(**values))
    assert market.candles["A"].open_time[-1] == hourly.day(30) - HOUR_MS
    assert market.candles["A"].open_time[0] == hourly.day(0)
    with pytest.raises(CandleError, match="B"):
        load_market(hourly.recipe(**values, symbols=["A", "B"]))
    with pytest.raises(CandleError, match="holds no A 1h candle before the end of 2019"):
        load_market(hourly.recipe(**{**values, "timerange": "20190101-20190201"}))


def test_planted_symbols_are_different_markets(hourly, tmp_path):
    """Two symbols of one seed: twice the same evidence."""
    recipe = hourly.recipe(
        symbols=["A", "B"], candles={"source": "planted", "planted": {"days": 3, "seed": 7}}
    )
    first, second = load_market(recipe).candles.values()
    assert not np.allclose(first.close, second.close)
    again = load_market(recipe).candles["A"]
    np.testing.assert_array_equal(first.close, again.close)
