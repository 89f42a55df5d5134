"""Features: right by an independent oracle, and the same bits from any history and any future."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import (
    DEFAULT_COLUMNS,
    FeatureTable,
    compute_features,
    last_row_features,
    scaled_columns,
)
from cppncripto_strategy.models.inputs.features.windows import DAY_WINDOW
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.testing.grids import START_MS as MONDAY_MS
from cppncripto_strategy.testing.grids import changed_from, random_grid, same_bits, with_hole

FIVE_MINUTES_MS = 300_000
NAMES = (*DEFAULT_COLUMNS, "taker_imbalance")
TABLE = FeatureTable.of(NAMES)
FEATURE_MEMORY = TABLE.memory
# --- the oracle: plain Python, one row at a time ------------------------------------------------


def oracle_row(grid: CandleGrid, row: int) -> list[float]:
    """Features of one row by their definitions, with lists and the statistics module."""
    close, volume = grid.close.tolist(), grid.volume.tolist()
    ranges = [h - low for h, low in zip(grid.high.tolist(), grid.low.tolist(), strict=True)]
    turn = 2 * math.pi * (((grid.start_ms + (row + 1) * grid.interval_ms) % DAY_MS) / DAY_MS)
    clock = [math.sin(turn), math.cos(turn), float(grid.present[row])]
    if not grid.present[row]:
        return [math.nan] * 6 + clock + [math.nan]

    def log_return(i: int) -> float:
        return math.log(close[i]) - math.log(close[i - 1]) if i >= 1 else math.nan

    result = [log_return(row)]
    for window in (12, 24, 48):
        if row < window:
            result.append(math.nan)
            continue
        known = [r for i in range(row - window + 1, row + 1) if not math.isnan(r := log_return(i))]
        enough = len(known) >= window / 2
        result.append(math.sqrt(sum(r * r for r in known) / len(known)) if enough else math.nan)
    day = [i for i in range(row - 287, row + 1) if i >= 0 and grid.present[i]]
    if row < 287 or len(day) < 144:
        result += [math.nan, math.nan]
    else:
        result += [oracle_volume_z(volume, day), oracle_range_ratio(ranges, day)]
    imbalance = 2 * grid.taker_buy_volume[row] / volume[row] - 1 if volume[row] > 0 else 0.0
    return [*result, *clock, imbalance]


def oracle_volume_z(volume: list[float], day: list[int]) -> float:
    """Z-score of the last log volume; an untraded candle counts as half the smallest traded."""
    traded = [volume[i] for i in day if volume[i] > 0]
    if not traded:
        return 0.0
    logs = [math.log(volume[i] if volume[i] > 0 else min(traded) / 2) for i in day]
    deviation = statistics.pstdev(logs)
    return (logs[-1] - statistics.fmean(logs)) / deviation if deviation > 1e-12 else 0.0


def oracle_range_ratio(ranges: list[float], day: list[int]) -> float:
    """The last range over the median (or, where zero, the mean) of the day's."""
    known = [ranges[i] for i in day]
    typical = statistics.median(known) or statistics.fmean(known)
    return known[-1] / typical if typical else 1.0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    missing=st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.7]),
    no_trades=st.sampled_from([0.0, 0.1, 0.8]),
    flat=st.sampled_from([0.0, 0.3, 0.6]),
    start_row=st.integers(0, 287),
)
def test_every_row_equals_its_definition(
    seed: int, missing: float, no_trades: float, flat: float, start_row: int
) -> None:
    """Kills wrong windows, wrong counts in gaps, and slips of one candle."""
    start_ms = MONDAY_MS + start_row * FIVE_MINUTES_MS
    grid = random_grid(360, seed, missing, no_trades, flat, start_ms)
    features = compute_features(grid, NAMES)
    rows = [0, 1, 11, 12, 13, 24, 48, 49, 286, 287, 288, 300, 331, 359]
    expected = np.array([oracle_row(grid, row) for row in rows])
    np.testing.assert_allclose(features[rows], expected, rtol=1e-9, atol=1e-12)


