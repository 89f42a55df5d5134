"""What an exchange accepts for one symbol: steps, limits and minimum notional, in exact decimals.

Filters belong to their symbol and come with an origin and a date (`KnownFilters`): no symbol has
those of another one. Knows no exchange's wire (`binance.filters` reads one) and no account:
quantities and prices are rounded here, and judged by whoever orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

from cppncripto_strategy.feeds.clock import ms_to_utc

TRADING = "TRADING"
_ZERO = Decimal(0)
_ROUNDING = 1e-12  # of a product of two floats: far above what rounding moves
_SURE = 1e12  # steps up to which a float is nearer to its decimal than `_DOUBT` of a step
_DOUBT = 1e-3

# Minimum notional by quote currency, quote units: what orders are held to where nothing else says
# it. BTC as in Binance's exchangeInfo of 2021-10-12; 5 dollars as its spot symbols have asked since
# 2023 (10 before that); the others are of the size that its symbols ask, rounded up, as of 2024.
# A stated minimum always comes before these.
QUOTE_MINIMUM: Mapping[str, Decimal] = {
    **dict.fromkeys(("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USD", "EUR"), Decimal(5)),
    "BTC": Decimal("0.0001"),
    "ETH": Decimal("0.001"),
    "BNB": Decimal("0.01"),
    "TRY": Decimal(10),
}


@dataclass(frozen=True, slots=True)
class SymbolFilters:
    """What the exchange accepts for one symbol; exact decimals. Zero means no rule.

    Parameters
    ----------
    lot_step, min_qty, max_qty : base units (LOT_SIZE).
    market_lot_step, market_min_qty, market_max_qty : base units (MARKET_LOT_SIZE), for market
        orders beside those above.
    min_notional : minimum quantity x price, quote units; market orders obey it where
        `min_notional_on_market`.
    tick_size : price step, quote units; limit and stop prices are rounded to it.
    status : the exchange's trading status; only "TRADING" accepts orders.
    """

    lot_step: Decimal = _ZERO
    min_qty: Decimal = _ZERO
    max_qty: Decimal = _ZERO
    market_lot_step: Decimal = _ZERO
    market_min_qty: Decimal = _ZERO
    market_max_qty: Decimal = _ZERO
    min_notional: Decimal = _ZERO
    min_notional_on_market: bool = True
    tick_size: Decimal = _ZERO
    status: str = TRADING
    _lots: tuple[_Lots, _Lots] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = _Lots.of(self.lot_step, self.min_qty, self.maximum(False))
        lowest = max(self.min_qty, self.market_min_qty)
        market = _Lots.of(self.step(), lowest, self.maximum())
        object.__setattr__(self, "_lots", (limit, market))

    def step(self, market: bool = True) -> Decimal:
        """Step that quantities must be a multiple of, base units."""
        return max(self.lot_step, self.market_lot_step) if market else self.lot_step

    def maximum(self, market: bool = True) -> Decimal:
        """Largest quantity of one order, base units; infinite without a rule."""
        limits = (self.max_qty, self.market_max_qty) if market else (self.max_qty,)
        return min((limit for limit in limits if limit > 0), default=Decimal("Infinity"))

    def floor_quantity(self, quantity: float, market: bool = True) -> float:
        """Largest quantity the exchange accepts that does not exceed `quantity`; 0.0 if none.

        Above the maximum the maximum is returned. Exact in decimals: 0.3 stays 0.3.
        """
        known = self._lots[market].floor(quantity)
        if known is not None:
            return known
        if not math.isfinite(quantity) or quantity <= 0:
            return 0.0
        lowest = max(self.min_qty, self.market_min_qty) if market else self.min_qty
        wanted = min(Decimal(repr(float(quantity))), self.maximum(market))
        floored = _floor(wanted, self.step(market))
        return float(floored) if floored >= lowest else 0.0

    def next_below(self, quantity: float, market: bool = True) -> float:
        """Largest quantity the exchange accepts that is less than `quantity`; 0.0 if none."""
        step = float(self.step(market))
        return self.floor_quantity(quantity - step if step else math.nextafter(quantity, 0), market)

    def snap_position(self, size: float) -> float:
        """Position on the nearest lot step: float dust such as 5.6e-17 becomes 0.0."""
        known = self._lots[False].nearest(size)
        if known is not None:
            return known
        return float(_to_step(Decimal(repr(float(size))), self.lot_step, ROUND_HALF_EVEN)) + 0.0

    def round_price(self, price: float) -> float:
        """Price on the nearest tick, quote units."""
        return float(_to_step(Decimal(repr(float(price))), self.tick_size, ROUND_HALF_EVEN))

    def notional_is_enough(self, quantity: float, price: float, market: bool = True) -> bool:
        """True when quantity x price reaches the minimum notional."""
        if market and not self.min_notional_on_market:
            return True
        notional, minimum = quantity * price, float(self.min_notional)
        if abs(notional - minimum) > _ROUNDING * notional > 0:  # far above what rounding moves
            return notional > minimum
        return Decimal(repr(float(quantity))) * Decimal(repr(float(price))) >= self.min_notional


@dataclass(frozen=True, slots=True)
class _Lots:
    """Rounding in whole steps without decimals, where floats leave no doubt; else None.

    The same numbers as in decimals: a whole number of steps over `per_unit` is rounded once, as its
    decimal is, and how far floats are off (less than `_DOUBT`) cannot change which number it is.

    Parameters
    ----------
    per_unit : steps in one base unit, a whole number; 0 without a step. lowest : minimum quantity,
        in steps, or in base units without. below : quantities from here on, base units, are left
        to decimals: all of them where a unit is no whole number of steps.
    """

    per_unit: int
    lowest: float
    below: float

    @classmethod
    def of(cls, step: Decimal, lowest: Decimal, maximum: Decimal) -> _Lots:
        """Of a symbol's step, minimum and maximum quantity, base units."""
        if step <= 0:
            return cls(0, float(lowest), float(maximum))
        per_unit = 1 / Fraction(step)
        count, whole = math.ceil(Fraction(lowest) * per_unit), per_unit.denominator == 1
        sure = _SURE / float(per_unit) if whole else 0.0
        return cls(per_unit.numerator, count, min(float(maximum), sure))

    def floor(self, quantity: float) -> float | None:
        """As `SymbolFilters.floor_quantity`."""
        if not 0.0 < quantity < self.below:
            return None
        if not self.per_unit:
            # At the minimum itself its decimals decide.
            above = float(quantity) if quantity > self.lowest else 0.0
            return None if quantity == self.lowest else above
        steps = quantity * self.per_unit
        count = round(steps)
        if count / self.per_unit != quantity:
            if abs(steps - count) < _DOUBT:
                return None
            count = int(steps)
        return count / self.per_unit if count >= self.lowest else 0.0

    def nearest(self, size: float) -> float | None:
        """As `SymbolFilters.snap_position`."""
        if not abs(size) < self.below:
            return None
        if not self.per_unit:
            return float(size) + 0.0
        steps = size * self.per_unit
        count = round(steps)
        return None if abs(steps - count) > 0.5 - _DOUBT else count / self.per_unit


