"""What the stream has to say besides candles: plain facts, each named by its kind.

One listener hears them, on the stream's thread and in the order in which they happened; a session
writes them down. A gap and its withdrawal are also part of the rounds (`Round.gaps`,
`Round.withdrawn`), because what a strategy has seen follows from rounds alone.

Left out: what is only counted (`CandleStream.counters`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from cppncripto_strategy.feeds.candles import Row


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact the stream reports; `kind` is its name in journals and on screens."""

    kind: ClassVar[str]

    def record(self) -> dict[str, Any]:
        """The fact as JSON holds it, NaN as null: {"kind": "symbol_back", "symbol": "BTCUSDT"}."""
        return {"kind": self.kind} | {
            field.name: _plain(getattr(self, field.name)) for field in fields(self)
        }


@dataclass(frozen=True, slots=True)
class ClockDisagrees(Notice):
    """The exchange's clocks differ by more than the bound; heard once when it begins.

    Parameters
    ----------
    readings_ms : what each says now, UTC milliseconds: "rest" (serverTime), "frames" (event times)
        and "candles" (the newest candle that opened); those not heard yet are left out.
    bound_ms : the difference that is tolerated.
    trusted : the one that another one confirms; None while no two agree, and then no symbol may
        be traded.
    """

    kind: ClassVar[str] = "clock_disagrees"
    readings_ms: Mapping[str, int]
    bound_ms: int
    trusted: str | None


@dataclass(frozen=True, slots=True)
class ClockAgrees(Notice):
    """The exchange's clocks agree again; `readings_ms` as in `ClockDisagrees`."""

    kind: ClassVar[str] = "clock_agrees"
    readings_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GapWithdrawn(Notice):
    """A candle that was proved absent has appeared; its round holds it in `Round.withdrawn`.

    Strategies never see it: newer candles of the symbol were shown before it. What was decided
    meanwhile was decided without it.

    Parameters
    ----------
    symbol, open_ms : which candle, by its open time in UTC milliseconds.
    row : the candle, in the order of `candles.COLUMNS`.
    """

    kind: ClassVar[str] = "gap_withdrawn"
    symbol: str
    open_ms: int
    row: Row


@dataclass(frozen=True, slots=True)
class Restated(Notice):
    """A closed candle came again with other values; the first stays the one that was shown.

    Parameters
    ----------
    symbol, open_ms : which candle, by its open time in UTC milliseconds.
    first, now : its values then and now, in the order of `candles.COLUMNS`.
    """

    kind: ClassVar[str] = "restated"
    symbol: str
    open_ms: int
    first: Row
    now: Row


@dataclass(frozen=True, slots=True)
class SymbolStopped(Notice):
    """A symbol is not waited for and not traded until it is back; heard once when it begins.

    Parameters
    ----------
    symbol : which.
    reason : what the exchange said: its status, its error, or that it does not list the symbol.
    retry_s : wall seconds until it is asked for again.
    running : symbols that still run; 0 when none is left, and the stream only keeps trying.
    """

    kind: ClassVar[str] = "symbol_stopped"
    symbol: str
    reason: str
    retry_s: float
    running: int


@dataclass(frozen=True, slots=True)
class SymbolBack(Notice):
    """A stopped symbol is listed, TRADING and answered for again."""

    kind: ClassVar[str] = "symbol_back"
    symbol: str


@dataclass(frozen=True, slots=True)
class RulesChanged(Notice):
    """The exchange states other rules for a symbol than it did.

    Parameters
    ----------
    symbol : which.
    before, after : its entries of exchangeInfo's `symbols`; `before` is the plan's (`rules`) or the
        last one read.
    changed : names of the fields that differ: "status", or a filterType such as "LOT_SIZE".
    stated_ms : the exchange's time of the answer, UTC milliseconds; None where it states none.
    """

    kind: ClassVar[str] = "rules_changed"
    symbol: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    changed: tuple[str, ...]
    stated_ms: int | None


@dataclass(frozen=True, slots=True)
class Connected(Notice):
    """Every symbol is subscribed to.

    Parameters
    ----------
    away_s : wall seconds since the connection was lost; None the first time.
    """

    kind: ClassVar[str] = "connected"
    away_s: float | None


@dataclass(frozen=True, slots=True)
class ConnectionLost(Notice):
    """Not every symbol is subscribed to any more; heard once, however often connecting fails.

    Parameters
    ----------
    reason : what the socket or the library said.
    """

    kind: ClassVar[str] = "connection_lost"
    reason: str


Listener = Callable[[Notice], None]


def unheard(notice: Notice) -> None:
    """A listener that does not listen."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
