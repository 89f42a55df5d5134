"""What the exchange states about each symbol, and what of it has changed since it was last read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cppncripto_strategy.feeds.binance.filters import (
    read_stated_ms,
    statement_changes,
    symbol_entries,
)
from cppncripto_strategy.feeds.binance.rest import RefusedError, RestClient
from cppncripto_strategy.feeds.live.notices import RulesChanged


async def read_rules(rest: RestClient, symbols: Sequence[str]) -> dict[str, Any]:
    """exchangeInfo of these symbols; those that the exchange refuses to answer about are left out.

    One unknown symbol has the whole request refused, so halves are asked for until it is alone.

    Raises
    ------
    SourceError
        When the exchange does not answer.
    """
    try:
        return await rest.exchange_info(symbols)
    except RefusedError:
        if len(symbols) == 1:
            return {"symbols": []}
    middle = len(symbols) // 2
    parts = [await read_rules(rest, half) for half in (symbols[:middle], symbols[middle:])]
    entries = [entry for part in parts for entry in symbol_entries(part)]
    return {**parts[1], **parts[0], "symbols": entries}


class RulesWatch:
    """The last known exchangeInfo entry of each symbol; lives as long as its stream.

    Parameters
    ----------
    known : symbol -> entry, as a session recorded them.
    """

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self._known = dict(known)

    def compare(self, info: Mapping[str, Any]) -> list[RulesChanged]:
        """The symbols whose status or filters differ from the last answer; `info` is the last now.

        A symbol without an entry in `info` keeps the one it had.
        """
        stated_ms = read_stated_ms(info)
        changes = []
        for entry in symbol_entries(info):
            symbol = str(entry["symbol"])
            before = self._known.get(symbol, {})
            changed = statement_changes(before, entry)
            self._known[symbol] = entry
            if before and changed:
                changes.append(RulesChanged(symbol, before, entry, changed, stated_ms))
        return changes
