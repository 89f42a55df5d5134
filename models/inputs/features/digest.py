"""What a feature does, as a hash: other numbers or another declaration, another digest.

A bundle must not read features that are computed otherwise than those it learned from. A hash of
the source would refuse every stored bundle after an edited comment, and would miss a change in a
function that the feature calls. So a digest is taken of the numbers themselves, on made-up candles
with gaps, untraded and flat candles, and of what the entry declares. The numbers are rounded to a
millionth of the column's largest: another processor's last bit of a logarithm is not another
feature. Left out: changes that show only at another interval than the probe's 5 minutes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid

PROBE_ROWS = 128
"""Rows with a full memory behind them that a digest looks at."""
_BITS = 20
_START_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
_INTERVAL_MS = 300_000


@lru_cache(maxsize=256)
def feature_digest(feature: Feature) -> str:
    """First 16 hexadecimal digits of the SHA-256 over what a feature declares and computes."""
    declared = (feature.memory, feature.scaled, feature.sign, feature.clock, feature.needs)
    # Said only where it is so: stored bundles hold the digests of the others.
    market = "market" if feature.market else ""
    digest = hashlib.sha256(f"{declared!r}{market}".encode())
    grid = probe_grid(feature.memory + PROBE_ROWS)
    if feature.market:
        grid = replace(grid, market=probe_grid(len(grid), salt=100))
    column = np.asarray(feature.batch(grid), dtype=np.float64)
    known = np.isfinite(column) & (grid.present | (not feature.scaled))
    digest.update(np.packbits(known).tobytes())
    digest.update(_rounded(column[known]).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=8)
def probe_grid(rows: int, salt: int = 0) -> CandleGrid:
    """Made-up 5-minute candles, the same bits on every machine: only +, -, * and / made them.

    `salt` makes other ones.
    """
    moves, wicks, volumes, shares = (_uniform(rows, salt + part) for part in range(1, 5))
    flat = _uniform(rows, salt + 5) < 0.05
    change = np.where(flat, 0.0, 0.01 * (moves - 0.5))
    close = 100.0 * np.cumprod(1.0 + change)
    opened = close / (1.0 + change)
    wick = np.where(flat, 0.0, 0.002 * wicks)
    volume = np.where(
        _uniform(rows, salt + 6) < 0.05, 0.0, 1.0 + 1000.0 * volumes * volumes * volumes
    )
    present = _present(rows, salt)
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * (1.0 + wick),
        "low": np.minimum(opened, close) * (1.0 - wick),
        "close": close,
        "volume": volume,
        "taker_buy_volume": volume * shares,
    }
    columns = {name: np.where(present, values, np.nan) for name, values in columns.items()}
    return CandleGrid(start_ms=_START_MS, interval_ms=_INTERVAL_MS, present=present, **columns)


def _uniform(rows: int, salt: int) -> FloatArray:
    """Numbers in [0, 1) by integer arithmetic: numpy does not promise its random streams."""
    x = np.arange(rows, dtype=np.uint64) + np.uint64(salt * 1_000_003)
    for _ in range(2):  # the finaliser of MurmurHash3 (Appleby, public domain)
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def _present(rows: int, salt: int) -> BoolArray:
    """Single candles missing, and a hole of ten among the last rows."""
    present = _uniform(rows, salt + 7) >= 0.02
    present[max(0, rows - 60) : max(0, rows - 50)] = False
    return present


def _rounded(values: FloatArray) -> FloatArray:
    """Whole multiples of a power of two near a millionth of the largest value."""
    largest = float(np.abs(values).max(initial=0.0))
    # Times 1.37, so that a largest value of exactly 1 is not on the edge between two powers.
    _, exponent = np.frexp(1.37 * largest)
    return np.rint(np.ldexp(values, _BITS - int(exponent)))
