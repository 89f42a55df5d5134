"""Whether a start asks for what the session in its folder is: recipe, networks, exchange.

A resumed session runs what it was made with. Where the command asks for something else, that is
refused with the difference named: to run it on purpose is another session, with a name of its own.

Left out: the journals, which a restart checks by replaying them (`session`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.binance.endpoints import Sources, is_loopback
from cppncripto_strategy.feeds.binance.rest import RestClient
from cppncripto_strategy.feeds.candles import Row
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.feeds.live.rounds import rows_of
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.session import SessionFacts
from cppncripto_strategy.recipe import Recipe

log = logging.getLogger(__name__)

NEW_SESSION = "Give what it was made with, or run the other one as a session of its own (--name)"
# Differences beyond these many are counted, not listed.
_SHOWN = 5
# Where a recipe lies, and what it is called, changes nothing of what it does.
_FREE = {"name", "candles.folder"}
# Binance serves the same market data from several hosts; its test networks are other exchanges.
_BINANCE = (".binance.com", ".binance.vision")


def require_same_recipe(session: Path, recorded: Recipe, asked: Recipe) -> None:
    """Refuse a recipe that differs from the session's in anything but its name.

    A candle folder that differs is a warning: candles are the exchange's wherever they lie.

    Raises
    ------
    SessionError
        Naming the keys that differ, and both values.
    """
    ours, theirs = (
        dict(_flat(recorded.model_dump(mode="json"))),
        dict(_flat(asked.model_dump(mode="json"))),
    )
    different = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    listed = [
        f"{key} is {ours.get(key)!r} in the session, {theirs.get(key)!r} was asked for"
        for key in different
        if key not in _FREE
    ]
    if listed:
        more = f" (and {len(listed) - _SHOWN} more)" if len(listed) > _SHOWN else ""
        raise SessionError(
            f"{session} is a session of another recipe: {'; '.join(listed[:_SHOWN])}{more}."
            f" {NEW_SESSION}"
        )
    if "candles.folder" in different and recorded.candles.source == "folder":
        log.warning(
            "the session reads candles from %s, as when it was made, not from %s",
            recorded.candles.folder,
            asked.candles.folder,
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as pairs of dotted key and value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def require_same_networks(session: Path, timeline: SessionTimeline, bundles: Path | None) -> None:
    """Refuse ready networks that are not among the session's; None asks for none.

    Raises
    ------
    SessionError
        Naming the networks.
    BundleError
        When `bundles` cannot be read.
    """
    if bundles is None:
        return
    known = {bundle.model_hash for bundle in timeline.bundles}
    foreign = [b.model_hash for b in BundleTimeline.load(bundles).bundles]
    foreign = [name for name in foreign if name not in known]
    if foreign:
        raise SessionError(
            f"{session} trades the networks {', '.join(sorted(known))}, and {bundles} holds"
            f" {', '.join(foreign)}. {NEW_SESSION}"
        )


def require_same_exchange(session: Path, facts: SessionFacts, sources: Sources) -> None:
    """Refuse addresses of another exchange than the session's.

    Binance's hosts are one exchange. So are the ports of this machine, where the loopback exchange
    takes a free one: `require_same_market` looks at its candles.

    Raises
    ------
    SessionError
        Naming both addresses.
    """
    for name in ("rest_url", "stream_url"):
        recorded, asked = facts.sources.get(name), getattr(sources, name)
        if recorded is not None and _exchange(str(recorded)) != _exchange(asked):
            raise SessionError(
                f"{session} was made with the exchange at {recorded}, and {asked} was asked for:"
                f" its prices, rules and gaps are others. {NEW_SESSION}"
            )


def _exchange(url: str) -> str:
    """What is one exchange, whatever the address says besides."""
    host = urlsplit(url).hostname or ""
    if is_loopback(url):
        return "this machine"
    if f".{host}".endswith(_BINANCE) and "testnet" not in host:
        return "Binance"
    return f"{host}:{urlsplit(url).port}"


def require_same_market(
    session: Path, facts: SessionFacts, first: Mapping[str, Row], connection: Connection
) -> None:
    """On this machine, where any market may be served on any port: compare a recorded candle.

    Parameters
    ----------
    first : symbol -> a row that the session recorded, in the order of `candles.COLUMNS`.

    Raises
    ------
    SessionError
        When the exchange has another candle there, or none.
    SourceError
        When it does not answer.
    """
    if not is_loopback(connection.sources.rest_url) or not first:
        return
    symbol, row = next(iter(first.items()))
    served = asyncio.run(_served(facts, symbol, int(row[0]), connection))
    if served is None or not all(
        math.isclose(a, b, rel_tol=1e-6) for a, b in zip(row[:6], served[:6], strict=True)
    ):
        found = "has no such candle" if served is None else f"says {served[4]:g}"
        raise SessionError(
            f"{session} was made with another market: its {symbol} candle of"
            f" {ms_to_utc(int(row[0]))} closed at {row[4]:g}, and the exchange at"
            f" {connection.sources.rest_url} {found}. {NEW_SESSION}"
        )


async def _served(
    facts: SessionFacts, symbol: str, open_ms: int, connection: Connection
) -> Row | None:
    async with RestClient(connection.sources, connection.retry, settle_ms=0) as rest:
        span = Span(open_ms, open_ms + facts.interval_ms)
        rows = rows_of((await rest.read(symbol, facts.interval, span)).candles)
    return rows[0] if rows else None
