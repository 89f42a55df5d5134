"""The table of features: which there are, which a recipe chose, and all that follows from them.

Everything that depends on the choice of features is derived here from their entries: which columns
are scaled, hidden with the clock or negated in a mirrored market, and how far back a row reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.features.digest import feature_digest
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleColumns, CandleGrid
from cppncripto_strategy.registry import Registry

FEATURES: Registry[Feature] = Registry(
    "feature",
    "cppncripto_strategy.features",
    {
        "log_return": "cppncripto_strategy.models.inputs.features.returns:LOG_RETURN",
        "volatility_12": "cppncripto_strategy.models.inputs.features.returns:VOLATILITY_12",
        "volatility_24": "cppncripto_strategy.models.inputs.features.returns:VOLATILITY_24",
        "volatility_48": "cppncripto_strategy.models.inputs.features.returns:VOLATILITY_48",
        "volume_z": "cppncripto_strategy.models.inputs.features.volume:VOLUME_Z",
        "range_ratio": "cppncripto_strategy.models.inputs.features.ranges:RANGE_RATIO",
        "sin_day": "cppncripto_strategy.models.inputs.features.clock:SIN_DAY",
        "cos_day": "cppncripto_strategy.models.inputs.features.clock:COS_DAY",
        "present": "cppncripto_strategy.models.inputs.features.presence:PRESENT",
        "taker_imbalance": "cppncripto_strategy.models.inputs.features.taker:TAKER_IMBALANCE",
        "sin_week": "cppncripto_strategy.models.inputs.features.clock:SIN_WEEK",
        "cos_week": "cppncripto_strategy.models.inputs.features.clock:COS_WEEK",
        "log_volatility_12": "cppncripto_strategy.models.inputs.features.returns:LOG_VOLATILITY_12",
        "market_log_return": "cppncripto_strategy.models.inputs.features.market:LOG_RETURN",
        "market_volatility_12": "cppncripto_strategy.models.inputs.features.market:VOLATILITY_12",
        "market_volatility_48": "cppncripto_strategy.models.inputs.features.market:VOLATILITY_48",
        "market_log_volatility_12": (
            "cppncripto_strategy.models.inputs.features.market:LOG_VOLATILITY_12"
        ),
        "market_volume_z": "cppncripto_strategy.models.inputs.features.market:VOLUME_Z",
        "market_range_ratio": "cppncripto_strategy.models.inputs.features.market:RANGE_RATIO",
        "market_present": "cppncripto_strategy.models.inputs.features.market:PRESENT",
    },
)

DEFAULT_COLUMNS = (
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
PRESENT = "present"
_MARKET = "market_"
MARKET_PRESENT = f"{_MARKET}{PRESENT}"
MARKET_COLUMNS = (
    "market_log_return",
    "market_volatility_48",
    "market_volume_z",
    "market_present",
)
"""Columns that a recipe gets which names a market symbol and none of its columns."""


@dataclass(frozen=True)
class FeatureTable:
    """The features a recipe chose, in the order of its columns.

    Parameters
    ----------
    names : the F column names.
    features : their entries, in the same order.
    """

    names: tuple[str, ...]
    features: tuple[Feature, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> FeatureTable:
        """The table of these columns.

        Raises
        ------
        RecipeError
            When a name is unknown or repeated, what it names is no feature, `present` is missing,
            or no column is scaled.
        """
        names = tuple(names)
        check_columns(names)
        table = cls(names, tuple(_entry(name) for name in names))
        if not table.scaled:
            raise RecipeError(
                f"features {', '.join(names)}: none of them is scaled, so there is nothing to"
                " learn from; name at least one more, such as log_return"
            )
        return table

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def scaled(self) -> tuple[int, ...]:
        """Positions of the columns that the session scaler treats."""
        return self._where("scaled")

    @cached_property
    def clock(self) -> tuple[int, ...]:
        """Positions of the columns that say what time it is."""
        return self._where("clock")

    @cached_property
    def odd(self) -> tuple[int, ...]:
        """Positions of the columns that change sign in a mirrored market."""
        return tuple(i for i, feature in enumerate(self.features) if feature.sign < 0)

    @cached_property
    def present(self) -> int:
        """Position of the column that says whether the candle exists."""
        return self.names.index(PRESENT)

    @cached_property
    def memory(self) -> int:
        """Candles that a row depends on at most, itself included."""
        return max(feature.memory for feature in self.features)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Nullable candle columns that some feature reads, each once."""
        return tuple(dict.fromkeys(need for f in self.features for need in f.needs))

    @cached_property
    def market(self) -> tuple[int, ...]:
        """Positions of the columns that read the market symbol's candles."""
        return self._where("market")

    @cached_property
    def digests(self) -> dict[str, str]:
        """What each feature does, as a hash, by name (see `digest`)."""
        return {n: feature_digest(f) for n, f in zip(self.names, self.features, strict=True)}

    def compute(self, grid: CandleGrid) -> FloatArray:
        """Features of every row of a grid of T rows, float64 (T, F), NaN where undefined.

        Raises
        ------
        RecipeError
            When a feature is not what a `Feature` promises: of another shape, infinite, or not
            scaled and NaN.
        CandleError
            When a feature reads the market symbol's candles, and the grid carries none.
        """
        features = self._columns(grid)
        self._require_finite(features)
        return features

    def _columns(self, grid: CandleGrid) -> FloatArray:
        features = np.empty((len(self.features), len(grid))).T  # (T, F), its columns contiguous
        for i, feature in enumerate(self.features):
            column = feature.batch(grid)
            if np.shape(column) != (len(grid),):
                raise RecipeError(
                    f"feature {self.names[i]!r} gave an array of shape {np.shape(column)} for"
                    f" {len(grid)} candles: expected one number per candle"
                )
            features[:, i] = column
        missing = np.flatnonzero(~grid.present)
        features[missing[:, None], list(self.scaled)] = np.nan
        return features

    def last_rows(self, grid: CandleGrid, count: int) -> FloatArray:
        """The last `count` rows of `compute(grid)`, bit for bit, float64 (count, F).

        As `last_row`, for a stream that was given several candles before anybody asked; the grid
        has `memory` - 1 rows before them, or begins with the stream.
        """
        return self._columns(grid)[len(grid) - count :]

    def last_row(self, grid: CandleGrid) -> FloatArray:
        """The last row of `compute(grid)`, bit for bit, float64 (F,).

        For the live path, on a grid of at least `memory` rows (a shorter one gives NaN where the
        full history would not). At least one row.
        """
        present = bool(grid.present[-1])
        row = np.full(len(self.features), np.nan)
        for i, feature in enumerate(self.features):
            if present or not feature.scaled:
                row[i] = feature.last(grid)
        return row

    def require(self, symbol: str, candles: CandleColumns) -> None:
        """Refuse candles that lack a column for most of the span.

        Raises
        ------
        RecipeError
            When a column that a feature needs is unknown in more than half of the candles; the
            message names the feature.
        """
        for name, feature in zip(self.names, self.features, strict=True):
            for need in feature.needs:
                if np.isnan(getattr(candles, need)).mean() > 0.5:
                    raise RecipeError(
                        f"feature {name!r} needs {need}, but the candles of {symbol} carry no"
                        f" {need} for most of the span: leave {name} out of features.columns, or"
                        " fetch the full columns"
                    )

    def _where(self, flag: str) -> tuple[int, ...]:
        return tuple(i for i, feature in enumerate(self.features) if getattr(feature, flag))

    def _require_finite(self, features: FloatArray) -> None:
        bad = np.isinf(features)
        passed = [i for i in range(len(self.names)) if i not in self.scaled]
        bad[:, passed] |= np.isnan(features[:, passed])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise RecipeError(
                f"feature {self.names[column]!r} is {features[row, column]} in row {row}: expected"
                " a finite number, or NaN where the feature is scaled"
            )


