"""--candles, where candles are read from, and --market, whose days a forecast looks at, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cppncripto_strategy.paths import CANDLES

if TYPE_CHECKING:
    from cppncripto_strategy.feeds.candles import Candles
    from cppncripto_strategy.feeds.history.files import CandleSource

DEFAULT_MARKET = "BTCUSDT"
NO_MARKET = "none"

candles_option = click.option(
    "--candles",
    type=click.Path(file_okay=False, path_type=Path),
    default=CANDLES,
    show_default=True,
    help="Candle store, or folder of SYMBOL-5m files.",
)
market_option = click.option(
    "--market",
    help="Symbol whose days HAR-X sees as the market's, or none.  [default: BTCUSDT where its"
    " candles are there, else none]",
)


def market_candles(
    source: CandleSource, market: str | None, interval: str, known: Mapping[str, Candles]
) -> tuple[str | None, Candles | None]:
    """The market symbol and its candles; (None, None) where there is none.

    Parameters
    ----------
    market : as asked for; None takes the default where it is at hand.
    known : candles that were read already.

    Raises
    ------
    CppnError
        When a market was asked for by name, and its candles are not there.
    """
    if market is None:
        market = DEFAULT_MARKET if DEFAULT_MARKET in source.symbols(interval) else NO_MARKET
    if market == NO_MARKET:
        return None, None
    return market, known[market] if market in known else source.read(market, interval)
