"""Labels: right by naive loops and by hand, and never reading past the horizon they declare."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import Costs, Labels
from cppncripto_strategy.models.labels.barrier import triple_barrier, volatility_barriers
from cppncripto_strategy.models.labels.fixed import DEFAULT_THRESHOLD_BPS, fixed_horizon
from cppncripto_strategy.models.labels.trade import TradeLabels, net_trade

VALUES = ("open", "high", "low", "close", "volume", "taker_buy_volume")


def grid_of(candles: list[tuple[float, float, float, float] | None]) -> CandleGrid:
    """A grid of (open, high, low, close) candles; None is a missing one."""
    rows = np.array([[np.nan] * 4 if candle is None else candle for candle in candles])
    rows = rows.reshape(-1, 4)
    present = np.array([candle is not None for candle in candles], dtype=np.bool_)
    unit = np.where(present, 1.0, np.nan)
    return CandleGrid(
        start_ms=0,
        interval_ms=300_000,
        open=rows[:, 0].copy(),
        high=rows[:, 1].copy(),
        low=rows[:, 2].copy(),
        close=rows[:, 3].copy(),
        volume=unit,
        taker_buy_volume=unit,
        present=present,
    )


def random_grid(size: int, seed: int, missing: float = 0.0) -> CandleGrid:
    """A random walk of about 20 bps a candle, opening with small jumps, with missing candles."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 2e-3, size)))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 1e-3, size))
    high = np.maximum(opened, close) * np.exp(rng.exponential(1e-3, size))
    low = np.minimum(opened, close) * np.exp(-rng.exponential(1e-3, size))
    candles = list(zip(opened, high, low, close, strict=True))
    gone = rng.random(size) < missing
    return grid_of([None if gone[i] else candles[i] for i in range(size)])


# --- the oracles: one row at a time -------------------------------------------------------------

Outcome = tuple[int, float] | None


def whole(grid: CandleGrid, row: int, ahead: int) -> bool:
    return row + ahead < len(grid) and bool(grid.present[row : row + ahead + 1].all())


def naive_fixed_horizon(grid: CandleGrid, row: int, horizon: int, threshold: float) -> Outcome:
    if not whole(grid, row, horizon):
        return None
    gain = float(grid.close[row + horizon] / grid.close[row] - 1)
    return (1 if gain > threshold else -1 if gain < -threshold else 0), gain


def naive_walk(
    grid: CandleGrid, row: int, horizon: int, entry: float, up: float, down: float
) -> tuple[int, float, float] | None:
    """(side, long exit, short exit) of the first touch after `row`, None when untouched."""
    target, stop = entry * (1 + up), entry * (1 - down)
    for i in range(row + 1, row + horizon + 1):
        touches_up, touches_down = grid.high[i] >= target, grid.low[i] <= stop
        if touches_up and touches_down:
            return 0, min(stop, grid.open[i]), max(target, grid.open[i])
        if touches_up:
            return 1, target, max(target, grid.open[i])
        if touches_down:
            return -1, min(stop, grid.open[i]), stop
    return None


def naive_triple_barrier(
    grid: CandleGrid, row: int, horizon: int, up: float, down: float
) -> Outcome:
    if not whole(grid, row, horizon):
        return None
    entry = float(grid.close[row])
    touch = naive_walk(grid, row, horizon, entry, up, down)
    if touch is None:
        return 0, float(grid.close[row + horizon] / entry - 1)
    return touch[0], touch[1] / entry - 1


def naive_net_trade(
    grid: CandleGrid, row: int, horizon: int, fee: float, slip: float, barrier: float | None
) -> tuple[float, float] | None:
    """Net result of the long and of the short side, by buying and selling one unit."""
    if not whole(grid, row, horizon + 1):
        return None
    entry = float(grid.open[row + 1])
    long_exit = short_exit = float(grid.open[row + 1 + horizon])
    if barrier is not None:
        touch = naive_walk(grid, row, horizon, entry, barrier, barrier)
        if touch is not None:
            _, long_exit, short_exit = touch
    spent = entry * (1 + slip)
    spent += spent * fee
    earned = long_exit * (1 - slip)
    earned -= earned * fee
    received = entry * (1 - slip)
    received -= received * fee
    returned = short_exit * (1 + slip)
    returned += returned * fee
    return (earned - spent) / spent, (received - returned) / received


