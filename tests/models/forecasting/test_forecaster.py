"""The forecaster of a bundle: what it may know, and one forecast in batch, stream and Cerebro."""

from __future__ import annotations

import dataclasses

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.indicators import MacroEmbedding
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.forecaster import (
    FORECAST_COLUMNS,
    Forecaster,
    fit_forecaster,
)
from cppncripto_strategy.models.forecasting.terms import har_x_terms
from cppncripto_strategy.models.inputs.sessions import SessionSet, build_sessions
from cppncripto_strategy.models.scoring.batch import embed_sessions
from cppncripto_strategy.models.scoring.macro_stream import MacroStream

DAYS, LEARNED = 150, 110
MARKET = PlantedSettings(
    DAYS, "1h", garch_alpha=0.12, garch_beta=0.87, sigma=0.004, setup_rate=0.01, seed=2
)
UNTIL_MS = MARKET.start_ms + LEARNED * DAY_MS
# An hour of a day, most of a day, and a midnight, after the training.
MISSING = [24 * 120 + 5, *range(24 * 130 + 1, 24 * 130 + 22), 24 * 140 - 1]


@pytest.fixture(scope="module")
def candles():
    every = generate(MARKET).candles
    return every[np.setdiff1d(np.arange(len(every)), MISSING)]


def learn(toy, candles, until_ms: int = UNTIL_MS, earn_from_ms: int = UNTIL_MS) -> Bundle:
    """A bundle of random networks with a forecaster fitted on the days before `until_ms`."""
    table = build_sessions("AUSDT", toy.grid(candles), toy.settings)
    bundle = toy.bundle(table, until_ms, seed=0)
    known = SessionSet.between([table], 0, until_ms)
    forecaster = fit_forecaster(known, bundle.bank, 0, earn_from_ms, until_ms)
    return dataclasses.replace(bundle, forecaster=forecaster)


@pytest.fixture(scope="module")
def timeline(toy, candles) -> BundleTimeline:
    """Two bundles with forecasters; the first trusts its embedding, the second its MacroNet."""
    first = learn(toy, candles, UNTIL_MS, earn_from_ms=0)
    weights = first.forecaster.volatility.weights.copy()
    weights[-3:] = 0.1  # whether or not it has earned them
    volatility = dataclasses.replace(first.forecaster.volatility, weights=weights)
    trusting = dataclasses.replace(first.forecaster, volatility=volatility)
    first = dataclasses.replace(first, forecaster=trusting)
    second = learn(toy, candles, UNTIL_MS + 25 * DAY_MS)
    added = np.random.default_rng(7).normal(0, 0.02, (2, 129))
    correcting = dataclasses.replace(second.forecaster, correction=added)
    return BundleTimeline((first, dataclasses.replace(second, forecaster=correcting)))


def streamed(grid, timeline) -> np.ndarray:
    """Forecast at every candle of a grid, taken one at a time, (T, 4)."""
    stream = MacroStream(timeline, symbol="AUSDT")
    lines = np.full((len(grid), 4), np.nan)
    columns = (grid.open, grid.high, grid.low, grid.close, grid.volume, grid.taker_buy_volume)
    for row in np.flatnonzero(grid.present):
        stream.push(int(grid.open_time[row]), np.array([column[row] for column in columns]))
        lines[row] = stream.forecast
    return lines


def batched(grid, timeline, toy) -> np.ndarray:
    """The same from whole sessions."""
    table = build_sessions("AUSDT", grid, toy.settings)
    states = embed_sessions(table, timeline)
    session = np.searchsorted(table.start_ms, grid.close_time, side="right") - 1
    lines = np.where(session[:, None] >= 0, states.forecast[np.maximum(session, 0)], np.nan)
    return np.where(grid.present[:, None], lines, np.nan)


@pytest.mark.parametrize("first_day", [0, 95], ids=["a long past", "two weeks of candles"])
def test_batch_and_stream_forecast_the_same(toy, candles, timeline, first_day) -> None:
    """Kills a day that one path closes early, late or twice, and a month forgotten by one."""
    grid = toy.grid(candles.between(MARKET.start_ms + first_day * DAY_MS, UNTIL_MS + 99 * DAY_MS))
    batch, stream = batched(grid, timeline, toy), streamed(grid, timeline)
    np.testing.assert_allclose(stream, batch, rtol=1e-5)
    known = np.isfinite(batch).all(axis=1)
    assert known.sum() > 24 * 30
    low, high = batch[known, 1], batch[known, 2]
    assert np.all((low < batch[known, 0]) & (batch[known, 0] < high))


