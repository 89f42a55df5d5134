"""Labels: what the candles after a candle made of it. The only module that may read the future.

Three definitions: the return over a fixed horizon, the barrier that is touched first, and the net
result of the trade that the backtest would make. Each says how many later candles it reads, in
`Labels.horizon`: that many must be purged between training and validation.

A label is invalid wherever a candle it spans is missing or not there yet; it is never guessed.

Left out: sample weights and meta-labels. Source of the triple barrier: Lopez de Prado (2018),
"Advances in Financial Machine Learning", chapter 3; a horizon that ends untouched is 0 here, not
the sign of its return, because such moves do not pay for the trade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid

BPS = 1e-4
FEE_BPS = 10.0
"""Taker fee of one side, Binance spot without discounts."""
SLIPPAGE_BPS = 1.0
"""Slippage of one side."""
ROUND_TRIP_BPS = 2 * (FEE_BPS + SLIPPAGE_BPS)
DEFAULT_THRESHOLD_BPS = 25.0
"""Return that counts as a move: above the round trip's cost, so that it could pay."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A label for each row of a grid.

    Parameters
    ----------
    target : int8 array (T,): +1 buy, -1 sell, 0 neither (and 0 where invalid).
    forward_return : float64 array (T,): the fraction gained by holding, NaN where invalid.
    valid : bool array (T,): whether every candle the label reads exists.
    horizon : how many candles after its own a label may read, and so the length to purge.
    """

    target: NDArray[np.int8]
    forward_return: FloatArray
    valid: BoolArray
    horizon: int


@dataclass(frozen=True, slots=True, eq=False)
class TradeLabels(Labels):
    """Labels by the net result of a simulated trade.

    Parameters
    ----------
    long_net, short_net : float64 arrays (T,): fraction gained by each side after fees and slippage,
        NaN where invalid. `forward_return` is the long side before costs.
    """

    long_net: FloatArray
    short_net: FloatArray


def fixed_horizon(
    grid: CandleGrid, horizon: int, threshold_bps: float = DEFAULT_THRESHOLD_BPS
) -> Labels:
    """Label by the return close[i + horizon] / close[i] - 1. Reads `horizon` later candles.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles ahead, at least 1.
    threshold_bps : a return above it is +1, below minus it -1, anything between 0.

    Returns
    -------
    Labels, invalid where any candle of [i, i + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1 or the threshold is negative.
    """
    _check_horizon(horizon)
    _check_not_negative("threshold_bps", threshold_bps)
    valid = _all_present(grid, horizon)
    forward = np.where(valid, _ahead(grid.close, horizon) / grid.close - 1.0, np.nan)
    threshold = threshold_bps * BPS
    return Labels(_sides(forward > threshold, forward < -threshold), forward, valid, horizon)


def triple_barrier(
    grid: CandleGrid,
    horizon: int,
    up_bps: float | FloatArray,
    down_bps: float | FloatArray,
) -> Labels:
    """Label by the barrier around close[i] that is touched first. Reads `horizon` later candles.

    The upper one first is +1, the lower one first -1, neither within the horizon 0. When one candle
    touches both, their order is unknown and the label is pessimistic for either side: 0, with the
    return of a long position that was stopped out.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles until the vertical barrier, at least 1.
    up_bps, down_bps : distances of the barriers in bps of close[i], positive: one number, or a
        float64 array (T,) such as `volatility_barriers` gives. NaN there makes the label invalid.

    Returns
    -------
    Labels. `forward_return` is what a long position entered at close[i] gains: up to its target,
    down to its stop (or to the open, where a candle opens beyond the stop), or to the close at the
    horizon. Invalid where any candle of [i, i + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1 or a barrier is not positive.
    """
    _check_horizon(horizon)
    up, down = _barrier("up_bps", up_bps), _barrier("down_bps", down_bps)
    valid = _all_present(grid, horizon) & ~np.isnan(up + down)
    path = _first_touch(grid, grid.close, up, down, horizon)
    exit_price = np.where(path.untouched, _ahead(grid.close, horizon), path.long_exit)
    forward = np.where(valid, exit_price / grid.close - 1.0, np.nan)
    return Labels(_sides(valid & path.up, valid & path.down), forward, valid, horizon)


def net_trade(
    grid: CandleGrid,
    horizon: int,
    fee_bps: float = FEE_BPS,
    slippage_bps: float = SLIPPAGE_BPS,
    up_bps: float | FloatArray | None = None,
    down_bps: float | FloatArray | None = None,
) -> TradeLabels:
    """Label by the trade decided at candle i, after costs. Reads `horizon` + 1 later candles.

    It enters at the open of candle i + 1 and leaves at the open of candle i + 1 + horizon. With
    barriers it leaves at the first one touched on the way: the upper is the long side's target and
    the short side's stop, the lower the reverse; a candle that touches both stops either side.
    +1 where the long side gains, -1 where the short side gains, 0 where neither does.

    Parameters
    ----------
    grid : candles, T rows.
    horizon : candles the position is held, at least 1.
    fee_bps, slippage_bps : costs of one side, in bps of the price.
    up_bps, down_bps : distances of the barriers in bps of the entry price: both or neither.

    Returns
    -------
    TradeLabels, invalid where any candle of [i, i + 1 + horizon] is missing or beyond the grid.

    Raises
    ------
    RecipeError
        When the horizon is below 1, a cost is negative, or a barrier is not positive or alone.
    """
    _check_horizon(horizon)
    _check_not_negative("fee_bps", fee_bps)
    _check_not_negative("slippage_bps", slippage_bps)
    if (up_bps is None) != (down_bps is None):
        raise RecipeError("net_trade needs both up_bps and down_bps, or neither")
    valid = _all_present(grid, horizon + 1)
    entry = _ahead(grid.open, 1)
    long_exit = short_exit = _ahead(grid.open, horizon + 1)
    if up_bps is not None and down_bps is not None:
        up, down = _barrier("up_bps", up_bps), _barrier("down_bps", down_bps)
        valid &= ~np.isnan(up + down)
        path = _first_touch(grid, entry, up, down, horizon)
        long_exit = np.where(path.untouched, long_exit, path.long_exit)
        short_exit = np.where(path.untouched, short_exit, path.short_exit)
    paid = (1 + slippage_bps * BPS) * (1 + fee_bps * BPS)
    kept = (1 - slippage_bps * BPS) * (1 - fee_bps * BPS)
    long_net = np.where(valid, long_exit * kept / (entry * paid) - 1.0, np.nan)
    short_net = np.where(valid, 1.0 - short_exit * paid / (entry * kept), np.nan)
    forward = np.where(valid, long_exit / entry - 1.0, np.nan)
    target = _sides(long_net > 0, short_net > 0)
    return TradeLabels(target, forward, valid, horizon + 1, long_net, short_net)


def volatility_barriers(volatility: FloatArray, horizon: int, multiple: float) -> FloatArray:
    """Barrier distances in bps, `multiple` deviations of the return over `horizon` candles.

    `volatility` is the deviation of one candle's log return (T,), such as the feature
    volatility_48; NaN stays NaN, and a volatility of zero becomes NaN (no barrier can be set).
    """
    width = multiple * np.sqrt(horizon) * volatility / BPS
    return np.where(width > 0, width, np.nan)


def regression_target(
    forward_return: FloatArray, scale: float | FloatArray, limit: float = 0.999
) -> FloatArray:
    """Target of the tanh head: tanh(forward_return / scale), kept inside +-`limit`.

    `scale` is the size of a usual move as a fraction, one number or an array (T,), for instance
    volatility_48 * sqrt(horizon). NaN where the return or scale is NaN or the scale is not
    positive. The limit keeps the head from chasing an infinite pre-activation.
    """
    usual = np.where(np.asarray(scale, dtype=np.float64) > 0, scale, np.nan)
    return np.clip(np.tanh(forward_return / usual), -limit, limit)


# --- helpers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Touch:
    """First touch of the barriers, each array (T,): which side alone, and where each side exits."""

    up: BoolArray
    down: BoolArray
    untouched: BoolArray
    long_exit: FloatArray
    short_exit: FloatArray


def _first_touch(
    grid: CandleGrid, entry: FloatArray, up: FloatArray, down: FloatArray, horizon: int
) -> _Touch:
    """Walk candles i + 1 .. i + horizon of every row at once. NaN candles touch nothing."""
    upper, lower = entry * (1 + up), entry * (1 - down)
    size = len(grid)
    first_up, first_down = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    untouched = np.ones(size, np.bool_)
    long_exit, short_exit = np.full(size, np.nan), np.full(size, np.nan)
    for k in range(1, horizon + 1):
        high, low, opened = (_ahead(values, k) for values in (grid.high, grid.low, grid.open))
        up_now, down_now = untouched & (high >= upper), untouched & (low <= lower)
        # Pessimistic: a stop is filled at the open where the candle opens beyond it, a target at
        # its own price; and a candle that touches both stops either side.
        stopped, covered = np.minimum(opened, lower), np.maximum(opened, upper)
        long_exit = np.where(down_now, stopped, np.where(up_now, upper, long_exit))
        short_exit = np.where(up_now, covered, np.where(down_now, lower, short_exit))
        first_up |= up_now & ~down_now
        first_down |= down_now & ~up_now
        untouched &= ~(up_now | down_now)
    return _Touch(first_up, first_down, untouched, long_exit, short_exit)


def _ahead(values: FloatArray, rows: int) -> FloatArray:
    """values[i + rows] at row i, NaN beyond the end."""
    moved = np.full(len(values), np.nan)
    moved[: max(0, len(values) - rows)] = values[rows:]
    return moved


def _all_present(grid: CandleGrid, ahead: int) -> BoolArray:
    """Whether all candles of [i, i + ahead] exist, bool (T,)."""
    totals = np.concatenate([[0], np.cumsum(grid.present)])
    whole = np.zeros(len(grid), np.bool_)
    inside = max(0, len(grid) - ahead)
    whole[:inside] = totals[ahead + 1 :] - totals[:inside] == ahead + 1
    return whole


def _sides(up: BoolArray, down: BoolArray) -> NDArray[np.int8]:
    return up.astype(np.int8) - down.astype(np.int8)


def _barrier(name: str, width_bps: float | FloatArray) -> FloatArray:
    """Barrier distances as fractions; NaN allowed in arrays, zero and below refused."""
    width = np.asarray(width_bps, dtype=np.float64)
    if (width <= 0).any() or (width.ndim == 0 and np.isnan(width)):
        raise RecipeError(f"{name} must be positive, found {width[width <= 0][:1]}")
    return width * BPS


def _check_horizon(horizon: int) -> None:
    if horizon < 1:
        raise RecipeError(f"horizon is {horizon} candles; a label needs at least 1")


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise RecipeError(f"{name} is {value}; it must be zero or more")
