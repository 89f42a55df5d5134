"""Journals' records as the API gives them; None for a record of another symbol than asked for."""

from __future__ import annotations

from typing import Any

from cppncripto_strategy.desk.journals import Record
from cppncripto_strategy.desk.schema import Candle, Decision, EquityPoint, Fill, Instant
from cppncripto_strategy.feeds.clock import SECOND_MS

_JUDGED = (
    "close", "score", "score_zero", "p_buy", "p_sell", "upper", "lower", "signal", "drift",
)  # fmt: skip
_PAID = ("quantity", "price", "notional", "fee", "reference_price")
_SAID = ("symbol", "side", "status", "reason", "detail")


def decision_of(record: Record, symbol: str | None = None) -> Decision | None:
    """A candle as it was judged."""
    if symbol not in (None, record["symbol"]):
        return None
    age_ms = record.get("age_ms")
    return Decision(
        symbol=record["symbol"],
        close_time=Instant.of(record["close_time_ms"]),
        embedding_age_s=None if age_ms is None else age_ms / SECOND_MS,
        **{name: record.get(name) for name in _JUDGED},
    )


def fill_of(record: Record, symbol: str | None = None) -> Fill | None:
    """A fill, refusal or cancellation."""
    if symbol not in (None, record["symbol"]):
        return None
    values: dict[str, Any] = {
        **{name: str(record[name]) for name in _SAID},
        **{name: record.get(name) for name in _PAID},
    }
    created, executed = record["created_ms"], record["executed_ms"]
    return Fill(created=Instant.of(created), executed=Instant.of(executed), **values)


def equity_of(record: Record) -> EquityPoint:
    """The account after a round."""
    return EquityPoint(
        close_time=Instant.of(record["t"]), equity=record["equity"], cash=record["cash"]
    )


def candle_of(record: Record, symbol: str) -> Candle | None:
    """A symbol's candle of a round; None where the round has none of it."""
    row = record["c"].get(symbol)
    if row is None:
        return None
    names = ("open", "high", "low", "close", "volume")
    return Candle(
        symbol=symbol,
        open_time=Instant.of(row[0]),
        close_time=Instant.of(record["t"]),
        **dict(zip(names, row[1:6], strict=True)),
    )
