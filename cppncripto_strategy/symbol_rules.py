"""Which exchange rules each symbol of a recipe trades by, and in which currency its account is.

A symbol's filters come from the first source that has them: the recipe's `[broker.filters.SYMBOL]`,
the exchangeInfo that `broker.exchange_info` names, the one `fetch` kept beside the candles, the
decimals of the candles themselves with the usual minimum notional of the quote currency. What the
recipe leaves out of its table comes from the next source. A planted market has its own.

Left out: how an order is fitted to them (`feeds.filters`, `broker`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.filters import (
    PLANTED_FILTERS,
    TRADING,
    KnownFilters,
    quote_of,
)
from cppncripto_strategy.feeds.history.derived_filters import derived_filters
from cppncripto_strategy.feeds.history.stored_filters import recorded_filters, stored_filters
from cppncripto_strategy.recipe import Recipe

log = logging.getLogger(__name__)


def account_filters(
    recipe: Recipe, candles: Mapping[str, Candles], start_ms: int
) -> dict[str, KnownFilters]:
    """Each symbol's filters, with their origin.

    Parameters
    ----------
    candles : by symbol.
    start_ms : where trading starts, UTC ms: only candles that opened before are derived from, so
        that later ones change nothing.

    Raises
    ------
    SourceError
        When the recorded exchangeInfo cannot be read.
    StoreError
        When the filters beside the candles are damaged.
    """
    recorded = _recorded(recipe)
    strangers = [name for name in recipe.broker.filters or {} if name not in recipe.symbols]
    if strangers:
        log.warning("broker.filters names %s, which is not traded", ", ".join(strangers))
    return {
        symbol: _with_recipe(recipe, symbol, _known(recipe, symbol, part, start_ms, recorded))
        for symbol, part in candles.items()
    }


def refuse_mixed_quotes(recipe: Recipe) -> None:
    """Refuse symbols that are not all priced in one currency: an account has one cash.

    Raises
    ------
    RecipeError
        Naming the symbols of each quote currency.
    """
    if recipe.candles.source == "planted":
        return
    recorded = _recorded(recipe)
    quotes = dict[str, str | None]()
    for symbol in recipe.symbols:
        stated = recorded.get(symbol) or stored_filters(recipe.candles.folder, symbol)
        quotes[symbol] = quote_of(symbol) if stated is None else stated.quote
    require_one_quote(quotes)


def require_one_quote(quotes: Mapping[str, str | None]) -> None:
    """Refuse symbols of different quote currencies; where one is not known (None), warn.

    Raises
    ------
    RecipeError
        Naming the symbols of each quote currency.
    """
    symbols: dict[str, list[str]] = {}
    for symbol, quote in quotes.items():
        symbols.setdefault(quote or "", []).append(symbol)
    unknown = symbols.pop("", [])
    if len(symbols) > 1:
        named = "; ".join(f"{quote}: {', '.join(of)}" for quote, of in symbols.items())
        raise RecipeError(
            f"symbols are priced in {len(symbols)} currencies ({named}), and an account has one"
            " cash: run one recipe per quote currency"
        )
    if unknown and len(quotes) > 1:
        log.warning(
            "the quote currency of %s is not known: make sure that all symbols have the same one",
            ", ".join(unknown),
        )


def _recorded(recipe: Recipe) -> dict[str, KnownFilters]:
    path = recipe.broker.exchange_info
    return {} if path is None else recorded_filters(path)


def _known(
    recipe: Recipe,
    symbol: str,
    candles: Candles,
    start_ms: int,
    recorded: Mapping[str, KnownFilters],
) -> KnownFilters:
    """The filters of the first source below the recipe's own table."""
    planted = recipe.candles.source == "planted"
    stated = recorded.get(symbol)
    if stated is None and planted:
        return PLANTED_FILTERS
    if stated is None:
        stated = stored_filters(Path(recipe.candles.folder), symbol)
    if stated is None:
        return derived_filters(symbol, candles.between(0, start_ms))
    return _open_for_trade(symbol, stated)


def _open_for_trade(symbol: str, stated: KnownFilters) -> KnownFilters:
    """The same rules for an exchange that accepts orders: a candle says that it did."""
    if stated.filters.status == TRADING:
        return stated
    status = stated.filters.status
    log.warning("%s is %s by %s: its candles are traded", symbol, status, stated.origin)
    origin = f"{stated.origin}, where its status is {status}"
    return replace(stated, filters=replace(stated.filters, status=TRADING), origin=origin)


def _with_recipe(recipe: Recipe, symbol: str, known: KnownFilters) -> KnownFilters:
    """The recipe's rules over what is known otherwise."""
    table = (recipe.broker.filters or {}).get(symbol)
    if table is None:
        return known
    keys = ", ".join(sorted(table.model_fields_set))
    rest = "" if table.settles_all else f", the rest {known.origin}"
    return replace(known, filters=table.over(known.filters), origin=f"recipe ({keys}){rest}")
