"""What a person sees of a run: the report page, the README's picture, the summary in the terminal.

The numbers come from `metrics`, the curves from `charts`; here they get words and an order: first
whether there is an edge after fees, then why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cppncripto_strategy.evaluation.returns import drawdown_series
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.reports import pages
from cppncripto_strategy.reports.pages import MISSING, anything, interval, number, percent, whole
from cppncripto_strategy.reports.tearsheet import write_tearsheet
from cppncripto_strategy.results import RunResult, to_toml

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["save_picture", "terminal_summary", "write_report", "write_tearsheet"]

# More symbols than this make the page long; their scores are in signals.parquet all the same.
MAX_DRAWN_SYMBOLS = 6
MAX_TABLE_ROWS = 60

Formatter = Callable[[Any], str]
SIGNED: Formatter = lambda value: percent(value, sign=True)  # noqa: E731
ACCOUNT_ROWS: tuple[tuple[str, str, Formatter], ...] = (
    ("Total return", "total_return", SIGNED),
    ("Mean daily return", "daily_return_mean", lambda value: percent(value, 3, sign=True)),
    ("Growth a year (CAGR)", "cagr", SIGNED),
    ("Sharpe ratio", "sharpe", number),
    ("Sortino ratio", "sortino", number),
    ("Deepest drawdown", "max_drawdown", percent),
    ("Calmar ratio", "calmar", number),
    ("Probability that the Sharpe ratio is above 0", "probabilistic_sharpe", percent),
    ("Time in the market", "time_in_market", percent),
    ("Mean exposure", "mean_exposure", percent),
    ("Turnover a year, times equity", "turnover_per_year", lambda value: number(value, 1)),
    ("Fees paid", "fees_paid", number),
    ("Slippage paid", "slippage_paid", number),
    ("Round trips", "trades", whole),
    ("Winning round trips", "win_rate", percent),
    ("Profit factor", "profit_factor", number),
    ("Final equity", "final_equity", number),
)


def arms(result: RunResult) -> list[tuple[str, dict[str, Any]]]:
    """The compared accounts that exist: (heading, metrics)."""
    main = "With macro" if result.uses_macro else "Strategy (no macro)"
    named = ((main, "strategy"), ("Without macro", "without_macro"), ("Buy and hold", "benchmark"))
    metrics = result.metrics
    return [(heading, metrics[key]) for heading, key in named if metrics.get(key) is not None]


def write_report(result: RunResult, path: Path, week_end_ms: int | None = None) -> None:
    """Write report.html: verdict, tables and charts of one run, self-contained.

    Parameters
    ----------
    week_end_ms : end of the week whose scores are drawn per symbol; default the last one.
    """
    name = str(result.recipe.get("name") or result.manifest.get("recipe") or "run")
    blocks = [
        _verdict_block(result),
        _cards(result),
        _planted_block(result),
        _accounts_block(result),
        _equity_block(result),
        _quality_block(result),
        _statistics_block(result),
        _luck_block(result),
        *_week_blocks(result, week_end_ms),
        _macro_block(result),
        _calibration_block(result),
        _drift_block(result),
        _refusals_block(result),
        _gaps_block(result),
        _bundles_block(result),
        _settings_block(result),
    ]
    pages.write_page(
        path, f"Report: {name}", blocks, subtitle=_span(result), footer=_footer(result)
    )


def _span(result: RunResult) -> str:
    account = result.metrics["strategy"]
    symbols = ", ".join(map(str, pd.unique(result.signals["symbol"])))
    if account["start_ms"] is None:
        return symbols
    span = f"{ms_to_utc(account['start_ms'])} to {ms_to_utc(account['end_ms'])} UTC"
    return f"{symbols} · {span} · {account['days']:.0f} days out of sample"


def _footer(result: RunResult) -> str:
    parts = [
        f"{key} {result.manifest[key]}" for key in ("created", "commit") if result.manifest.get(key)
    ]
    return " · ".join(["All times UTC", "365 days a year", *parts])


def _verdict_block(result: RunResult) -> str:
    words = result.metrics["verdict"]
    earned = result.metrics["strategy"]["total_return"]
    kind = "good" if words["edge"] else "bad" if earned is not None and earned <= 0 else ""
    return pages.section(
        words["headline"], pages.section_text(words["detail"]), kind=f"verdict {kind}"
    )


def _cards(result: RunResult) -> str:
    account, hold = result.metrics["strategy"], result.metrics["benchmark"]
    both = result.metrics["signals"]["both"]
    return pages.cards(
        [
            ("total return", SIGNED(account["total_return"])),
            ("buy and hold", SIGNED(hold["total_return"])),
            ("Sharpe ratio", number(account["sharpe"])),
            ("deepest drawdown", percent(account["max_drawdown"], 1)),
            ("hit ratio", percent(both["hit_ratio"]["value"], 1)),
            ("break-even hit ratio", percent(both["break_even_hit_ratio"], 1)),
        ]
    )


def _planted_block(result: RunResult) -> str:
    if not result.planted:
        return ""
    rows = [[_words(key), anything(value, key)] for key, value in result.planted.items()]
    return pages.section(
        "What is planted",
        pages.table(["", ""], rows, text=[1]),
        note="These candles are made, not traded: the answer is known, so the networks can be"
        " judged.",
    )


def _words(key: str) -> str:
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]


def _accounts_block(result: RunResult) -> str:
    compared = arms(result)
    rows = [
        [label, *(show(account[key]) for _, account in compared)]
        for label, key, show in ACCOUNT_ROWS
        if any(account[key] is not None for _, account in compared)
    ]
    return pages.section(
        "The accounts",
        pages.table(["", *(heading for heading, _ in compared)], rows),
        note="Daily UTC returns, 365 days a year; drawdown on every bar. Orders fill at the next"
        " open; taker fees and slippage are in. A dash is a number that is not defined.",
    )


def _equity_block(result: RunResult) -> str:
    from cppncripto_strategy.reports import charts

    return pages.section(
        "Equity and drawdown",
        pages.scale_switch("equity"),
        pages.figure(charts.equity_figure(result), "equity"),
        note="Shaded: gaps in the candles; no order crosses one.",
    )


def _quality_block(result: RunResult) -> str:
    from cppncripto_strategy.reports import charts

    quality = result.metrics["signals"]
    rows = [
        [
            side,
            whole(part["signals"]),
            interval(part["hit_ratio"]),
            percent(part["break_even_hit_ratio"], 1),
            interval(part["net_return_bps"], 1, " bps"),
            interval(part["precision"]),
            interval(part["recall"]),
        ]
        for side, part in ((side, quality[side]) for side in ("buy", "sell", "both"))
    ]
    head = ["", "Signals", "Hit ratio", "Break-even", "Net per signal", "Precision", "Recall"]
    return pages.section(
        "How good the signals were",
        pages.table(head, rows),
        pages.figure(charts.quality_figure(quality), "quality"),
        note=f"Judged {quality['horizon']} candles later, close to close. Brackets: 95 % intervals"
        " from resampling whole days."
        f" A round trip costs {quality['round_trip_cost_bps']:g} bps;"
        " the hit ratio pays for itself only above the red bar. Precision and recall count moves"
        f" beyond {quality['label_threshold_bps']:g} bps."
        " Left out because a gap or the end came first:"
        f" {quality['excluded_signals']} signals.",
    )


def _statistics_block(result: RunResult) -> str:
    macro = result.metrics.get("macro") or {}
    test = macro.get("diebold_mariano")
    rows = [
        ["Hit ratio of the score, all candles", percent(macro.get("hit_ratio_with"), 1)],
        ["The same under a zero embedding", percent(macro.get("hit_ratio_without"), 1)],
        ["Difference, percentage points", interval(macro.get("hit_difference"), 100, "")],
        [
            "Diebold-Mariano p (negative statistic: macro errs less)",
            MISSING
            if test is None
            else f"{test['p_value']:.3g} (statistic {test['statistic']:.2f})",
        ],
    ]
    return pages.section(
        "What macro adds, candle by candle",
        pages.table(["", ""], rows),
        note="Every candle is scored twice: with the day's embedding and with a zero one. Both"
        " scores are compared on the same candles.",
    )


def _luck_block(result: RunResult) -> str:
    luck = result.metrics.get("statistics")
    if not luck:
        return ""
    rows = [
        ["Configurations tried with this recipe so far", whole(luck["trials"])],
        ["Probability that the Sharpe ratio is above 0", percent(luck["probabilistic_sharpe"])],
        ["The same, discounted for every trial", percent(luck["deflated_sharpe"])],
    ]
    return pages.section(
        "How much may be luck",
        pages.table(["", ""], rows),
        note="Who tries often finds something by chance: the deflated Sharpe ratio (Bailey & Lopez"
        " de Prado 2014) asks whether this one beats the best that chance would have shown.",
    )


def _week_blocks(result: RunResult, week_end_ms: int | None) -> list[str]:
    from cppncripto_strategy.reports import charts

    symbols = [str(symbol) for symbol in pd.unique(result.signals["symbol"])]
    blocks = [
        pages.section(
            f"{symbol}: one week of scores and trades",
            pages.figure(charts.week_figure(result, symbol, week_end_ms), f"week{k}"),
        )
        for k, symbol in enumerate(symbols[:MAX_DRAWN_SYMBOLS])
    ]
    if len(symbols) > MAX_DRAWN_SYMBOLS:
        rest = ", ".join(symbols[MAX_DRAWN_SYMBOLS:])
        blocks.append(
            pages.section("Other symbols", note=f"In signals.parquet, not drawn: {rest}.")
        )
    return blocks


def _macro_block(result: RunResult) -> str:
    from cppncripto_strategy.reports import charts

    return pages.section(
        "How far macro moved the score",
        pages.figure(charts.contribution_figure(result), "contribution"),
        note="All weight at 0 means that the embedding is ignored.",
    )


def _calibration_block(result: RunResult) -> str:
    from cppncripto_strategy.reports import charts

    return pages.section(
        "Calibration",
        pages.figure(charts.calibration_figure(result), "calibration"),
        note="On the dotted line a probability means what it says. Bars: 95 % Wilson intervals.",
    )


def _drift_block(result: RunResult) -> str:
    from cppncripto_strategy.reports import charts

    return pages.section(
        "Embedding drift",
        pages.figure(charts.drift_figure(result), "drift"),
        note="Distance of each day's embedding from those of its bundle's training days, at a lag"
        " of the long window. Dotted lines: a new bundle comes into force.",
    )


def _refusals_block(result: RunResult) -> str:
    other = result.fills[result.fills["status"] != "filled"]
    if len(other) == 0:
        return pages.section("Orders not filled", note="Every order was filled.")
    keys = list(zip(*(other[c].astype(str) for c in ("status", "reason", "detail")), strict=True))
    ordered = Counter(keys).most_common(MAX_TABLE_ROWS)
    rows = [[*map(str, key), whole(count)] for key, count in ordered]
    return pages.section(
        "Orders not filled", pages.table(["Status", "Order", "Why", "Orders"], rows, text=[1, 2])
    )


def _gaps_block(result: RunResult) -> str:
    if not result.gaps:
        return pages.section(
            "Gaps", note="No candle is missing in the span that was traded or trained on."
        )
    rows = [
        [
            str(gap["symbol"]),
            ms_to_utc(gap["start_ms"]),
            ms_to_utc(gap["end_ms"]),
            whole(gap["candles"]),
        ]
        for gap in result.gaps
    ]
    head = ["Symbol", "From (UTC)", "To (UTC)", "Candles missing"]
    shown = pages.table(head, rows[:MAX_TABLE_ROWS])
    rest = len(rows) - MAX_TABLE_ROWS
    more = (
        pages.folded(f"{rest} more", pages.table(head, rows[MAX_TABLE_ROWS:])) if rest > 0 else ""
    )
    return pages.section(
        "Gaps",
        shown,
        more,
        note="Never filled in: features see them as missing, and no order crosses one.",
    )


_BUNDLE_COLUMNS = (
    ("hash", "Bundle"),
    ("trained_until_ms", "Trained until"),
    ("valid_from_ms", "In force from"),
    ("valid_until_ms", "until"),
    ("validation_loss", "Validation loss"),
    ("reason", "Reason"),
)


def _bundles_block(result: RunResult) -> str:
    if not result.bundles:
        return ""
    columns = [(k, head) for k, head in _BUNDLE_COLUMNS if any(k in b for b in result.bundles)]
    rows = [[_bundle_cell(key, bundle.get(key)) for key, _ in columns] for bundle in result.bundles]
    return pages.section(
        "Bundles in force",
        pages.table([head for _, head in columns], rows),
        note="Each model scores only candles after the last one it was trained on.",
    )


def _bundle_cell(key: str, value: Any) -> str:
    if value is None:
        return MISSING
    if key.endswith("_ms"):
        return ms_to_utc(int(value))
    if key == "hash":
        return str(value)[:12]
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _settings_block(result: RunResult) -> str:
    plain = {k: v for k, v in result.manifest.items() if not isinstance(v, (dict, list))}
    nested = {k: v for k, v in result.manifest.items() if isinstance(v, (dict, list)) and v}
    rows = [[_words(key), anything(value, key)] for key, value in plain.items()]
    speed = result.metrics.get("speed") or {}
    rows += [[_words(key), anything(value, key)] for key, value in speed.items()]
    rows += [[_words(key), anything(value, key)] for key, value in nested.items()]
    return pages.section(
        "Settings and hashes",
        pages.table(["", ""], rows, text=[1]),
        pages.folded("The resolved recipe", pages.preformatted(to_toml(result.recipe))),
    )


# ---------------------------------------------------------------- terminal


def terminal_summary(result: RunResult) -> RenderableType:
    """The verdict and a table of the compared accounts, for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    words, quality = result.metrics["verdict"], result.metrics["signals"]
    colour = "green" if words["edge"] else "yellow"
    table = Table(box=box.SIMPLE_HEAD, title=_span(result), title_justify="left", title_style="dim")
    table.add_column("")
    compared = arms(result)
    for heading, _ in compared:
        table.add_column(heading, justify="right")
    for label, key, show in ACCOUNT_ROWS:
        if any(account[key] is not None for _, account in compared):
            table.add_row(label, *(show(account[key]) for _, account in compared))
    signals = Table(box=box.SIMPLE_HEAD)
    signals.add_column(f"Signals, {quality['horizon']} candles later")
    for heading in ("Count", "Hit ratio", "Break-even", "Net per signal"):
        signals.add_column(heading, justify="right")
    for side in ("buy", "sell", "both"):
        part = quality[side]
        signals.add_row(
            side,
            whole(part["signals"]),
            interval(part["hit_ratio"]),
            percent(part["break_even_hit_ratio"], 1),
            interval(part["net_return_bps"], 1, " bps"),
        )
    parts: list[RenderableType] = [table, signals]
    if result.planted:
        parts.append(_planted_table(result.planted))
    luck = result.metrics.get("statistics")
    if luck and luck["deflated_sharpe"] is not None:
        tried = "1 trial" if luck["trials"] == 1 else f"{luck['trials']} trials"
        sure = f"{percent(luck['deflated_sharpe'], 1)} sure after {tried}"
        parts.append(Text(f"Sharpe ratio above 0: {sure}", style="dim"))
    parts += [Text(words["headline"], style=f"bold {colour}"), Text(words["detail"])]
    return Group(*parts)


