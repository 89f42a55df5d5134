"""A new session of a recipe: the exchange's rules, the account, the networks, the recipe itself.

A new session trades the bundle that a backtest of the recipe would have active today. Left out:
fetching history (`cppn-bt fetch` does).
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import BundleError, SessionError, SourceError
from cppncripto_strategy.feeds.binance.filters import stated_filters, symbol_entries
from cppncripto_strategy.feeds.binance.rest import RestClient
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.foreign import read_text, reading
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder
from cppncripto_strategy.paper.trader import first_candle_ms, made_by
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_toml, write_text
from cppncripto_strategy.symbol_rules import require_one_quote

RECIPE_FILE = "recipe.toml"
# A week of 5-minute scores fills the default threshold window.
EARLIER_DAYS = 7


def ask_exchange(connection: Connection, symbols: Sequence[str]) -> tuple[int, Any]:
    """The exchange's time (UTC ms) and its exchangeInfo of these symbols.

    Raises
    ------
    SourceError
        When it does not answer, or does not list a symbol.
    """

    async def ask() -> tuple[int, Any]:
        async with RestClient(connection.sources, connection.retry) as rest:
            return await rest.server_time_ms(), await rest.exchange_info(symbols)

    now_ms, info = asyncio.run(ask())
    listed = {str(entry["symbol"]) for entry in symbol_entries(info)}
    missing = [symbol for symbol in symbols if symbol not in listed]
    if missing:
        raise SourceError(
            f"the exchange at {connection.sources.rest_url} does not list {', '.join(missing)}:"
            " nothing is known of how it trades. Take it out of the recipe's symbols"
        )
    return now_ms, info


def create_session(
    path: Path,
    recipe: Recipe,
    timeline: BundleTimeline,
    connection: Connection,
    locked: bool = False,
) -> SessionFolder:
    """A new session of a recipe, starting today; `locked` as for `SessionFolder`.

    Raises
    ------
    SourceError
        When the exchange does not answer, or does not know a symbol.
    RecipeError
        When the symbols are priced in different currencies.
    BundleError
        When the bundle may not score today: it was trained on later candles.
    """
    now_ms, info = ask_exchange(connection, recipe.subscribed)
    stated = stated_filters(info, "the exchange")
    require_one_quote(
        {symbol: known.quote for symbol, known in stated.items() if symbol not in recipe.beside}
    )
    midnight_ms = now_ms // DAY_MS * DAY_MS
    if timeline.first_session_ms > midnight_ms:
        raise BundleError(
            f"the bundle was trained until {ms_to_utc(timeline.first_session_ms)}; the exchange's"
            f" today is {ms_to_utc(midnight_ms)}: trading it would be in-sample"
        )
    earlier = min(EARLIER_DAYS, (midnight_ms - timeline.first_session_ms) // DAY_MS)
    facts = SessionFacts(
        symbols=recipe.subscribed,
        interval=recipe.interval,
        first_ms=first_candle_ms(now_ms, recipe.interval_ms, timeline.session.warmup, earlier),
        created_ms=now_ms,
        broker={
            "cash": recipe.broker.cash,
            "fee_bps": recipe.broker.fee_bps,
            "slippage_bps": recipe.broker.slippage_bps,
            "fill_without_trades": recipe.broker.fill_without_trades,
            "allow_short": recipe.strategy.allow_short,
        },
        filters=symbol_entries(info),
        sources=asdict(connection.sources),
        made_by=made_by(),
    )
    until = tuple(bundle.info.trained_until_ms for bundle in timeline.bundles)
    path.mkdir(parents=True, exist_ok=True)
    # A resumed session may be started from another folder.
    here = recipe.candles.model_copy(update={"folder": recipe.candles.folder.resolve()})
    settled = recipe.model_copy(update={"candles": here})
    write_text(path / RECIPE_FILE, to_toml(settled.to_plain()))
    SessionTimeline(timeline.bundles, False, until).save(path)
    return SessionFolder.create(path, facts, locked)


def recipe_of(session: Path) -> Recipe:
    """The recipe a session runs.

    Raises
    ------
    SessionError
        When the session has none, or it cannot be read.
    """
    path = session / RECIPE_FILE
    if not path.exists():
        raise SessionError(f"{session} holds no paper session ({RECIPE_FILE} is missing)")
    with reading(path, "recipe", SessionError):
        values = tomllib.loads(read_text(path))
    return parse_recipe(values, str(session / RECIPE_FILE))


def options_of(session: Path) -> Mapping[str, Any]:
    """The strategy options a session ran with, from its own folder."""
    return strategy_options(recipe_of(session), SessionTimeline.of_session(session))
