"""Candles and traded span of a recipe: what is read, what is refused, what is cut."""

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError, RecipeError, TrainingError
from cppncripto_strategy.feeds.candles import NULLABLE_COLUMNS
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.market import (
    Market,
    closed_market,
    load_market,
    session_tables,
    traded_span,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid
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


def test_a_market_symbol_is_read_beside_what_is_traded(hourly, toy, tmp_path):
    """A market that is traded because it was loaded, or laid on another symbol's hours."""
    recipe = hourly.recipe(
        symbols=["A", "B"],
        features={"market": "M"},
        candles={"folder": str(tmp_path)},
        timerange=hourly.timerange(20, 26),
    )
    series = {"A": toy.candles(days=30), "B": toy.candles(days=30, seed=1, missing=[5])}
    series["M"] = toy.candles(days=30, seed=2, missing=[40])
    for symbol, candles in series.items():
        CandleStore(tmp_path).write(symbol, "1h", candles)
    market = load_market(recipe)
    assert (list(market.candles), list(market.beside)) == (["A", "B"], ["M"])
    assert list(market.every) == list(recipe.subscribed) == ["A", "B", "M"]
    for table in session_tables(market, recipe.learn_settings().session):
        known = dict(zip(series["M"].open_time.tolist(), series["M"].close.tolist(), strict=True))
        expected = [known.get(t, np.nan) for t in table.grid.open_time.tolist()]
        np.testing.assert_array_equal(table.grid.of_market().close, expected)
    closed = closed_market(recipe, hourly.day(10) + HOUR_MS // 2)
    assert {int(c.open_time[-1]) for c in closed.every.values()} == {hourly.day(10) - HOUR_MS}


def test_symbols_share_one_market_whatever_they_cover(hourly, toy):
    """A market's rows moved where a symbol begins later, or held once for every symbol."""
    recipe = hourly.recipe(symbols=["A", "B"], features={"market": "M"})
    settings = recipe.learn_settings().session
    whole = toy.candles(days=30, seed=1)
    part, market = whole[np.arange(100, 500)], toy.candles(days=25, seed=2, missing=[130])
    grids = Market({"A": whole, "B": part}, beside={"M": market}).grids(settings)
    for symbol, candles in {"A": whole, "B": part}.items():
        expected = CandleGrid.from_candles(candles, HOUR_MS).with_market(market).of_market()
        np.testing.assert_array_equal(grids[symbol].of_market().close, expected.close)
        assert grids[symbol].of_market().start_ms == grids[symbol].start_ms
    assert np.shares_memory(grids["A"].of_market().close, grids["B"].of_market().close)


def test_a_market_symbol_that_is_traded_is_its_own_market(hourly, toy):
    """BTCUSDT fed twice, or read as nothing because it is among the traded ones."""
    recipe = hourly.recipe(symbols=["A", "B"], features={"market": "B"})
    market = Market({"A": toy.candles(days=30), "B": toy.candles(days=30, seed=1)})
    assert recipe.beside == ()
    first, second = session_tables(market, recipe.learn_settings().session)
    np.testing.assert_array_equal(second.grid.of_market().close, second.grid.close)
    np.testing.assert_array_equal(first.grid.of_market().close, second.grid.close)


def test_a_market_symbol_without_candles_is_refused_by_name(hourly, toy):
    """Networks that read NaN where a market should be."""
    recipe = hourly.recipe(features={"market": "M"}, macro={"long_window": 288})
    settings = recipe.learn_settings().session
    with pytest.raises(CandleError, match=r"A cannot be scored .* market_log_return.* symbol M,"):
        session_tables(Market({"A": toy.candles(days=30)}), settings)


def test_a_planted_market_symbol_is_another_market(hourly):
    """The traded symbol's own answer read out of its market's columns."""
    recipe = hourly.recipe(
        symbols=["P", "Q"],
        features={"market": "R"},
        candles={"source": "planted", "planted": {"days": 30, "seed": 4}},
    )
    market = load_market(recipe)
    assert (set(market.planted), set(market.beside)) == ({"P", "Q"}, {"R"})
    closes = [candles.close for candles in market.every.values()]
    assert all((closes[i] != closes[j]).mean() > 0.9 for i, j in ((0, 1), (0, 2), (1, 2)))


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


@pytest.mark.parametrize("kind", ["store", "folder"])
def test_every_symbol_without_candles_is_named(hourly, toy, tmp_path, kind):
    """The first missing symbol named, fetched, and only then the second."""
    candles = toy.candles(days=40)
    for symbol in ("A", "LATE"):
        part = candles if symbol == "A" else candles[candles.open_time >= hourly.day(35)]
        if kind == "store":
            CandleStore(tmp_path).write(symbol, "1h", part)
        else:
            part.to_arrow().to_pandas().to_parquet(tmp_path / f"{symbol}-1h.parquet")
    values = {"candles": {"folder": str(tmp_path)}, "timerange": hourly.timerange(20, 30)}
    with pytest.raises(CandleError, match=r"no 1h candles of B, C: .* those of A, LATE"):
        load_market(hourly.recipe(**values, symbols=["A", "B", "LATE", "C"]))
    with pytest.raises(CandleError, match=r"no LATE 1h candle before .*: choose a later timerange"):
        load_market(hourly.recipe(**values, symbols=["A", "LATE"]))


def test_planted_symbols_are_different_markets(hourly, tmp_path):
    """Two symbols of one seed: twice the same evidence."""
    recipe = hourly.recipe(
        symbols=["A", "B"], candles={"source": "planted", "planted": {"days": 3, "seed": 7}}
    )
    first, second = load_market(recipe).candles.values()
    assert not np.allclose(first.close, second.close)
    again = load_market(recipe).candles["A"]
    np.testing.assert_array_equal(first.close, again.close)


def test_a_column_that_nobody_carried_takes_no_memory(hourly, toy, tmp_path):
    """Four columns of nothing in memory, of every symbol; or a column that is known, lost."""
    candles = toy.candles(days=40)
    taker = candles.volume / 2
    for symbol, columns in {"A": {}, "B": {"taker_buy_volume": taker}}.items():
        bare = dict.fromkeys(NULLABLE_COLUMNS, np.full(len(candles), np.nan)) | columns
        CandleStore(tmp_path).write(symbol, "1h", candles.replace(**bare))
    recipe = hourly.recipe(symbols=["A", "B"], candles={"source": "folder", "folder": tmp_path})
    market = load_market(recipe).candles
    assert market["A"].quote_volume.strides == (0,)
    assert np.isnan(market["A"].quote_volume).all()
    assert len(market["A"].quote_volume) == len(candles)
    np.testing.assert_array_equal(market["B"].taker_buy_volume, taker)
    assert market["A"].close.strides == (8,)
