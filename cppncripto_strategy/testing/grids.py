"""Candle grids for contract tests: random markets with gaps, and what may be done to them.

No claim to look like a market: they hold what breaks code (missing, untraded and flat candles).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.grid import CandleGrid

START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC, a Monday."""
INTERVAL_MS = 300_000
VALUES = ("open", "high", "low", "close", "volume", "taker_buy_volume")


def random_grid(
    size: int,
    seed: int,
    missing: float = 0.0,
    no_trades: float = 0.0,
    flat: float = 0.0,
    start_ms: int = START_MS,
    interval_ms: int = INTERVAL_MS,
) -> CandleGrid:
    """A random walk of `size` candles; missing, no_trades and flat are shares of them."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 2e-3, size)))
    opened = np.concatenate([[100.0], close[:-1]])
    quiet = rng.random(size) < flat
    close = np.where(quiet, opened, close)
    wick = np.where(quiet, 0.0, rng.exponential(0.05, size))
    volume = np.where(rng.random(size) < no_trades, 0.0, rng.lognormal(2.0, 1.0, size))
    columns = {
        "open": opened[:size],
        "high": np.maximum(opened[:size], close) + wick,
        "low": np.minimum(opened[:size], close) - wick,
        "close": close,
        "volume": volume,
        "taker_buy_volume": volume * rng.random(size),
    }
    present = rng.random(size) >= missing
    for values in columns.values():
        values[~present] = np.nan
    return CandleGrid(start_ms=start_ms, interval_ms=interval_ms, present=present, **columns)


def with_hole(grid: CandleGrid, first: int, last: int) -> CandleGrid:
    """The grid without the candles of rows [first, last); a market symbol keeps its own."""
    columns: dict[str, Any] = {n: getattr(grid, n).copy() for n in (*VALUES, "present")}
    for name in VALUES:
        columns[name][first:last] = np.nan
    columns["present"][first:last] = False
    return dataclasses.replace(grid, **columns)


def spliced(before: CandleGrid, after: CandleGrid, row: int) -> CandleGrid:
    """The rows of `before` up to `row`, then those of `after`, which has as many; markets, too."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(before, name)[:row], getattr(after, name)[row:]])
        for name in (*VALUES, "present")
    }
    if before.market is not None and after.market is not None:
        columns["market"] = spliced(before.market, after.market, row)
    return dataclasses.replace(before, **columns)


def changed_from(grid: CandleGrid, row: int, seed: int = 99) -> CandleGrid:
    """The grid with every candle from `row` on replaced by another market, with other gaps."""
    return spliced(grid, _other(grid, seed), row)


def changed_before(grid: CandleGrid, row: int, seed: int = 99) -> CandleGrid:
    """The grid with every candle before `row` replaced by another market, with other gaps."""
    return spliced(_other(grid, seed), grid, row)


def mirrored(grid: CandleGrid) -> CandleGrid:
    """The mirrored market: log prices negated, takers' purchases and sales exchanged.

    A high becomes a low. The level stays about the first close's. A market symbol is mirrored with
    it.
    """
    known = grid.close[grid.present]
    level = known[0] ** 2 if len(known) else 1.0
    return dataclasses.replace(
        grid,
        open=level / grid.open,
        high=level / grid.low,
        low=level / grid.high,
        close=level / grid.close,
        taker_buy_volume=grid.volume - grid.taker_buy_volume,
        market=None if grid.market is None else mirrored(grid.market),
    )


def same_bits(a: FloatArray, b: FloatArray) -> bool:
    """Equal bit for bit, any NaN equal to any NaN (so -0.0 differs from 0.0)."""
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    known = ~np.isnan(a)
    return a[known].tobytes() == b[known].tobytes()


def _other(grid: CandleGrid, seed: int) -> CandleGrid:
    other = random_grid(len(grid), seed, missing=0.2, no_trades=0.2)
    columns: dict[str, Any] = {name: 7.0 * getattr(other, name) for name in VALUES}
    if grid.market is not None:
        columns["market"] = _other(grid.market, seed + 1)
    return dataclasses.replace(grid, present=other.present, **columns)
