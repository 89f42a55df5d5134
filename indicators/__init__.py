"""The networks as Backtrader indicators, for any Cerebro and for `btrun --indicator`."""

from cppncripto_strategy.indicators.macro import MacroEmbedding
from cppncripto_strategy.indicators.micro import MicroScore
from cppncripto_strategy.indicators.threshold import AdaptiveThreshold

__all__ = ["AdaptiveThreshold", "MacroEmbedding", "MicroScore"]
