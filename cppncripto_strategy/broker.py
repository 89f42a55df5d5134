"""SpotBroker: Backtrader's simulated broker with the rules of a spot exchange.

What it assumes, each on the line that does it: market orders fill at the open of the bar that
opens when the order was made, plus slippage; taker fee in quote currency on every fill; quantity
on the exchange's lot step; no fill on a bar that was already open or closed when the order was
made; no order crosses a gap; no short unless the account allows it.

Left out: order-book depth and partial fills by volume, maker fees, fees paid in base currency or
BNB, interest on borrowed coins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Literal

import backtrader as bt

from cppncripto_strategy.errors import RecipeError, SourceError
from cppncripto_strategy.feeds.clock import num_to_ms
from cppncripto_strategy.feeds.replay import bar_close_ms, bar_interval_ms

_TRADING = "TRADING"
_ZERO = Decimal(0)
Side = Literal["buy", "sell"]
Status = Literal["filled", "refused", "cancelled"]


@dataclass(frozen=True, slots=True)
class SymbolFilters:
    """What the exchange accepts for one symbol; exact decimals.

    Parameters
    ----------
    lot_step, min_qty, max_qty : base units (LOT_SIZE).
    market_lot_step, market_min_qty, market_max_qty : base units (MARKET_LOT_SIZE); a zero step
        means no rule of its own, a zero maximum means the LOT_SIZE maximum.
    min_notional : least quantity x price, quote units; market orders obey it where
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
    status: str = _TRADING

    @classmethod
    def from_exchange_info(cls, symbol: Mapping[str, Any]) -> SymbolFilters:
        """Filters from one entry of `symbols` in Binance's GET /api/v3/exchangeInfo.

        Reads LOT_SIZE, MARKET_LOT_SIZE, PRICE_FILTER and NOTIONAL or the older MIN_NOTIONAL.

        Raises
        ------
        SourceError
            When LOT_SIZE or PRICE_FILTER is absent, or a number is not one.
        """
        filters = {entry.get("filterType"): entry for entry in symbol.get("filters", ())}
        absent = [name for name in ("LOT_SIZE", "PRICE_FILTER") if name not in filters]
        if absent:
            raise SourceError(
                f"exchangeInfo of {symbol.get('symbol')!r} lacks {absent}: expected an entry of"
                " 'symbols' from GET /api/v3/exchangeInfo"
            )
        lot, market = filters["LOT_SIZE"], filters.get("MARKET_LOT_SIZE", {})
        notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
        on_market = notional.get("applyMinToMarket", notional.get("applyToMarket", True))
        try:
            return cls(
                lot_step=Decimal(lot["stepSize"]),
                min_qty=Decimal(lot["minQty"]),
                max_qty=Decimal(lot["maxQty"]),
                market_lot_step=Decimal(market.get("stepSize", "0")),
                market_min_qty=Decimal(market.get("minQty", "0")),
                market_max_qty=Decimal(market.get("maxQty", "0")),
                min_notional=Decimal(notional.get("minNotional", "0")),
                min_notional_on_market=bool(on_market),
                tick_size=Decimal(filters["PRICE_FILTER"]["tickSize"]),
                status=str(symbol.get("status", _TRADING)),
            )
        except (KeyError, ArithmeticError, TypeError) as cause:
            raise SourceError(
                f"exchangeInfo of {symbol.get('symbol')!r} has a filter without its number: {cause}"
            ) from cause

    def step(self, market: bool = True) -> Decimal:
        """Step that quantities must be a multiple of, base units."""
        return max(self.lot_step, self.market_lot_step) if market else self.lot_step

    def floor_quantity(self, quantity: float, market: bool = True) -> float:
        """Largest quantity the exchange accepts that does not exceed `quantity`; 0.0 if none.

        Above the maximum the maximum is returned. Exact in decimals: 0.3 stays 0.3.
        """
        if not math.isfinite(quantity) or quantity <= 0:
            return 0.0
        least, most = self.min_qty, self.max_qty
        if market:
            least = max(least, self.market_min_qty)
            most = min(most, self.market_max_qty) if self.market_max_qty > 0 else most
        floored = _to_step(min(Decimal(repr(float(quantity))), most), self.step(market), ROUND_DOWN)
        return float(floored) if floored >= least else 0.0

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


