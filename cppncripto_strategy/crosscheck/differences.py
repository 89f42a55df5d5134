"""What an account has on record beside what the second engine makes of it; differences by time.

Quantities of the record must be those of the rebuilt orders, exactly. What vectorbt makes of them
is compared within its own arithmetic: money to the cent (of an account of 10,000; smaller ones to
that share of theirs), quantities and fees to a ten-millionth, because it takes what is left of a
cash balance for nothing where that is a billionth of what was there, and so may buy as much less.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cppncripto_strategy.crosscheck.moments import Moments
from cppncripto_strategy.crosscheck.portfolio import Executed
from cppncripto_strategy.crosscheck.rebuild import Order
from cppncripto_strategy.crosscheck.terms import Terms
from cppncripto_strategy.feeds.clock import ms_to_utc

CENT = 0.005
_CENT_OF = 10_000.0
_EXACT = 1e-12
_ROUNDING = 1e-7
_SIDES = {1: "buy", -1: "sell"}
_Row: TypeAlias = dict[Hashable, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same.

    Parameters
    ----------
    at_ms : when, UTC ms. what : the record and its field, in words.
    recorded, rebuilt : both values.
    """

    at_ms: int
    what: str
    recorded: Any
    rebuilt: Any

    def __str__(self) -> str:
        values = f"recorded {_shown(self.recorded)}, rebuilt {_shown(self.rebuilt)}"
        return f"{ms_to_utc(self.at_ms)} {self.what}: {values}"


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def money_tolerance(terms: Terms) -> float:
    """Quote units by which two amounts may differ."""
    return CENT * min(1.0, terms.cash / _CENT_OF)


def rebuilt_table(moments: Moments, orders: Sequence[Order], executed: Executed) -> pd.DataFrame:
    """The rebuilt orders in the form of the `fills` table, filled ones as vectorbt filled them."""
    texts = {
        "symbol": [moments.symbols[order.symbol] for order in orders],
        "side": [_SIDES[order.side] for order in orders],
        "status": [order.status for order in orders],
        "reason": [order.reason for order in orders],
    }
    rows = pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in texts.items()})
    for name in ("created_ms", "executed_ms"):
        rows[name] = np.array([getattr(order, name) for order in orders], dtype=np.int64)
    rows["ordered"] = np.array([order.quantity for order in orders], dtype=np.float64)
    sides = executed.fills["side"].map(_SIDES).astype("str")
    made = executed.fills.assign(side=sides, status="filled")
    made["status"] = made["status"].astype("str")
    keys = ["symbol", "executed_ms", "side", "status"]
    return rows.merge(made, on=keys, how="left")


def order_differences(
    recorded: pd.DataFrame, rebuilt: pd.DataFrame, interval_ms: int
) -> Iterator[Difference]:
    """Where the orders differ; decisions are matched by symbol and time, then by nearness.

    Parameters
    ----------
    recorded, rebuilt : tables in the form of `fills`.
    """
    keys = ["symbol", "created_ms", "turn"]
    both = _counted(recorded).merge(
        _counted(rebuilt), on=keys, how="outer", suffixes=("", "_again"), indicator=True
    )
    for row in both[both["_merge"] == "both"].to_dict("records"):
        yield from _of_order(row)
    ours = both[both["_merge"] == "left_only"].to_dict("records")
    theirs = both[both["_merge"] == "right_only"].to_dict("records")
    for row in ours:
        twin = _nearest(row, theirs)
        name = f"{row['symbol']} {row['side']} {row['status']}"
        if twin is None:
            yield Difference(int(row["created_ms"]), name, row["reason"], "no such order")
            continue
        theirs.remove(twin)
        candles = (row["created_ms"] - twin["created_ms"]) / interval_ms
        times = ms_to_utc(int(row["created_ms"])), ms_to_utc(int(twin["created_ms"]))
        at_ms = int(min(row["created_ms"], twin["created_ms"]))
        yield Difference(at_ms, f"{name}, decided {candles:+g} candles from the signal's", *times)
    for row in theirs:
        name = f"{row['symbol']} {row['side_again']} {row['status_again']}"
        yield Difference(int(row["created_ms"]), name, "no such order", row["reason_again"])