def compare(labels: Labels, expected: list[Outcome]) -> None:
    """Labels equal the oracle's (target, forward return), or are invalid where it has none."""
    assert labels.target.dtype == np.int8
    assert labels.valid.tolist() == [outcome is not None for outcome in expected]
    assert labels.target.tolist() == [0 if o is None else o[0] for o in expected]
    returns = [math.nan if o is None else o[1] for o in expected]
    np.testing.assert_allclose(labels.forward_return, returns, rtol=1e-12, atol=1e-15)


GRIDS = st.builds(
    random_grid, st.integers(0, 60), st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.3])
)


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, horizon=st.integers(1, 12), threshold_bps=st.sampled_from([0.0, 10.0, 40.0]))
def test_fixed_horizon_equals_its_definition(
    grid: CandleGrid, horizon: int, threshold_bps: float
) -> None:
    """Kills a horizon off by one, and returns that jump across a gap."""
    rows = range(len(grid))
    expected = [naive_fixed_horizon(grid, i, horizon, threshold_bps * 1e-4) for i in rows]
    compare(fixed_horizon(grid, horizon, threshold_bps), expected)


@settings(max_examples=60, deadline=None)
@given(
    grid=GRIDS,
    horizon=st.integers(1, 12),
    up_bps=st.sampled_from([5.0, 30.0, 80.0]),
    down_bps=st.sampled_from([5.0, 30.0, 80.0]),
)
def test_triple_barrier_equals_a_walk_candle_by_candle(
    grid: CandleGrid, horizon: int, up_bps: float, down_bps: float
) -> None:
    """Kills a second touch that overrides the first, and an entry candle that counts as a touch."""
    expected = [
        naive_triple_barrier(grid, i, horizon, up_bps * 1e-4, down_bps * 1e-4)
        for i in range(len(grid))
    ]
    compare(triple_barrier(grid, horizon, up_bps, down_bps), expected)


@settings(max_examples=60, deadline=None)
@given(
    grid=GRIDS,
    horizon=st.integers(1, 12),
    fee_bps=st.sampled_from([0.0, 10.0]),
    slippage_bps=st.sampled_from([0.0, 1.0]),
    barrier_bps=st.sampled_from([None, 8.0, 40.0]),
)
def test_net_trade_equals_buying_and_selling_one_unit(
    grid: CandleGrid,
    horizon: int,
    fee_bps: float,
    slippage_bps: float,
    barrier_bps: float | None,
) -> None:
    """Kills an entry at this close, a fee charged once, and slippage in the trader's favour."""
    labels = net_trade(grid, horizon, Costs(fee_bps, slippage_bps), barrier_bps, barrier_bps)
    barrier = None if barrier_bps is None else barrier_bps * 1e-4
    for i in range(len(grid)):
        sides = naive_net_trade(grid, i, horizon, fee_bps * 1e-4, slippage_bps * 1e-4, barrier)
        assert labels.valid[i] == (sides is not None)
        if sides is None:
            assert labels.target[i] == 0
            assert np.isnan([labels.long_net[i], labels.short_net[i]]).all()
            continue
        got = (labels.long_net[i], labels.short_net[i])
        assert got == pytest.approx(sides, rel=1e-9, abs=1e-12)
        if min(abs(sides[0]), abs(sides[1])) > 1e-12:
            assert labels.target[i] == int(sides[0] > 0) - int(sides[1] > 0)
        assert not (sides[0] > 1e-12 and sides[1] > 1e-12)


# --- the purge ----------------------------------------------------------------------------------

DEFINITIONS: dict[str, Callable[[CandleGrid], Labels]] = {
    "fixed_horizon": lambda grid: fixed_horizon(grid, 5),
    "triple_barrier": lambda grid: triple_barrier(grid, 5, 40.0, 40.0),
    "net_trade": lambda grid: net_trade(grid, 5),
    "net_trade_barriers": lambda grid: net_trade(grid, 5, up_bps=40.0, down_bps=40.0),
}


