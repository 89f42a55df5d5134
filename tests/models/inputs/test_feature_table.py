"""The table of features: all that follows from a choice of names, and what refuses another."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from torch import Tensor

from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FEATURES, Feature
from cppncripto_strategy.models.inputs.features.digest import feature_digest, probe_grid
from cppncripto_strategy.models.inputs.features.returns import log_returns, volatility
from cppncripto_strategy.models.inputs.features.table import FeatureTable
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.macronet import EMBEDDING_SIZE, build_macronet
from cppncripto_strategy.testing.grids import mirrored, random_grid

NAMES = FEATURES.names()
SCALED = ("log_return", "volatility_12", "volatility_24", "volatility_48", "volume_z")


@pytest.fixture
def extra():
    """Registers features for one test."""
    yield lambda name, feature: FEATURES.register(name)(feature)
    FEATURES.forget("this process")


def test_positions_follow_the_names_in_any_order() -> None:
    """Positions pinned to the default columns: another column scaled, negated or hidden."""
    names = ("present", "taker_imbalance", "cos_day", "volume_z", "log_return")
    table = FeatureTable.of(names)
    assert (table.scaled, table.clock, table.odd, table.present) == ((1, 3, 4), (2,), (1, 4), 0)
    assert (table.memory, table.needs) == (289, ("taker_buy_volume",))
    assert FeatureTable.of(("log_return", "present")).memory == 2
    settings = SessionSettings(long_window=100, names=("volatility_48", "present"))
    assert (settings.n_statistics, settings.warmup) == (2, 148)


def test_every_feature_that_comes_with_the_package_is_in_the_table() -> None:
    """A feature's file that no recipe can name."""
    assert set(DEFAULT_COLUMNS) < set(NAMES)
    for name in NAMES:
        assert isinstance(FEATURES.get(name), Feature)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("log_return",), "'present' is not among the features"),
        (("present",), "none of them is scaled"),
        (("present", "log_return", "log_return"), "more than once: log_return"),
        (("present", "log_retrun"), "did you mean 'log_return'"),
        (("present", "market_log_return"), "'market_present' alone tells the networks"),
    ],
)
def test_a_table_that_cannot_be_is_refused(names: tuple[str, ...], message: str) -> None:
    """A column read twice, a network without its mask, or a scaler of nothing."""
    with pytest.raises(RecipeError, match=message):
        FeatureTable.of(names)


