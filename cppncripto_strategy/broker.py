"""SpotBroker: Backtrader's simulated broker with the rules of a spot exchange.

What it assumes, each on the line that does it: market orders fill at the open of the bar that
opens when the order was made, plus slippage; taker fee in quote currency on every fill; quantity
on the exchange's lot step; no fill on a bar that was already open or closed when the order was
made; no order crosses a gap; no short unless the account allows it.

Left out: order-book depth and partial fills by volume, maker fees, fees paid in base currency or
BNB, interest on borrowed coins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import backtrader as bt

from cppncripto_strategy.feeds.clock import num_to_ms
from cppncripto_strategy.feeds.filters import TRADING, SymbolFilters
from cppncripto_strategy.feeds.replay import bar_close_ms, require_timeframe, tick_interval_ms
from cppncripto_strategy.ledger import Side, open_of, purpose_of, unsent, volume_of
from cppncripto_strategy.order_objects import (
    MarketBuy,
    MarketSell,
    is_plain,
    look_up_once,
    market_order,
    resize,
    to_tick,
)
from cppncripto_strategy.spot_account import SpotAccount

log = logging.getLogger(__name__)

_DUST = 1e-12  # of a fill's quantity: float noise
_NOISE = 1e-9  # of a fill's quantity: far above float noise, far below any lot step
_SETTLED_BARS = 50  # after so many bars a feed's timeframe is not doubted again

_NO_FILTERS = SymbolFilters()


class Entry(NamedTuple):
    """What can be ordered to enter a position.

    quantity : base units, 0.0 when nothing can be; wanted : base units before the exchange's rules.
    reason : the rule that allows nothing, else empty; detail : the same for a person, with numbers,
    or why it is less than wanted.
    """

    quantity: float
    wanted: float
    reason: str
    detail: str


class SpotBroker(SpotAccount):
    """A cash account on a spot exchange; use as `cerebro.broker = SpotBroker(cash=10_000)`.

    Params
    ------
    cash : starting quote currency.
    fee_bps : taker fee per side, basis points of notional, charged in quote currency.
    slippage_bps : basis points by which market and triggered stop fills are worse than the open
        or the stop price.
    headroom_bps : cash that `entry_quantity` leaves free beside fee and slippage, basis points of
        the order, because the next open may be above this close.
    allow_short : False on spot: sells never exceed the position. True borrows coins, never cash: a
        cover buys what the cash pays for, and the rest of the short stays open.
    filters : {symbol: SymbolFilters}; a symbol without an entry has no rules: every quantity and
        price is accepted.
    trade_gate : callable(data) -> bool asked by `can_trade` for every new order; None allows all.
    fill_without_trades : True fills orders on a candle of volume 0 too, in which nobody traded;
        False cancels them there. A NaN volume is unknown, and fills.

    Attributes
    ----------
    fills : list of Fill, every fill, refusal and cancellation in order of time.
    ledger : list of LedgerEntry, one per fill.

    Raises
    ------
    RecipeError
        When a cost is negative or NaN.

    Examples
    --------
    >>> import backtrader as bt
    >>> from cppncripto_strategy import ReplayFeed, SpotBroker
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> class BuyOnce(bt.Strategy):
    ...     def next(self):
    ...         if len(self) == 10:
    ...             self.buy(size=self.broker.entry_quantity(self.data, notional=5_000))
    >>> market = generate(PlantedSettings(days=1, interval="5m"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> cerebro.broker = SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=300_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(BuyOnce)
    >>> _ = cerebro.run()
    >>> [fill] = cerebro.broker.fills
    >>> fill
    Fill(...)
    """

    params: Any = (
        ("filters", None),
        ("trade_gate", None),
        ("fill_without_trades", False),
    )

    def init(self) -> None:
        """Start a run: no positions, no orders, an empty ledger (called by Cerebro)."""
        super().init()
        self._unruled: set[str] = set()  # symbols without filters that the log has named
        self._timed: set[Any] = set()  # feeds whose bars were found to be as long as they say

    # Questions a strategy may ask ---------------------------------------------------------------

    def filters_of(self, data: Any) -> SymbolFilters:
        """The exchange filters that apply to a feed, by its name; no rules where none are given."""
        filters: SymbolFilters = (self.p.filters or {}).get(data._name, _NO_FILTERS)
        return filters

    def can_trade(self, data: Any) -> bool:
        """Whether new orders on this feed are accepted now; override or pass `trade_gate`."""
        gate: Callable[[Any], bool] | None = self.p.trade_gate
        return True if gate is None else bool(gate(data))

    def entry_quantity(self, data: Any, notional: float) -> float:
        """Base units to order for `notional` quote units at the present close, on the lot step.

        Never more than free cash pays for with fee, slippage and headroom; 0.0 when the result is
        under the exchange's minimum.
        """
        return self.entry(data, notional).quantity

    def entry(self, data: Any, notional: float) -> Entry:
        """As `entry_quantity`, with the reason where nothing can be ordered."""
        price = data.close[0]
        share = 1.0 + (self._costs_bps(data, price) + self.p.headroom_bps) / 1e4
        filters = self.filters_of(data)
        free = math.inf if self.p.allow_short else max(self.cash, 0.0)
        wanted = min(notional, free / share) / price
        quantity = filters.floor_quantity(wanted)
        if quantity and filters.notional_is_enough(quantity, price):
            return Entry(quantity, wanted, "", _cut_by_maximum(filters, quantity, wanted, True))
        if free / share < notional:
            why = f"{free:.2f} of cash for an order of {notional:.2f}"
            return Entry(0.0, notional / price, "insufficient_cash", why)
        return Entry(0.0, wanted, *_too_small(filters, quantity, wanted, price))

    def note_unsent(self, data: Any, side: Side, quantity: float, reason: str, detail: str) -> None:
        """Put on record that a decision to enter sent no order.

        Parameters
        ----------
        quantity : base units that were wanted.
        reason, detail : the rule that stopped it, as in `Fill`.
        """
        at_ms = bar_close_ms(data)
        self.fills.append(unsent(data._name, at_ms, side, quantity, reason, detail))

    def is_dust(self, data: Any) -> bool:
        """True when the position is too small for the exchange to accept its sale."""
        size, filters, close = abs(self.positions[data].size), self.filters_of(data), data.close[0]
        # Far above both limits, as nearly always, no exact arithmetic is needed.
        if size > 2.0 * float(filters.min_qty) and size * close > 2.0 * float(filters.min_notional):
            return False
        quantity = filters.floor_quantity(size)
        return quantity == 0.0 or not filters.notional_is_enough(quantity, close)

    # Orders in ----------------------------------------------------------------------------------

    def buy(self, owner: Any, data: Any, size: float, *others: Any, **named: Any) -> Any:
        """Backtrader's `buy`."""
        if others or not is_plain(named):
            return super().buy(owner, data, size, *others, **named)
        return self._send(market_order(MarketBuy, owner, data, size, named))

    def sell(self, owner: Any, data: Any, size: float, *others: Any, **named: Any) -> Any:
        """Backtrader's `sell`."""
        if others or not is_plain(named):
            return super().sell(owner, data, size, *others, **named)
        return self._send(market_order(MarketSell, owner, data, size, named))

    def _send(self, order: Any) -> Any:
        self._ocoize(order, None)
        return self.submit(order)

    def submit(self, order: Any, check: bool = True) -> Any:
        """Take an order, quantity floored and price on a tick, or refuse it with a reason."""
        look_up_once(order)
        self._name_unruled(order.data._name)
        created_ms = self._now_ms(order)
        self._created_ms[order.ref] = self._expected_open_ms[order.ref] = created_ms
        refusal = self._refusal(order)
        if refusal is None:
            return super().submit(order, check=check)
        self._reject(order, *refusal)
        if order.parent is not None and order.parent.status == bt.Order.Created:
            detail = f"its bracket's order {order.ref} was refused: {refusal[1]}"
            for kin in self._pchildren.pop(order.parent.ref, ()):
                self._reject(kin, "bracket", detail)
        return order

    def _name_unruled(self, symbol: str) -> None:
        if symbol in self._unruled or symbol in (self.p.filters or {}):
            return
        self._unruled.add(symbol)
        log.warning(
            "SpotBroker was given no filters for %r, so its orders follow no exchange's steps and"
            " minimums: pass filters={symbol: SymbolFilters(...)} for those of the symbol",
            symbol,
        )

    def check_submitted(self) -> None:
        """Accept what was submitted since the last bar; cash is checked when an order fills."""
        while self.submitted:
            self.submit_accept(self.submitted.popleft())

    def _reject(self, order: Any, reason: str, detail: str) -> None:
        order.reject(self)
        self.notify(order)
        self._record(order, self._created_ms[order.ref], "refused", reason, detail)

    def _now_ms(self, order: Any) -> int:
        """UTC ms of the decision: the order's own feed may lag behind what was already seen."""
        stamp = order.created.dt
        owner = order.owner
        if owner is not None and len(owner):
            stamp = max(stamp, owner.lines.datetime[0])
        return num_to_ms(stamp)

    def _refusal(self, order: Any) -> tuple[str, str] | None:
        """Why this order is not accepted, as (reason, detail), after fitting its quantity."""
        data, filters = order.data, self.filters_of(order.data)
        market = order.exectype == bt.Order.Market
        if order.parent is not None and order.parent.ref not in self._pchildren:
            return "bracket", "its parent order was refused, or has ended"
        if filters.status != TRADING:
            return "status", f"the symbol's status is {filters.status}, expected {TRADING}"
        if not self.can_trade(data):
            return "can_trade", "trading is blocked on this feed (not live, stale, or halted)"
        wanted = abs(order.created.size)
        # A bracket's children wait for their parent's position: they are judged when they fill.
        if order.issell() and order.parent is None and not self.p.allow_short:
            free = self._sellable(order)
            if free <= 0:
                return "no_position", f"a sale of {wanted:.12g} with {free:.12g} free to sell"
            wanted = min(wanted, free)
        quantity = filters.floor_quantity(wanted, market)
        if not market:
            to_tick(order, filters)
        price = data.close[0] if market else order.created.price or data.close[0]
        if quantity == 0.0 or not filters.notional_is_enough(quantity, price, market):
            return _too_small(filters, quantity, wanted, price)
        note = _cut_by_maximum(filters, quantity, wanted, market)
        if note:
            order.addinfo(note=note)
        resize(order, quantity)
        return None

    def _sellable(self, order: Any) -> float:
        """Position that no resting market sell has claimed yet, base units."""
        claimed = sum(
            abs(other.executed.remsize)
            for other in (*self.submitted, *self.pending)
            if other.data is order.data
            and other.issell()
            and other.exectype == bt.Order.Market == order.exectype
        )
        return self.filters_of(order.data).snap_position(self.positions[order.data].size - claimed)

    def cancel(self, order: Any, bracket: bool = False) -> bool:
        """Cancel an accepted order: at the strategy's wish, or (`bracket`) with its bracket.

        As under `BackBroker`, an order is accepted at the next bar: on the bar that sent it there
        is nothing to cancel yet, and the answer is False.
        """
        if bracket:
            return self._cancel(order, "bracket", "another order of its bracket ended", bracket)
        return self._cancel(order, "user", "cancelled by the strategy")

    def cancel_pending(self, reason: str, detail: str = "") -> None:
        """Cancel every order that still waits, such as at the end of the data."""
        self.check_submitted()
        for order in list(self.pending):
            self._cancel(order, reason, detail or reason)

    def _cancel(self, order: Any, reason: str, detail: str, bracket: bool = False) -> bool:
        if order not in self.pending:
            return False
        self.pending.remove(order)
        self._end(order, reason, detail, bracket)
        return True

    def _end(self, order: Any, reason: str, detail: str, bracket: bool = False) -> None:
        """Cancel an order that is out of the queue, and those that depend on it."""
        order.cancel()
        self.notify(order)
        self._record(order, bar_close_ms(order.data), "cancelled", reason, detail)
        self._ococheck(order)
        if not bracket:
            self._bracketize(order, cancel=True)

    def _ococheck(self, order: Any) -> None:
        waiting = [other for other in self.pending if other is not None]
        super()._ococheck(order)
        for other in waiting:
            if not other.alive() and other.ref in self._created_ms:
                detail = f"order {order.ref} of its one-cancels-others group ended"
                self._record(other, bar_close_ms(other.data), "cancelled", "oco", detail)

    # The bar ------------------------------------------------------------------------------------

    def next(self) -> None:
        """Try resting orders on the present bars, each at most once per bar, and mark the account.

        Live, Cerebro's idle loops call this between bars too: nothing fills then.
        """
        while self._toactivate:
            self._toactivate.popleft().activate()
        if self.submitted:
            self.check_submitted()
        if self.pending:
            self._try_pending()
        self._mark()

    def _try_pending(self) -> None:
        """Try each order once, out of the queue: what its fill cancels is looked for there."""
        self.pending.append(None)
        while (order := self.pending.popleft()) is not None:
            if self._still_waits(order):
                self.pending.append(order)

    def _still_waits(self, order: Any) -> bool:
        """Expire, cancel or try one order if a bar has come that opened after the decision."""
        data = order.data
        stamp_ms = bar_close_ms(data)
        if order.expire():
            self.notify(order)
            self._record(order, stamp_ms, "cancelled", "expired", "its validity ended")
            self._ococheck(order)
            self._bracketize(order, cancel=True)
            return False
        if not order.active():
            return True
        interval_ms = tick_interval_ms(data)
        wait_ms = stamp_ms - interval_ms - self._expected_open_ms[order.ref]
        if not 0 <= wait_ms < interval_ms and data not in self._timed:
            require_timeframe(data)
            if len(data) > _SETTLED_BARS:
                self._timed.add(data)
        if wait_ms < 0:
            return True  # the bar was open, or closed, when the decision was made
        if wait_ms >= interval_ms:
            detail = f"{wait_ms // interval_ms} bars are missing after the decision"
            self._end(order, "gap", f"{detail}; sent for {purpose_of(order)}")
            return False
        self._expected_open_ms[order.ref] = stamp_ms
        self._try_exec(order)
        if order.status == bt.Order.Completed:
            self._after_fill(order, stamp_ms)
        return bool(order.alive())

    def _after_fill(self, order: Any, stamp_ms: int) -> None:
        """Let the children of a bracket begin with the bar after their parent's fill."""
        for child in self._pchildren.get(order.ref, ()):
            if child is not order:
                child_ms = max(stamp_ms, bar_close_ms(child.data))
                self._expected_open_ms[child.ref] = child_ms
        self._bracketize(order)

    def _try_exec(self, order: Any) -> None:
        if order.exectype != bt.Order.Market or self._their_slippage():
            super()._try_exec(order)
        else:
            self._try_exec_market(order, open_of(order.data), math.inf, 0.0)

    def _try_exec_market(self, order: Any, popen: float, phigh: float, plow: float) -> None:
        # Fills at the open of the bar that opens at the decision, never at a close already seen.
        at_open = self.p.slip_open
        slip = (
            self._slip_up(phigh, popen, at_open)
            if order.isbuy()
            else self._slip_down(plow, popen, at_open)
        )
        self._execute(order, ago=0, price=slip)

    def _execute(
        self,
        order: Any,
        ago: int | None = None,
        price: float | None = None,
        cash: float | None = None,
        position: Any = None,
        dtcoc: Any = None,
    ) -> Any:
        """Fit the quantity to what the account holds, execute, and record."""
        if ago is None or price is None:
            return super()._execute(order, ago, price, cash, position, dtcoc)
        if not self.p.fill_without_trades and volume_of(order.data) == 0.0:
            self._end(order, "no_trades", "nobody traded in the candle (volume 0)")
            return None
        wanted = abs(order.executed.remsize)
        quantity, detail = self._affordable(order, wanted, price)
        if quantity == 0.0:
            self._refuse_at_fill(order, *detail.split(": ", 1))
            return None
        resize(order, quantity)
        position, row, bits = self.positions[order.data], len(self.fills), order.executed.exbits
        parts = len(bits)
        super()._execute(order, ago, price, cash, position, dtcoc)
        if len(bits) > parts:
            snapped = self._snapped(order.data, position.size, abs(bits[-1].size))
            if snapped != position.size:
                position.fix(snapped, position.price if snapped else 0.0)
            note = str(order.info.get("note", ""))
            self._record_fill(order, row, "; ".join(filter(None, (note, detail))))
        if order.status == bt.Order.Margin:
            missing = f"{abs(order.executed.remsize):.12g} not opened with {self.cash:.2f} left"
            at_ms = bar_close_ms(order.data)
            self._record(order, at_ms, "refused", "insufficient_cash", missing)
        elif not order.alive():
            self._forget(order)
        return None

    def _snapped(self, data: Any, size: float, traded: float) -> float:
        """A position without its float noise, which is tiny beside what was traded."""
        if abs(size) < _DUST * traded:
            return 0.0  # without a lot step, 0.1 + 0.2 - 0.3 would be a position
        snapped: float = self.filters_of(data).snap_position(size)
        # Bought under another step, it may lie between two of this one: it is held as it is.
        return snapped if abs(snapped - size) < _NOISE * traded else size

    def _affordable(self, order: Any, wanted: float, price: float) -> tuple[float, str]:
        """Quantity that position and cash allow now, with a note; zero comes with 'reason: why'."""
        filters, market = self.filters_of(order.data), order.exectype == bt.Order.Market
        allowed, position = wanted, self.positions[order.data].size
        if order.issell():
            allowed = wanted if self.p.allow_short else min(wanted, max(position, 0.0))
            if allowed <= 0:
                return 0.0, "no_position: the position was sold before this order filled"
        bounded = order.isbuy() and self._cash_bounds(order.data, wanted, position, price)
        if bounded:
            allowed = min(wanted, self._buys_at(order.data, price))
        quantity = filters.floor_quantity(allowed, market)
        if bounded:
            while quantity and self._cost(order.data, quantity, price) > self.cash:
                quantity = filters.next_below(quantity, market)
        if quantity == 0.0:
            return 0.0, f"insufficient_cash: {self.cash:.2f} left, {wanted:.12g} wanted"
        if not filters.notional_is_enough(quantity, price, market):
            notional = quantity * price
            return 0.0, f"min_notional: {notional:.12g} is below {filters.min_notional}"
        limit = "position" if order.issell() else "cash"
        cut = quantity < wanted
        return quantity, f"{quantity:.12g} instead of {wanted:.12g}: {limit}" if cut else ""

    def _cash_bounds(self, data: Any, wanted: float, position: float, price: float) -> bool:
        """Whether a purchase is cut to what the cash pays for.

        On spot always. A short account's own cash check (Backtrader's) refuses what would open a
        position beyond the cash, but lets a cover through that leaves the cash below zero.
        """
        if not self.p.allow_short:
            return True
        cover = min(wanted, max(-position, 0.0))
        return cover > 0 and self._cost(data, cover, price) > self.cash

    def _refuse_at_fill(self, order: Any, reason: str, detail: str) -> None:
        order.reject(self)
        self.notify(order)
        self._record(order, bar_close_ms(order.data), "refused", reason, detail)
        self._ococheck(order)
        self._bracketize(order, cancel=True)


def _too_small(
    filters: SymbolFilters, quantity: float, wanted: float, price: float
) -> tuple[str, str]:
    """Reason and detail of an order under the exchange's minimum; zero is under its quantity."""
    if quantity == 0.0:
        return "min_quantity", f"{wanted:.12g} is below the minimum quantity {filters.min_qty}"
    detail = f"{quantity:.12g} x {price:.12g} is below the minimum notional {filters.min_notional}"
    return "min_notional", detail


def _cut_by_maximum(filters: SymbolFilters, quantity: float, wanted: float, market: bool) -> str:
    """A note where the exchange's maximum, not its step, made less of what was wanted."""
    if wanted - quantity <= max(1.5 * float(filters.step(market)), 1e-12 * wanted):
        return ""
    return f"{quantity:.12g} instead of {wanted:.12g}: the exchange's maximum quantity"
