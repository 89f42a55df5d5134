"""Orders from signals: the strategy's and the broker's rules, written a second time.

A decision is made at a close, on what had closed by then; a market order fills at the open of the
candle that opens then, plus slippage, or never. Quantities are exact: a position is a sum of
fractions, not of floats. What orders do to cash is followed here because the next size depends on
it; the account that is compared is vectorbt's (`portfolio`).

Left out: everything that no recipe can ask for (limit and stop orders, brackets, scaling in).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from cppncripto_strategy.crosscheck.moments import Moments
from cppncripto_strategy.crosscheck.terms import RuleBook, Rules, Terms, written
from cppncripto_strategy.feeds.clock import DAY_MS

BPS = 1e-4
_DAYS_PER_YEAR = 365
_SHARES = 1000  # a share by volatility is a whole number of thousandths


@dataclass(slots=True)
class Order:
    """What became of one decision; units as in the `fills` table.

    Parameters
    ----------
    side : +1 buys, -1 sells. moment : row at which it was filled, refused or cancelled.
    price : the candle's open that it filled at, before slippage; NaN where it did not.
    status, reason : as in the `fills` table.
    """

    symbol: int
    side: int
    created_ms: int
    quantity: float
    reason: str
    moment: int = -1
    executed_ms: int = 0
    price: float = math.nan
    status: str = "waiting"


@dataclass(slots=True)
class _Position:
    """One symbol as the account has it; lives as long as a rebuild."""

    size: Fraction = field(default_factory=Fraction)
    entry_price: float = math.nan
    entry_open_ms: int = 0
    leaving: str = ""
    free_from_ms: int = 0
    order: Order | None = None


class Rebuild:
    """Walks the moments once; `orders` has a row per decision to order, in order of its end.

    Parameters
    ----------
    rules : symbol -> the exchange's rules.
    """

    def __init__(self, moments: Moments, terms: Terms, rules: Mapping[str, RuleBook]) -> None:
        self.moments, self.terms = moments, terms
        self.orders: list[Order] = []
        self._rules = [rules[symbol] for symbol in moments.symbols]
        self._cash = terms.cash
        self._positions = [_Position() for _ in moments.symbols]
        self._waiting: list[Order] = []
        self._last = moments.last_close.tolist()
        self._volatility = _carried(moments.volatility.tolist(), moments.new.tolist())
        self._day = self._newest_ms = -1
        self._day_equity = math.nan
        self._day_lost = False

    def run(self) -> list[Order]:
        """All orders; those that still wait at the end are cancelled."""
        shown = self.moments
        closes, new, signals = shown.close_ms.tolist(), shown.new.tolist(), shown.signal.tolist()
        for row, close_ms in enumerate(closes):
            self._newest_ms = max(self._newest_ms, close_ms)
            if self._waiting:
                self._waiting = [order for order in self._waiting if self._waits(order, row)]
            if close_ms // DAY_MS > self._day:
                self._day, self._day_lost = close_ms // DAY_MS, False
                self._day_equity = self._equity(row)
            for symbol, (fresh, signal) in enumerate(zip(new[row], signals[row], strict=True)):
                if fresh and (signal or self._positions[symbol].size):
                    self._decide(row, symbol, signal)
        for order in self._waiting:
            self._end(order, len(closes) - 1, "cancelled", "end")
            order.executed_ms = self._own_close_ms(order.symbol)
        return self.orders

    def _equity(self, row: int) -> float:
        held = ((p.size, close) for p, close in zip(self._positions, self._last[row], strict=True))
        return self._cash + math.fsum(float(size) * close for size, close in held if size)

    def _own_close_ms(self, symbol: int) -> int:
        rows = self.moments.new[:, symbol].nonzero()[0]
        return int(self.moments.close_ms[rows[-1]])

    # Fills --------------------------------------------------------------------------------------

    def _waits(self, order: Order, row: int) -> bool:
        """Fill an order on the candle that opened when it was decided; cancel it after a gap."""
        shown = self.moments
        if not shown.new[row, order.symbol]:
            return True
        open_ms = int(shown.close_ms[row]) - self.terms.interval_ms
        if open_ms < order.created_ms:
            return True
        if open_ms - order.created_ms >= self.terms.interval_ms:
            self._end(order, row, "cancelled", "gap")
        elif shown.volume[row, order.symbol] == 0 and not self.terms.fill_without_trades:
            self._end(order, row, "cancelled", "no_trades")
        else:
            self._fill(order, row, float(shown.open[row, order.symbol]))
        return False

    def _fill(self, order: Order, row: int, open_price: float) -> None:
        terms, position = self.terms, self._positions[order.symbol]
        price = open_price * (1.0 + order.side * terms.slippage_bps * BPS)
        rules = self._rules[order.symbol].at(int(self.moments.close_ms[row]))
        quantity = self._affordable(order, position.size, price, rules)
        fee = quantity * price * terms.fee_bps * BPS
        opens = not position.size or (position.size > 0) == (order.side > 0)
        if quantity == 0.0:
            order.reason = "insufficient_cash"
        elif not rules.worth_enough(quantity, price):
            order.reason, quantity = "min_notional", 0.0
        elif order.side > 0 and opens and self._cash - quantity * price - fee < 0:
            order.reason, quantity = "insufficient_cash", 0.0
        if not quantity:
            self._end(order, row, "refused", order.reason)
            return
        self._cash -= order.side * quantity * price + fee
        position.size += order.side * written(quantity)
        order.quantity, order.price = quantity, open_price
        self._end(order, row, "filled", order.reason)
        opened_ms = order.executed_ms - terms.interval_ms
        if position.size:
            position.entry_price, position.entry_open_ms = price, opened_ms
            return
        position.leaving = ""
        position.free_from_ms = opened_ms + terms.cooldown_candles * terms.interval_ms

    def _affordable(self, order: Order, size: Fraction, price: float, rules: Rules) -> float:
        """Quantity that position (a sale) or cash (a purchase) allow, on the step."""
        fee = 1.0 + self.terms.fee_bps * BPS
        if self.terms.allow_short:
            covered = min(order.quantity, float(max(-size, Fraction(0)))) if order.side > 0 else 0.0
            if covered * price * fee <= max(self._cash, 0.0):
                return rules.floor(order.quantity)
        elif order.side < 0:
            return rules.floor(min(order.quantity, float(max(size, Fraction(0)))))
        quantity = rules.floor(min(order.quantity, max(self._cash, 0.0) / (price * fee)))
        while quantity and quantity * price * fee > self._cash:
            quantity = rules.below(quantity)
        return quantity

    def _end(self, order: Order, row: int, status: str, reason: str) -> None:
        order.status, order.reason, order.moment = status, reason, row
        order.executed_ms = int(self.moments.close_ms[row])
        self._positions[order.symbol].order = None
        self.orders.append(order)

    # Decisions ----------------------------------------------------------------------------------

    def _decide(self, row: int, symbol: int, signal: int) -> None:
        position, close_ms = self._positions[symbol], int(self.moments.close_ms[row])
        if position.order is not None:
            return
        if position.size and not self._is_dust(row, symbol):
            self._leave(row, symbol, signal)
        elif (signal > 0 or (signal < 0 and self.terms.allow_short)) and (
            close_ms >= position.free_from_ms
        ):
            self._enter(row, symbol, signal)

    def _is_dust(self, row: int, symbol: int) -> bool:
        """Whether the exchange would not take the sale of what is held."""
        size, close = abs(float(self._positions[symbol].size)), self._last[row][symbol]
        rules = self._rules[symbol].at(int(self.moments.close_ms[row]))
        if size > 2 * (rules.minimum + rules.step) and size * close > 2 * rules.notional:
            return False  # far above both limits: no exact arithmetic is needed
        sold = rules.floor(size)
        return sold == 0.0 or not rules.worth_enough(sold, close)

    def _leave(self, row: int, symbol: int, signal: int) -> None:
        position, close_ms = self._positions[symbol], int(self.moments.close_ms[row])
        side = 1 if position.size > 0 else -1
        if signal == side and self.terms.renew_hold:
            position.entry_open_ms = close_ms
        position.leaving = position.leaving or self._why_leave(row, symbol, side, signal)
        if position.leaving:
            self._send(row, symbol, -side, abs(float(position.size)), position.leaving)

    def _why_leave(self, row: int, symbol: int, side: int, signal: int) -> str:
        terms, position = self.terms, self._positions[symbol]
        candles = (int(self.moments.close_ms[row]) - position.entry_open_ms) // terms.interval_ms
        earned = side * (self._last[row][symbol] / position.entry_price - 1.0)
        if terms.stop_pct and earned <= -terms.stop_pct / 100.0:
            return "stop"
        if terms.hold_candles and candles >= terms.hold_candles:
            return "hold_limit"
        return "signal" if signal == -side and candles >= terms.min_hold else ""

    def _enter(self, row: int, symbol: int, signal: int) -> None:
        if not self.moments.may_enter[row, symbol]:
            self._unsent(row, symbol, signal, 0.0, "evidence")
            return
        equity = self._equity(row)
        if self._is_lost(equity):
            self._unsent(row, symbol, signal, 0.0, "daily_loss")
            return
        self._positions[symbol].leaving = ""
        share, reason = self._share(row, symbol, equity)
        if reason:
            self._unsent(row, symbol, signal, 0.0, reason)
            return
        wanted, reason = self._entry_size(row, symbol, share * equity)
        if reason:
            self._unsent(row, symbol, signal, wanted, reason)
        else:
            self._send(row, symbol, signal, wanted, "signal")

    def _is_lost(self, equity: float) -> bool:
        """Whether the day's loss ends its entries; asked at entries only, and kept until 00:00."""
        limit = self.terms.max_daily_loss_pct
        if limit and not self._day_lost:
            self._day_lost = equity <= self._day_equity * (1.0 - limit / 100.0)
        return self._day_lost

    def _share(self, row: int, symbol: int, equity: float) -> tuple[float, str]:
        """(share of the equity, why there is none)."""
        terms, volatility = self.terms, self._volatility[row]
        if terms.sizing == "fraction":
            return terms.share, ""
        expected = volatility[symbol]
        if not expected > 0:
            return 0.0, "no_forecast"
        daily = terms.target_volatility / _DAYS_PER_YEAR**0.5
        invested = used = 0.0
        for other, position in enumerate(self._positions):
            if position.size and other != symbol:
                part = abs(float(position.size)) * self._last[row][other] / equity
                forecast = volatility[other]
                invested += part
                used += part * (forecast if forecast > 0 else expected)
        left = min(terms.share * daily, daily - used) / expected
        share = math.floor(min(left, 1.0 - invested) * _SHARES) / _SHARES
        return (share, "") if share > 0 else (0.0, "volatility_target")

    def _entry_size(self, row: int, symbol: int, notional: float) -> tuple[float, str]:
        """(base units, why none can be ordered): free cash pays fee, slippage and a reserve."""
        terms, close = self.terms, self._last[row][symbol]
        rules = self._rules[symbol].at(int(self.moments.close_ms[row]))
        costs = 1.0 + (terms.fee_bps + terms.slippage_bps + terms.headroom_bps) * BPS
        free = math.inf if terms.allow_short else max(self._cash, 0.0) / costs
        wanted = min(notional, free) / close
        quantity = rules.floor(wanted)
        if quantity and rules.worth_enough(quantity, close):
            return quantity, ""
        if free < notional:
            return notional / close, "insufficient_cash"
        return wanted, "min_notional" if quantity else "min_quantity"

    def _send(self, row: int, symbol: int, side: int, quantity: float, reason: str) -> None:
        """Hand an order to the exchange, which refuses what breaks its rules at this close."""
        close_ms = int(self.moments.close_ms[row])
        rules = self._rules[symbol].at(close_ms)
        order = Order(symbol, side, self._newest_ms, quantity, reason)
        fitted, refusal = rules.floor(quantity), ""
        if not self.moments.may_trade[row, symbol]:
            refusal = "can_trade"
        elif fitted == 0.0:
            refusal = "min_quantity"
        elif not rules.worth_enough(fitted, self._last[row][symbol]):
            refusal = "min_notional"
        if refusal:
            self._end(order, row, "refused", refusal)
            order.executed_ms = order.created_ms
            return
        order.quantity = fitted
        self._positions[symbol].order = order
        self._waiting.append(order)

    def _unsent(self, row: int, symbol: int, side: int, quantity: float, reason: str) -> None:
        order = Order(symbol, side, int(self.moments.close_ms[row]), quantity, reason)
        self._end(order, row, "refused", reason)


def _carried(rows: list[list[float]], new: list[list[bool]]) -> list[list[float]]:
    """Rows in which a symbol without a new candle has the value of its latest one."""
    carried: list[list[float]] = []
    last = [math.nan] * len(rows[0]) if rows else []
    for row, fresh in zip(rows, new, strict=True):
        last = [now if is_new else old for now, old, is_new in zip(row, last, fresh, strict=True)]
        carried.append(last)
    return carried
