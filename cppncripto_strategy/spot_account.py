"""SpotAccount: the account behind SpotBroker, its costs and its records, and whether they agree.

Backtrader's own settings (commission, slippage) are honoured or refused, never ignored. After every
run the fills, the ledger, the positions and the cash are checked against each other. Left out: when
and why an order fills (`broker`), and the arithmetic of a fill, which is Backtrader's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import backtrader as bt

from cppncripto_strategy.errors import AccountError, RecipeError
from cppncripto_strategy.feeds.clock import num_to_ms
from cppncripto_strategy.ledger import AccountCheck, Fill, LedgerEntry, Status, filled, unfilled
from cppncripto_strategy.order_objects import notification

_ON_ITS_WAY = (bt.Order.Submitted, bt.Order.Accepted)
_PLAIN_COMMISSIONS = (bt.CommInfoBase, bt.CommissionInfo)
_SLIPPAGE = ("slip_perc", "slip_fixed", "slip_open", "slip_limit", "slip_match", "slip_out")


class SpotCommission(bt.CommInfoBase):
    """Taker fee as a share of notional; sizes are fractions of a coin, never truncated."""

    params: Any = (("commtype", bt.CommInfoBase.COMM_PERC), ("stocklike", True), ("percabs", True))

    def getsize(self, price: float, cash: float) -> float:
        """Base units that `cash` buys at `price`, before fees."""
        return float(self.p.leverage) * cash / price


class SpotAccount(bt.brokers.BackBroker):
    """Costs, records and value of a cash account; `broker.SpotBroker` adds the orders.

    Params
    ------
    cash, fee_bps, slippage_bps, headroom_bps, allow_short : as `SpotBroker` describes them.

    Raises
    ------
    RecipeError
        When a cost is negative or NaN, or a setting of Backtrader's does not apply to spot.
    AccountError
        At the end of a run whose records contradict each other.
    """

    params: Any = (
        ("fee_bps", 10.0),
        ("slippage_bps", 1.0),
        ("headroom_bps", 20.0),
        ("allow_short", False),
        ("slip_open", True),
        ("checksubmit", True),  # Submitted, then Accepted; cash is checked at the fill
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
        self.set_coc(self.p.coc)
        self.set_coo(self.p.coo)
        self.set_filler(self.p.filler)

    def init(self) -> None:
        """Start a run: no positions, no orders, an empty ledger (called by Cerebro)."""
        super().init()
        self.fills: list[Fill] = []
        self.ledger: list[LedgerEntry] = []
        self._check = AccountCheck(self.cash)
        # Order reference -> stamp at which the next bar must open for the order to live on.
        self._expected_open_ms: dict[int, int] = {}
        self._created_ms: dict[int, int] = {}

    def stop(self) -> None:
        """End a run: what is on record must be what the account holds (called by Cerebro)."""
        super().stop()
        self.check()

    def check(self) -> None:
        """Compare fills, ledger, positions and cash.

        Raises
        ------
        AccountError
            Naming the first difference.
        """
        positions = {data._name: 0.0 for data in self.positions}
        for data, position in self.positions.items():
            positions[data._name] += position.size
        difference = self._check.difference(positions, self.cash)
        if difference:
            raise AccountError(
                f"the account contradicts its own records: {difference}. Its results cannot be"
                " trusted: please report this with the strategy that led to it"
            )

    def snapshot(self) -> dict[str, Any]:
        """Cash, positions, the records' own sums and the orders that still wait, between two bars.

        Raises
        ------
        AccountError
            When an order waits that is no plain market order: none of our strategies sends one.
        """
        waiting = [order for order in (*self.pending, *self.submitted) if order.alive()]
        return {
            "cash": self.cash,
            # In their order, closed ones too: the account's value is their sum, in that order.
            "positions": [
                [data._name, float(position.size), float(position.price)]
                for data, position in self.positions.items()
            ],
            "check": self._check.snapshot(),
            "orders": [self._order_snapshot(order) for order in waiting],
        }

    def _order_snapshot(self, order: Any) -> dict[str, Any]:
        if order.exectype != bt.Order.Market or order.parent is not None or order.valid is not None:
            raise AccountError(
                f"order {order.ref} on {order.data._name} is no plain market order: the account"
                " cannot be kept while it waits"
            )
        return {
            "symbol": order.data._name,
            "quantity": float(order.created.size),
            "created_ms": self._created_ms[order.ref],
            "expected_open_ms": self._expected_open_ms[order.ref],
            "info": dict(order.info),
        }

    def restore(self, kept: Mapping[str, Any], owner: Any) -> dict[str, Any]:
        """Hold what a snapshot says, at the bars at which it was taken.

        Parameters
        ----------
        owner : the strategy whose orders they are; its feeds are named as the symbols.

        Returns
        -------
        orders : symbol -> the order that waits on it.
        """
        self.cash = kept["cash"]
        for symbol, size, price in kept["positions"]:
            self.positions[owner.getdatabyname(symbol)].set(size, price)
        self._check.restore(kept["check"])
        orders = {
            waiting["symbol"]: self._order_again(waiting, owner) for waiting in kept["orders"]
        }
        self._mark()
        return orders

    def _order_again(self, kept: Mapping[str, Any], owner: Any) -> Any:
        """An order as it waited: what was refused or fitted to the rules is not judged again."""
        make = bt.order.BuyOrder if kept["quantity"] > 0 else bt.order.SellOrder
        data = owner.getdatabyname(kept["symbol"])
        market = bt.Order.Market
        order = make(owner=owner, data=data, size=abs(kept["quantity"]), exectype=market)
        order.addinfo(**kept["info"])
        self._created_ms[order.ref] = kept["created_ms"]
        self._expected_open_ms[order.ref] = kept["expected_open_ms"]
        self._ocoize(order, None)
        return super().submit(order, check=True)

    def set_cash(self, cash: float) -> None:
        """Start with this cash; during a run, have this much from now on."""
        self._check.paid_in(cash - self.cash)
        super().set_cash(cash)

    setcash = set_cash

    def _get_value(self, datas: Any = None, lever: bool = False) -> Any:
        self._check.paid_in(sum(self._cash_addition))  # the base class takes it in now
        return super()._get_value(datas, lever)

    # Backtrader's settings: honoured or refused, never ignored ----------------------------------

    @classmethod
    def instead_of(cls, broker: Any, **params: Any) -> Any:
        """An account with the cash, commission and slippage that another broker was given.

        For hooks of `btrun`, which applies `--cash`, `--commission` and `--slip_perc` to
        Backtrader's own broker before the hook runs. What was left at Backtrader's default, and
        what `params` names, is not taken over.
        """
        theirs, commission = broker.p, broker.comminfo[None]
        if "cash" not in params and theirs.cash != bt.brokers.BackBroker.params.cash:
            params["cash"] = theirs.cash
        account: Any = cls(**params)
        if "fee_bps" not in params and commission.p.commission:
            account.addcommissioninfo(commission)
        if "slippage_bps" not in params and (theirs.slip_perc or theirs.slip_fixed):
            for name in _SLIPPAGE:
                setattr(account.p, name, getattr(theirs, name))
        return account

    def addcommissioninfo(self, comminfo: Any, name: str | None = None) -> None:
        """Use another fee for all symbols, or for one.

        Raises
        ------
        RecipeError
            When it is of a margin, multiplied, leveraged or interest-bearing instrument.
        """
        p = comminfo.p
        if not comminfo._stocklike or p.mult != 1.0 or p.leverage != 1.0 or p.interest:
            raise RecipeError(
                "SpotBroker buys coins with cash: commissions with margin, mult, leverage or"
                " interest do not apply; give commission=0.001 for 10 bps per side"
            )
        if type(comminfo) in _PLAIN_COMMISSIONS and comminfo._commtype == comminfo.COMM_PERC:
            comminfo = SpotCommission(commission=p.commission)  # theirs cuts sizes to whole coins
        super().addcommissioninfo(comminfo, name)

    def setcommission(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        """Backtrader's `setcommission`: a share of notional, for all symbols or for one.

        Raises
        ------
        RecipeError
            As `addcommissioninfo`.
        """
        super().setcommission(*args, name=name, **kwargs)
        self.addcommissioninfo(self.comminfo[name], name)

    def set_coc(self, coc: bool) -> None:
        """Refused: an order that fills at the close it was decided on fills in the past."""
        _refuse(coc, "cheat-on-close", "orders fill at the open after the decision")

    def set_coo(self, coo: bool) -> None:
        """Refused: an order that fills at the open it was decided on fills in the past."""
        _refuse(coo, "cheat-on-open", "run Cerebro without cheat_on_open=True")

    def set_filler(self, filler: Any) -> None:
        """Refused: there is no order book here, so a fill is whole or not at all."""
        _refuse(filler is not None, "a volume filler", "orders fill whole")

    def add_order_history(self, orders: Any, notify: bool = True) -> None:
        """Refused: orders come from strategies."""
        _refuse(True, "an order history", "send the orders from a strategy")

    def set_fund_history(self, fund: Any) -> None:
        """Refused: the account's value follows from its fills."""
        _refuse(True, "a fund history", "the account's value follows from its fills")

    # Costs --------------------------------------------------------------------------------------

    def _their_slippage(self) -> bool:
        """Whether Backtrader's own slippage was set: it comes instead of `slippage_bps`."""
        return bool(self.p.slip_perc or self.p.slip_fixed)

    def _slip_up(
        self, pmax: float, price: float, doslip: bool = True, lim: bool = False
    ) -> float | None:
        if self._their_slippage():
            return super()._slip_up(pmax, price, doslip, lim)  # type: ignore[no-any-return]
        # Not capped at the bar's high: a market order pays the spread even on a flat candle.
        slipped = price * (1.0 + float(self.p.slippage_bps) / 1e4)
        return min(slipped, pmax) if lim else slipped

    def _slip_down(
        self, pmin: float, price: float, doslip: bool = True, lim: bool = False
    ) -> float | None:
        if self._their_slippage():
            return super()._slip_down(pmin, price, doslip, lim)  # type: ignore[no-any-return]
        slipped = price * (1.0 - float(self.p.slippage_bps) / 1e4)
        return max(slipped, pmin) if lim else slipped

    def _costs_bps(self, data: Any, price: float) -> float:
        """Fee and slippage of a market order at about `price`, bps per side."""
        fee: float = self.getcommissioninfo(data).getcommission(1.0, price) / price
        slippage = float(self.p.slippage_bps)
        if self._their_slippage():
            slippage = float(self.p.slip_perc or self.p.slip_fixed / price) * 1e4
        # The setting itself where it applies: a share times 1e4 may be an ulp off.
        plain = self.comminfo.get(data._name, self.comminfo[None]) is self.comminfo[None]
        usual = plain and self.comminfo[None].p.commission == self.p.fee_bps / 1e4
        return (float(self.p.fee_bps) if usual else fee * 1e4) + slippage

    def _buys_at(self, data: Any, price: float) -> float:
        fee_per_unit: float = self.getcommissioninfo(data).getcommission(1.0, price)
        return max(float(self.cash), 0.0) / (price + fee_per_unit)

    def _cost(self, data: Any, quantity: float, price: float) -> float:
        fee: float = self.getcommissioninfo(data).getcommission(quantity, price)
        return quantity * price + fee

    # Records ------------------------------------------------------------------------------------

    def notify(self, order: Any) -> None:
        """Tell the order's owner, with the next bar, what it is now, unless nobody listens."""
        if order.status in _ON_ITS_WAY and getattr(order.owner, "hears_only_ends", False):
            return
        self.notifs.append(notification(order))

    def _record(self, order: Any, at_ms: int, status: Status, reason: str, detail: str) -> None:
        created_ms = self._created_ms.get(order.ref, at_ms)
        self.fills.append(unfilled(order, created_ms, at_ms, status, reason, detail))
        self._forget(order)

    def _record_fill(self, order: Any, row: int, detail: str) -> None:
        """Add an order's latest fill before `row` of the fills, where what it cancelled begins."""
        data, bit = order.data, order.executed.exbits[-1]
        at_ms, name = num_to_ms(data.lines.datetime[0]), data._name
        created_ms = self._created_ms.get(order.ref, at_ms)
        fee = bit.closedcomm + bit.openedcomm
        fill = filled(order, created_ms, at_ms, abs(bit.size), bit.price, fee, detail)
        position = sum(held.size for feed, held in self.positions.items() if feed._name == name)
        entry = LedgerEntry(name, at_ms, position, self.cash)
        self.fills.insert(row, fill)
        self.ledger.append(entry)
        self._check.add(fill, entry)

    def _forget(self, order: Any) -> None:
        """Let go of what was kept for an order that has ended."""
        self._created_ms.pop(order.ref, None)
        self._expected_open_ms.pop(order.ref, None)

    def _mark(self) -> None:
        """Value of the account at the present closes, quote units."""
        if self._cash_addition or self.p.allow_short:
            self._get_value()
            return
        invested = 0.0
        for data, position in self.positions.items():
            if position.size:
                invested += position.size * data.close[0]
        self._value = self._valuelever = self.cash + invested
        self._valuemkt = self._valuemktlever = invested
        self._fundval = self._value / self._fundshares


def _refuse(asked: Any, what: str, instead: str) -> None:
    if asked:
        raise RecipeError(f"SpotBroker does not take {what}: {instead}")
