"""What an account keeps on record: a row per order that filled or did not, and itself after fills.

The rows are made from Backtrader orders; `tables` makes tables of them. Left out: when and why an
order fills, which is the broker's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Side = Literal["buy", "sell"]
Status = Literal["filled", "refused", "cancelled"]

_ROUNDING = 1e-9  # of what was traded in all: far above float noise, far below any lot step


@dataclass(frozen=True, slots=True)
class Fill:
    """What became of one order (or one part of it): a row of the `fills` table.

    Parameters
    ----------
    created_ms : UTC ms of the decision: the latest bar close the strategy had seen.
    executed_ms : UTC ms of the close of the bar on which it filled, was refused or cancelled; a
        market fill takes place at that bar's open.
    quantity : base units that were filled, or that were left and were not; price : quote per base
        with slippage, NaN when nothing was filled.
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


class AccountCheck:
    """What the fills alone say an account must hold; lives as long as a run.

    Parameters
    ----------
    cash : quote units before the first fill.
    """

    def __init__(self, cash: float) -> None:
        self._cash = cash
        self._moved = abs(cash)  # sums of floats are as exact as what they are sums of
        self._positions: dict[str, float] = {}
        self._traded: dict[str, float] = {}
        self._difference = ""

    def paid_in(self, cash: float) -> None:
        """Cash that came, or went where negative, without a fill."""
        self._cash += cash
        self._moved += abs(cash)

    def add(self, fill: Fill, entry: LedgerEntry) -> None:
        """Follow one fill, and compare with what the ledger says of the account after it."""
        sign = 1.0 if fill.side == "buy" else -1.0
        symbol = fill.symbol
        self._cash -= sign * fill.notional + fill.fee
        self._moved += fill.notional + fill.fee
        self._positions[symbol] = self._positions.get(symbol, 0.0) + sign * fill.quantity
        self._traded[symbol] = self._traded.get(symbol, 0.0) + fill.quantity
        if not self._difference:
            self._difference = self.difference({symbol: entry.position}, entry.cash, (symbol,))

    def snapshot(self) -> dict[str, Any]:
        """What was followed so far, copied."""
        return {
            "cash": self._cash,
            "moved": self._moved,
            "positions": dict(self._positions),
            "traded": dict(self._traded),
            "difference": self._difference,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Follow on from a snapshot."""
        self._cash, self._moved = kept["cash"], kept["moved"]
        self._positions, self._traded = dict(kept["positions"]), dict(kept["traded"])
        self._difference = kept["difference"]

    def difference(
        self, positions: Mapping[str, float], cash: float, symbols: Iterable[str] | None = None
    ) -> str:
        """The first difference found, in words with both numbers; empty when there is none.

        Parameters
        ----------
        positions : base units by symbol; cash : quote units. Both as the account has them.
        symbols : those to compare; None is every symbol that either side knows.
        """
        if self._difference:
            return self._difference
        for symbol in symbols if symbols is not None else {**self._positions, **positions}:
            position, ours = positions.get(symbol, 0.0), self._positions.get(symbol, 0.0)
            if abs(position - ours) > _ROUNDING * self._traded.get(symbol, 0.0):
                return f"the position in {symbol} is {position:.12g}, the fills make it {ours:.12g}"
        if abs(cash - self._cash) > _ROUNDING * self._moved:
            return f"the cash is {cash:.12g}, the fills make it {self._cash:.12g}"
        return ""


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
        reference_price=open_of(order.data),
        reason=purpose_of(order),
        status="filled",
        detail=detail,
    )


def unfilled(
    order: Any, created_ms: int, executed_ms: int, status: Status, reason: str, detail: str
) -> Fill:
    """The row of an order, or of what is left of it, that was refused or cancelled; prices NaN."""
    nothing = _nothing(order.data._name, created_ms, _side(order), abs(order.executed.remsize))
    return replace(nothing, executed_ms=executed_ms, status=status, reason=reason, detail=detail)


def unsent(symbol: str, at_ms: int, side: Side, quantity: float, reason: str, detail: str) -> Fill:
    """The row of a decision that sent no order, refused when it was made; units as in `Fill`."""
    return replace(_nothing(symbol, at_ms, side, quantity), reason=reason, detail=detail)


def _nothing(symbol: str, created_ms: int, side: Side, quantity: float) -> Fill:
    return Fill(
        symbol=symbol,
        created_ms=created_ms,
        executed_ms=created_ms,
        side=side,
        quantity=quantity,
        price=math.nan,
        notional=0.0,
        fee=0.0,
        reference_price=math.nan,
        reason="",
        status="refused",
        detail="",
    )


def open_of(data: Any) -> float:
    """Open of the bar, or of the tick that a replayed bar has grown by."""
    tick: float | None = getattr(data, "tick_open", None)
    return float(data.open[0]) if tick is None else tick


def volume_of(data: Any) -> float:
    """Volume of the bar, or of the tick that a replayed bar has grown by; base units."""
    tick: float | None = getattr(data, "tick_volume", None)
    return float(data.volume[0]) if tick is None else tick


def _side(order: Any) -> Side:
    return "buy" if order.isbuy() else "sell"
