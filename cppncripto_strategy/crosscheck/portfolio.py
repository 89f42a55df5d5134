"""Rebuilt orders executed by vectorbt: its cash, its positions, its fees, its equity, its trades.

`Portfolio.from_orders` gets each order's quantity at the moment of its fill, the candle's open as
its price, the account's fee and slippage, one cash for all symbols. Steps are floored before
(`rebuild`), exactly: vectorbt's own `size // step * step` is a float's, where 0.3 // 0.1 is 2.

What vectorbt assumes: a short sale needs no cash; interest is not charged. Left out: the comparison
(`differences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.crosscheck.moments import Moments
from cppncripto_strategy.crosscheck.rebuild import BPS, Order
from cppncripto_strategy.crosscheck.terms import Terms
from cppncripto_strategy.errors import RecipeError

PAGE = "vectorbt.html"
EXTRA = "pip install 'cppncripto-strategy[vectorbt]'"


def installed() -> bool:
    """Whether the extra `vectorbt` is there; nothing of it is imported."""
    return find_spec("vectorbt") is not None


def require_installed() -> None:
    """Refuse to go on without the extra. Raises RecipeError saying how to install it."""
    if not installed():
        raise RecipeError(f"the second engine, vectorbt, is not installed: {EXTRA}")


@dataclass(frozen=True, slots=True, eq=False)
class Executed:
    """What vectorbt made of the orders.

    Parameters
    ----------
    portfolio : vectorbt's Portfolio, grouped into one account.
    equity : (M,) quote units at each moment.
    fills : columns symbol, executed_ms, side (+1, -1), quantity, price, fee; in order.
    trades : round trips from flat to flat: symbol, entry_ms, exit_ms, quantity, entry_price,
        exit_price, fees, pnl, return; in order of exit.
    """

    portfolio: Any
    equity: Any
    fills: pd.DataFrame
    trades: pd.DataFrame

    @property
    def fees(self) -> float:
        """Fees paid, quote units."""
        return float(self.fills["fee"].sum())

    @property
    def max_drawdown(self) -> float:
        """Largest fall of the equity from its highest value so far, a positive fraction.

        Of vectorbt's equity: its own drawdown compounds returns, whose sign it turns below zero.
        """
        highest = np.maximum.accumulate(self.equity)
        return float(np.max(1.0 - self.equity / highest, initial=0.0))


def execute(moments: Moments, terms: Terms, orders: Sequence[Order]) -> Executed:
    """Run the filled ones of the orders through vectorbt.

    Raises
    ------
    RecipeError
        When the extra is not installed.
    """
    require_installed()
    import vectorbt

    shape = moments.close.shape
    size, price = np.full(shape, np.nan), np.full(shape, np.nan)
    for order in orders:
        if order.status == "filled":
            size[order.moment, order.symbol] = order.side * order.quantity
            price[order.moment, order.symbol] = order.price
    portfolio = vectorbt.Portfolio.from_orders(
        _frame(moments, moments.last_close),
        size=_frame(moments, size),
        price=_frame(moments, price),
        direction="both" if terms.allow_short else "longonly",
        fees=terms.fee_bps * BPS,
        slippage=terms.slippage_bps * BPS,
        init_cash=terms.cash,
        cash_sharing=True,
        group_by=True,
        freq=pd.Timedelta(terms.interval_ms, "ms"),
    )
    equity = np.asarray(portfolio.value(), dtype=np.float64)
    return Executed(portfolio, equity, _fills(portfolio, moments), _trades(portfolio, moments))


def _frame(moments: Moments, values: Any) -> pd.DataFrame:
    """Values (M, S) under their symbols and times; late candles leave no order of time, so rows."""
    ordered = bool((np.diff(moments.close_ms) > 0).all())
    stamps = pd.to_datetime(moments.close_ms, unit="ms") if ordered else None
    return pd.DataFrame(values, index=stamps, columns=list(moments.symbols))


def _fills(portfolio: Any, moments: Moments) -> pd.DataFrame:
    records = portfolio.orders.values
    return pd.DataFrame(
        {
            "symbol": pd.Series([moments.symbols[c] for c in records["col"]], dtype="str"),
            "executed_ms": moments.close_ms[records["idx"]],
            "side": np.where(records["side"] == 0, 1, -1),
            "quantity": records["size"],
            "price": records["price"],
            "fee": records["fees"],
        }
    )


def _trades(portfolio: Any, moments: Moments) -> pd.DataFrame:
    """vectorbt's positions that were closed."""
    records = portfolio.positions.closed.values
    table = pd.DataFrame(
        {
            "symbol": pd.Series([moments.symbols[c] for c in records["col"]], dtype="str"),
            "entry_ms": moments.close_ms[records["entry_idx"]],
            "exit_ms": moments.close_ms[records["exit_idx"]],
            "quantity": records["size"],
            "entry_price": records["entry_price"],
            "exit_price": records["exit_price"],
            "fees": records["entry_fees"] + records["exit_fees"],
            "pnl": records["pnl"],
            "return": records["return"],
        }
    )
    return table.sort_values(["exit_ms", "symbol"], kind="stable", ignore_index=True)
