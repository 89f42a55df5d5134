"""Contract tests of a feature: causal, start-invariant, live = batch, mirrored with the right sign.

`check_feature` runs them all on random candles with gaps, untraded and flat candles. Each check is
a function of its own, for a look at one promise, or on candles of your own. Left out: whether a
feature is of any use.

Examples
--------
>>> import numpy as np
>>> from cppncripto_strategy.models.inputs.features import Feature
>>> from cppncripto_strategy.testing.features import check_feature
>>> body = Feature(lambda grid: np.log(grid.close / grid.open), memory=1, sign=-1)
>>> check_feature(body)
>>> check_feature("log_return")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.models.inputs.features import FEATURES, Feature, FeatureTable
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.testing.grids import (
    INTERVAL_MS,
    VALUES,
    changed_before,
    changed_from,
    mirrored,
    random_grid,
    same_bits,
    with_hole,
)

MIRROR_TOLERANCE = 0.1
"""Largest distance from the declared sign, as a share of the distance from the other one.

Ranges in price units are mirrored only nearly: within a window the level moves by a few percent.
"""


def check_feature(feature: Feature | str, seed: int = 0) -> None:
    """Every check of this module but `check_table`, on a market made for the feature's memory.

    Parameters
    ----------
    feature : the feature, or the name it is registered by.
    seed : of the random market.

    Raises
    ------
    AssertionError
        When a promise is broken; the message says which, and what was found.
    RecipeError
        When no feature has this name.
    """
    entry = FEATURES.get(feature) if isinstance(feature, str) else feature
    for interval_ms in (INTERVAL_MS, HOUR_MS):
        grid = contract_grid(entry.memory, seed, interval_ms)
        check_numbers(entry, grid)
        check_prefix(entry, grid)
        check_perturbation(entry, grid)
        check_start_invariance(entry, grid)
        check_memory(entry, grid)
        check_live(entry, grid)
        check_market(entry, grid)
    rows = 2 * entry.memory + 600
    grid = random_grid(rows, seed + 1, missing=0.01)
    check_sign(entry, dataclasses.replace(grid, market=random_grid(rows, seed + 2, missing=0.01)))


def contract_grid(memory: int, seed: int = 0, interval_ms: int = INTERVAL_MS) -> CandleGrid:
    """Candles enough for a feature of this memory, with everything that breaks code.

    A market symbol stands beside them, with gaps of its own.
    """
    size = 3 * memory + 600

    def candles(seed: int, hole: int) -> CandleGrid:
        grid = random_grid(size, seed, 0.02, no_trades=0.03, flat=0.05, interval_ms=interval_ms)
        return with_hole(grid, hole, hole + 16)

    own, market = candles(seed, size // 2), candles(seed + 50, size // 2 + 40)
    return dataclasses.replace(own, market=market)


def check_numbers(feature: Feature, grid: CandleGrid) -> None:
    """One number per candle, the same each time, finite where it must be, candles untouched."""
    before = {name: getattr(grid, name).copy() for name in VALUES}
    market = {} if grid.market is None else {n: getattr(grid.market, n).copy() for n in VALUES}
    column = _batch(feature, grid)
    _require(
        same_bits(column, _batch(feature, grid)), "gives other numbers for the same candles again"
    )
    for name, values in before.items():
        _require(same_bits(values, getattr(grid, name)), f"changes the {name} of the candles")
    for name, values in market.items():
        now = getattr(grid.of_market(), name)
        _require(same_bits(values, now), f"changes the {name} of the market's candles")
    _require(not np.isinf(column).any(), "is infinite somewhere")
    for rows in (0, 1, 2):
        _batch(feature, grid.rows(0, rows))
    if not feature.scaled:
        _require(
            bool(np.isfinite(column).all()),
            "is NaN somewhere although it is not scaled: nothing turns it into a number later",
        )
    late = np.arange(len(grid)) >= feature.memory
    share = np.isfinite(column[late & grid.present]).mean()
    _require(
        share >= 0.5,
        f"is NaN in {1 - share:.0%} of the candles that have a full memory behind them: a session"
        " scaler needs half of them",
    )


def check_prefix(feature: Feature, grid: CandleGrid) -> None:
    """Cutting off the future changes nothing in the past."""
    whole = _batch(feature, grid)
    for cut in _cuts(feature, grid):
        short = _batch(feature, grid.rows(0, cut))
        _same(whole[:cut], short, f"another past when the future from row {cut} on is cut off")


def check_perturbation(feature: Feature, grid: CandleGrid) -> None:
    """Another future changes nothing in the past."""
    whole = _batch(feature, grid)
    for cut in _cuts(feature, grid):
        other = _batch(feature, changed_from(grid, cut))
        _same(whole[:cut], other[:cut], f"another past when the future from row {cut} on differs")


def check_start_invariance(feature: Feature, grid: CandleGrid) -> None:
    """A series that begins later gives the same bits as soon as the memory is full."""
    whole, spare = _batch(feature, grid), feature.memory - 1
    for start in (1, 7, *_cuts(feature, grid)[:-1]):
        late = _batch(feature, grid.rows(start, len(grid)))
        _same(
            whole[start + spare :],
            late[spare:],
            f"other bits when the series begins {start} rows later: is it a running sum, or a"
            f" memory longer than the {feature.memory} candles declared",
        )


def check_memory(feature: Feature, grid: CandleGrid) -> None:
    """Candles before the memory change nothing, their gaps included."""
    whole, spare = _batch(feature, grid), feature.memory - 1
    for cut in _cuts(feature, grid):
        other = _batch(feature, changed_before(grid, cut))
        _same(
            whole[cut + spare :],
            other[cut + spare :],
            f"other bits when candles more than {feature.memory} candles ago differ",
        )


def check_live(feature: Feature, grid: CandleGrid) -> None:
    """The live form gives the batch's bits from a ring of the last candles, at any fill."""
    whole, memory = _batch(feature, grid), feature.memory
    rows = {0, 1, memory - 2, memory - 1, memory, *range(7, len(grid), max(1, len(grid) // 60))}
    for row in sorted(row for row in rows if 0 <= row < len(grid)):
        if feature.scaled and not grid.present[row]:
            continue
        for spare in (0, 1, 100):
            ring = grid.rows(max(0, row + 1 - memory - spare), row + 1)
            live = np.array([feature.last(ring)])
            _same(whole[row : row + 1], live, f"another live value than the batch's in row {row}")


def check_market(feature: Feature, grid: CandleGrid) -> None:
    """What the market symbol's candles may change: nothing, or what the entry says.

    A feature of the traded symbol alone is the same beside any market and beside none. One that
    reads the market sees no candle of it before its close, is NaN in the market's own gaps where it
    is scaled, and follows the market's candles.
    """
    whole = _batch(feature, grid)
    if not feature.market:
        other = dataclasses.replace(grid, market=None)
        _same(whole, _batch(feature, other), "other numbers without a market symbol beside it")
        return
    market = grid.of_market()
    if feature.scaled:
        _require(
            not np.isfinite(whole[~market.present]).any(),
            "is a number where the market's candle is missing",
        )
    moved = False
    for cut in _cuts(feature, grid):
        other = dataclasses.replace(grid, market=changed_from(market, cut))
        changed = _batch(feature, other)
        what = f"another past when the market's future from row {cut} on differs"
        _same(whole[:cut], changed[:cut], what)
        moved |= not same_bits(whole[cut:], changed[cut:])
    _require(moved, "says that it reads the market symbol's candles, and never follows them")


def check_sign(feature: Feature, grid: CandleGrid) -> None:
    """In the mirrored market the feature is `sign` times what it was."""
    column, other = _batch(feature, grid), _batch(feature, mirrored(grid))
    known = np.isfinite(column) & np.isfinite(other)
    same = np.abs(other - column)[known].mean()
    negated = np.abs(other + column)[known].mean()
    right, wrong = (same, negated) if feature.sign > 0 else (negated, same)
    if right > MIRROR_TOLERANCE * wrong:
        true = "the opposite" if wrong <= MIRROR_TOLERANCE * right else "neither +1 nor -1"
        raise AssertionError(
            f"the feature declares sign {feature.sign:+d}, and in a mirrored market it is {true}:"
            f" off by {right:.3g} on average, by {wrong:.3g} from the other sign. Declare the sign"
            " it has; a place between 0 and 1 has none until it is written around zero, as 2 x - 1"
        )


def check_table(names: Sequence[str], seed: int = 0) -> None:
    """Columns together are each one alone, and the last row alone is the table's last row.

    Raises
    ------
    AssertionError
        When one column changes another, or a missing candle shows in a scaled column.
    RecipeError
        When the names cannot be a table.
    """
    table = FeatureTable.of(names)
    grid = contract_grid(table.memory, seed)
    whole = table.compute(grid)
    for i, feature in enumerate(table.features):
        alone = _batch(feature, grid)
        if feature.scaled:
            alone = np.where(grid.present, alone, np.nan)
        _same(alone, whole[:, i], f"another column {table.names[i]} than alone")
    for row in range(0, len(grid), max(1, len(grid) // 60)):
        ring = grid.rows(max(0, row + 1 - table.memory), row + 1)
        _same(whole[row], table.last_row(ring), f"another live row than the batch's row {row}")


def _cuts(feature: Feature, grid: CandleGrid) -> tuple[int, ...]:
    """Rows in the middle of sessions and windows, and in the hole."""
    middle, memory = len(grid) // 2, feature.memory
    return (memory // 2 + 1, memory + 57, middle + 9, middle + memory // 2 + 71)


def _batch(feature: Feature, grid: CandleGrid) -> FloatArray:
    column = np.asarray(feature.batch(grid))
    _require(
        column.shape == (len(grid),),
        f"gives an array of shape {column.shape} for {len(grid)} candles: expected one number each",
    )
    return column.astype(np.float64)


def _same(expected: FloatArray, actual: FloatArray, what: str) -> None:
    if not same_bits(expected, actual):
        differs = ~((expected == actual) | (np.isnan(expected) & np.isnan(actual)))
        at = int(np.argmax(differs))
        raise AssertionError(
            f"the feature has {what}: {int(differs.sum())} of {len(expected)} numbers differ, the"
            f" first {expected[at]!r} against {actual[at]!r}"
        )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the feature {what}")