def changed_from(grid: CandleGrid, row: int) -> CandleGrid:
    """The grid with every candle from `row` on replaced by another market."""
    other = random_grid(len(grid), 77)
    columns = {
        name: np.concatenate([getattr(grid, name)[:row], 3 * getattr(other, name)[row:]])
        for name in (*VALUES,)
    }
    return dataclasses.replace(grid, **columns)


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_label_reads_exactly_the_horizon_it_declares(
    definition: Callable[[CandleGrid], Labels],
) -> None:
    """Kills a declared purge that is shorter than what the label reads, or needlessly longer."""
    grid = random_grid(300, 5)
    labels = definition(grid)
    reach = labels.horizon
    for row in range(20, 280, 13):
        beyond = definition(changed_from(grid, row + reach + 1))
        assert labels.target[row] == beyond.target[row]
        assert labels.forward_return[row] == beyond.forward_return[row]
        cut = definition(grid.rows(0, row + reach + 1))
        assert labels.forward_return[row] == cut.forward_return[row]
        assert cut.valid[row]
        assert not definition(grid.rows(0, row + reach)).valid[row]


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_label_does_not_depend_on_candles_before_its_own(
    definition: Callable[[CandleGrid], Labels],
) -> None:
    """Kills a label scaled by the past, or laid on the wrong row."""
    grid = random_grid(200, 6, missing=0.02)
    late = definition(grid.rows(50, 200))
    np.testing.assert_array_equal(definition(grid).target[50:], late.target)
    np.testing.assert_array_equal(definition(grid).forward_return[50:], late.forward_return)


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_missing_candle_invalidates_every_label_that_spans_it(
    definition: Callable[[CandleGrid], Labels],
) -> None:
    """Kills a label guessed across an outage."""
    grid = random_grid(60, 7)
    candles = list(zip(grid.open, grid.high, grid.low, grid.close, strict=True))
    labels = definition(grid_of([None if i == 30 else candles[i] for i in range(60)]))
    spanning = range(30 - labels.horizon, 31)
    assert np.flatnonzero(~labels.valid).tolist() == [
        *spanning,
        *range(60 - labels.horizon, 60),
    ]
    assert (labels.target[~labels.valid] == 0).all()
    assert np.isnan(labels.forward_return[~labels.valid]).all()


# --- by hand ------------------------------------------------------------------------------------


def test_the_default_threshold_is_above_the_cost_of_a_round_trip() -> None:
    """Kills a label that calls a move worth trading when it cannot pay its fees."""
    assert Costs().round_trip_bps == 22.0
    assert Costs().round_trip_bps < DEFAULT_THRESHOLD_BPS
    rise, fall = 1 + 23e-4, 1 - 23e-4
    flat = [(100.0 * p, 100.0 * p, 100.0 * p, 100.0 * p) for p in (1.0, rise, 1.0, fall)]
    assert fixed_horizon(grid_of(flat), 1).target.tolist() == [0, 0, 0, 0]
    assert fixed_horizon(grid_of(flat), 1, 22.5).target.tolist() == [1, -1, -1, 0]


def test_a_candle_that_touches_both_barriers_pays_neither_side() -> None:
    """Kills the optimistic reading of a candle whose order of touches is unknown."""
    grid = grid_of([(100, 100, 100, 100), (100, 102, 98, 101), (101, 101, 101, 101)])
    labels = triple_barrier(grid, 2, 100.0, 100.0)
    assert labels.target[0] == 0
    assert labels.forward_return[0] == pytest.approx(-0.01)
    trade = net_trade(
        grid_of([(100, 100, 100, 100), (100, 102, 98, 101), (101, 101, 101, 101)]),
        1,
        Costs(0.0, 0.0),
        100.0,
        100.0,
    )
    assert trade.target[0] == 0
    assert trade.long_net[0] == pytest.approx(-0.01)
    assert trade.short_net[0] == pytest.approx(-0.01)


def test_a_stop_that_is_jumped_over_costs_the_open_not_the_stop() -> None:
    """Kills a stop filled at a price that was never traded."""
    grid = grid_of([(100, 100, 100, 100), (95, 96, 94, 96), (96, 96, 96, 96)])
    assert triple_barrier(grid, 2, 100.0, 100.0).forward_return[0] == pytest.approx(-0.05)