def _planted_table(planted: Mapping[str, Any]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Planted market")
    table.add_column("")
    for key, value in planted.items():
        table.add_row(_words(key), anything(value, key))
    return table


# ---------------------------------------------------------------- picture


def save_picture(path: Path, result: RunResult, symbol: str | None = None, days: int = 3) -> None:
    """Save a PNG of equity, drawdown and one symbol's last days of scores, for a README.

    Parameters
    ----------
    symbol : whose scores to draw; default the first of the signals table.
    days : how many of its last days.
    """
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from cppncripto_strategy.atomic import write_bytes

    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[2.2, 0.9, 1.6])
    _draw_equity(result, top, middle)
    _draw_scores(result, bottom, symbol or str(result.signals["symbol"].iloc[0]), days)
    for axis in (top, middle, bottom):
        axis.grid(color="#eef1f4")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors="#5b6775", labelsize=9)
    image = BytesIO()
    figure.savefig(image, format="png")
    write_bytes(path, image.getvalue())


def _draw_equity(result: RunResult, equity_axis: Any, fall_axis: Any) -> None:
    from cppncripto_strategy.reports import charts

    for name, table, colour, _ in charts.equity_arms(result):
        stamps = table["close_time_ms"].to_numpy(np.int64)
        equity = table["equity"].to_numpy(np.float64)
        x, y = charts.thin(stamps, equity)
        equity_axis.plot(_dates(x), y, color=colour, linewidth=1.6, label=name)
        x, y = charts.thin(stamps, -100 * drawdown_series(equity))
        fall_axis.plot(_dates(x), y, color=colour, linewidth=1.0)
    equity_axis.set_title(
        "Equity after fees and slippage", loc="left", fontsize=12, color="#1b2430"
    )
    equity_axis.legend(loc="upper left", frameon=False, fontsize=9)
    fall_axis.set_title("Drawdown, %", loc="left", fontsize=10, color="#1b2430")
    fall_axis.sharex(equity_axis)


def _draw_scores(result: RunResult, axis: Any, symbol: str, days: int) -> None:
    from cppncripto_strategy.reports import charts

    rows = result.signals[result.signals["symbol"] == symbol].sort_values("close_time_ms")
    rows = rows[rows["close_time_ms"] > rows["close_time_ms"].max() - days * DAY_MS]
    stamps = rows["close_time_ms"].to_numpy(np.int64)
    for column, colour, width, label in (
        ("score_zero", "#e4b887", 0.9, "score without macro"),
        ("score", charts.STRATEGY, 1.0, "score"),
        ("upper", charts.BUY, 1.2, "buy above"),
        ("lower", charts.SELL, 1.2, "sell below"),
    ):
        x, y = charts.thin(stamps, rows[column].to_numpy(np.float64))
        axis.plot(_dates(x), y, color=colour, linewidth=width, label=label)
    axis.set_title(f"{symbol}: score, last {days} days", loc="left", fontsize=10, color="#1b2430")
    axis.legend(loc="upper left", ncols=4, frameon=False, fontsize=8)


def _dates(stamps: Any) -> Any:
    return stamps.astype("datetime64[ms]")
