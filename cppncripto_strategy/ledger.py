"""What an account keeps on record: a row per order that filled or did not, and itself after fills.

The rows are made from Backtrader orders; `tables` makes tables of them. Left out: when and why an
order fills, which is the broker's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["buy", "sell"]
Status = Literal["filled", "refused", "cancelled"]


@dataclass(frozen=True, slots=True)
class Fill:
    """What became of one order (or one part of it): a row of the `fills` table.

    Parameters
    ----------
    created_ms : UTC ms of the decision: the latest bar close the strategy had seen.
    executed_ms : UTC ms of the close of the bar on which it filled, was refused or cancelled; a
        market fill takes place at that bar's open.
    quantity : base units; price : quote per base with slippage, NaN when nothing was filled.
    notional, fee : quote units. reference_price : the bar's open, NaN when nothing was filled.
    reason : why a filled order was sent ("signal", "stop", ...); for a refused or cancelled one,
        the rule that stopped it ("gap", "min_notional", "no_position", ...).
    detail : the same for a person, with numbers.
    """

    symbol: str
    created_ms: int
    executed_ms: int
    side: Side
    quantity: float
    price: float
    notional: float
    fee: float
    reference_price: float
    reason: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The account right after a fill: enough to rebuild equity at any bar."""

    symbol: str
    executed_ms: int
    position: float
    cash: float


def purpose_of(order: Any) -> str:
    """Why the order was sent (`buy(..., purpose="stop")`); "order" when the sender did not say."""
    return str(order.info.get("purpose", "order"))


def filled(
    order: Any,
    created_ms: int,
    executed_ms: int,
    quantity: float,
    price: float,
    fee: float,
    detail: str,
) -> Fill:
    """The row of an order that filled on the present bar; units as in `Fill`."""
    return Fill(
        symbol=order.data._name,
        created_ms=created_ms,
        executed_ms=executed_ms,
        side=_side(order),
        quantity=quantity,
        price=price,
        notional=quantity * price,
        fee=fee,
        reference_price=order.data.open[0],
        reason=purpose_of(order),
        status="filled",
        detail=detail,
    )


def unfilled(
    order: Any, created_ms: int, executed_ms: int, status: Status, reason: str, detail: str
) -> Fill:
    """The row of an order that was refused or cancelled; prices are NaN."""
    return Fill(
        symbol=order.data._name,
        created_ms=created_ms,
        executed_ms=executed_ms,
        side=_side(order),
        quantity=abs(order.created.size),
        price=math.nan,
        notional=0.0,
        fee=0.0,
        reference_price=math.nan,
        reason=reason,
        status=status,
        detail=detail,
    )


def _side(order: Any) -> Side:
    return "buy" if order.isbuy() else "sell"
