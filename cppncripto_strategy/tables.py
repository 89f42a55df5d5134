"""The tables a run leaves behind, built at once from recorded arrays, never bar by bar.

All times are int64 UTC milliseconds. Column orders are those of `results`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray, IntArray, union_of_ascending
from cppncripto_strategy.errors import AccountError
from cppncripto_strategy.feeds.clock import nums_to_ms
from cppncripto_strategy.models.scoring.threshold import signals_of
from cppncripto_strategy.results import (
    EVIDENCE_COLUMNS,
    FILL_COLUMNS,
    SIGNAL_COLUMNS,
    TRADE_COLUMNS,
)

if TYPE_CHECKING:
    from cppncripto_strategy.ledger import Fill, LedgerEntry

_ROUNDING = 1e-9  # of the money that moved: far above float noise
_FLAT = 1e-13  # of the quantity traded: above float noise, below a lot step of a position of 1e12
_TEXT = {"symbol", "side", "reason", "status", "detail", "exit_reason", "bet"}
_WHOLE = {"created_ms", "executed_ms", "entry_ms", "exit_ms", "candles_held"} | {
    "session_ms",
    "signals",
    "crossed",
    "incomplete",
    "open",
}


def _typed(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table with the same column types whether or not it has rows, which are as its columns."""
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    named = zip(columns, map(list, values), strict=True)
    return pd.DataFrame({name: _column(name, row) for name, row in named})


def _column(name: str, values: list[Any]) -> Any:
    if name in _TEXT:
        return pd.array(values, dtype="str")
    return np.array(values, np.int64 if name in _WHOLE else np.float64)


def signals_table(lines: Iterable[tuple[str, Mapping[str, FloatArray]]], rows: int) -> pd.DataFrame:
    """One row per symbol and bar.

    Parameters
    ----------
    lines : each symbol with arrays (bars,) named stamp (Backtrader day number), close, score,
        p_buy, p_sell, score_zero, upper, lower, drift, age and traded (the line compared with
        thresholds). A symbol's arrays are read before the next one is asked for.
    rows : bars of all symbols together.

    Returns
    -------
    Columns as in `results.SIGNAL_COLUMNS`; signal is +1, -1 or 0; NaN where a line is absent or
    undefined.
    """
    # One block of memory per column, filled in place: joined parts would lie there twice.
    columns: dict[str, Any] = {
        name: np.empty(rows, np.int64 if name in ("close_time_ms", "signal") else np.float64)
        for name in SIGNAL_COLUMNS
    }
    symbols, counts, first = [], [], 0
    for symbol, own in lines:
        last = first + len(own["stamp"])
        for name in ("close", "score", "p_buy", "p_sell", "score_zero", "upper", "lower", "drift"):
            columns[name][first:last] = own[name]
        columns["close_time_ms"][first:last] = nums_to_ms(own["stamp"])
        columns["signal"][first:last] = signals_of(own["traded"], own["upper"], own["lower"])
        columns["age_ms"][first:last] = own["age"]
        symbols.append(symbol)
        counts.append(last - first)
        first = last
        del own  # views of lines that may now go
    names = pd.Series(symbols, dtype="str")
    columns["symbol"] = names.take(np.repeat(np.arange(len(names)), counts)).array
    return pd.DataFrame(columns, copy=False)


def fills_table(fills: Sequence[Fill]) -> pd.DataFrame:
    """One row per fill, refusal or cancellation, in the order in which they happened."""
    return _typed(map(attrgetter(*FILL_COLUMNS), fills), FILL_COLUMNS)


