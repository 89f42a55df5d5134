"""The backtest around the networks: what is traded, what is refused, and what a gap does."""

import dataclasses
import json

import numpy as np
import pytest

from cppncripto_strategy import backtest
from cppncripto_strategy.backtest import (
    Market,
    load_market,
    micro_latency_s,
    replay,
    results_folder,
    session_tables,
    traded_span,
)
from cppncripto_strategy.errors import BundleError, CandleError, RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS, Span, utc_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.models.learning.walkforward import calendar
from cppncripto_strategy.recipe import parse_recipe

HOUR_MS = 3_600_000
START_MS = utc_to_ms("2023-01-01")
BASE = {
    "interval": "1h",
    "symbols": ["A"],
    "macro": {"long_window": 288},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 7},
    "threshold": {"window": 60, "quantile": 0.2},
    "strategy": {"hold_candles": 3},
}


def recipe_of(**changes):
    return parse_recipe({**BASE, **changes})


def day(number):
    return START_MS + number * DAY_MS


def timerange(first, last):
    return "-".join(
        np.datetime_as_string(np.datetime64(day(d), "ms"), unit="D").replace("-", "")
        for d in (first, last)
    )


def test_span_without_timerange_begins_on_a_stamp_after_training(toy):
    """A first bundle short of training days, or days left out at the start."""
    recipe = recipe_of()
    market = Market({"A": toy.candles(days=90)})
    span = traded_span(recipe, market)
    warmup_days = (288 + 288) / 24
    assert span.end_ms == day(90)
    assert calendar(span.start_ms, span.end_ms, 7)[0] == span.start_ms
    earliest = day(20 + 15 + warmup_days)
    assert earliest <= span.start_ms <= earliest + 8 * DAY_MS


def test_span_is_the_timerange_cut_where_candles_end(toy, caplog):
    """Days traded without candles; a timerange silently shortened."""
    market = Market({"A": toy.candles(days=90)})
    inside = traded_span(recipe_of(timerange=timerange(70, 80)), market)
    assert (inside.start_ms, inside.end_ms) == (day(70), day(80))
    beyond = traded_span(recipe_of(timerange=timerange(70, 200)), market)
    assert (beyond.start_ms, beyond.end_ms) == (day(70), day(90))
    assert "candles end at 2023-04-01 00:00" in caplog.text


def test_span_that_cannot_be_is_explained(toy):
    """An empty backtest, or an error about spans nobody gave."""
    market = Market({"A": toy.candles(days=50)})
    with pytest.raises(TrainingError, match="after 60 days of training nothing is left"):
        traded_span(recipe_of(), market)
    with pytest.raises(CandleError, match=r"candles end at .*before timerange"):
        traded_span(recipe_of(timerange=timerange(100, 120)), market)


def test_taker_feature_without_taker_volumes_is_refused(toy):
    """A column of NaN that trains a network on nothing."""
    recipe = recipe_of(features={"taker": True})
    settings = backtest.learn_settings(recipe).session
    bare = dataclasses.replace(toy.candles(days=3), taker_buy_volume=np.full(72, np.nan))
    with pytest.raises(RecipeError, match="carry no taker volumes"):
        session_tables(Market({"A": bare}), settings)


def test_candles_come_from_a_store_up_to_the_end_of_the_timerange(toy, tmp_path):
    """Candles after the timerange read, trained on or traded."""
    candles = toy.candles(days=40)
    CandleStore(tmp_path).write("A", "1h", candles)
    values = {"candles": {"folder": str(tmp_path)}, "timerange": timerange(20, 30)}
    market = load_market(recipe_of(**values))
    assert market.candles["A"].open_time[-1] == day(30) - HOUR_MS
    assert market.candles["A"].open_time[0] == day(0)
    with pytest.raises(CandleError, match="B"):
        load_market(recipe_of(**values, symbols=["A", "B"]))
    with pytest.raises(CandleError, match="holds no A 1h candle before the end of 2019"):
        load_market(recipe_of(**{**values, "timerange": "20190101-20190201"}))


def test_planted_symbols_are_different_markets(tmp_path):
    """Two symbols of one seed: twice the same evidence."""
    recipe = recipe_of(
        symbols=["A", "B"], candles={"source": "planted", "planted": {"days": 3, "seed": 7}}
    )
    first, second = load_market(recipe).candles.values()
    assert not np.allclose(first.close, second.close)
    again = load_market(recipe).candles["A"]
    np.testing.assert_array_equal(first.close, again.close)


@pytest.fixture(scope="module")
def traded(toy):
    """Two symbols with gaps, a timeline of random networks, and the recipe that trades them."""
    missing = {
        "A": [*range(22 * 24 + 5, 27 * 24, 7), *range(30 * 24 + 3, 30 * 24 + 9)],
        "B": [27 * 24 + 6],
    }
    candles = {
        name: toy.candles(days=34, seed=place, missing=rows)
        for place, (name, rows) in enumerate(missing.items())
    }
    timeline = toy.timeline(toy.grid(candles["A"]), toy.settings, sessions=(6, 12))
    recipe = recipe_of(symbols=["A", "B"], strategy={"hold_candles": 2})
    return recipe, candles, timeline


