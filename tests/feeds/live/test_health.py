"""Symbols that the exchange refuses, bars or does not list: each stops alone and comes back."""

from __future__ import annotations

from cppncripto_strategy.feeds.live.health import UNLISTED, Health
from cppncripto_strategy.feeds.live.notices import SymbolBack, SymbolStopped
from cppncripto_strategy.feeds.live.series import Series

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def health() -> tuple[Health, dict[str, Series], list]:
    heard: list = []
    series = {symbol: Series(symbol, 0, 300_000) for symbol in SYMBOLS}
    return Health(series, 30.0, 100.0, heard.append), series, heard


def test_a_refused_symbol_stops_alone_and_is_asked_again_ever_less_often():
    """Every symbol stopped by one, or the exchange asked for a dead symbol each second."""
    watch, series, heard = health()
    waits = [watch.refused("BTCUSDT", "Invalid symbol.") for _ in range(4)]
    assert waits == [30.0, 60.0, 100.0, 100.0]
    assert [SymbolStopped("BTCUSDT", "Invalid symbol.", 30.0, 1)] == heard
    assert tuple(series[symbol].stopped for symbol in SYMBOLS) == (True, False)
    watch.answered("BTCUSDT")
    assert SymbolBack("BTCUSDT") == heard[-1]
    assert watch.refused("BTCUSDT", "Invalid symbol.") == 30.0


def test_a_symbol_is_back_only_when_nothing_speaks_against_it():
    """A symbol under BREAK that trades because REST still answers about it."""
    watch, series, heard = health()
    watch.refused("BTCUSDT", "Invalid symbol.")
    watch.stated("BTCUSDT", "BREAK", 300.0)
    watch.answered("BTCUSDT")
    assert series["BTCUSDT"].stopped
    watch.stated("BTCUSDT", "TRADING", 300.0)
    assert [notice.kind for notice in heard] == ["symbol_stopped", "symbol_back"]


def test_a_symbol_that_is_not_listed_stops():
    """A symbol that exchangeInfo omits, taken as trading because nothing was said of it."""
    watch, series, heard = health()
    watch.stated("ETHUSDT", None, 300.0)
    assert series["ETHUSDT"].stopped
    assert [SymbolStopped("ETHUSDT", UNLISTED, 300.0, 1)] == heard


def test_the_last_symbol_that_stops_says_that_none_is_left():
    """A stream without a symbol that looks like a quiet market."""
    watch, _, heard = health()
    for symbol in SYMBOLS:
        watch.stated(symbol, "BREAK", 300.0)
    assert [notice.running for notice in heard] == [1, 0]
    assert watch.running == 0