def evidence_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per bet and UTC day that had a signal; columns as in `results.RunResult`."""
    return _typed(map(itemgetter(*EVIDENCE_COLUMNS), rows), EVIDENCE_COLUMNS)


def trades_table(
    fills: pd.DataFrame, signals: pd.DataFrame, interval_ms: Mapping[str, int]
) -> pd.DataFrame:
    """Round trips, from flat to flat, in order of exit; positions still open are left out.

    Prices are averages weighted by quantity; entry_ms and exit_ms are the closes of the bars whose
    opens filled; pnl is after fees; return is pnl over the entry notional; candles_held is the time
    between entry and exit in candles; entry_score is the score that decided the entry.

    Raises
    ------
    AccountError
        When the trades of a symbol did not make what their fills did.
    """
    filled = fills[fills["status"] == "filled"]
    scores = _score_lookup(filled, signals)
    rows: list[dict[str, Any]] = []
    for symbol, group in filled.groupby("symbol", sort=False):
        columns = (group[name].tolist() for name in FILL_COLUMNS)
        records = [dict(zip(FILL_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        step_ms = interval_ms[str(symbol)]
        trips = _round_trips(records)
        closed = [_round_trip(trip, step_ms, scores) for trip in trips]
        _require_agreement(str(symbol), trips, closed)
        rows.extend(closed)
    rows.sort(key=lambda row: row["exit_ms"])
    return _typed(map(itemgetter(*TRADE_COLUMNS), rows), TRADE_COLUMNS)


def _round_trips(records: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    trips: list[list[dict[str, Any]]] = []
    open_trip: list[dict[str, Any]] = []
    position = traded = 0.0
    for fill in records:
        open_trip.append(fill)
        position += fill["quantity"] if fill["side"] == "buy" else -fill["quantity"]
        traded += fill["quantity"]
        if abs(position) < _FLAT * traded:
            trips.append(open_trip)
            open_trip, position, traded = [], 0.0, 0.0
    return trips


def _require_agreement(
    symbol: str, trips: list[list[dict[str, Any]]], trades: list[dict[str, Any]]
) -> None:
    """Trades must have earned what their fills brought in."""
    fills = [fill for trip in trips for fill in trip]
    signs = np.array([-1.0 if fill["side"] == "buy" else 1.0 for fill in fills])
    notional = np.array([fill["notional"] for fill in fills])
    earned = float(signs @ notional) - sum(fill["fee"] for fill in fills)
    pnl = sum(trade["pnl"] for trade in trades)
    if abs(pnl - earned) > _ROUNDING * float(notional.sum()):
        raise AccountError(
            f"the trades of {symbol} made {pnl:.12g}, their fills {earned:.12g}: the results"
            " cannot be trusted; please report this with the strategy that led to it"
        )


def _round_trip(
    trip: list[dict[str, Any]],
    interval_ms: int,
    scores: Mapping[tuple[str, int], tuple[float, ...]],
) -> dict[str, Any]:
    first, last = trip[0], trip[-1]
    entries = [fill for fill in trip if fill["side"] == first["side"]]
    exits = [fill for fill in trip if fill["side"] != first["side"]]
    spent, got = (sum(fill["notional"] for fill in part) for part in (entries, exits))
    quantity = sum(fill["quantity"] for fill in entries)
    fees = sum(fill["fee"] for fill in trip)
    pnl = (got - spent if first["side"] == "buy" else spent - got) - fees
    nothing = (math.nan, math.nan)
    entry_score, entry_score_zero = scores.get((first["symbol"], first["created_ms"]), nothing)
    return {
        "symbol": first["symbol"],
        "entry_ms": first["executed_ms"],
        "exit_ms": last["executed_ms"],
        "entry_price": spent / quantity,
        "exit_price": got / sum(fill["quantity"] for fill in exits),
        "quantity": quantity,
        "fees": fees,
        "pnl": pnl,
        "return": pnl / spent,
        "candles_held": (last["executed_ms"] - first["executed_ms"]) // interval_ms,
        "entry_score": entry_score,
        "entry_score_zero": entry_score_zero,
        "exit_reason": last["reason"],
    }


def _score_lookup(
    filled: pd.DataFrame, signals: pd.DataFrame
) -> dict[tuple[str, int], tuple[float, ...]]:
    """(score, score under a zero embedding) at each bar on which an order was decided."""
    lookup: dict[tuple[str, int], tuple[float, ...]] = {}
    for symbol, orders in filled.groupby("symbol", sort=False):
        rows = np.flatnonzero(signals["symbol"] == symbol)
        closes = signals["close_time_ms"].to_numpy()[rows]
        wanted = orders["created_ms"].unique()
        index = np.searchsorted(closes, wanted)  # a symbol's bars are in order of time
        inside = index < len(closes)
        index, wanted = index[inside], wanted[inside]
        known = closes[index] == wanted
        scored = signals[["score", "score_zero"]].iloc[rows[index[known]]]
        values = zip(scored["score"].tolist(), scored["score_zero"].tolist(), strict=True)
        lookup |= {(str(symbol), int(ms)): v for ms, v in zip(wanted[known], values, strict=True)}
    return lookup


def equity_table(
    closes: Mapping[str, tuple[FloatArray, FloatArray]],
    ledger: Sequence[LedgerEntry],
    starting_cash: float,
) -> pd.DataFrame:
    """Equity at every distinct bar stamp: cash and positions after fills, marked at last closes.

    Parameters
    ----------
    closes : per symbol, bar stamps (Backtrader day numbers, ascending) and closes (quote units).
    ledger : the broker's entries, in order of time.
    starting_cash : quote units before the first fill.

    Returns
    -------
    One row per stamp; exposure is market value over equity. A symbol whose bar is missing is
    marked at its last close.
    """
    stamps = union_of_ascending([nums_to_ms(at) for at, _ in closes.values()])
    fills_ms = np.array([e.executed_ms for e in ledger], dtype=np.int64)
    cash = _steps(stamps, fills_ms, np.array([e.cash for e in ledger]), starting_cash)
    positions = np.array([e.position for e in ledger])
    symbols = np.array([e.symbol for e in ledger], dtype=np.str_)
    invested = np.zeros(len(stamps))
    for symbol, (at, close) in closes.items():
        own = symbols == symbol
        if own.any():
            held = _steps(stamps, fills_ms[own], positions[own], 0.0)
            invested += held * _steps(stamps, nums_to_ms(at), close, 0.0)  # no close, no position
    equity = cash + invested
    columns = {
        "close_time_ms": stamps,
        "equity": equity,
        "cash": cash,
        "exposure": invested / equity,
    }
    return pd.DataFrame(columns)


def _steps(stamps: IntArray, changes_ms: IntArray, values: FloatArray, before: float) -> FloatArray:
    """A step function at each stamp (N,): the last value (M,) that came at or before it."""
    first = np.searchsorted(stamps, changes_ms)  # the stamp from which each value holds
    held = np.diff(first, prepend=0, append=len(stamps))
    return np.repeat(np.concatenate([[before], values]), held)


def equity_from_marks(marks: Sequence[tuple[int, float, float]]) -> pd.DataFrame:
    """Equity from (stamp ms, value, cash) taken bar by bar; of equal stamps the last one counts."""
    table = pd.DataFrame(list(marks), columns=["close_time_ms", "equity", "cash"])
    table = table.astype({"close_time_ms": "int64", "equity": "float64", "cash": "float64"})
    table = table.drop_duplicates("close_time_ms", keep="last", ignore_index=True)
    table["exposure"] = (table["equity"] - table["cash"]) / table["equity"]
    return table