def test_no_order_crosses_a_gap(traded):
    """A decision before an outage filled at the first price after it."""
    recipe, candles, timeline = traded
    start = timeline.first_session_ms
    passed = replay(recipe, candles, timeline, Span(start, day(34)))
    fills = passed.strategy.fills
    filled = fills[fills["status"] == "filled"]
    assert len(filled) > 40
    assert (filled["executed_ms"] - filled["created_ms"] == HOUR_MS).all()
    for symbol, columns in candles.items():
        closes = set((columns.open_time + HOUR_MS).tolist())
        mine = fills[fills["symbol"] == symbol]
        late = [ms + HOUR_MS not in closes for ms in mine["created_ms"]]
        assert (mine["status"][late] != "filled").all()
    crossing = fills[(fills["status"] != "filled") & (fills["created_ms"] < day(34) - HOUR_MS)]
    assert len(crossing) > 0  # some orders did meet a gap


def test_first_day_of_the_span_is_scored_whatever_lies_before_it(traded):
    """The first day lost because the warm-up happened to begin in a gap."""
    recipe, candles, timeline = traded
    warmup_ms = timeline.session.warmup * HOUR_MS
    start = timeline.bundles[1].info.trained_until_ms
    for hole in (0, 1, 5, 20):
        row = (start - warmup_ms - START_MS) // HOUR_MS
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


def test_in_sample_span_is_refused(traded):
    """A backtest of the days the network learned from."""
    recipe, candles, timeline = traded
    with pytest.raises(BundleError, match="in-sample"):
        replay(recipe, candles, timeline, Span(timeline.first_session_ms - 1, day(34)))


def test_gaps_of_training_and_trading_are_reported(traded):
    """An outage that nobody is told about."""
    recipe, candles, timeline = traded
    rows = backtest._gaps(Market(candles), Span(day(28), day(34)), timeline, recipe)
    single = len(range(22 * 24 + 5, 27 * 24, 7))
    found = [(row["symbol"], row["candles"]) for row in rows]
    assert found == [*[("A", 1)] * single, ("A", 6), ("B", 1)]
    assert rows[single]["start_ms"] == day(30) + 3 * HOUR_MS
    assert rows[single]["end_ms"] == day(30) + 9 * HOUR_MS


def test_results_never_share_a_folder(tmp_path):
    """A second run within the same second overwriting the first."""
    recipe = tmp_path / "mine.toml"
    first = results_folder(recipe, False, None)
    assert first.parent == tmp_path / "mine"
    first.mkdir(parents=True)
    second = results_folder(recipe, False, None)
    second.mkdir()
    third = results_folder(recipe, False, None)
    assert len({first, second, third}) == 3
    assert results_folder(recipe, False, tmp_path / "out").parent == tmp_path / "out" / "mine"
    assert results_folder(recipe, True, None).parts[:2] == ("runs", "mine")


def test_failed_run_leaves_its_reason_in_the_log(tmp_path):
    """A results folder that says nothing about why it is empty."""
    recipe = recipe_of(candles={"source": "planted", "planted": {"days": 20}})
    with pytest.raises(TrainingError):
        backtest.run_backtest(recipe, tmp_path / "out")
    lines = [json.loads(x) for x in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["level"] == "error"
    assert "nothing is left to trade" in lines[-1]["message"]


def test_crash_is_named_in_the_log_too(tmp_path, monkeypatch):
    """A log that ends in the middle, and nobody knows why."""
    recipe = recipe_of(candles={"source": "planted", "planted": {"days": 20}})
    monkeypatch.setattr(backtest, "traded_span", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backtest.run_backtest(recipe, tmp_path / "out")
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["message"] == "run failed: ZeroDivisionError: division by zero"


def test_span_without_a_scored_setup_is_said_and_not_raised(toy):
    """A run of minutes thrown away because a short span had no setup."""
    recipe = recipe_of(candles={"source": "planted", "planted": {"days": 30}})
    market = load_market(recipe)
    grid = toy.grid(market.candles["A"])
    timeline = toy.timeline(grid, toy.settings, sessions=(6,))
    span = Span(timeline.first_session_ms, timeline.first_session_ms + 2 * HOUR_MS)
    passed = replay(recipe, market.candles, timeline, span)
    passed.strategy.signals["score"] = np.nan
    assert backtest._hit_text(recipe, market, span, passed) == "no setup was scored"


def test_latency_is_measured_of_the_streaming_path(toy):
    """A latency of nothing, or of another network."""
    grid = toy.grid(toy.candles())
    seconds = micro_latency_s(toy.timeline(grid, toy.settings).bundles[0], rows=20)
    assert len(seconds) == 20
    assert min(seconds) > 0
