"""The grid and the market symbol on its rows: aligned by closing time, cut together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.models.inputs.features import FEATURES
from cppncripto_strategy.models.inputs.grid import CandleGrid

HOUR_MS = 3_600_000


def candles_at(hours: list[int]) -> Candles:
    """Candles that open at these hours; each closes at its own hour's number."""
    level = np.array(hours, dtype=np.float64) + 1.0
    return Candles.from_columns(
        open_time=np.array(hours, dtype=np.int64) * HOUR_MS,
        open=level,
        high=level,
        low=level,
        close=level,
        volume=level,
    )


@pytest.mark.parametrize(
    "hours",
    [list(range(20)), [0, 1, 5, 6, 11, 30], [9], list(range(7, 40, 3)), [1, 2], [50]],
    ids=["same", "gaps", "one", "later", "before", "after"],
)
def test_each_row_holds_the_market_candle_that_closes_with_it(hours: list[int]) -> None:
    """A market's candle one row early, filled into a gap, or moved by an earlier start."""
    own = CandleGrid.from_candles(candles_at([3, 4, 6, 7, 12]), HOUR_MS)
    market = own.with_market(candles_at(hours)).of_market()
    by_close = {(hour + 1) * HOUR_MS: hour + 1.0 for hour in hours}
    expected = [by_close.get(int(close_ms), np.nan) for close_ms in own.close_time]
    np.testing.assert_array_equal(market.close, expected)
    np.testing.assert_array_equal(market.present, ~np.isnan(expected))


def test_rows_are_cut_from_both() -> None:
    """A prefix of the symbol that still knows the market's future."""
    grid = CandleGrid.from_candles(candles_at(list(range(9))), HOUR_MS)
    part = grid.with_market(candles_at(list(range(20)))).rows(2, 5)
    assert part.of_market().start_ms == part.start_ms
    assert part.of_market().close.tolist() == part.close.tolist() == [3.0, 4.0, 5.0]


def test_a_grid_without_a_market_says_what_is_missing() -> None:
    """An AttributeError of None, deep inside a feature."""
    grid = CandleGrid.from_candles(candles_at([0, 1]), HOUR_MS)
    assert grid.with_market(None) is grid
    with pytest.raises(CandleError, match=r"name the symbol in features\.market"):
        FEATURES.get("market_present").batch(grid)


def test_market_candles_of_other_times_are_refused() -> None:
    """Candles of a quarter past laid on the hour."""
    grid = CandleGrid.from_candles(candles_at([0, 1]), HOUR_MS)
    late = candles_at([0, 1])
    late = dataclasses.replace(late, open_time=late.open_time + HOUR_MS // 4)
    with pytest.raises(CandleError, match="do not close when the traded symbol's do"):
        grid.with_market(late)