def test_a_target_that_is_jumped_over_earns_only_the_target() -> None:
    """Kills a target filled better than its limit, which would flatter the label."""
    grid = grid_of([(100, 100, 100, 100), (105, 106, 104, 105), (105, 105, 105, 105)])
    assert triple_barrier(grid, 2, 100.0, 100.0).forward_return[0] == pytest.approx(0.01)


def test_the_candle_of_the_decision_touches_no_barrier() -> None:
    """Kills a label that counts the range of the candle which had already closed."""
    grid = grid_of([(100, 110, 90, 100), (100, 100, 100, 100), (100, 100, 100, 100)])
    labels = triple_barrier(grid, 2, 50.0, 50.0)
    assert labels.target[0] == 0
    assert labels.forward_return[0] == 0.0


def test_barriers_may_differ_row_by_row_and_nan_makes_the_label_invalid() -> None:
    """Kills widths taken from another row, and an unknown volatility read as no barrier."""
    grid = random_grid(80, 8)
    width = np.where(np.arange(80) % 2 == 0, 20.0, 60.0)
    width[10] = np.nan
    mixed = triple_barrier(grid, 4, width, width)
    narrow, wide = triple_barrier(grid, 4, 20.0, 20.0), triple_barrier(grid, 4, 60.0, 60.0)
    expected = np.where(np.arange(80) % 2 == 0, narrow.target, wide.target)
    expected[10] = 0
    assert mixed.target.tolist() == expected.tolist()
    assert not mixed.valid[10]
    assert np.isnan(mixed.forward_return[10])


def test_volatility_barriers_are_deviations_of_the_horizon() -> None:
    """Kills a barrier in fractions where bps are meant, and one of width zero."""
    widths = volatility_barriers(np.array([1e-3, 2e-3, 0.0, np.nan]), horizon=16, multiple=0.5)
    assert widths[:2].tolist() == pytest.approx([20.0, 40.0])
    assert np.isnan(widths[2:]).all()


def test_a_trade_enters_at_the_next_open_and_pays_both_sides() -> None:
    """Kills the free trade at the close that was just seen."""
    grid = grid_of([(1, 1, 1, 1), (100, 101, 99, 101), (103, 104, 102, 104), (106, 106, 106, 106)])
    labels = net_trade(grid, horizon=1, costs=Costs(fee_bps=10.0, slippage_bps=1.0))
    assert isinstance(labels, TradeLabels)
    assert labels.horizon == 2
    gain = 103 * (1 - 1e-4) * (1 - 1e-3) / (100 * (1 + 1e-4) * (1 + 1e-3)) - 1
    assert labels.long_net[0] == pytest.approx(gain)
    assert labels.forward_return[0] == pytest.approx(0.03)
    assert labels.target.tolist() == [1, 1, 0, 0]
    assert labels.valid.tolist() == [True, True, False, False]


def test_a_move_smaller_than_its_costs_is_no_trade() -> None:
    """Kills a label that forgets fees: 20 bps of move do not pay for 22 bps of costs."""
    grid = grid_of([(100, 100, 100, 100), (100, 100, 100, 100), (100.2, 100.2, 100.2, 100.2)])
    assert net_trade(grid, 1).target[0] == 0
    assert net_trade(grid, 1, Costs(fee_bps=9.0, slippage_bps=0.5)).target[0] == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda grid: fixed_horizon(grid, 0),
        lambda grid: fixed_horizon(grid, 5, -1.0),
        lambda grid: triple_barrier(grid, 0, 10.0, 10.0),
        lambda grid: triple_barrier(grid, 5, 0.0, 10.0),
        lambda grid: triple_barrier(grid, 5, 10.0, math.nan),
        lambda grid: triple_barrier(grid, 5, np.full(50, -1.0), 10.0),
        lambda grid: net_trade(grid, 5, Costs(fee_bps=-1.0)),
        lambda grid: net_trade(grid, 5, Costs(slippage_bps=math.nan)),
        lambda grid: net_trade(grid, 5, up_bps=10.0),
    ],
)
def test_impossible_settings_are_refused(call: Callable[[CandleGrid], Labels]) -> None:
    """Kills a recipe's nonsense that would train on nonsense."""
    with pytest.raises(RecipeError):
        call(random_grid(50, 0))
