"""The market symbol's columns: features of its candles, on the rows of the traded symbol.

Each is one of the table's own features, computed from `grid.of_market()`: the same numbers as for a
traded symbol, aligned by closing time. The market's candle of a row closes when the row does, so it
is known as early; where the market has none, scaled columns are NaN, and `market_present` is 0.

Left out: the difference or the beta between symbol and market, which a network can form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.inputs.features import presence, ranges, returns, volume
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.grid import CandleGrid


def of_market(feature: Feature) -> Feature:
    """The same feature of the market symbol's candles.

    Scaled columns are NaN in every row where the market's candle is missing, whatever stands there.
    """

    def batch(grid: CandleGrid) -> FloatArray:
        market = grid.of_market()
        column = feature.batch(market)
        return np.where(market.present, column, np.nan) if feature.scaled else column

    def live(grid: CandleGrid) -> float:
        market = grid.of_market()
        if feature.scaled and not market.present[-1]:
            return float("nan")
        return feature.last(market)

    return replace(feature, batch=batch, live=live, market=True)


LOG_RETURN = of_market(returns.LOG_RETURN)
VOLATILITY_12 = of_market(returns.VOLATILITY_12)
VOLATILITY_48 = of_market(returns.VOLATILITY_48)
LOG_VOLATILITY_12 = of_market(returns.LOG_VOLATILITY_12)
VOLUME_Z = of_market(volume.VOLUME_Z)
RANGE_RATIO = of_market(ranges.RANGE_RATIO)
PRESENT = of_market(presence.PRESENT)
