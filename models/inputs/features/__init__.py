"""Features: what the networks read of a candle, one entry of one table each.

Everything is trailing, and bitwise start-invariant: a row computed from the last `memory` candles
equals, bit for bit, the same row computed from years. So a live process that holds a short ring of
candles sees the numbers that the backtest saw.
"""

from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.features.table import (
    DEFAULT_COLUMNS,
    FEATURES,
    FeatureTable,
    check_columns,
    compute_features,
    last_row_features,
    scaled_columns,
)

__all__ = [
    "DEFAULT_COLUMNS",
    "FEATURES",
    "Feature",
    "FeatureTable",
    "check_columns",
    "compute_features",
    "last_row_features",
    "scaled_columns",
]
