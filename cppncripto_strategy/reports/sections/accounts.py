"""The compared accounts: their numbers, their equity, and how much of it may be luck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cppncripto_strategy.reports.blocks import Chart, Section, Table
from cppncripto_strategy.reports.values import number, percent, signed, whole
from cppncripto_strategy.results import RunResult

# Label, key of `AccountMetrics`, how it is shown.
ACCOUNT_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("Total return", "total_return", signed),
    ("Mean daily return", "daily_return_mean", lambda value: percent(value, 3, sign=True)),
    ("CAGR", "cagr", signed),
    ("Sharpe ratio", "sharpe", number),
    ("Sortino ratio", "sortino", number),
    ("Maximum drawdown", "max_drawdown", percent),
    ("Calmar ratio", "calmar", number),
    ("Probabilistic Sharpe ratio", "probabilistic_sharpe", percent),
    ("Time in market", "time_in_market", percent),
    ("Mean exposure", "mean_exposure", percent),
    ("Annual turnover, × equity", "turnover_per_year", lambda value: number(value, 1)),
    ("Fees paid", "fees_paid", number),
    ("Slippage paid", "slippage_paid", number),
    ("Round trips", "trades", whole),
    ("Win rate", "win_rate", percent),
    ("Profit factor", "profit_factor", number),
    ("Final equity", "final_equity", number),
)


def arms(result: RunResult) -> list[tuple[str, dict[str, Any]]]:
    """The compared accounts that exist: (heading, metrics)."""
    main = "With macro" if result.uses_macro else "Strategy (no macro)"
    named = ((main, "strategy"), ("Without macro", "without_macro"), ("Buy and hold", "benchmark"))
    metrics = result.metrics
    return [(heading, metrics[key]) for heading, key in named if metrics.get(key) is not None]


def account_table(result: RunResult) -> Table:
    """One row per number, one column per account; rows that no account defines are left out."""
    compared = arms(result)
    rows = [
        [label, *(show(account[key]) for _, account in compared)]
        for label, key, show in ACCOUNT_ROWS
        if any(account[key] is not None for _, account in compared)
    ]
    return Table(["", *(heading for heading, _ in compared)], rows)


def accounts(result: RunResult) -> Section:
    """Every number of every account."""
    return Section(
        "The accounts",
        account_table(result),
        note="Daily UTC returns, 365 days a year; drawdown on every bar. Orders fill at the next"
        " open; taker fees and slippage are in. Amounts are in the quote currency. The"
        " probabilistic Sharpe ratio is the probability that the true Sharpe ratio is above 0."
        " A dash is a number that is not defined.",
    )


def equity(result: RunResult) -> Section:
    """Equity and drawdown of every account."""
    from cppncripto_strategy.reports import charts

    return Section(
        "Equity and drawdown",
        Chart(charts.equity_figure(result), "equity", scales=True),
        note="After fees and slippage. Shaded: gaps in the candles; no order crosses one.",
    )


def luck(result: RunResult) -> Section | None:
    """The Sharpe ratio, discounted for every configuration tried; None where it was not judged."""
    found = result.metrics.get("statistics")
    if not found:
        return None
    rows = [
        ["Configurations tried with this recipe so far", whole(found["trials"])],
        ["Independent ones among them, about", whole(found["effective_trials"])],
        ["Probability that the Sharpe ratio is above 0", percent(found["probabilistic_sharpe"])],
        ["The same, discounted for every trial", percent(found["deflated_sharpe"])],
        [
            "The same, discounted for the independent ones",
            percent(found["deflated_sharpe_effective"]),
        ],
        ["Days judged", whole(found["days"])],
        [
            "Days below which luck shows this Sharpe ratio",
            number(found["minimum_backtest_days"], 0),
        ],
    ]
    return Section(
        "How much may be luck",
        Table(["", ""], rows),
        note="Who tries often finds something by chance: the deflated Sharpe ratio (Bailey & Lopez"
        " de Prado 2014) asks whether this one beats the best that chance would have shown. Trials"
        " resemble each other: their independent number is estimated from the order of their"
        " results and from the correlation of their daily returns, and the larger estimate counts."
        " The verdict asks for the first discount, which is the stricter one. The last row is the"
        " minimum backtest length (Bailey, Borwein, Lopez de Prado & Zhu 2014) for all trials; a"
        " single trial needs no day, and a Sharpe ratio of at most 0 has none.",
    )
