"""Two networks on two clocks trade Binance spot candles in Backtrader.

The names below are the public ones; a module is imported when one of its names is first used, so
`import cppncripto_strategy` waits for neither torch nor Backtrader. Everything else is imported
from the module that defines it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cppncripto_strategy.backtest import run_backtest
    from cppncripto_strategy.broker import SpotBroker
    from cppncripto_strategy.feeds.candles import Candles
    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.replay import ReplayFeed
    from cppncripto_strategy.indicators.macro import MacroEmbedding
    from cppncripto_strategy.indicators.micro import MicroScore
    from cppncripto_strategy.indicators.threshold import AdaptiveThreshold
    from cppncripto_strategy.models.bundle import BundleTimeline
    from cppncripto_strategy.recipe import Recipe, load_recipe
    from cppncripto_strategy.strategy import MacroMicroStrategy

__version__ = "0.2.0"
__all__ = [
    "AdaptiveThreshold",
    "BundleTimeline",
    "CandleStore",
    "Candles",
    "MacroEmbedding",
    "MacroMicroStrategy",
    "MicroScore",
    "Recipe",
    "ReplayFeed",
    "SpotBroker",
    "load_recipe",
    "run_backtest",
]

# Module of each public name, below this package.
_HOMES = {
    "AdaptiveThreshold": "indicators.threshold",
    "BundleTimeline": "models.bundle",
    "CandleStore": "feeds.history.store",
    "Candles": "feeds.candles",
    "MacroEmbedding": "indicators.macro",
    "MacroMicroStrategy": "strategy",
    "MicroScore": "indicators.micro",
    "Recipe": "recipe",
    "ReplayFeed": "feeds.replay",
    "SpotBroker": "broker",
    "load_recipe": "recipe",
    "run_backtest": "backtest",
}

if not TYPE_CHECKING:  # a type checker would take it for any name there is

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
