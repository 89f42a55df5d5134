"""Steps read off candles: those the exchange stated, on real candles; none that is not there."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.binance.filters import filters_from_exchange_info
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.history.derived_filters import (
    MIN_CANDLES,
    decimal_step,
    derived_filters,
)
from cppncripto_strategy.feeds.history.files import open_source

MARKET = Path(os.environ.get("CPPN_BT_REAL_MARKET", "absent"))


def candles_of(price: float, tick: str, volume: float, step: str, count: int = 400) -> Candles:
    """Candles whose numbers are multiples of tick and step, as a file's decimals give them."""
    rng = np.random.default_rng(0)

    def grid(values, unit):
        return [float(round(Decimal(v) / Decimal(unit)) * Decimal(unit)) for v in values]

    prices = grid(price * rng.uniform(0.9, 1.1, count), tick)
    return Candles.from_columns(
        open_time=np.arange(count) * 300_000,
        **dict.fromkeys(("open", "high", "low", "close"), prices),
        volume=grid(volume * rng.uniform(0, 2, count), step),
    )


@pytest.mark.parametrize(
    ("symbol", "price", "tick", "volume", "step", "notional"),
    [
        ("BTCUSDT", 65_000.0, "0.01", 30.0, "0.00001", "5"),
        ("SHIBUSDT", 1.1e-5, "0.00000001", 9e9, "1", "5"),
        ("PEPEUSDT", 1.1e-6, "0.0000000001", 9e12, "1", "5"),
        ("ETHBTC", 0.05, "0.00001", 100.0, "0.0001", "0.0001"),
    ],
)
def test_steps_are_those_of_the_candles(symbol, price, tick, volume, step, notional):
    """BTC's steps given to every symbol: SHIB's stop of 1.1e-5 rounded to 0.00."""
    known = derived_filters(symbol, candles_of(price, tick, volume, step))
    expected = SymbolFilters(
        lot_step=Decimal(step),
        min_qty=Decimal(step),
        tick_size=Decimal(tick),
        min_notional=Decimal(notional),
    )
    assert expected == known.filters
    assert known.origin.startswith("derived from 400 candles until 1970-01-02")


@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_sums_of_volumes_keep_their_step(decimals: int, seed: int):
    """The float dust of 0.1 + 0.2 read as a step of 1e-17: no step at all."""
    rng = np.random.default_rng(seed)
    parts = np.round(rng.uniform(0, 1000, (500, 15)), decimals)
    assert Decimal(1).scaleb(-decimals) == decimal_step(parts.sum(axis=1))


def test_numbers_without_decimals_of_their_own_have_no_step():
    """A step of 1e-12 invented for a market whose prices are continuous."""
    assert decimal_step(np.random.default_rng(0).uniform(1, 2, 5_000)) == 0


def test_one_wrong_row_does_not_move_the_step():
    """An average among the prices makes the tick a millionth for good."""
    prices = np.round(np.random.default_rng(0).uniform(90, 110, 5_000), 2)
    prices[17] = 100 / 3
    assert Decimal("0.01") == decimal_step(prices)


def test_too_few_candles_derive_nothing_and_say_so():
    """A step of 1 coin, read off three candles, that forbids every trade."""
    known = derived_filters("BTCUSDT", candles_of(100.0, "0.01", 5.0, "1", MIN_CANDLES - 1))
    assert SymbolFilters(min_notional=Decimal(5)) == known.filters
    assert "too few" in known.origin


def test_an_unknown_ending_has_no_minimum_notional_and_says_so():
    """5 dollars asked of a pair priced in something else."""
    known = derived_filters("FOOBAR", candles_of(100.0, "0.01", 5.0, "1"))
    assert known.filters.min_notional == 0
    assert known.quote is None
    assert "no minimum notional known" in known.origin


@pytest.mark.real
@pytest.mark.skipif(not (MARKET / "universe").is_dir(), reason="no real candles")
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "XRPUSDT", "SOLUSDT", "DOGEUSDT"])
def test_real_candles_tell_what_the_exchange_stated(symbol):
    """Steps derived that are not the exchange's: its own statement, recorded in 2021, knows."""
    (file,) = (MARKET / "payloads" / "rest").glob("exchangeInfo_spot_*.json")
    stated = filters_from_exchange_info(json.loads(file.read_text()))[symbol]
    candles = open_source(MARKET / "universe").read(symbol, "5m", None, utc_to_ms("2021-10-12"))
    derived = derived_filters(symbol, candles).filters
    assert (stated.lot_step, stated.tick_size) == (derived.lot_step, derived.tick_size)