def check_columns(names: Sequence[str]) -> None:
    """Refuse a choice of columns that cannot be; nothing is imported.

    Raises
    ------
    RecipeError
        When a name is unknown (the nearest is named) or repeated, or `present` is missing.
    """
    for name in names:
        FEATURES.check(name)
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise RecipeError(f"named more than once: {', '.join(repeated)}")
    if PRESENT not in names:
        raise RecipeError(
            f"{PRESENT!r} is not among the features: a missing candle is 0 in every scaled column,"
            f" like an average one, and {PRESENT} alone tells the networks which it is. Add it"
        )
    of_market = market_columns(names)
    if of_market and MARKET_PRESENT not in names:
        raise RecipeError(
            f"{', '.join(of_market)}: the market symbol has gaps of its own, and {MARKET_PRESENT!r}"
            " alone tells the networks where they are. Add it"
        )


def market_columns(names: Sequence[str]) -> list[str]:
    """Those of the columns that read the market symbol's candles.

    The package's own are known by their names, so that nothing is imported; others by their entry.
    """

    def reads_market(name: str) -> bool:
        if FEATURES.origin(name).kind == "package":
            return name.startswith(_MARKET)
        return bool(getattr(FEATURES.get(name), "market", False))

    return [name for name in names if reads_market(name)]


def scaled_columns(names: Sequence[str]) -> IntArray:
    """Positions in `names` of the columns that a session scaler treats, int64 (S,)."""
    return np.array([i for i, name in enumerate(names) if _entry(name).scaled], dtype=np.int64)


def compute_features(grid: CandleGrid, names: Sequence[str] = DEFAULT_COLUMNS) -> FloatArray:
    """`FeatureTable.compute` of these columns."""
    return FeatureTable.of(names).compute(grid)


def last_row_features(grid: CandleGrid, names: Sequence[str] = DEFAULT_COLUMNS) -> FloatArray:
    """`FeatureTable.last_row` of these columns."""
    return FeatureTable.of(names).last_row(grid)


def _entry(name: str) -> Feature:
    part: object = FEATURES.get(name)
    if not isinstance(part, Feature):
        origin = FEATURES.origin(name)
        raise RecipeError(
            f"feature {name!r} of {origin.name} is a {type(part).__name__}: expected a Feature;"
            " write @Feature.of(memory=...) between @FEATURES.register and the function"
        )
    return part
