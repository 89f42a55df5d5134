"""The networks as Backtrader indicators; loadable by `btrun --indicator cppncripto_strategy.indicators:...`."""

from cppncripto_strategy.indicators.macro import MacroEmbedding
from cppncripto_strategy.indicators.micro import MicroScore
from cppncripto_strategy.indicators.threshold import AdaptiveThreshold

__all__ = ["AdaptiveThreshold", "MacroEmbedding", "MicroScore"]
