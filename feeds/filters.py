"""What an exchange accepts for one symbol: steps, limits and minimum notional, in exact decimals.

Knows no exchange's wire (`binance.filters` reads one) and no account: quantities and prices are
rounded here, and judged by whoever orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

TRADING = "TRADING"
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class SymbolFilters:
    """What the exchange accepts for one symbol; exact decimals.

    Parameters
    ----------
    lot_step, min_qty, max_qty : base units (LOT_SIZE).
    market_lot_step, market_min_qty, market_max_qty : base units (MARKET_LOT_SIZE); a zero step
        means no rule of its own, a zero maximum means the LOT_SIZE maximum.
    min_notional : minimum quantity x price, quote units; market orders obey it where
        `min_notional_on_market`.
    tick_size : price step, quote units; limit and stop prices are rounded to it.
    status : the exchange's trading status; only "TRADING" accepts orders.
    """

    lot_step: Decimal = Decimal("0.00001")
    min_qty: Decimal = Decimal("0.00001")
    max_qty: Decimal = Decimal("9000000")
    market_lot_step: Decimal = _ZERO
    market_min_qty: Decimal = _ZERO
    market_max_qty: Decimal = _ZERO
    min_notional: Decimal = Decimal("5")
    min_notional_on_market: bool = True
    tick_size: Decimal = Decimal("0.01")
    status: str = TRADING

    def step(self, market: bool = True) -> Decimal:
        """Step that quantities must be a multiple of, base units."""
        return max(self.lot_step, self.market_lot_step) if market else self.lot_step

    def floor_quantity(self, quantity: float, market: bool = True) -> float:
        """Largest quantity the exchange accepts that does not exceed `quantity`; 0.0 if none.

        Above the maximum the maximum is returned. Exact in decimals: 0.3 stays 0.3.
        """
        if not math.isfinite(quantity) or quantity <= 0:
            return 0.0
        lowest, highest = self.min_qty, self.max_qty
        if market:
            lowest = max(lowest, self.market_min_qty)
            highest = min(highest, self.market_max_qty) if self.market_max_qty > 0 else highest
        floored = _to_step(
            min(Decimal(repr(float(quantity))), highest), self.step(market), ROUND_DOWN
        )
        return float(floored) if floored >= lowest else 0.0

    def snap_position(self, size: float) -> float:
        """Position on the nearest lot step: float dust such as 5.6e-17 becomes 0.0."""
        return float(_to_step(Decimal(repr(float(size))), self.lot_step, ROUND_HALF_EVEN)) + 0.0

    def round_price(self, price: float) -> float:
        """Price on the nearest tick, quote units."""
        return float(_to_step(Decimal(repr(float(price))), self.tick_size, ROUND_HALF_EVEN))

    def notional_is_enough(self, quantity: float, price: float, market: bool = True) -> bool:
        """True when quantity x price reaches the minimum notional."""
        if market and not self.min_notional_on_market:
            return True
        return Decimal(repr(float(quantity))) * Decimal(repr(float(price))) >= self.min_notional


def _to_step(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (value / step).to_integral_value(rounding=rounding) * step if step > 0 else value


# Binance's own numbers for the two symbols everybody starts with; others get SymbolFilters().
DEFAULT_FILTERS: Mapping[str, SymbolFilters] = {
    "BTCUSDT": SymbolFilters(max_qty=Decimal("9000"), market_max_qty=Decimal("100")),
    "ETHUSDT": SymbolFilters(
        lot_step=Decimal("0.0001"),
        min_qty=Decimal("0.0001"),
        max_qty=Decimal("9000"),
        market_max_qty=Decimal("2000"),
    ),
}
