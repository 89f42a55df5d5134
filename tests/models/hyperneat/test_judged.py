"""The days a genome is judged on: what is known of them, and when."""

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.terms import har_x_terms
from cppncripto_strategy.models.hyperneat import fitness
from cppncripto_strategy.models.hyperneat.fitness import ProbeData
from cppncripto_strategy.models.hyperneat.judged import judged_days
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions

DAYS, UNTIL_DAY = 60, 50


@pytest.fixture(scope="module")
def candles():
    """Sixty planted days."""
    return generate(PlantedSettings(days=DAYS, seed=4)).candles


def sessions_of(candles, settings=None):
    grid = CandleGrid.from_candles(candles, 300_000)
    table = build_sessions("X", grid, settings or SessionSettings(long_window=576))
    return SessionSet.between([table], 0, 2**60), grid


def until_ms(grid):
    return grid.start_ms + UNTIL_DAY * DAY_MS


def test_no_candle_that_closes_later_is_seen(candles):
    """Fitness on the days that judge the networks later is tuning on the hold-out."""
    sessions, grid = sessions_of(candles)
    until = until_ms(grid)
    judged, kept = judged_days(sessions, until)
    # Three days of a coming profile must be over.
    assert judged.day_ms.max() == until - 3 * DAY_MS
    changed = dataclasses.replace(
        candles, close=candles.close.copy(), high=candles.high.copy(), volume=candles.volume.copy()
    )
    later = candles.open_time + 300_000 > until
    changed.close[later] *= 3
    changed.high[later] *= 3
    changed.volume[later] *= 7
    again, places = judged_days(sessions_of(changed)[0], until)
    np.testing.assert_array_equal(places, kept)
    for field in dataclasses.fields(judged):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(judged, field.name))


def test_terms_are_those_of_har_x_and_targets_are_the_days_own(candles):
    """Terms of the next day, or outcomes of the last, would forecast themselves."""
    sessions, grid = sessions_of(candles)
    judged, kept = judged_days(sessions, until_ms(grid))
    days = day_table(grid)
    np.testing.assert_array_equal(judged.anchor, har_x_terms(days, judged.day_ms))
    row = days.at(judged.day_ms)
    whole = row > 30  # the market's first day has one return less
    month = np.array([np.mean(2 * days.log_volatility[r - 30 : r]) for r in row[whole]])
    expected = 2 * days.log_volatility[row[whole]] - month
    np.testing.assert_allclose(judged.targets[whole, 0], expected)
    assert whole.sum() > 10
    np.testing.assert_array_equal(sessions.start_ms()[kept], judged.day_ms)
    assert judged.targets.shape[1] == len(judged.weights) == 3 + 24 + 48
    assert judged.weights.sum() == pytest.approx(2 + 2 + 2)


def test_span_without_terms_is_refused_with_what_to_do(candles):
    """Half a month of days come before the first term."""
    sessions, grid = sessions_of(candles)
    with pytest.raises(TrainingError, match="give the evolution more days"):
        judged_days(sessions, grid.start_ms + 9 * DAY_MS)


def test_rows_of_pooled_windows_are_judged_too(candles):
    """Thirty days of hourly rows have no column of hourly volatility to make a profile of."""
    names = ("log_return", "log_volatility_12", "volume_z", "present")
    settings = SessionSettings(long_window=576, names=names, pool=12)
    sessions, grid = sessions_of(candles, settings)
    data = ProbeData.of_sessions(sessions, until_ms(grid), stride=1, fitness="gain")
    assert data.rows.shape[1:] == (48, 4)
    assert data.probe(np.random.default_rng(0).standard_normal((len(data), 8)), 1) < 0.05


def test_windows_are_thinned_to_a_bound(candles, monkeypatch):
    """A universe of symbols times years must neither fill the memory nor take minutes a genome."""
    sessions, grid = sessions_of(candles)
    whole = ProbeData.of_sessions(sessions, until_ms(grid), stride=12, fitness="gain")
    monkeypatch.setattr(fitness, "MOST_ROWS", 48 * len(whole) // 2)
    half = ProbeData.of_sessions(sessions, until_ms(grid), stride=12, fitness="gain")
    assert len(whole) // 2 - 1 <= len(half) <= len(whole) // 2
    assert set(half.day_ms) < set(whole.day_ms)
    assert half.fingerprint() != whole.fingerprint()
    np.testing.assert_array_equal(half.judged.targets, half.targets)
