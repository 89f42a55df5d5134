"""Backtrader's order objects: market orders made in fewer steps, and copies and changes of any.

Backtrader keeps what an order was asked for in its params, finds it there by `__getattr__` some
fifty times, and works out the end of the session, which only orders at the close look at; an order
is most of what a bar costs. Left out: making any other kind, and what becomes of an order
(`broker`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

import backtrader as bt
from backtrader.order import BuyOrder, OrderData, SellOrder
from backtrader.utils import AutoOrderedDict

# What `Broker.buy` and `sell` are asked for a market order without any condition.
_PLAIN: dict[str, Any] = {
    **dict.fromkeys(("price", "plimit", "exectype", "valid", "oco", "trailamount")),
    **{"trailpercent": None, "parent": None, "tradeid": 0, "transmit": True},
    **{"histnotify": False, "_checksubmit": True},
}
_LOOKED_UP = ("data", "owner", "exectype", "parent", "transmit", "valid", "tradeid")


def _end_of_session(order: Any) -> float:
    """End of the session in which an order was made, Backtrader day number."""
    data = order.data
    made, ends = data.num2date(order.created.dt), data.p.sessionend
    clock = {name: getattr(ends, name) for name in ("hour", "minute", "second", "microsecond")}
    end = made.replace(**clock)
    return float(data.date2num(end if end >= made else end + timedelta(days=1)))


class MarketBuy(BuyOrder):
    """A `BuyOrder` that `market_order` makes."""

    dteos = cached_property(_end_of_session)


class MarketSell(SellOrder):
    """A `SellOrder` that `market_order` makes."""

    dteos = cached_property(_end_of_session)


def is_plain(asked: dict[str, Any]) -> bool:
    """Whether an order is a market order without any condition.

    Parameters
    ----------
    asked : what `Broker.buy` or `sell` was given by name, beside owner, data and size.
    """
    return (_PLAIN | asked).items() >= _PLAIN.items()


def market_order(make: Any, owner: Any, data: Any, size: float, asked: Mapping[str, Any]) -> Any:
    """The order that Backtrader makes of the same arguments, and with the next reference.

    Parameters
    ----------
    make : `MarketBuy` or `MarketSell`. size : base units, positive.
    asked : as for `is_plain`; what is no setting of an order becomes its `info`.
    """
    order, params = object.__new__(make), make.params()
    params.owner, params.data, params.size = owner, data, size
    signed, close = size if make.ordtype == make.Buy else -size, data.close[0]
    vars(order).update(
        params=params, p=params, data=data, owner=owner, exectype=bt.Order.Market, parent=None,
        transmit=True, valid=None, tradeid=0, ref=next(make.refbasis), broker=None, comminfo=None,
        triggered=False, status=bt.Order.Created, size=signed, position=0, _active=True,
        _plimit=None, _limitoffset=0.0,
    )  # fmt: skip
    order.info = AutoOrderedDict((k, value) for k, value in asked.items() if k not in _PLAIN)
    order.created = OrderData(
        data.datetime[0], signed, close, None, pclose=close, trailamount=None, trailpercent=None
    )
    order.executed = OrderData(remsize=signed)
    return order


def look_up_once(order: Any) -> None:
    """Put what every step of an order asks for where Python finds it first."""
    own = vars(order)
    for name in _LOOKED_UP:
        if name not in own:
            own[name] = getattr(order.p, name)


def resize(order: Any, quantity: float) -> None:
    """Give an order that has not filled yet another quantity (sign by its side)."""
    signed = quantity if order.isbuy() else -quantity
    order.size = order.created.size = order.created.remsize = signed
    order.executed.remsize = signed


def to_tick(order: Any, filters: Any) -> None:
    """Round an order's stop and limit prices to the exchange's tick (of its `SymbolFilters`)."""
    created = order.created
    if created.price is not None:
        created.price = filters.round_price(created.price)
    if created.pricelimit is not None:
        created.pricelimit = filters.round_price(created.pricelimit)


def notification(order: Any) -> Any:
    """What `Order.clone` gives, whose `copy.copy` takes several times as long."""
    order.executed.markpending()
    twin = _copied(order)
    twin.executed = _copied(order.executed)
    return twin


def _copied(thing: Any) -> Any:
    """A shallow copy of a plain object."""
    twin = object.__new__(type(thing))
    vars(twin).update(vars(thing))
    return twin
