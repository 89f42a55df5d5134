"""A picture of how complete the candle store is: months as a heat map, in the terminal and as HTML.

Green is complete (held, or proved that the exchange was down), yellow has holes, red has nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cppncripto_strategy.feeds.history.store import write_atomically
from cppncripto_strategy.feeds.history.verify import MonthCoverage

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
Series = tuple[str, str]


def terminal_map(series: Series, months: Sequence[MonthCoverage]) -> Table:
    """A table of years by months; each cell the per cent covered, on its colour."""
    table = Table(title=f"{series[0]} {series[1]}", box=None, title_justify="left")
    table.add_column("")
    for name in MONTHS:
        table.add_column(name, justify="right")
    held = {month.month: month for month in months}
    for year in sorted({month.month[:4] for month in months}):
        cells = [_cell(held.get(f"{year}-{number:02d}")) for number in range(1, 13)]
        table.add_row(year, *cells)
    return table


def html_map(held: Mapping[Series, Sequence[MonthCoverage]], target: Path) -> None:
    """Write the heat map of every series as one self-contained HTML file (no network needed)."""
    import plotly.graph_objects as go

    rows, values, notes = [], [], []
    for (symbol, interval), months in held.items():
        known = {month.month: month for month in months}
        for year in sorted({month.month[:4] for month in months}):
            chosen = [known.get(f"{year}-{number:02d}") for number in range(1, 13)]
            rows.append(f"{symbol} {interval} {year}")
            values.append([100 * month.fraction if month else None for month in chosen])
            notes.append([_note(month) for month in chosen])
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(MONTHS),
            y=rows,
            customdata=notes,
            hovertemplate="%{y} %{x}<br>%{customdata}<extra></extra>",
            zmin=0,
            zmax=100,
            colorscale=[[0, "#c0392b"], [0.5, "#e67e22"], [0.999, "#f1c40f"], [1, "#27ae60"]],
            colorbar={"title": "% covered"},
            xgap=2,
            ygap=2,
        )
    )
    figure.update_layout(title="Coverage of the candle store", height=160 + 28 * len(rows))
    figure.update_yaxes(autorange="reversed", type="category")
    page: Any = figure.to_html(include_plotlyjs=True, full_html=True)
    write_atomically(target, str(page).encode())


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