def _counted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the turn of each of several rows of one symbol and time."""
    return table.assign(turn=table.groupby(["symbol", "created_ms"]).cumcount())


def _nearest(row: _Row, others: Sequence[_Row]) -> _Row | None:
    """The other side's order of the same symbol, side and status that is nearest in time."""
    same = [
        other
        for other in others
        if (other["symbol"], other["side_again"], other["status_again"])
        == (row["symbol"], row["side"], row["status"])
    ]
    return min(same, key=lambda other: abs(other["created_ms"] - row["created_ms"]), default=None)


def _of_order(row: _Row) -> Iterator[Difference]:
    at_ms = int(min(row["executed_ms"], row["executed_ms_again"]))
    name = f"{row['symbol']} {row['side']} decided {ms_to_utc(int(row['created_ms']))}"
    times = ms_to_utc(int(row["executed_ms"])), ms_to_utc(int(row["executed_ms_again"]))
    if times[0] != times[1]:
        yield Difference(at_ms, f"{name}, {row['status']} at", *times)
    for field in ("side", "status", "reason"):
        if row[field] != row[f"{field}_again"]:
            yield Difference(at_ms, f"{name}, {field}", row[field], row[f"{field}_again"])
    if row["status"] == row["status_again"] == "filled":
        if not _close(row["quantity"], row["ordered"], _EXACT):
            yield Difference(at_ms, f"{name}, quantity", row["quantity"], row["ordered"])
        for field in ("quantity", "price", "fee"):
            if not _close(row[field], row[f"{field}_again"]):
                what = f"{name}, {field} by vectorbt" if field == "quantity" else f"{name}, {field}"
                yield Difference(at_ms, what, row[field], row[f"{field}_again"])


def _close(first: float, second: float, share: float = _ROUNDING, tolerance: float = 0.0) -> bool:
    """Equal but for a share of themselves, or within the tolerance; NaN equals nothing."""
    return bool(abs(first - second) <= max(tolerance, share * max(abs(first), abs(second))))


def equity_differences(
    recorded: pd.DataFrame, moments: Moments, equity: Any, tolerance: float
) -> Iterator[Difference]:
    """The first moment at which the equity differs, and how many do, and moments without any."""
    ours = recorded.drop_duplicates("close_time_ms", keep="last").set_index("close_time_ms")
    theirs = pd.Series(equity, index=moments.close_ms)
    theirs = theirs[~theirs.index.duplicated(keep="last")]
    both = pd.DataFrame({"recorded": ours["equity"], "rebuilt": theirs})
    apart = both[~((both["recorded"] - both["rebuilt"]).abs() <= tolerance)]
    if len(apart):
        first = apart.iloc[0]
        what = f"equity (and at {len(apart) - 1:,} other moments)"
        yield Difference(
            int(apart.index[0]), what, float(first["recorded"]), float(first["rebuilt"])
        )


def trade_differences(
    recorded: pd.DataFrame, rebuilt: pd.DataFrame, tolerance: float
) -> Iterator[Difference]:
    """Where round trips differ, matched by symbol and entry."""
    keys = ["symbol", "entry_ms"]
    both = recorded.merge(rebuilt, on=keys, how="outer", suffixes=("", "_again"), indicator=True)
    for row in both.to_dict("records"):
        exits = [row[name] for name in ("exit_ms", "exit_ms_again") if row[name] == row[name]]
        at_ms = int(min(exits))  # a round trip is known by its end
        name = f"{row['symbol']} round trip begun {ms_to_utc(int(row['entry_ms']))}"
        if row["_merge"] != "both":
            sides = ("there", "not there")
            yield Difference(at_ms, name, *(sides if row["_merge"] == "left_only" else sides[::-1]))
            continue
        if row["exit_ms"] != row["exit_ms_again"]:
            times = ms_to_utc(int(row["exit_ms"])), ms_to_utc(int(row["exit_ms_again"]))
            yield Difference(at_ms, f"{name}, exit", *times)
        for field in ("quantity", "entry_price", "exit_price", "fees", "pnl"):
            limit = tolerance if field == "pnl" else 0.0
            if not _close(row[field], row[f"{field}_again"], tolerance=limit):
                yield Difference(at_ms, f"{name}, {field}", row[field], row[f"{field}_again"])


def signal_differences(signals: pd.DataFrame) -> Iterator[Difference]:
    """Where the recorded signal is not what score and thresholds say.

    Parameters
    ----------
    signals : table with symbol, close_time_ms, signal, and `sign` as compared here.
    """
    for row in signals[signals["signal"] != signals["sign"]].to_dict("records"):
        what = f"{row['symbol']} signal"
        yield Difference(int(row["close_time_ms"]), what, row["signal"], row["sign"])