def _to_step(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (value / step).to_integral_value(rounding=rounding) * step if step > 0 else value


def _floor(value: Decimal, step: Decimal) -> Decimal:
    """Largest multiple of the step that is no larger, as floats, than the value."""
    nearest = _to_step(value, step, ROUND_HALF_EVEN)
    # A float is the nearest one to a multiple whose decimals it cannot hold: that is no excess.
    return nearest if float(nearest) == float(value) else _to_step(value, step, ROUND_DOWN)


@dataclass(frozen=True, slots=True)
class KnownFilters:
    """One symbol's filters with what is known about them.

    Parameters
    ----------
    filters : the rules that orders obey.
    origin : where they came from, in words a report can print.
    stated_ms : when the exchange stated them, UTC ms; None where nobody stated them.
    quote : quote currency; None where it is not known.
    """

    filters: SymbolFilters
    origin: str
    stated_ms: int | None = None
    quote: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a manifest: exact decimals as text, null for no rule."""
        rules = self.filters
        named = {
            "quantity_step": rules.step(),
            "price_tick": rules.tick_size,
            "min_quantity": max(rules.min_qty, rules.market_min_qty),
            "max_quantity": rules.maximum() if rules.maximum().is_finite() else _ZERO,
            "min_notional": rules.min_notional,
        }
        return {
            **{name: plain_decimal(value) if value else None for name, value in named.items()},
            "quote": self.quote,
            "status": rules.status,
            "origin": self.origin,
            "stated": None if self.stated_ms is None else ms_to_utc(self.stated_ms)[:10],
        }


# What a planted market accepts: an exchange that was made up with it.
PLANTED_FILTERS = KnownFilters(
    SymbolFilters(
        lot_step=Decimal("0.00001"),
        min_qty=Decimal("0.00001"),
        max_qty=Decimal("9000000"),
        min_notional=Decimal("5"),
        tick_size=Decimal("0.01"),
    ),
    "planted",
)


def plain_decimal(value: Decimal) -> str:
    """0.00001 and 100, never 1E-5 or 1E+2; no zeros at the end."""
    return f"{value.normalize():f}"


def quote_of(symbol: str) -> str | None:
    """Quote currency of 'BTCUSDT', 'BTC-USD' or 'ETH_BTC', by its ending; None where unknown."""
    for quote in sorted(QUOTE_MINIMUM, key=len, reverse=True):
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return quote
    return None