def filters_from_exchange_info(info: Mapping[str, Any]) -> dict[str, SymbolFilters]:
    """Filters of every symbol in a whole exchangeInfo answer, by symbol name."""
    return {
        str(entry.get("symbol")): SymbolFilters.from_exchange_info(entry)
        for entry in info.get("symbols", ())
    }


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


class SpotCommission(bt.CommInfoBase):
    """Taker fee as a share of notional; sizes are fractions of a coin, never truncated."""

    params: Any = (("commtype", bt.CommInfoBase.COMM_PERC), ("stocklike", True), ("percabs", True))

    def getsize(self, price: float, cash: float) -> float:
        """Base units that `cash` buys at `price`, before fees."""
        return float(self.p.leverage) * cash / price


class SpotBroker(bt.brokers.BackBroker):
    """A cash account on a spot exchange; use as `cerebro.broker = SpotBroker(cash=10_000)`.

    Params
    ------
    cash : starting quote currency.
    fee_bps : taker fee per side, basis points of notional, charged in quote currency.
    slippage_bps : basis points by which market and triggered stop fills are worse than the open
        or the stop price.
    headroom_bps : cash that `entry_quantity` leaves free beside fee and slippage, basis points of
        the order, because the next open may be above this close.
    allow_short : False on spot: sells never exceed the position.
    filters : {symbol: SymbolFilters}; symbols without an entry get `DEFAULT_FILTERS` or
        `SymbolFilters()`.
    trade_gate : callable(data) -> bool asked by `can_trade` for every new order; None allows all.

    Attributes
    ----------
    fills : list of Fill, every fill, refusal and cancellation in order of time.
    ledger : list of LedgerEntry, one per fill.
    """

    params: Any = (
        ("fee_bps", 10.0),
        ("slippage_bps", 1.0),
        ("headroom_bps", 20.0),
        ("allow_short", False),
        ("filters", None),
        ("trade_gate", None),
        ("checksubmit", False),  # cash is checked at the fill, at the price that is paid
    )

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    def _build(self) -> None:
        for name in ("fee_bps", "slippage_bps", "headroom_bps"):
            if not getattr(self.p, name) >= 0:
                raise RecipeError(f"{name} must be zero or more, got {getattr(self.p, name)!r}")
        self.comminfo[None] = SpotCommission(commission=self.p.fee_bps / 1e4)

    def init(self) -> None:
        """Start a run: empty positions, book and ledger (called by Cerebro)."""
        super().init()
        self.fills: list[Fill] = []
        self.ledger: list[LedgerEntry] = []
        # Order reference -> stamp at which the next bar must open for the order to live on.
        self._expected_open_ms: dict[int, int] = {}
        self._created_ms: dict[int, int] = {}
        self._filters: dict[str, SymbolFilters] = {}

    # Questions a strategy may ask ---------------------------------------------------------------

    def filters_of(self, data: Any) -> SymbolFilters:
        """The exchange filters in force for a feed, by its name."""
        name = data._name
        if name not in self._filters:
            given = (self.p.filters or {}).get(name)
            self._filters[name] = given or DEFAULT_FILTERS.get(name) or SymbolFilters()
        return self._filters[name]

    def set_status(self, symbol: str, filters: SymbolFilters | None = None, **changes: Any) -> None:
        """Replace a symbol's filters while running (a halt, a new lot step)."""
        current = filters or self._filters.get(symbol) or (self.p.filters or {}).get(symbol)
        current = current or DEFAULT_FILTERS.get(symbol) or SymbolFilters()
        self._filters[symbol] = replace(current, **changes)

    def can_trade(self, data: Any) -> bool:
        """Whether new orders on this feed are accepted now; override or pass `trade_gate`."""
        gate: Callable[[Any], bool] | None = self.p.trade_gate
        return True if gate is None else bool(gate(data))

    def entry_quantity(self, data: Any, notional: float) -> float:
        """Base units to order for `notional` quote units at the present close, on the lot step.

        Never more than free cash pays for with fee, slippage and headroom; 0.0 when the result is
        under the exchange's minimum.
        """
        price = data.close[0]
        share = 1.0 + (self.p.fee_bps + self.p.slippage_bps + self.p.headroom_bps) / 1e4
        filters = self.filters_of(data)
        free = math.inf if self.p.allow_short else max(self.cash, 0.0)
        quantity = filters.floor_quantity(min(notional, free / share) / price)
        return quantity if filters.notional_is_enough(quantity, price) else 0.0

    def is_dust(self, data: Any) -> bool:
        """True when the position is too small for the exchange to accept its sale."""
        size, filters, close = abs(self.positions[data].size), self.filters_of(data), data.close[0]
        # Far above both limits, as nearly always, no exact arithmetic is needed.
        if size > 2.0 * float(filters.min_qty) and size * close > 2.0 * float(filters.min_notional):
            return False
        quantity = filters.floor_quantity(size)
        return quantity == 0.0 or not filters.notional_is_enough(quantity, close)

    # Orders in ----------------------------------------------------------------------------------

    def submit(self, order: Any, check: bool = True) -> Any:
        """Take an order, or refuse it with a recorded reason."""
        created_ms = self._now_ms(order)
        self._created_ms[order.ref] = self._expected_open_ms[order.ref] = created_ms
        refusal = self._refusal(order)
        if refusal is not None:
            order.reject(self)
            self.notify(order)
            self._record(order, created_ms, "refused", *refusal)
            return order
        return super().submit(order, check=check)

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
        if filters.status != _TRADING:
            return "status", f"the symbol's status is {filters.status}, expected {_TRADING}"
        if not self.can_trade(data):
            return "can_trade", "trading is blocked on this feed (not live, stale, or halted)"
        wanted = abs(order.created.size)
        if order.issell() and not self.p.allow_short:
            free = self._sellable(order)
            if free <= 0:
                return "no_position", f"a sale of {wanted:.12g} with {free:.12g} free to sell"
            wanted = min(wanted, free)
        quantity = filters.floor_quantity(wanted, market)
        if quantity == 0.0:
            return "min_quantity", f"{wanted:.12g} is below the least quantity {filters.min_qty}"
        if not market and order.created.price is not None:
            order.created.price = filters.round_price(order.created.price)
        price = data.close[0] if market else order.created.price or data.close[0]
        if not filters.notional_is_enough(quantity, price, market):
            return (
                "min_notional",
                f"{quantity:.12g} x {price:.12g} is below the least notional"
                f" {filters.min_notional}",
            )
        _resize(order, quantity)
        return None

    def _sellable(self, order: Any) -> float:
        """Position that no resting market sell has claimed yet, base units."""
        claimed = sum(
            abs(other.executed.remsize)
            for other in self.pending
            if other.data is order.data
            and other.issell()
            and other.exectype == bt.Order.Market == order.exectype
        )
        return self.filters_of(order.data).snap_position(self.positions[order.data].size - claimed)

    def cancel(self, order: Any, bracket: bool = False) -> bool:
        """Cancel a resting order at the strategy's wish."""
        return self._cancel(order, "user", "cancelled by the strategy", bracket)

    def cancel_pending(self, reason: str, detail: str = "") -> None:
        """Cancel every resting order, such as at the end of the data."""
        for order in list(self.pending):
            self._cancel(order, reason, detail or reason)

    def _cancel(self, order: Any, reason: str, detail: str, bracket: bool = False) -> bool:
        if not super().cancel(order, bracket=bracket):
            return False
        self._record(order, bar_close_ms(order.data), "cancelled", reason, detail)
        return True

    # The bar ------------------------------------------------------------------------------------

    def next(self) -> None:
        """Try resting orders on the present bars, each at most once per bar, and mark the account.

        Live, Cerebro's idle loops call this between bars too: nothing fills then.
        """
        while self._toactivate:
            self._toactivate.popleft().activate()
        if self.p.checksubmit:
            self.check_submitted()
        if self.pending:
            for order in list(self.pending):
                self._try_once(order)
        self._mark()

    def _try_once(self, order: Any) -> None:
        """Cancel, expire or try one order if a bar has come that opened after the decision."""
        if not order.alive() or not order.active() or order not in self.pending:
            return
        data = order.data
        stamp_ms = bar_close_ms(data)
        interval_ms = bar_interval_ms(data)
        wait_ms = stamp_ms - interval_ms - self._expected_open_ms[order.ref]
        if wait_ms < 0:
            return  # the bar was open, or closed, when the decision was made
        if wait_ms >= interval_ms:
            detail = f"{wait_ms // interval_ms} bars are missing after the decision"
            self._cancel(order, "gap", f"{detail}; sent for {_purpose(order)}")
            return
        if order.expire():
            self.pending.remove(order)
            self.notify(order)
            self._ococheck(order)
            self._bracketize(order, cancel=True)
            self._record(order, stamp_ms, "cancelled", "expired", "its validity ended")
            return
        self._expected_open_ms[order.ref] = stamp_ms
        self._try_exec(order)
        if not order.alive():
            self._drop(order)

    def _drop(self, order: Any) -> None:
        if order in self.pending:
            self.pending.remove(order)
        if order.status == bt.Order.Completed:
            self._bracketize(order)

    def _try_exec_market(self, order: Any, popen: float, phigh: float, plow: float) -> None:
        # Fills at the open of the bar that opens at the decision, never at a close already seen.
        slip = self._slip_up(phigh, popen) if order.isbuy() else self._slip_down(plow, popen)
        self._execute(order, ago=0, price=slip)

    def _slip_up(self, pmax: float, price: float, doslip: bool = True, lim: bool = False) -> float:
        # Not capped at the bar's high: a market order pays the spread even on a flat candle.
        slipped = price * (1.0 + float(self.p.slippage_bps) / 1e4)
        return min(slipped, pmax) if lim else slipped

    def _slip_down(
        self, pmin: float, price: float, doslip: bool = True, lim: bool = False
    ) -> float:
        slipped = price * (1.0 - float(self.p.slippage_bps) / 1e4)
        return max(slipped, pmin) if lim else slipped

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
        wanted = abs(order.executed.remsize)
        quantity, detail = self._affordable(order, wanted, price)
        if quantity == 0.0:
            self._refuse_at_fill(order, *detail.split(": ", 1))
            return None
        _resize(order, quantity)
        position = self.positions[order.data]
        super()._execute(order, ago, price, cash, position, dtcoc)
        snapped = self.filters_of(order.data).snap_position(position.size)
        if snapped != position.size:
            position.fix(snapped, position.price if snapped else 0.0)
        self._record_fill(order, quantity, price, detail)
        return None

    def _affordable(self, order: Any, wanted: float, price: float) -> tuple[float, str]:
        """Quantity that position and cash allow now, with a note; zero comes with 'reason: why'."""
        filters, market = self.filters_of(order.data), order.exectype == bt.Order.Market
        allowed, held = wanted, self.positions[order.data].size
        if order.issell():
            allowed = wanted if self.p.allow_short else min(wanted, max(held, 0.0))
            if allowed <= 0:
                return 0.0, "no_position: the position was sold before this order filled"
        elif not self.p.allow_short:
            allowed = min(wanted, self._buys_at(order.data, price))
        quantity = filters.floor_quantity(allowed, market)
        if not order.issell() and not self.p.allow_short:
            while quantity and self._cost(order.data, quantity, price) > self.cash:
                step = float(filters.step(market))
                quantity = filters.floor_quantity(quantity - step, market)
        if quantity == 0.0:
            return 0.0, f"insufficient_cash: {self.cash:.2f} left, {wanted:.12g} wanted"
        if not filters.notional_is_enough(quantity, price, market):
            notional = quantity * price
            return 0.0, f"min_notional: {notional:.12g} is below {filters.min_notional}"
        note = f"{quantity:.12g} instead of {wanted:.12g}: cash" if quantity < wanted else ""
        return quantity, note

    def _buys_at(self, data: Any, price: float) -> float:
        fee_per_unit: float = self.getcommissioninfo(data).getcommission(1.0, price)
        return max(float(self.cash), 0.0) / (price + fee_per_unit)

    def _cost(self, data: Any, quantity: float, price: float) -> float:
        fee: float = self.getcommissioninfo(data).getcommission(quantity, price)
        return quantity * price + fee

    def _refuse_at_fill(self, order: Any, reason: str, detail: str) -> None:
        order.reject(self)
        self.notify(order)
        self._ococheck(order)
        self._bracketize(order, cancel=True)
        self._record(order, bar_close_ms(order.data), "refused", reason, detail)

    # Records ------------------------------------------------------------------------------------

    def _record(self, order: Any, at_ms: int, status: Status, reason: str, detail: str) -> None:
        self._expected_open_ms.pop(order.ref, None)
        self.fills.append(
            Fill(
                symbol=order.data._name,
                created_ms=self._created_ms.pop(order.ref, at_ms),
                executed_ms=at_ms,
                side="buy" if order.isbuy() else "sell",
                quantity=abs(order.created.size),
                price=math.nan,
                notional=0.0,
                fee=0.0,
                reference_price=math.nan,
                reason=reason,
                status=status,
                detail=detail,
            )
        )

    def _record_fill(self, order: Any, quantity: float, price: float, detail: str) -> None:
        data, at_ms = order.data, bar_close_ms(order.data)
        created_ms = self._created_ms.get(order.ref, at_ms)
        if not order.alive():
            self._created_ms.pop(order.ref, None)
            self._expected_open_ms.pop(order.ref, None)
        self.fills.append(
            Fill(
                symbol=data._name,
                created_ms=created_ms,
                executed_ms=at_ms,
                side="buy" if order.isbuy() else "sell",
                quantity=quantity,
                price=price,
                notional=quantity * price,
                fee=self.getcommissioninfo(data).getcommission(quantity, price),
                reference_price=data.open[0],
                reason=_purpose(order),
                status="filled",
                detail=detail,
            )
        )
        size = self.positions[data].size
        self.ledger.append(LedgerEntry(data._name, at_ms, size, self.cash))

    def _mark(self) -> None:
        """Value of the account at the present closes, quote units."""
        if self._cash_addition or self._fundhist or self.p.allow_short:
            self._get_value()
            return
        held = 0.0
        for data, position in self.positions.items():
            if position.size:
                held += position.size * data.close[0]
        self._value = self._valuelever = self.cash + held
        self._valuemkt = self._valuemktlever = held
        self._fundval = self._value / self._fundshares


def _purpose(order: Any) -> str:
    """Why the order was sent (`buy(..., purpose="stop")`); "order" when the sender did not say."""
    return str(order.info.get("purpose", "order"))


def _resize(order: Any, quantity: float) -> None:
    """Give an order that has not filled yet another quantity (sign by its side)."""
    signed = quantity if order.isbuy() else -quantity
    order.size = order.created.size = order.created.remsize = signed
    order.executed.remsize = signed