def test_a_short_past_is_completed_from_memory(toy, candles, timeline) -> None:
    """Kills a fortnight without a forecast at the start of every backtest."""
    whole = batched(toy.grid(candles), timeline, toy)
    late = candles.between(UNTIL_MS - 15 * DAY_MS, UNTIL_MS + 99 * DAY_MS)
    part = batched(toy.grid(late), timeline, toy)
    np.testing.assert_allclose(part, whole[-len(part) :], rtol=1e-6)
    first = dataclasses.replace(
        timeline.bundles[0],
        forecaster=dataclasses.replace(timeline.bundles[0].forecaster, memory={}),
    )
    forgetful = batched(toy.grid(late), BundleTimeline((first, *timeline.bundles[1:])), toy)
    assert not np.allclose(forgetful, part, rtol=1e-3, equal_nan=True)


def test_a_forecast_is_of_its_own_day_and_knows_nothing_of_it(toy, candles, timeline) -> None:
    """Kills a look-ahead, and yesterday's forecast shown today after a failed rollover."""
    grid = toy.grid(candles)
    whole = batched(grid, timeline, toy)
    day = 125
    cut = candles.between(0, MARKET.start_ms + day * DAY_MS + 6 * HOUR_MS)
    part = batched(toy.grid(cut), timeline, toy)
    np.testing.assert_array_equal(part, whole[: len(part)])
    of_day = whole[(day * 24) - 1 : (day + 1) * 24 - 1]  # closes from 00:00 on
    assert np.isfinite(of_day).all()
    assert (of_day == of_day[0]).all()
    assert not (whole[(day + 1) * 24] == of_day[0]).all()
    hole = whole[131 * 24 : 132 * 24 - 1]  # the day before it is mostly missing
    assert np.isnan(hole).all()
    assert np.isnan(whole[: LEARNED * 24 - 1]).all()  # days the bundle learned from


def test_a_bundle_keeps_its_forecaster_and_old_bundles_have_none(toy, candles, tmp_path) -> None:
    """Kills a weight lost on disk, and a bundle that can no longer be read."""
    bundle = learn(toy, candles)
    again = Bundle.load(bundle.save(tmp_path / "new"))
    assert again.model_hash == bundle.model_hash
    days = day_table(toy.grid(candles))
    zeros = np.zeros((len(days.day_ms), 128), np.float32)
    np.testing.assert_array_equal(
        again.forecaster.predict("AUSDT", days, days.day_ms, zeros),
        bundle.forecaster.predict("AUSDT", days, days.day_ms, zeros),
    )
    old = dataclasses.replace(bundle, forecaster=None)
    assert Bundle.load(old.save(tmp_path / "old")).forecaster is None
    assert old.model_hash != bundle.model_hash


def test_a_correction_is_added_to_the_logarithms_and_kept_on_disk(toy, candles, tmp_path) -> None:
    """Kills a network that is trained and not heard, and volatility and range changed over."""
    bundle = learn(toy, candles)
    added = np.zeros((2, 129))
    added[0, 3], added[0, -1], added[1, 5] = 0.2, 0.1, -0.4
    correcting = dataclasses.replace(bundle.forecaster, correction=added)
    kept = dataclasses.replace(bundle, forecaster=correcting)
    again = Bundle.load(kept.save(tmp_path / "bundle")).forecaster
    days = day_table(toy.grid(candles))
    vectors = np.random.default_rng(0).normal(size=(len(days.day_ms), 128)).astype(np.float32)
    plain = bundle.forecaster.predict("AUSDT", days, days.day_ms, vectors)
    found = again.predict("AUSDT", days, days.day_ms, vectors)
    exact = vectors.astype(np.float64)
    volatility, extent = np.exp(0.2 * exact[:, 3] + 0.1), np.exp(-0.4 * exact[:, 5])
    np.testing.assert_allclose(found[:, :3], plain[:, :3] * volatility[:, None], rtol=1e-9)
    np.testing.assert_allclose(found[:, 3], plain[:, 3] * extent, rtol=1e-9)
    assert np.isfinite(found).any()
    assert again.uses_embedding


def test_bundles_made_before_there_were_hours_forecast_by_har_x(toy, candles) -> None:
    """Kills old weights laid on other terms, and an old bundle that can no longer be read."""
    forecaster = learn(toy, candles).forecaster
    arrays = {k: v for k, v in forecaster.to_tensors().items() if not k.startswith("hours.")}
    for name in ("volatility", "range"):
        weights = arrays[f"{name}.weights"]
        arrays[f"{name}.weights"] = np.delete(weights, np.arange(12, 17))
    old = Forecaster.from_tensors(forecaster.symbols, arrays)
    days = day_table(toy.grid(candles))
    zeros = np.zeros((len(days.day_ms), 128), np.float32)
    terms = har_x_terms(days, days.day_ms)
    center = old.volatility.constants[0] + terms @ old.volatility.weights[:12]
    found = old.predict("AUSDT", days, days.day_ms, zeros)
    expected = np.exp(center + old.volatility.numbers[0])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-9)
    assert np.isfinite(found).any()


