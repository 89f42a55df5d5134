"""The charts of a search, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cppncripto_strategy.reports.charts import HOLD, SELL, STRATEGY, WITHOUT, label, style
from cppncripto_strategy.tuning.found import Found
from cppncripto_strategy.tuning.measures import MEASURES, all_values
from cppncripto_strategy.tuning.plateaus import place
from cppncripto_strategy.tuning.space import Dimension
from cppncripto_strategy.tuning.study import DoneTrial

_BINS = 8
_MAX_PAIRS = 45


def judged(found: Found) -> list[DoneTrial]:
    """Trials that were judged to the end."""
    return [trial for trial in found.trials if trial.state == "complete" and trial.values]


def history_figure(found: Found) -> go.Figure:
    """Each objective by trial: judged and pruned ones, the best so far, the untuned recipe."""
    names = found.plan.search.objectives
    figure = make_subplots(rows=len(names), shared_xaxes=True, vertical_spacing=0.06)
    untuned = all_values(found.untuned) if found.untuned else {}
    for row, name in enumerate(names, 1):
        for trace in _history(found, row - 1, name, row == 1):
            figure.add_trace(trace, row=row, col=1)
        if (value := untuned.get(name)) is not None:
            line = {"color": WITHOUT, "dash": "dot", "width": 1.5}
            figure.add_hline(value, line=line, row=row, col=1)
        figure.update_yaxes(title=MEASURES[name].title, row=row, col=1)
    style(figure, 160 + 200 * len(names))
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="trial", row=len(names), col=1)
    return figure


def _history(found: Found, column: int, name: str, legend: bool) -> list[go.Scatter]:
    complete = judged(found)
    pruned = [t for t in found.trials if t.state == "pruned" and t.measures.get(name) is not None]
    groups = (("judged to the end", complete, STRATEGY), ("pruned", pruned, HOLD))
    traces = [
        go.Scatter(
            x=[t.number for t in group],
            y=[t.measures.get(name) for t in group],
            mode="markers",
            name=title,
            showlegend=legend,
            marker={"color": colour, "size": 7, "opacity": 0.8},
            text=[_values_text(t) for t in group],
            hovertemplate="trial %{x}: %{y:.4g}<br>%{text}<extra></extra>",
        )
        for title, group, colour in groups
    ]
    values = np.array([(t.values or ())[column] for t in complete], np.float64)
    best = np.maximum.accumulate(values) if MEASURES[name].higher else np.minimum.accumulate(values)
    line = {"shape": "hv", "color": STRATEGY, "width": 1.5}
    x = [t.number for t in complete]
    traces.append(
        go.Scatter(x=x, y=best, mode="lines", name="best so far", line=line, showlegend=legend)
    )
    return traces


def _values_text(trial: DoneTrial) -> str:
    return "<br>".join(f"{label(k)} = {label(short(v))}" for k, v in trial.changes.items())


def short(value: Any) -> str:
    """A value of a key as a reader takes it in."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parallel_figure(found: Found) -> go.Figure:
    """A line per judged trial through its values, coloured by the first objective."""
    trials, name = judged(found), found.plan.search.objectives[0]
    axes = [_axis(dimension, trials) for dimension in found.space.dimensions]
    values = [(trial.values or ())[0] for trial in trials]
    figure = go.Figure(
        go.Parcoords(
            line={
                "color": values,
                "colorscale": "Viridis",
                "reversescale": not MEASURES[name].higher,
                "showscale": True,
            },
            dimensions=[*axes, {"label": MEASURES[name].title, "values": values}],
            labelangle=-18,
        )
    )
    # Not through `style`: parallel axes have no legend to make room for.
    margin = {"l": 56, "r": 24, "t": 96, "b": 24}
    figure.update_layout(height=440, margin=margin, font={"size": 12, "color": "#1b2430"})
    return figure


def _axis(dimension: Dimension, trials: Sequence[DoneTrial]) -> dict[str, Any]:
    """One axis: a range as it is (by its logarithm where searched so), choices as steps."""
    at = [place(dimension, trial.changes.get(dimension.key)) for trial in trials]
    # A trial without the key runs below the axis.
    drawn = [-0.12 if np.isnan(value) else value for value in at]
    ticks, texts = _ticks(dimension)
    if min(drawn, default=0.0) < 0:
        ticks, texts = [-0.12, *ticks], ["none", *texts]
    name = label(dimension.key.rpartition(".")[2])
    bounds = [min(0.0, *ticks), 1.0]
    return {"label": name, "values": drawn, "tickvals": ticks, "ticktext": texts, "range": bounds}


