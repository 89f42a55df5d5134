"""The contract of features: kept by each there is, and broken by each of these on purpose."""

from __future__ import annotations

import dataclasses
import doctest
from types import ModuleType

import numpy as np
import pytest

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FEATURES, Feature, feature
from cppncripto_strategy.models.inputs.features.returns import log_returns
from cppncripto_strategy.models.inputs.features.windows import trailing, trailing_counts
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.testing import features as kit
from cppncripto_strategy.testing.features import check_feature, check_table
from cppncripto_strategy.testing.grids import changed_before, changed_from, random_grid, same_bits

NAMES = FEATURES.names()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_feature_keeps_the_contract(name: str, seed: int) -> None:
    """A feature that is wrong live, in a mirrored market or after a gap, and no test notices."""
    check_feature(name, seed)


@pytest.mark.parametrize("names", [DEFAULT_COLUMNS, NAMES, NAMES[::-1], ("present", "volume_z")])
def test_features_together_are_each_alone(names: tuple[str, ...]) -> None:
    """A column that lands under another's name, or scales with a neighbour."""
    check_table(names)


# --- one broken feature for each promise ----------------------------------------------------------


def momentum(grid: CandleGrid) -> FloatArray:
    """Sum of the last 8 log returns, unknown ones as 0: honest."""
    returns = log_returns(grid)
    known = ~np.isnan(returns)
    total = trailing(np.where(known, returns, 0.0), 8)
    total[trailing_counts(known, 8) < 4] = np.nan
    total[:8] = np.nan
    return total


def running_sum(grid: CandleGrid) -> FloatArray:
    """LEAK of the start: the same sum, as a difference of running totals."""
    returns = np.nan_to_num(log_returns(grid))
    total = np.cumsum(returns)
    total[8:] -= total[:-8].copy()
    return np.where(np.arange(len(grid)) < 8, np.nan, total)


def next_return(grid: CandleGrid) -> FloatArray:
    """LEAK of the future."""
    return np.append(log_returns(grid)[1:], np.full(min(len(grid), 1), np.nan))


def whole_mean(grid: CandleGrid) -> FloatArray:
    """LEAK of the future: a mean over the whole series."""
    returns = log_returns(grid)
    known = returns[~np.isnan(returns)]
    return returns - (known.mean() if len(known) else 0.0)


def spoils(grid: CandleGrid) -> FloatArray:
    """Writes into the candles it was given."""
    grid.volume[:] = 1.0
    return log_returns(grid)


def drawn(grid: CandleGrid) -> FloatArray:
    """Other numbers at every call."""
    return np.random.default_rng().normal(size=len(grid))


def place_in_range(grid: CandleGrid) -> FloatArray:
    """Close within the candle, 0 to 1: in a mirrored market 1 minus itself."""
    height = grid.high - grid.low
    return np.where(height > 0, (grid.close - grid.low) / np.where(height > 0, height, 1.0), 0.5)


HONEST = Feature(momentum, memory=9, sign=-1)
BROKEN = {
    "running sum": (Feature(running_sum, 9, sign=-1), "running sum, or a memory longer"),
    "future": (Feature(next_return, 2, sign=-1), "another past when the future"),
    "whole series": (Feature(whole_mean, 2, sign=-1), "another past when the future"),
    "short memory": (dataclasses.replace(HONEST, memory=8), "8 candles declared"),
    "wrong sign": (dataclasses.replace(HONEST, sign=1), r"declares sign \+1, .* the opposite"),
    "no sign": (Feature(place_in_range, 1), r"neither \+1 nor -1"),
    "another live form": (
        dataclasses.replace(HONEST, live=lambda grid: float(np.sum(log_returns(grid)[-8:]))),
        "another live value",
    ),
    "spoils": (Feature(spoils, 2, sign=-1), "changes the volume of the candles"),
    "random": (Feature(drawn, 1), "other numbers for the same candles"),
    "one number": (Feature(lambda grid: np.array(1.0), 1), r"shape \(\) for"),  # type: ignore[arg-type]
    "unscaled NaN": (dataclasses.replace(HONEST, scaled=False), "NaN somewhere although"),
    "mostly NaN": (
        Feature(lambda grid: np.where(grid.volume > 20, grid.volume, np.nan), 1),
        "a session scaler needs half",
    ),
    "infinite": (
        Feature(lambda grid: np.where(grid.volume == 0, np.inf, grid.volume), 1),
        "is infinite",
    ),
}


def test_an_honest_feature_without_a_live_form_passes() -> None:
    """A kit that cries wolf, or that wants a live form written by hand."""
    check_feature(HONEST)


@pytest.mark.parametrize(("feature", "message"), BROKEN.values(), ids=BROKEN)
def test_each_broken_promise_is_named(feature: Feature, message: str) -> None:
    """A contract that passes what breaks it."""
    with pytest.raises(AssertionError, match=message):
        check_feature(feature)


def test_a_feature_that_is_not_there_is_named() -> None:
    """A kit that passes a misspelt name."""
    with pytest.raises(RecipeError, match="did you mean 'volume_z'"):
        check_feature("volumez")


def test_changed_grids_keep_what_they_should() -> None:
    """A perturbation that leaves the other side of the cut untouched tests nothing."""
    grid = random_grid(50, 0)
    after, before = changed_from(grid, 20), changed_before(grid, 20)
    assert same_bits(after.close[:20], grid.close[:20])
    assert same_bits(before.close[20:], grid.close[20:])
    assert (after.close[20:] != grid.close[20:]).all()
    assert (before.close[:20] != grid.close[:20]).all()


@pytest.mark.parametrize("module", [feature, kit])
def test_examples_of_the_docstrings_run(module: ModuleType) -> None:
    """An example that no longer works, which is what a newcomer copies."""
    try:
        failed, tried = doctest.testmod(module)
    finally:
        FEATURES.forget("this process")
    assert tried > 0
    assert failed == 0