def test_a_forecaster_learns_from_the_days_before_it_alone(toy, candles) -> None:
    """Kills a fit that reads the days after `trained_until`."""
    changed = candles.replace(
        close=np.where(candles.open_time >= UNTIL_MS, candles.close * 1.5, candles.close)
    )
    one, other = learn(toy, candles).forecaster, learn(toy, changed).forecaster
    for name, array in one.to_tensors().items():
        assert np.array_equal(array, other.to_tensors()[name], equal_nan=True), name
    assert not one.uses_embedding  # no day after its training has spoken for it
    assert isinstance(one, Forecaster)
    assert 80 < one.days < LEARNED
    table = build_sessions("AUSDT", toy.grid(candles), toy.settings)
    few = SessionSet.between([table], 0, MARKET.start_ms + 70 * DAY_MS)
    assert fit_forecaster(few, np.zeros((len(few), 128), np.float32), 0, 0, UNTIL_MS) is None


def test_an_unseen_symbol_gets_the_mean_constant(toy, candles) -> None:
    """Kills a forecast that needs a symbol's name to be known."""
    forecaster = learn(toy, candles).forecaster
    days = day_table(toy.grid(candles))
    zeros = np.zeros((10, 128), np.float32)
    found = forecaster.predict("NEWUSDT", days, days.day_ms[-10:], zeros)
    expected = forecaster.predict("AUSDT", days, days.day_ms[-10:], zeros)
    np.testing.assert_allclose(found, expected)  # it learned from one symbol, whose mean it is


class Reader(bt.Strategy):
    """Reads the forecast at every bar, as a user's strategy would."""

    params = (("timeline", None),)

    def __init__(self):
        self.macro = MacroEmbedding(self.data, bundles=self.p.timeline)
        self.rows = {}

    def next(self):
        values = [getattr(self.macro.lines, name)[0] for name in FORECAST_COLUMNS]
        self.rows[bar_close_ms(self.data)] = values


@pytest.mark.parametrize("runonce", [True, False], ids=["once", "next"])
def test_any_strategy_reads_the_forecast_as_lines(toy, candles, timeline, runonce) -> None:
    """Kills a line that is a bar late, or that one mode of Cerebro leaves empty."""
    part = candles.between(UNTIL_MS - 20 * DAY_MS, UNTIL_MS + 30 * DAY_MS)
    cerebro = bt.Cerebro(stdstats=False, runonce=runonce)
    cerebro.adddata(ReplayFeed(candles=part, interval_ms=HOUR_MS, name="AUSDT"))
    cerebro.addstrategy(Reader, timeline=timeline)
    [strategy] = cerebro.run()
    grid = toy.grid(part)
    batch = batched(grid, timeline, toy)[grid.present]
    assert list(strategy.rows) == grid.close_time[grid.present].tolist()
    np.testing.assert_allclose(list(strategy.rows.values()), batch, rtol=1e-5)
    first = UNTIL_MS  # the bar that closes at the rollover
    assert np.isfinite(strategy.rows[first]).all()
    assert np.isnan(strategy.rows[first - HOUR_MS]).all()


def test_a_restored_stream_forecasts_what_the_uninterrupted_one_does(
    toy, candles, timeline
) -> None:
    """Kills a session whose forecast changes, or is lost, with a restart in the middle of a day."""
    grid = toy.grid(candles.between(UNTIL_MS - 15 * DAY_MS, UNTIL_MS + 20 * DAY_MS))
    whole = streamed(grid, timeline)
    stream, cut = MacroStream(timeline, symbol="AUSDT"), 24 * 20 + 7
    columns = (grid.open, grid.high, grid.low, grid.close, grid.volume, grid.taker_buy_volume)
    for row in np.flatnonzero(grid.present):
        if row == cut:
            kept = stream.snapshot()
            stream = MacroStream(timeline, symbol="AUSDT")
            stream.restore(kept)
            assert np.array_equal(stream.forecast, whole[row - 1])
        stream.push(int(grid.open_time[row]), np.array([column[row] for column in columns]))
        assert np.array_equal(stream.forecast, whole[row], equal_nan=True)
    assert np.isfinite(whole[cut:]).all(axis=1).sum() > 24 * 10