def test_columns_are_named_in_the_order_they_are_computed() -> None:
    """Kills a column order that drifts from the names stored in bundles."""
    assert (
        (
            "log_return",
            "volatility_12",
            "volatility_24",
            "volatility_48",
            "volume_z",
            "range_ratio",
            "sin_day",
            "cos_day",
            "present",
        )
        == DEFAULT_COLUMNS
        == FeatureTable.of(DEFAULT_COLUMNS).names
    )
    assert TABLE.names == NAMES
    passed = [name for i, name in enumerate(NAMES) if i not in TABLE.scaled]
    assert passed == ["sin_day", "cos_day", "present"]
    assert scaled_columns(NAMES).tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert (5, len(NAMES)) == compute_features(random_grid(5, 0), NAMES).shape
    assert (5, len(DEFAULT_COLUMNS)) == compute_features(random_grid(5, 0)).shape


# --- causality ----------------------------------------------------------------------------------

HISTORY = with_hole(random_grid(1500, 3, missing=0.02, no_trades=0.03, flat=0.05), 700, 716)
MID_SESSION_CUTS = (433, 709, 1000, 1300)


@pytest.mark.parametrize("column", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("cut", MID_SESSION_CUTS)
def test_cutting_off_the_future_changes_no_past_feature(cut: int, column: int) -> None:
    """Kills centred windows and statistics over the whole series."""
    whole = compute_features(HISTORY, NAMES)[:cut, column]
    assert same_bits(whole, compute_features(HISTORY.rows(0, cut), NAMES)[:, column])


@pytest.mark.parametrize("column", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("cut", MID_SESSION_CUTS)
def test_another_future_changes_no_past_feature(cut: int, column: int) -> None:
    """Kills look-ahead that a prefix test misses because it depends on values, not on length."""
    before = compute_features(HISTORY, NAMES)[:cut, column]
    after = compute_features(changed_from(HISTORY, cut), NAMES)[:cut, column]
    assert same_bits(before, after)


@pytest.mark.parametrize("column", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("start", [1, 100, 287, 555, 701])
def test_a_later_start_changes_no_feature_after_the_memory(start: int, column: int) -> None:
    """Kills running sums, back-filled warm-ups, and a memory longer than it says."""
    whole = compute_features(HISTORY, NAMES)[start + FEATURE_MEMORY - 1 :, column]
    late = compute_features(HISTORY.rows(start, len(HISTORY)), NAMES)
    assert same_bits(whole, late[FEATURE_MEMORY - 1 :, column])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), row=st.integers(0, 699), spare=st.integers(0, 200))
def test_the_memory_alone_gives_the_same_bits_as_the_whole_history(
    seed: int, row: int, spare: int
) -> None:
    """Kills a live path that differs from the backtest in the last place."""
    grid = random_grid(700, seed % 7, missing=0.05 * (seed % 3), no_trades=0.1 * (seed % 2))
    whole = compute_features(grid, NAMES)[row]
    short = grid.rows(max(0, row + 1 - FEATURE_MEMORY - spare), row + 1)
    assert same_bits(whole, compute_features(short, NAMES)[-1])
    assert same_bits(whole, last_row_features(short, NAMES))
    assert same_bits(whole[: len(DEFAULT_COLUMNS)], last_row_features(short))


def test_every_row_of_a_long_series_equals_its_last_row_computed_alone() -> None:
    """Kills rounding that depends on the position in the array (SIMD tails, chunk borders)."""
    grid = random_grid(20_000, 11)
    whole = compute_features(grid, NAMES)
    for row in range(FEATURE_MEMORY - 1, len(grid), 61):
        short = grid.rows(row + 1 - FEATURE_MEMORY, row + 1)
        assert same_bits(whole[row], compute_features(short, NAMES)[-1])
        assert same_bits(whole[row], last_row_features(short, NAMES))


# --- edges --------------------------------------------------------------------------------------


def test_a_gap_makes_the_next_return_undefined_and_nothing_is_filled() -> None:
    """Kills a return measured across a gap as if it were one candle's."""
    features = compute_features(with_hole(random_grid(400, 1), 320, 322))
    returns = features[:, DEFAULT_COLUMNS.index("log_return")]
    assert [row for row in (319, 320, 321, 322, 323) if not np.isnan(returns[row])] == [319, 323]
    assert features[320:322, DEFAULT_COLUMNS.index("present")].tolist() == [0.0, 0.0]
    assert np.isnan(features[320:322, :6]).all()
    assert np.isfinite(features[320:322, 6:]).all()
    assert np.isfinite(features[322, 1:]).all()


@pytest.mark.parametrize("window", [12, 24, 48])
def test_volatility_needs_half_of_its_window(window: int) -> None:
    """Kills a volatility made of two returns after a long gap."""
    column = DEFAULT_COLUMNS.index(f"volatility_{window}")
    hole_end = 350
    grid = with_hole(random_grid(450, 2), 300, hole_end)
    volatility = compute_features(grid)[:, column]
    # The first return after the hole is that of hole_end + 1, so half a window of them is there
    # at hole_end + window / 2.
    assert np.isnan(volatility[hole_end : hole_end + window // 2]).all()
    assert np.isfinite(volatility[hole_end + window // 2 :]).all()


def test_day_windows_need_half_of_their_candles() -> None:
    """Kills a z-score made of a handful of candles after an outage."""
    hole_end = 300 + DAY_WINDOW
    features = compute_features(with_hole(random_grid(900, 2), 300, hole_end))
    day = features[:, [DEFAULT_COLUMNS.index("volume_z"), DEFAULT_COLUMNS.index("range_ratio")]]
    half = hole_end + DAY_WINDOW // 2 - 1
    assert np.isnan(day[hole_end:half]).all()
    assert np.isfinite(day[half:]).all()


def test_before_the_first_full_window_everything_with_a_window_is_undefined() -> None:
    """Kills a warm-up that is filled from what little there is."""
    features = compute_features(random_grid(400, 5))
    first_known = [int(np.flatnonzero(~np.isnan(column))[0]) for column in features.T]
    assert first_known == [1, 12, 24, 48, DAY_WINDOW - 1, DAY_WINDOW - 1, 0, 0, 0]


def test_volume_z_does_not_depend_on_the_unit_of_volume() -> None:
    """Kills an absolute epsilon, which treats a coin of large units unlike one of small units."""
    grid = random_grid(400, 6, no_trades=0.2)
    column = DEFAULT_COLUMNS.index("volume_z")
    expected = compute_features(grid)[:, column]
    for unit in (1e-9, 1e9):
        scaled = dataclasses.replace(grid, volume=grid.volume * unit)
        np.testing.assert_allclose(compute_features(scaled)[:, column], expected, atol=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.1, 1234.567])
def test_constant_volume_has_a_z_score_of_exactly_zero(level: float) -> None:
    """Kills rounding noise divided by rounding noise."""
    grid = random_grid(400, 6, missing=0.1)
    volume = np.where(grid.present, level, np.nan)
    features = compute_features(dataclasses.replace(grid, volume=volume))
    z = features[:, DEFAULT_COLUMNS.index("volume_z")]
    assert {0.0} == set(z[~np.isnan(z)].tolist())
    assert np.count_nonzero(~np.isnan(z)) > 50


def test_an_untraded_candle_is_below_every_traded_one_of_its_window() -> None:
    """Kills a stand-in volume above real ones, or minus infinity."""
    volume = np.full(400, 1000.0)
    volume[350] = 0.0
    z = compute_features(dataclasses.replace(random_grid(400, 6), volume=volume))
    column = z[:, DEFAULT_COLUMNS.index("volume_z")]
    # 287 equal values and one other: its z-score is -sqrt(287), whatever the stand-in is.
    assert pytest.approx(-math.sqrt(DAY_WINDOW - 1)) == column[350]
    assert column[351] > 0


def test_flat_candles_give_a_range_ratio_of_one_and_not_a_division_by_zero() -> None:
    """Kills 0 / 0 in a market that stands still, and x / 0 in one that nearly does."""
    grid = random_grid(400, 6, flat=1.0)
    ratio = compute_features(grid)[:, DEFAULT_COLUMNS.index("range_ratio")]
    assert {1.0} == set(ratio[DAY_WINDOW - 1 :].tolist())
    high = grid.high.copy()
    high[350] += 3.0
    ratio = compute_features(dataclasses.replace(grid, high=high))[
        :, DEFAULT_COLUMNS.index("range_ratio")
    ]
    assert pytest.approx(DAY_WINDOW) == ratio[350]
    assert ratio[351] == 0.0


def test_the_clock_turns_once_a_day_and_reads_the_close() -> None:
    """Kills a clock on the open time, or in local time."""
    features = compute_features(random_grid(288, 0))
    sine, cosine = (features[:, DEFAULT_COLUMNS.index(name)] for name in ("sin_day", "cos_day"))
    closes = {0: 287, 6: 71, 12: 143, 18: 215}  # hour of the close -> row
    assert [round(sine[row], 12) for row in closes.values()] == [0, 1, 0, -1]
    assert [round(cosine[row], 12) for row in closes.values()] == [1, 0, -1, 0]


def test_the_week_turns_once_in_seven_days_from_monday() -> None:
    """Kills a week that begins on the Thursday of 1970-01-01, or a weekend told from a year."""
    grid = random_grid(
        9 * 24, 0, start_ms=1_704_067_200_000 - 30 * 3_600_000, interval_ms=3_600_000
    )
    sine, cosine = compute_features(grid, ("sin_week", "cos_week", "log_return", "present"))[
        :, :2
    ].T
    for row, close_ms in enumerate(grid.close_time.tolist()):
        moment = datetime.fromtimestamp(close_ms / 1000, UTC)
        turn = (moment.weekday() + moment.hour / 24) / 7
        assert sine[row] == pytest.approx(np.sin(2 * np.pi * turn), abs=1e-12)
        assert cosine[row] == pytest.approx(np.cos(2 * np.pi * turn), abs=1e-12)


def test_an_interval_that_does_not_divide_the_day_keeps_the_clock() -> None:
    """Kills a clock table that assumes whole candles in a day."""
    interval_ms = 7 * 60_000
    grid = random_grid(400, 0, interval_ms=interval_ms)
    features = compute_features(grid)
    for row in (0, 100, 300, 399):
        expected = oracle_row(grid, row)[6:8]
        np.testing.assert_allclose(features[row, 6:8], expected, atol=1e-12)
    assert same_bits(features[-1], last_row_features(grid))


def test_taker_imbalance_is_signed_and_nan_where_the_source_has_none() -> None:
    """Kills an imbalance invented for candles that carry no taker volume."""
    grid = random_grid(3, 0)
    grid = dataclasses.replace(
        grid,
        volume=np.array([4.0, 4.0, 4.0]),
        taker_buy_volume=np.array([4.0, 1.0, np.nan]),
    )
    imbalance = compute_features(grid, NAMES)[:, -1]
    assert imbalance[:2].tolist() == [1.0, -0.5]
    assert np.isnan(imbalance[2])
    assert np.isnan(last_row_features(grid, NAMES)[-1])


@pytest.mark.parametrize("size", [0, 1, 2, 11, 12, 287, 288, 289])
def test_short_grids_have_rows_and_no_warning(size: int) -> None:
    """Kills an index error, or a numpy warning, on the first candles of a live session."""
    grid = random_grid(size, 0)
    features = compute_features(grid, NAMES)
    assert (size, len(NAMES)) == features.shape
    if size:
        assert same_bits(features[-1], last_row_features(grid, NAMES))


@pytest.mark.real
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_real_candles_across_the_outage_give_the_same_bits_from_a_short_ring(symbol: str) -> None:
    """Kills differences between live and backtest that only real gaps and prices bring out."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET does not point at real candles")
    import pyarrow.parquet as pq

    table = pq.read_table(Path(market) / "candles" / f"{symbol}-5m.parquet")
    candles = Candles.from_arrow(table).between(1_677_628_800_000, 1_680_307_200_000)  # 2023-03
    grid = CandleGrid.from_candles(candles, FIVE_MINUTES_MS)
    assert np.count_nonzero(~grid.present) == 16
    features = compute_features(grid)
    outage = int(np.flatnonzero(~grid.present)[0])
    for row in range(outage - 3, outage + 320):
        short = grid.rows(row + 1 - FEATURE_MEMORY, row + 1)
        assert same_bits(features[row], last_row_features(short))
    for row in (outage - 1, outage, outage + 16, outage + 17, outage + 100):
        np.testing.assert_allclose(features[row], oracle_row(grid, row)[:9], rtol=1e-9, atol=1e-12)
