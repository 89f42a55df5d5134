"""Past forecasts of a day's volatility with their intervals, and what came: as a page or a PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_date
from cppncripto_strategy.reports.blocks import Chart, Section
from cppncripto_strategy.reports.pages import write_page

if TYPE_CHECKING:
    import plotly.graph_objects as go

FORECAST, CAME, BAND, MISSED = "#1f5fbf", "#1b2430", "rgba(31,95,191,0.18)", "#b42318"

Coming = tuple[float, float, float]
"""Expected volatility of the coming day and its interval's bounds, as fractions."""


def forecast_figure(
    symbol: str, history: pd.DataFrame, day_ms: int, coming: Coming, level: float
) -> go.Figure:
    """The interval as a band, the forecast as a line, what came as points, misses in red.

    Parameters
    ----------
    history : columns day_ms, expected, low, high, came (fractions), one row per past day.
    day_ms, coming : the day that is yet to come, and its forecast.
    level : share of the days that an interval should hold.
    """
    import plotly.graph_objects as go

    from cppncripto_strategy.reports.charts import label, style

    rows = _with_coming(history, day_ms, coming)
    days, low, high = rows["day_ms"], 100 * rows["low"], 100 * rows["high"]
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(x=days, y=high, mode="lines", line={"width": 0}, showlegend=False, name="high")
    )
    figure.add_trace(
        go.Scatter(
            x=days,
            y=low,
            mode="lines",
            line={"width": 0},
            fill="tonexty",
            fillcolor=BAND,
            name=f"{100 * level:.0f} % interval",
        )
    )
    line = {"color": FORECAST, "width": 1.6}
    figure.add_trace(
        go.Scatter(x=days, y=100 * rows["expected"], mode="lines", line=line, name="forecast")
    )
    for name, colour, part in _points(history):
        figure.add_trace(
            go.Scatter(
                x=part["day_ms"],
                y=100 * part["came"],
                mode="markers",
                marker={"color": colour, "size": 5},
                name=name,
            )
        )
    style(figure, 480)
    figure.update_xaxes(type="date", title="day, UTC")
    figure.update_yaxes(type="log", title=f"{label(symbol)}: volatility of the day, %")
    return figure


def save_forecast_page(
    path: Path, symbol: str, history: pd.DataFrame, day_ms: int, coming: Coming, level: float
) -> None:
    """Write the figure as one self-contained page; parameters as `forecast_figure`."""
    section = Section(
        "Forecast and what came",
        Chart(forecast_figure(symbol, history, day_ms, coming, level), "forecast"),
        note=f"{len(history)} past days, each predicted by what was known at its 00:00 UTC, and"
        f" {ms_to_date(day_ms)}, which is yet to come. Red: outside the interval.",
    )
    write_page(path, f"Volatility forecast: {symbol}", [section], footer="All times UTC")


def save_forecast_picture(
    path: Path, symbol: str, history: pd.DataFrame, day_ms: int, coming: Coming, level: float
) -> None:
    """Save the figure as a PNG of 1210 by 550 pixels; parameters as `forecast_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(11, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    rows = _with_coming(history, day_ms, coming)
    days = rows["day_ms"].to_numpy().astype("datetime64[ms]")
    axis.fill_between(
        days,
        100 * rows["low"],
        100 * rows["high"],
        color=FORECAST,
        alpha=0.18,
        linewidth=0,
        label=f"{100 * level:.0f} % interval",
    )
    axis.plot(days, 100 * rows["expected"], color=FORECAST, linewidth=1.6, label="forecast")
    for name, colour, part in _points(history):
        stamps = part["day_ms"].to_numpy().astype("datetime64[ms]")
        axis.plot(stamps, 100 * part["came"], ".", color=colour, label=name)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_title(
        f"{symbol}: volatility of the day, % (UTC; the last is to come)", loc="left", fontsize=12
    )
    axis.legend(loc="upper left", ncols=4, frameon=False, fontsize=9)
    axis.grid(color="#eef1f4")
    axis.spines[["top", "right"]].set_visible(False)
    image = BytesIO()
    figure.savefig(image, format="png")
    write_bytes(path, image.getvalue())


def _with_coming(history: pd.DataFrame, day_ms: int, coming: Coming) -> pd.DataFrame:
    """The past days and the coming one, with rows of NaN where days are missing between."""
    expected, low, high = coming
    last = pd.DataFrame(
        {"day_ms": [day_ms], "expected": [expected], "low": [low], "high": [high], "came": [np.nan]}
    )
    rows = pd.concat([history, last], ignore_index=True) if len(history) else last
    every = np.arange(rows["day_ms"].iloc[0], day_ms + DAY_MS, DAY_MS)
    return rows.set_index("day_ms").reindex(every).rename_axis("day_ms").reset_index()


def _points(history: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Name, colour and rows of what came, inside the interval and outside."""
    inside = history["came"].between(history["low"], history["high"])
    return [("came", CAME, history[inside]), ("came, outside", MISSED, history[~inside])]
