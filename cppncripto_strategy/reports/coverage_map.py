"""A picture of how complete the candle store is: months as a heat map, in the terminal and as HTML.

Green is complete (stored, or proved that the exchange was down), yellow has holes, red has nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.history.verify import MonthCoverage
from cppncripto_strategy.reports.blocks import Chart, Section
from cppncripto_strategy.reports.pages import write_page

if TYPE_CHECKING:
    import plotly.graph_objects as go

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Only a complete month is green.
COLOURS = [[0, "#c0392b"], [0.5, "#e67e22"], [0.999, "#f1c40f"], [1, "#27ae60"]]
Series = tuple[str, str]


def terminal_map(series: Series, months: Sequence[MonthCoverage]) -> Table:
    """A table of years by months; each cell the per cent covered, on its colour."""
    table = Table(title=f"{series[0]} {series[1]}", box=None, title_justify="left")
    table.add_column("")
    for name in MONTHS:
        table.add_column(name, justify="right")
    known = {month.month: month for month in months}
    for year in sorted({month.month[:4] for month in months}):
        cells = [_cell(known.get(f"{year}-{number:02d}")) for number in range(1, 13)]
        table.add_row(year, *cells)
    return table


def html_map(series: Mapping[Series, Sequence[MonthCoverage]], target: Path) -> None:
    """Write the heat map of every series as one self-contained HTML page.

    Parameters
    ----------
    series : (symbol, interval) -> its months.

    Raises
    ------
    StoreError
        When the file cannot be written; what stood there stays.
    """
    section = Section(
        "Months",
        Chart(coverage_figure(series), "coverage"),
        note="Share of each month's candles that are stored, or that the exchange was provably"
        " down for. Green is complete; from yellow to red, less of it; blank was not asked for.",
    )
    try:
        write_page(target, "Coverage of the candle store", [section], footer="All times UTC")
    except OSError as cause:
        raise StoreError(f"{target} cannot be written: {cause.strerror or cause}") from cause


def coverage_figure(series: Mapping[Series, Sequence[MonthCoverage]]) -> go.Figure:
    """Per cent covered, a row per series and year, a column per month."""
    import plotly.graph_objects as go

    from cppncripto_strategy.reports.charts import label, style

    rows, values, notes = [], [], []
    for (symbol, interval), months in series.items():
        known = {month.month: month for month in months}
        for year in sorted({month.month[:4] for month in months}):
            chosen = [known.get(f"{year}-{number:02d}") for number in range(1, 13)]
            rows.append(label(f"{symbol} {interval} {year}"))
            values.append([100 * month.fraction if month else None for month in chosen])
            notes.append([_note(month) for month in chosen])
    heat = go.Heatmap(
        z=values,
        x=list(MONTHS),
        y=rows,
        customdata=notes,
        hovertemplate="%{y} %{x}<br>%{customdata}<extra></extra>",
        zmin=0,
        zmax=100,
        colorscale=COLOURS,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    figure = style(go.Figure(heat), 90 + 28 * len(rows))
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="month", side="top", showgrid=False)
    figure.update_yaxes(title="series and year", autorange="reversed", type="category")
    return figure


def _cell(month: MonthCoverage | None) -> Text:
    if month is None:
        return Text("·", style="dim")
    # Rounded down, so that only a complete month says 100.
    per_cent = int(100 * month.fraction)
    colour = "green" if month.fraction == 1 else "yellow" if month.held else "red"
    return Text(f"{per_cent:3d}", style=f"black on {colour}")


def _note(month: MonthCoverage | None) -> str:
    if month is None:
        return "not asked for"
    lost = month.expected - month.held - month.exchange_down
    return (
        f"{month.held:,} of {month.expected:,} candles<br>{month.exchange_down:,} while the"
        f" exchange was down<br>{lost:,} missing"
    )