def test_what_is_no_feature_is_refused_by_name(extra) -> None:
    """A bare function registered where an entry belongs: an AttributeError much later."""
    extra("bare", lambda grid: grid.close)
    with pytest.raises(RecipeError, match=r"'bare' of this process is a function: .*@Feature\.of"):
        FeatureTable.of(("bare", "present"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": 0}, "memory is 0"),
        ({"sign": 0}, "sign is 0"),
        ({"needs": ("close",)}, "needs close"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    """A declaration that means nothing, found when it trades."""
    with pytest.raises(RecipeError, match=message):
        Feature(**{"batch": log_returns, "memory": 2, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "scaled", "message"),
    [
        (lambda grid: np.ones(3), True, r"'odd_one' gave an array of shape \(3,\) for 50"),
        (lambda grid: 1.0, True, r"shape \(\) for 50"),
        (lambda grid: np.full(50, np.inf), True, "'odd_one' is inf in row 0"),
        (lambda grid: np.full(50, np.nan), False, "'odd_one' is nan in row 0"),
    ],
)
def test_a_feature_that_breaks_its_promise_is_named(extra, batch, scaled, message) -> None:
    """One number broadcast to a column, or NaN that reaches a network."""
    extra("odd_one", Feature(batch, memory=1, scaled=scaled))
    with pytest.raises(RecipeError, match=message):
        FeatureTable.of(("log_return", "odd_one", "present")).compute(random_grid(50, 0))


def test_missing_candles_are_missing_in_every_scaled_column(extra) -> None:
    """A feature that fills gaps by itself, against everybody else's mask."""
    extra("filled", Feature(lambda grid: np.full(len(grid), 5.0), memory=1))
    grid = random_grid(60, 0, missing=0.3)
    table = FeatureTable.of(("filled", "log_return", "present"))
    filled = table.compute(grid)[:, 0]
    np.testing.assert_array_equal(np.isnan(filled), ~grid.present)
    live = [table.last_row(grid.rows(0, row + 1))[0] for row in range(60)]
    np.testing.assert_array_equal(live, filled)


def test_a_mirrored_market_is_read_with_the_signs_of_the_table() -> None:
    """Signs that are declared and not used, or used for another column."""
    names = tuple(name for name in NAMES[::-1] if not name.endswith("range_ratio"))
    settings = SessionSettings(interval_ms=3_600_000, long_window=48, names=names)
    grid, beside = (
        random_grid(20 * 24, seed, missing=0.02, interval_ms=settings.interval_ms)
        for seed in (4, 5)
    )
    grid = dataclasses.replace(grid, market=beside)
    plain, other = (build_sessions("X", market, settings) for market in (grid, mirrored(grid)))
    assert plain.ok.any()
    signs = np.ones(len(names), dtype=np.float32)
    signs[list(settings.table.odd)] = -1
    index = np.flatnonzero(plain.ok)

    def same(a: Tensor, b: Tensor) -> None:
        np.testing.assert_allclose(a.numpy() * signs, b.numpy(), atol=1e-4)

    same(plain.macro_windows(index), other.macro_windows(index))
    same(plain.micro_inputs(index, 9), other.micro_inputs(index, 9))
    scaled = signs[list(settings.table.scaled)]
    np.testing.assert_allclose(plain.center * scaled, other.center, atol=1e-9)
    np.testing.assert_allclose(plain.scale, other.scale, rtol=1e-6)


def test_more_features_than_an_embedding_holds_are_refused() -> None:
    """A negative width out of torch, after the candles are read."""
    with pytest.raises(RecipeError, match=r"130 in all: they leave no room .* Choose fewer"):
        build_macronet("tcn", 66, 2 * 65)
    assert build_macronet("tcn", 64, 2 * 63).size == EMBEDDING_SIZE


# --- digests --------------------------------------------------------------------------------------


def slightly_other(grid):
    """Log returns, a hundredth of a percent too large."""
    return log_returns(grid) * 1.0001


def rounded_otherwise(grid):
    """Log returns as a difference of logarithms: the same formula, other last bits."""
    logs = np.log(grid.close)
    return np.append(np.nan, np.diff(logs))


def without_mask(grid):
    """Log returns, unknown ones as 0."""
    return np.nan_to_num(log_returns(grid))


RETURN = Feature(log_returns, memory=2, sign=-1)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(RETURN, batch=slightly_other),
        dataclasses.replace(RETURN, batch=without_mask),
        dataclasses.replace(RETURN, sign=1),
        dataclasses.replace(RETURN, memory=3),
        dataclasses.replace(RETURN, scaled=False),
        dataclasses.replace(RETURN, clock=True),
        dataclasses.replace(RETURN, market=True),
    ],
)
def test_another_formula_or_declaration_has_another_digest(other: Feature) -> None:
    """A bundle that reads numbers it did not learn from."""
    assert feature_digest(other) != feature_digest(RETURN)


def test_the_same_numbers_have_the_same_digest() -> None:
    """A bundle refused after an edited comment, a new live form, or on another processor."""
    assert feature_digest(RETURN) == feature_digest(FEATURES.get("log_return"))
    same = dataclasses.replace(RETURN, batch=rounded_otherwise)
    grid = probe_grid(130)
    assert (rounded_otherwise(grid) != log_returns(grid)).sum() > 20
    assert feature_digest(same) == feature_digest(RETURN)


def test_digests_of_all_features_differ() -> None:
    """Two features taken for one another."""
    assert len(set(FeatureTable.of(NAMES).digests.values())) == len(NAMES)


def test_digests_are_those_of_bundles_on_disk() -> None:
    """A change of a probe or of the rounding that makes every stored bundle unusable, unnoticed.

    Change these only together with a feature, or with the bundle's format.
    """
    assert FeatureTable.of(NAMES).digests == {
        "log_return": "767d01e075ddd4d7",
        "volatility_12": "80687a197b2da3fc",
        "volatility_24": "f6632faa4bad2c34",
        "volatility_48": "92d92b1965248688",
        "volume_z": "13f055002110862d",
        "range_ratio": "e78892f31b98d002",
        "sin_day": "6ea251227ac229f8",
        "cos_day": "e93cfb3451b669dd",
        "present": "269b42663568426f",
        "taker_imbalance": "d968b4a4e96c06fa",
        "sin_week": "3dd37ed177ebd88c",
        "cos_week": "bb14a887b36a4eba",
        "market_log_return": "081375f8e77222fe",
        "market_volatility_12": "b1f868a1ffa781c6",
        "market_volatility_48": "37e1ae11ce5e1846",
        "market_volume_z": "1e52a7c25003ca1e",
        "market_range_ratio": "070c609eb23d3fb3",
        "market_present": "cfcf3c8115be5750",
        "log_volatility_12": "88b966de2dde5a14",
        "market_log_volatility_12": "45b866d952ba4d21",
    }


def test_settings_come_back_from_json() -> None:
    """A column order lost to sorted keys."""
    settings = SessionSettings(long_window=99, names=("volume_z", "present", "log_return"))
    plain = json.loads(json.dumps(settings.to_json(), sort_keys=True))
    assert SessionSettings.from_json(plain) == settings


def test_settings_of_other_features_are_refused_by_name(extra) -> None:
    """A bundle whose plugin is absent, or has changed, that scores all the same."""
    extra("spread", Feature(lambda grid: volatility(grid, 5), memory=6))
    plain = SessionSettings(names=("spread", "present")).to_json()
    assert SessionSettings.from_json(plain).names == ("spread", "present")
    extra("spread", Feature(lambda grid: volatility(grid, 4), memory=6))
    with pytest.raises(BundleError, match="made with another 'spread'"):
        SessionSettings.from_json(plain)
    FEATURES.forget("this process")
    with pytest.raises(BundleError, match=r"spread, present: .*'spread' is unknown"):
        SessionSettings.from_json(plain)
