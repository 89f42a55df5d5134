"""What an account trades by: its costs, the strategy's rules, and the exchange's, in exact numbers.

Settings only, read from a recipe and from each symbol's filters; nothing is taken from what the
account did. Left out: how they make orders (`rebuild`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.recipe import Recipe

# The broker's documented reserve for the move from a close to the next open; no recipe sets it.
HEADROOM_BPS = 20.0


@dataclass(frozen=True, slots=True)
class Terms:
    """One account's settings; bps of the notional, candles, percent and fractions as in a recipe.

    Parameters
    ----------
    interval_ms : length of a candle.
    share : of the equity per symbol, in (0, 1]; of the volatility target where `sizing` says so.
    """

    interval_ms: int
    cash: float
    fee_bps: float
    slippage_bps: float
    fill_without_trades: bool
    share: float
    sizing: str
    target_volatility: float
    hold_candles: int
    renew_hold: bool
    min_hold: int
    cooldown_candles: int
    stop_pct: float
    max_daily_loss_pct: float
    allow_short: bool
    headroom_bps: float = HEADROOM_BPS

    @classmethod
    def of(cls, recipe: Recipe) -> Terms:
        """Those of a recipe."""
        strategy, broker = recipe.strategy, recipe.broker
        return cls(
            interval_ms=recipe.interval_ms,
            cash=broker.cash,
            fee_bps=broker.fee_bps,
            slippage_bps=broker.slippage_bps,
            fill_without_trades=broker.fill_without_trades,
            share=strategy.fraction or 1.0 / len(recipe.symbols),
            sizing=strategy.sizing,
            target_volatility=strategy.target_volatility,
            hold_candles=strategy.hold_candles,
            renew_hold=strategy.renew_hold,
            min_hold=strategy.min_hold,
            cooldown_candles=strategy.cooldown_candles,
            stop_pct=strategy.stop_pct,
            max_daily_loss_pct=strategy.max_daily_loss_pct,
            allow_short=strategy.allow_short,
        )

    @property
    def round_trip_bps(self) -> float:
        """Both fees and both slippages."""
        return 2.0 * (self.fee_bps + self.slippage_bps)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the exchange accepts of market orders in one symbol; exact, zero for no rule.

    Parameters
    ----------
    step, minimum, maximum : base units; a maximum of None is none.
    notional : minimum quantity x price, quote units.
    """

    step: Fraction = Fraction(0)
    minimum: Fraction = Fraction(0)
    maximum: Fraction | None = None
    notional: Fraction = Fraction(0)

    @classmethod
    def of(cls, filters: SymbolFilters) -> Rules:
        """Those of a symbol's filters: the stricter one where both kinds of lot rule are stated."""
        limits = [Fraction(q) for q in (filters.max_qty, filters.market_max_qty) if q > 0]
        return cls(
            step=Fraction(max(filters.lot_step, filters.market_lot_step)),
            minimum=Fraction(max(filters.min_qty, filters.market_min_qty)),
            maximum=min(limits, default=None),
            notional=Fraction(filters.min_notional if filters.min_notional_on_market else 0),
        )

    @classmethod
    def of_record(cls, record: Mapping[str, str | None]) -> Rules:
        """Those on record in a run's manifest; null there is no rule."""

        def exact(name: str) -> Fraction:
            return Fraction(Decimal(record.get(name) or 0))

        maximum = exact("max_quantity")
        return cls(
            step=exact("quantity_step"),
            minimum=exact("min_quantity"),
            maximum=maximum or None,
            notional=exact("min_notional"),
        )

    def floor(self, quantity: float) -> float:
        """Largest quantity that is accepted and no larger, as floats, than this; 0.0 for none."""
        if not math.isfinite(quantity) or quantity <= 0:
            return 0.0
        capped = written(quantity)
        if self.maximum is not None:
            capped = min(capped, self.maximum)
        if self.step:
            # A multiple whose decimals no float holds counts as the float next to it.
            count = int(capped / self.step) + 1
            while float(count * self.step) > float(capped):
                count -= 1
            capped = count * self.step
        return float(capped) if capped >= self.minimum else 0.0

    def below(self, quantity: float) -> float:
        """Largest quantity that is accepted and less than this; 0.0 for none."""
        less = quantity - float(self.step) if self.step else math.nextafter(quantity, 0.0)
        return self.floor(less)

    def worth_enough(self, quantity: float, price: float) -> bool:
        """Whether quantity x price, as both are written in decimals, reaches the minimum."""
        return written(quantity) * written(price) >= self.notional


def written(number: float) -> Fraction:
    """The decimals that a float is written with, exactly: 0.1 is one tenth."""
    return Fraction(repr(float(number)))


class RuleBook:
    """One symbol's rules as they changed: what is accepted at a closing time.

    Parameters
    ----------
    changes : (first closing time, UTC ms, rules) ascending; the first one holds before it, too.
    """

    def __init__(self, changes: Sequence[tuple[int, Rules]]) -> None:
        self._since = [since_ms for since_ms, _ in changes]
        self._rules = [rules for _, rules in changes]

    def at(self, close_ms: int) -> Rules:
        """The rules that a bar with this close obeys."""
        return self._rules[max(bisect_right(self._since, close_ms) - 1, 0)]
