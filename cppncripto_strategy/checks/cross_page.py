"""The page of a combinatorial cross-validation: words, each path's Sharpe ratio and equity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cppncripto_strategy.checks.cross_validation import CrossValidation
from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.reports.blocks import Chart, Section, Table
from cppncripto_strategy.reports.charts import HOLD, SELL, STRATEGY, style
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import number, signed


def write_cross_page(found: CrossValidation, path: Path) -> None:
    """Write the page, self-contained."""
    spread = found.spread
    totals = np.prod(1 + found.paths, axis=1) - 1
    rows = [
        [str(k + 1), number(sharpe), signed(float(total))]
        for k, (sharpe, total) in enumerate(zip(spread.sharpes, totals, strict=True))
    ]
    sections = [
        Section("How much hangs on the days", found.words()),
        Section(
            "Paths",
            [Chart(paths_figure(found), "paths"), Table(["Path", "Sharpe ratio", "Return"], rows)],
            note="Above: the Sharpe ratio of each path; the dashed line is their median. Below:"
            " equity from 1, after fees and slippage. Each path trades every day once, by networks"
            f" that never had that day's candles, nor the {found.purge + found.embargo:,} candles"
            f" after its group ({found.purge:,} of purge, {found.embargo:,} of embargo)."
            " Combinatorial purged cross-validation, Lopez de Prado 2018, chapter 12.",
        ),
    ]
    write_page(path, f"{found.recipe}: combinatorial cross-validation", sections)


def paths_figure(found: CrossValidation) -> go.Figure:
    """Sharpe ratios as marks on one axis, and the equity of every path below."""
    figure = make_subplots(rows=2, row_heights=[0.28, 0.72], vertical_spacing=0.16)
    spread = found.spread
    marks = {"color": STRATEGY, "size": 13, "opacity": 0.6}
    known = spread.known
    figure.add_scatter(
        x=known, y=[""] * len(known), mode="markers", marker=marks, showlegend=False, row=1, col=1
    )
    figure.add_vline(0, line={"color": SELL, "width": 1}, row=1, col=1)
    if spread.median is not None:
        line = {"color": HOLD, "width": 2, "dash": "dash"}
        figure.add_vline(spread.median, line=line, row=1, col=1)
    days = pd.date_range(ms_to_date(found.first_ms), periods=spread.days, freq="D")
    for k, path in enumerate(found.paths):
        figure.add_scatter(
            x=days,
            y=np.cumprod(1 + path),
            mode="lines",
            name=f"path {k + 1}",
            line={"width": 1.4},
            row=2,
            col=1,
        )
    style(figure, 520)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="annual Sharpe ratio of a path", row=1, col=1)
    figure.update_xaxes(title="day, UTC", row=2, col=1)
    figure.update_yaxes(title="paths", row=1, col=1)
    figure.update_yaxes(title="equity, start = 1", row=2, col=1)
    return figure
