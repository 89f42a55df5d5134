"""Each symbol trades by its own exchange's rules, from the first source that has them, by name."""

from __future__ import annotations

import functools
import json
import logging
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.binance.filters import exchange_info, symbol_info
from cppncripto_strategy.feeds.candles import COLUMNS, PRICE_COLUMNS, Candles
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS, KnownFilters, SymbolFilters
from cppncripto_strategy.feeds.history.stored_filters import filters_path, store_filters
from cppncripto_strategy.market import load_market
from cppncripto_strategy.recipe import load_recipe, parse_recipe
from cppncripto_strategy.replay import replay
from cppncripto_strategy.symbol_rules import account_filters, refuse_mixed_quotes

RULES = SymbolFilters(
    lot_step=Decimal("0.1"),
    min_qty=Decimal("0.1"),
    max_qty=Decimal("900"),
    min_notional=Decimal("7"),
    tick_size=Decimal("0.001"),
)
KEPT_MS, RECORDED_MS = 1_700_000_000_000, 1_600_000_000_000
END_MS = 10**15


def decimals_of(candles: Candles, price: int, volume: int) -> Candles:
    """The same candles with so many decimals, as an exchange that has steps gives them."""
    digits = dict.fromkeys(PRICE_COLUMNS, price) | {"volume": volume}
    columns = {name: getattr(candles, name) for name in COLUMNS}
    return Candles(**{n: np.round(c, digits[n]) if n in digits else c for n, c in columns.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store that has the exchange's rules for KEPTUSDT."""
    for symbol in ("KEPTUSDT", "BAREUSDT"):
        filters_path(tmp_path, symbol).parent.mkdir()
    store_filters(tmp_path, "KEPTUSDT", symbol_info("KEPTUSDT", RULES), KEPT_MS)
    return tmp_path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recorded exchangeInfo that knows KEPTUSDT with another maximum."""
    entry = symbol_info("KEPTUSDT", SymbolFilters(max_qty=Decimal(5), lot_step=Decimal("0.5")))
    file = tmp_path / "info.json"
    file.write_text(json.dumps(exchange_info(RECORDED_MS, 6000, [entry])))
    return file


def known_by(folder: Path, toy, symbol: str, **broker) -> KnownFilters:
    recipe = parse_recipe(
        {"symbols": [symbol], "candles": {"folder": str(folder)}, "broker": broker}
    )
    candles = decimals_of(toy.candles(days=30), 2, 3)
    return account_filters(recipe, {symbol: candles}, END_MS)[symbol]


def test_what_fetch_kept_comes_before_the_candles(folder, toy):
    """The minimum notional guessed where the exchange has stated it."""
    known = known_by(folder, toy, "KEPTUSDT")
    assert (known.filters, known.stated_ms, known.quote) == (RULES, KEPT_MS, "USDT")
    assert "kept by fetch" in known.origin


def test_candles_alone_tell_steps_and_say_what_is_assumed(folder, toy):
    """BTC's 0.00001 and 0.01 for a symbol nobody has asked the exchange about."""
    known = known_by(folder, toy, "BAREUSDT")
    assert (known.filters.lot_step, known.filters.tick_size) == (Decimal("0.001"), Decimal("0.01"))
    assert known.filters.maximum() == Decimal("Infinity")
    assert "derived from 720 candles" in known.origin
    assert "assumed for USDT" in known.origin


def test_a_recorded_answer_comes_before_the_store(folder, recorded, toy):
    """Rules of today for a backtest that asked for those of the day."""
    known = known_by(folder, toy, "KEPTUSDT", exchange_info=str(recorded))
    assert (known.filters.max_qty, known.stated_ms) == (Decimal(5), RECORDED_MS)
    assert "recorded in info.json" in known.origin


def test_the_recipe_comes_first_and_leaves_the_rest(folder, recorded, toy):
    """A table of one key that silently drops the exchange's other rules."""
    table = {"KEPTUSDT": {"max_quantity": 0.3}}
    known = known_by(folder, toy, "KEPTUSDT", filters=table, exchange_info=str(recorded))
    assert (known.filters.max_qty, known.filters.lot_step) == (Decimal("0.3"), Decimal("0.5"))
    assert known.origin == "recipe (max_quantity), the rest the exchange, recorded in info.json"


def test_later_candles_do_not_tell_the_steps_of_earlier_trades(folder, toy):
    """Look-ahead: a tick that the exchange made finer during the traded span."""
    candles = toy.candles(days=60)
    before, after = decimals_of(candles, 1, 1)[:720], decimals_of(candles, 4, 4)[720:]
    both = Candles(**{n: np.concatenate([getattr(before, n), getattr(after, n)]) for n in COLUMNS})
    recipe = parse_recipe({"symbols": ["BAREUSDT"], "candles": {"folder": str(folder)}})
    start_ms = int(after.open_time[0])
    cut, whole = (
        account_filters(recipe, {"BAREUSDT": part}, start_ms)["BAREUSDT"] for part in (before, both)
    )
    assert cut == whole
    assert whole.filters.tick_size == Decimal("0.1")


def test_a_planted_market_keeps_its_own_rules(toy):
    """Demo digits that move because a made-up market gets derived rules."""
    recipe = parse_recipe({"symbols": ["BTCUSDT", "X"], "candles": {"source": "planted"}})
    candles = dict.fromkeys(recipe.symbols, toy.candles(days=30))
    known = account_filters(recipe, candles, END_MS)
    assert known == dict.fromkeys(recipe.symbols, PLANTED_FILTERS)
    assert PLANTED_FILTERS.to_plain()["origin"] == "planted"


def test_a_symbol_that_is_halted_today_had_its_past(folder, toy, caplog):
    """Every order of a delisted symbol's backtest refused, by the status of another day."""
    store_filters(
        folder, "KEPTUSDT", {**symbol_info("KEPTUSDT", RULES), "status": "BREAK"}, KEPT_MS
    )
    with caplog.at_level(logging.WARNING):
        known = known_by(folder, toy, "KEPTUSDT")
    assert known.filters.status == "TRADING"
    assert "BREAK" in known.origin
    assert "KEPTUSDT is BREAK" in caplog.text


def test_rules_of_a_symbol_that_is_not_traded_are_named(folder, toy, caplog):
    """A misspelt symbol whose rules nobody follows."""
    known_by(folder, toy, "KEPTUSDT", filters={"KEPTUSDC": {"min_notional": 1}})
    assert "KEPTUSDC, which is not traded" in caplog.text


def test_symbols_priced_in_two_currencies_are_refused_by_name(folder):
    """One cash that buys ETHBTC for dollars: every number after it is wrong."""
    symbols = ["KEPTUSDT", "ETHBTC", "BTCUSDT"]
    recipe = parse_recipe({"symbols": symbols, "candles": {"folder": str(folder)}})
    with pytest.raises(RecipeError, match=r"USDT: KEPTUSDT, BTCUSDT; BTC: ETHBTC"):
        load_market(recipe)


def test_the_exchange_knows_the_currency_better_than_the_ending(folder):
    """A token named ...BTC that is priced in dollars, refused for its name."""
    entry = {**symbol_info("KEPTUSDT", RULES), "symbol": "ODDBTC"}
    filters_path(folder, "ODDBTC").parent.mkdir()
    store_filters(folder, "ODDBTC", entry, KEPT_MS)
    symbols = ["KEPTUSDT", "ODDBTC"]
    refuse_mixed_quotes(parse_recipe({"symbols": symbols, "candles": {"folder": str(folder)}}))


def test_an_unknown_ending_warns_and_trades(folder, caplog):
    """Stocks refused, because their names do not end in a coin."""
    symbols = ["KEPTUSDT", "AAPL"]
    refuse_mixed_quotes(parse_recipe({"symbols": symbols, "candles": {"folder": str(folder)}}))
    assert "quote currency of AAPL is not known" in caplog.text


def test_a_misspelt_rule_names_the_known_ones(tmp_path):
    """A KeyError inside the error message, for a table below a symbol's name."""
    with pytest.raises(RecipeError, match="did you mean 'quantity_step'"):
        parse_recipe({"broker": {"filters": {"BTCUSDT": {"quantity_stp": 1}}}})


def test_the_path_of_a_recorded_answer_is_relative_to_the_recipe(tmp_path):
    """A recipe that means another file from another folder."""
    file = tmp_path / "mine.toml"
    file.write_text('[broker]\nexchange_info = "info.json"\n')
    assert load_recipe(file).broker.exchange_info == tmp_path / "info.json"


# The market scaled by a power of two --------------------------------------------------------------


def scaled(candles: Candles, k: int) -> Candles:
    """Prices times 2^k: exact in floats, so that returns and scores keep every bit."""
    columns = {name: getattr(candles, name) for name in COLUMNS}
    return Candles(**columns | {name: columns[name] * 2.0**k for name in PRICE_COLUMNS})


def scaled_filters(filters: SymbolFilters, k: int) -> SymbolFilters:
    """The same rules, prices in units 2^k times as many, quantities in as many fewer."""
    factor = Decimal(2) ** abs(k)
    price, quantity = (factor, 1 / factor) if k > 0 else (1 / factor, factor)
    return SymbolFilters(
        lot_step=filters.lot_step * quantity,
        min_qty=filters.min_qty * quantity,
        max_qty=filters.max_qty * quantity,
        min_notional=filters.min_notional,
        tick_size=filters.tick_size * price,
    )


@pytest.fixture(scope="module")
def trade(toy, hourly):
    """`trade(k, filters)`: (fills, equity, filters) of a market times 2^k; None derives them."""
    candles = decimals_of(toy.candles(days=34), 2, 5)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(6, 12))
    recipe = hourly.recipe(symbols=["AUSDT"], strategy={"hold_candles": 2})
    span = Span(timeline.first_session_ms, hourly.day(34))

    @functools.cache
    def run(k: int, filters: SymbolFilters | None):
        known = None if filters is None else {"AUSDT": KnownFilters(filters, "test")}
        passed = replay(recipe, {"AUSDT": scaled(candles, k)}, timeline, span, filters=known)
        fills = passed.strategy.fills.query("status == 'filled'")
        return fills, passed.strategy.equity["equity"].to_numpy(), passed.filters["AUSDT"]

    return run


@given(k=st.integers(-40, 10))
@settings(max_examples=6)
def test_a_market_scaled_with_its_filters_gives_the_same_returns(trade, k):
    """-30.3 % as BTC, -1.07 % as SHIB, -0.07 % as PEPE: one market, three units, BTC's rules."""
    rules = PLANTED_FILTERS.filters
    fills, equity, _ = trade(0, rules)
    other_fills, other_equity, _ = trade(k, scaled_filters(rules, k))
    assert len(fills) >= 40
    np.testing.assert_array_equal(other_equity, equity)
    np.testing.assert_array_equal(other_fills["quantity"] * 2.0**k, fills["quantity"])


@given(k=st.integers(-40, 10))
@settings(max_examples=4)
def test_a_scaled_market_with_derived_filters_gives_the_same_up_to_the_steps(trade, k):
    """Quantities cut to a maximum, or a minimum, that belongs to another symbol."""
    fills, equity, known = trade(0, None)
    _, other_equity, _ = trade(k, None)
    assert known.filters.lot_step == Decimal("0.00001")
    # Each buy may leave one step more or less in cash; its price moves by far less than 100 %.
    step_value = float(known.filters.lot_step) * fills["price"].max()
    np.testing.assert_allclose(other_equity, equity, rtol=0, atol=len(fills) * step_value)
