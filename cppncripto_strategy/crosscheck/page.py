"""vectorbt.html: both engines side by side, vectorbt's own statistics, every trade as it has it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.crosscheck.record import AccountCheck
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.reports.blocks import Chart, Content, Fold, Section, Table
from cppncripto_strategy.reports.charts import BUY, SELL, STRATEGY, SYMBOL_COLOURS, style, thin
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import MISSING

SHOWN = 20
MAX_TRADES = 500
MAX_SYMBOLS = 6
LABELS = {
    "final_equity": "Final equity, quote currency",
    "fees_paid": "Fees, quote currency",
    "max_drawdown": "Maximum drawdown, %",
    "trades": "Round trips",
    "orders_filled": "Orders filled",
}
_TRADE_HEAD = (
    "Symbol",
    "Entry (UTC)",
    "Exit (UTC)",
    "Quantity",
    "Entry price",
    "Exit price",
    "Fees",
    "Profit",
    "Return, %",
)


def write_check(checks: Sequence[AccountCheck], path: Path, title: str) -> None:
    """Write the page, self-contained.

    Parameters
    ----------
    checks : the accounts of one run or session.
    """
    sections = [_verdict(checks), _sides(checks)]
    for check in checks:
        sections += _account(check)
    note = "Executed by vectorbt's Portfolio.from_orders · All times UTC"
    write_page(path, f"Cross-check: {title}", sections, subtitle=verdict(checks), footer=note)


def verdict(checks: Sequence[AccountCheck]) -> str:
    """The outcome in a sentence."""
    count = sum(len(check.differences) for check in checks)
    names = ", ".join(check.name for check in checks)
    if count == 0:
        return f"Two engines agree, on every order and to the cent: {names}"
    return f"{count:,} differences between the record and the second engine: {names}"


def _verdict(checks: Sequence[AccountCheck]) -> Section:
    rows = [
        [check.name, str(difference)]
        for check in checks
        for difference in check.differences[:SHOWN]
    ]
    content: list[Content] = [
        "Orders are derived again from scores, thresholds, candles, exchange rules and account"
        " settings, by code that imports neither the strategy nor the broker, and executed by"
        " vectorbt. Nothing is taken from the fills, the trades or the equity on record."
    ]
    if rows:
        content.append(Table(["Account", "Difference"], rows, text=[1]))
    same = all(check.same for check in checks)
    return Section(verdict(checks), content, kind="verdict good" if same else "verdict bad")


def shown_side(name: str, value: float | None) -> str:
    """One of the compared numbers for a reader."""
    if value is None:
        return MISSING
    if name in ("trades", "orders_filled"):
        return f"{value:,.0f}"
    return f"{100 * value:.4f}" if name == "max_drawdown" else f"{value:,.2f}"


def _sides(checks: Sequence[AccountCheck]) -> Section:
    rows = [
        [check.name, LABELS[name], shown_side(name, ours), shown_side(name, theirs)]
        for check in checks
        for name, (ours, theirs) in check.sides.items()
    ]
    compared = [
        [check.name, *(f"{count:,}" for count in check.compared.values())] for check in checks
    ]
    head = ["Account", *(name.capitalize() for name in checks[0].compared)] if checks else []
    return Section(
        "Side by side",
        [Table(["Account", "", "Reported", "vectorbt"], rows, text=[1]), Table(head, compared)],
        note="Below: how many records were compared, one by one. An account of which only the"
        " equity is on record shows 0 orders.",
    )


def _account(check: AccountCheck) -> Iterator[Section]:
    yield Section(
        f"{check.name}: vectorbt's statistics",
        Table(["", ""], list(_statistics(check)), text=[1]),
        note="As `Portfolio.stats()` gives them. vectorbt annualises with the candle's length and"
        " counts a position that is still open as a trade.",
    )
    yield Section(f"{check.name}: trades", _trades(check))


def _statistics(check: AccountCheck) -> Iterator[list[str]]:
    for name, value in check.executed.portfolio.stats().items():
        text = f"{value:,.6g}" if isinstance(value, float) else str(value)
        yield [str(name), text]


def _trades(check: AccountCheck) -> list[Content]:
    trades = check.executed.trades
    content: list[Content] = [
        Chart(_figure(check, symbol), f"{check.name}-{symbol}".replace(" ", "-"), title=symbol)
        for symbol in check.moments.symbols[:MAX_SYMBOLS]
    ]
    rest = check.moments.symbols[MAX_SYMBOLS:]
    if rest:
        content.append(f"Not drawn: {', '.join(rest)}.")
    rows = [_row(trade) for trade in trades.tail(MAX_TRADES).to_dict("records")]
    if rows:
        left = len(trades) - len(rows)
        title = f"{len(rows):,} round trips" + (f", the latest of {len(trades):,}" if left else "")
        content.append(Fold(title, Table(_TRADE_HEAD, rows)))
    else:
        content.append("No round trip was completed.")
    return content


def _row(trade: dict[Hashable, Any]) -> list[str]:
    numbers = ("quantity", "entry_price", "exit_price", "fees", "pnl")
    return [
        str(trade["symbol"]),
        *(ms_to_utc(int(trade[name])) for name in ("entry_ms", "exit_ms")),
        *(f"{trade[name]:,.8g}" for name in numbers),
        f"{100 * trade['return']:+.3f}",
    ]


def _figure(check: AccountCheck, symbol: str) -> go.Figure:
    """A symbol's closes with vectorbt's entries and exits on them."""
    moments, place = check.moments, check.moments.symbols.index(symbol)
    known = moments.new[:, place]
    stamps, closes = thin(moments.close_ms[known], moments.close[known, place])
    figure = go.Figure()
    colour = SYMBOL_COLOURS[place % len(SYMBOL_COLOURS)] if place else STRATEGY
    line = {"color": colour, "width": 1.2}
    figure.add_trace(go.Scatter(x=_dates(stamps), y=closes, name="close", mode="lines", line=line))
    fills = check.executed.fills[check.executed.fills["symbol"] == symbol]
    for side, name, symbol_shape, colour in (
        (1, "buys", "triangle-up", BUY),
        (-1, "sells", "triangle-down", SELL),
    ):
        rows = fills[fills["side"] == side].tail(MAX_TRADES)
        marker = {"symbol": symbol_shape, "color": colour, "size": 8}
        x, y = _dates(rows["executed_ms"].to_numpy(np.int64)), rows["price"]
        figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="markers", marker=marker))
    return style(figure, 320)


def _dates(stamps_ms: IntArray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(stamps_ms.astype("datetime64[ms]"))
