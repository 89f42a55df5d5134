"""Statistics of whole UTC days, against a walk over their candles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.inputs.grid import CandleGrid

HOUR_MS = 3_600_000
PLANTED = PlantedSettings(
    days=140, interval="1h", garch_alpha=0.12, garch_beta=0.87, sigma=0.004, setup_rate=0.01, seed=2
)


@pytest.fixture(scope="module")
def candles() -> Candles:
    return generate(PLANTED).candles


def _grid(candles: Candles) -> CandleGrid:
    return CandleGrid.from_candles(candles, HOUR_MS)


def test_day_statistics_are_those_worked_out_candle_by_candle(candles: Candles) -> None:
    """Kills a day cut at the wrong candle, and an outage counted as quiet trading."""
    keep = np.ones(len(candles), dtype=bool)
    keep[24 * 3 + 5 : 24 * 3 + 9] = False  # four hours out of the fourth day
    keep[24 * 6 + 2 : 24 * 6 + 22] = False  # most of the seventh
    part = candles[keep]
    days = day_table(_grid(part))
    by_time = dict(zip(part.open_time.tolist(), range(len(part)), strict=True))
    for number in (1, 3, 6):
        start = int(days.day_ms[number])
        returns, volumes = [], []
        for time in range(start, start + DAY_MS, HOUR_MS):
            if time in by_time:
                volumes.append(math.log(part.volume[by_time[time]]))
                if time - HOUR_MS in by_time:
                    before = part.close[by_time[time - HOUR_MS]]
                    returns.append(math.log(part.close[by_time[time]] / before))
        if number == 6:
            assert np.isnan(days.statistics[number]).all()
            continue
        squares = sum(r * r for r in returns) * 24 / len(returns)
        assert days.log_volatility[number] == pytest.approx(math.log(squares) / 2)
        assert days.log_return[number] == pytest.approx(sum(returns))
        assert days.log_volume[number] == pytest.approx(np.mean(volumes))
    assert days.statistics.shape == (PLANTED.days, 11)


def test_the_volume_wave_tells_the_two_markers_apart(candles: Candles) -> None:
    """Kills a hand-made rival so weak that every embedding beats it."""
    market = generate(replace(PLANTED, setup_rate=1e-6))
    wave = day_table(_grid(market.candles)).statistics[:, 8]
    assert np.mean(np.sign(wave) == market.marker) > 0.95


def test_a_days_statistics_do_not_depend_on_where_the_table_begins(candles: Candles) -> None:
    """Kills sums that round differently live, where the past is short, than in a batch."""
    whole = day_table(_grid(candles))
    late = day_table(_grid(candles[24 * 60 - 1 :]))  # from the last candle of a day on
    np.testing.assert_array_equal(late.day_ms, whole.day_ms[60:])
    for name in ("log_volatility", "log_return", "log_volume", "downward_share", "log_range"):
        assert np.array_equal(getattr(late, name), getattr(whole, name)[60:]), name