def _ticks(dimension: Dimension) -> tuple[list[float], list[str]]:
    if dimension.kind == "choice":
        return (
            [place(dimension, value) for value in dimension.values],
            [label(value) for value in dimension.values],
        )
    low, high = dimension.values
    inner = np.geomspace(low, high, 5) if dimension.log else np.linspace(low, high, 5)
    values = [round(v) if dimension.kind == "int" else float(v) for v in inner]
    return [place(dimension, value) for value in values], [f"{value:.3g}" for value in values]


def importance_figure(importance: dict[str, float]) -> go.Figure:
    """One bar per key, the most important on top."""
    names = sorted(importance, key=lambda key: importance[key])
    bars = go.Bar(
        x=[importance[name] for name in names],
        y=[label(name) for name in names],
        orientation="h",
        marker={"color": STRATEGY},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    figure = style(go.Figure(bars), 90 + 28 * len(names), showlegend=False)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="importance, all together 1", rangemode="tozero")
    return figure


def heat_figure(found: Found) -> go.Figure:
    """Mean of the first objective over any two keys, one pair at a time."""
    name = found.plan.search.objectives[0]
    pairs = list(combinations(found.space.dimensions, 2))[:_MAX_PAIRS]
    figure, buttons = go.Figure(), []
    for number, (across, up) in enumerate(pairs):
        figure.add_trace(_heat(found, across, up, name, number == 0))
        shown = [k == number for k in range(len(pairs))]
        titles = {"xaxis.title.text": across.key, "yaxis.title.text": up.key}
        text = f"{across.key} × {up.key}"
        buttons.append(
            {"label": label(text), "method": "update", "args": [{"visible": shown}, titles]}
        )
    style(figure, 460)
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.16, "yanchor": "top"}
    figure.update_layout(updatemenus=[menu], hovermode="closest", margin={"t": 64})
    figure.update_xaxes(title=label(pairs[0][0].key), showgrid=False, type="category")
    figure.update_yaxes(title=label(pairs[0][1].key), showgrid=False, type="category")
    return figure


def _heat(found: Found, across: Dimension, up: Dimension, name: str, visible: bool) -> go.Heatmap:
    x_names, y_names = _bins(across), _bins(up)
    total = np.zeros((len(y_names), len(x_names)))
    count = np.zeros_like(total)
    for trial in judged(found):
        at = [place(d, trial.changes.get(d.key)) for d in (up, across)]
        if not np.isnan(at).any():
            where = tuple(
                min(int(v * len(n)), len(n) - 1) if d.kind != "choice" else round(v * (len(n) - 1))
                for v, n, d in zip(at, (y_names, x_names), (up, across), strict=True)
            )
            total[where] += (trial.values or ())[0]
            count[where] += 1
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return go.Heatmap(
        x=x_names,
        y=y_names,
        z=[[None if np.isnan(v) else float(v) for v in row] for row in mean],
        customdata=count,
        colorscale="Viridis",
        reversescale=not MEASURES[name].higher,
        visible=visible,
        hovertemplate="%{x}, %{y}<br>mean %{z:.4g} of %{customdata:.0f} trials<extra></extra>",
    )


def _bins(dimension: Dimension) -> list[str]:
    if dimension.kind == "choice":
        return [label(value) for value in dimension.values]
    low, high = dimension.values
    if dimension.kind == "int" and high - low < _BINS and not dimension.log:
        return [str(value) for value in range(low, high + 1)]
    ends = (
        np.geomspace(low, high, _BINS + 1) if dimension.log else np.linspace(low, high, _BINS + 1)
    )
    return [f"{a:.3g} to {b:.3g}" for a, b in pairwise(ends)]


def front_figure(found: Found, first: str, second: str) -> go.Figure:
    """Two objectives of every judged trial, the front joined, the chosen one filled."""
    names = found.plan.search.objectives
    columns = names.index(first), names.index(second)
    front = {trial.number for trial in found.front}
    best = found.best
    figure = go.Figure()
    groups = (
        ("other trials", [t for t in judged(found) if t.number not in front], HOLD, 6),
        ("front", [t for t in judged(found) if t.number in front], STRATEGY, 9),
        ("chosen", [best] if best is not None else [], SELL, 13),
    )
    for title, group, colour, size in groups:
        figure.add_trace(
            go.Scatter(
                x=[(t.values or ())[columns[0]] for t in group],
                y=[(t.values or ())[columns[1]] for t in group],
                mode="markers",
                name=title,
                marker={"color": colour, "size": size},
                text=[f"trial {t.number}<br>{_values_text(t)}" for t in group],
                hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
            )
        )
    style(figure, 400)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title=MEASURES[first].title)
    figure.update_yaxes(title=MEASURES[second].title)
    return figure
