"""The PNG of a run for a README: equity, drawdown and one symbol's last days of scores."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.evaluation.returns import drawdown_series
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.results import RunResult

INK, SOFT, GRID, PALE = "#1b2430", "#5b6775", "#eef1f4", "#e4b887"


def save_picture(path: Path, result: RunResult, symbol: str | None = None, days: int = 3) -> None:
    """Save the picture, 1210 by 880 pixels.

    Parameters
    ----------
    symbol : whose scores to draw; default the first of the signals table.
    days : how many of its last days.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[2.2, 0.9, 1.6])
    _draw_equity(result, top, middle)
    _draw_scores(result, bottom, symbol or str(result.signals["symbol"].iloc[0]), days)
    for axis in (top, middle, bottom):
        axis.grid(color=GRID)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=SOFT, labelsize=9)
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
    equity_axis.set_title("Equity after fees and slippage", loc="left", fontsize=12, color=INK)
    equity_axis.set_ylabel("quote currency", fontsize=9, color=SOFT)
    equity_axis.legend(loc="upper left", frameon=False, fontsize=9)
    fall_axis.set_title("Drawdown, %", loc="left", fontsize=10, color=INK)
    fall_axis.sharex(equity_axis)


def _draw_scores(result: RunResult, axis: Any, symbol: str, days: int) -> None:
    from cppncripto_strategy.reports import charts

    rows = result.signals[result.signals["symbol"] == symbol].sort_values("close_time_ms")
    rows = rows[rows["close_time_ms"] > rows["close_time_ms"].max() - days * DAY_MS]
    stamps = rows["close_time_ms"].to_numpy(np.int64)
    for column, colour, width, label in (
        ("score_zero", PALE, 0.9, "score without macro"),
        ("score", charts.STRATEGY, 1.0, "score"),
        ("upper", charts.BUY, 1.2, "upper threshold"),
        ("lower", charts.SELL, 1.2, "lower threshold"),
    ):
        x, y = charts.thin(stamps, rows[column].to_numpy(np.float64))
        axis.plot(_dates(x), y, color=colour, linewidth=width, label=label)
    axis.set_title(f"{symbol}: score, last {days} days (UTC)", loc="left", fontsize=10, color=INK)
    axis.legend(loc="upper left", ncols=4, frameon=False, fontsize=8)


def _dates(stamps: Any) -> Any:
    return stamps.astype("datetime64[ms]")
