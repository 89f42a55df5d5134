"""Charts of a run as plotly figures, small enough to mail: long series are thinned for drawing.

Thinning keeps the lowest and the highest value of every stretch, so no spike or drawdown is lost
from view. Times are drawn in UTC.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.account import BPS
from cppncripto_strategy.evaluation.returns import drawdown_series
from cppncripto_strategy.evaluation.signals import forward_returns
from cppncripto_strategy.evaluation.statistics import wilson_interval
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.results import RunResult

STRATEGY, WITHOUT, HOLD = "#1f5fbf", "#d9822b", "#8792a0"
BUY, SELL, SHADE = "#14804a", "#b42318", "rgba(135,146,160,0.25)"
SYMBOL_COLOURS = ("#1f5fbf", "#d9822b", "#14804a", "#7a4fbf", "#b42318", "#0f8b8d", "#8a5a00")
MAX_POINTS = 2_048  # a week of 5-minute candles is 2,017
CALIBRATION_BINS = 10


def thin(x: IntArray, y: FloatArray, points: int = MAX_POINTS) -> tuple[IntArray, FloatArray]:
    """At most `points` of a series: the lowest and highest of each stretch, first and last."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), max(points // 2 - 1, 1) + 1).astype(np.int64)
    keep = {0, len(x) - 1}
    for start, end in pairwise(edges):
        part = y[start:end]
        if np.isnan(part).all():
            keep.add(int(start))  # one NaN keeps the hole visible
            continue
        keep.update((int(start + np.nanargmin(part)), int(start + np.nanargmax(part))))
    index = np.array(sorted(keep))
    return x[index], y[index]


def label(text: object) -> str:
    """Text from outside for a figure: plotly reads links and bold type in its labels otherwise."""
    return escape(str(text))


def style(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The common look: white, light grid, legend above, one font."""
    legend = sum(trace.showlegend is not False for trace in figure.data) > 1
    figure.update_layout(
        height=height,
        template="plotly_white",
        margin={"l": 8, "r": 8, "t": 36 if legend else 12, "b": 8},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"size": 12, "color": "#1b2430"},
        hovermode="x unified",
        **layout,
    )
    figure.update_xaxes(automargin=True, gridcolor="#eef1f4")
    figure.update_yaxes(automargin=True, gridcolor="#eef1f4", zerolinecolor="#d5dae0")
    return figure


def _line(
    x: IntArray, y: FloatArray, name: str, colour: str, candles: bool = False, **more: Any
) -> go.Scattergl:
    """A line; one of candles has a hole where some are missing, others join what is there."""
    line = {"color": colour, "width": more.pop("width", 1.6), "dash": more.pop("dash", "solid")}
    return go.Scatter(**_points(x, y, candles), name=name, mode="lines", line=line, **more)


def _points(x: IntArray, y: FloatArray, candles: bool) -> dict[str, Any]:
    """Where a line's points lie, in the fewest bytes: a page holds those of every symbol.

    Seven digits of a value are more than can be seen, and regular stamps need no list. Of candles
    what is missing among them is a hole; a day without a bet, say, is none.
    """
    steps = np.diff(x)
    step = int(steps.min()) if len(steps) else 0
    if len(x) > MAX_POINTS or step <= 0 or (steps % step).any():
        xs, ys = thin(x, y)
        return {"x": xs, "y": ys.astype(np.float32)}
    place = (x - x[0]) // step
    if place[-1] >= (2 if candles else 1) * len(x):
        return {"x": x, "y": y.astype(np.float32)}
    laid = np.full(int(place[-1]) + 1, np.nan, dtype=np.float32)
    laid[place] = y
    return {"x0": int(x[0]), "dx": step, "y": laid}


def _columns(table: pd.DataFrame, value: str) -> tuple[IntArray, FloatArray]:
    return table["close_time_ms"].to_numpy(np.int64), table[value].to_numpy(np.float64)


def equity_figure(result: RunResult) -> go.Figure:
    """Equity of the strategy, of the arm without macro, and buy-and-hold; drawdown below."""
    figure = make_subplots(
        rows=2, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.05
    )
    for name, table, colour, dash in equity_arms(result):
        stamps, equity = _columns(table, "equity")
        figure.add_trace(_line(stamps, equity, name, colour, dash=dash), row=1, col=1)
        fall = -100 * drawdown_series(equity)
        trace = _line(stamps, fall, name, colour, dash=dash, width=1.1, showlegend=False)
        figure.add_trace(trace, row=2, col=1)
    stamps, _ = _columns(result.equity, "equity")
    # A gap in the training span would stretch the axis over months without an equity.
    traded = [gap for gap in result.gaps if len(stamps) and gap["end_ms"] > stamps[0]]
    for gap in traded[:40]:
        figure.add_vrect(
            max(gap["start_ms"], int(stamps[0])),
            gap["end_ms"],
            fillcolor=SHADE,
            line_width=0,
            layer="below",
        )
    style(figure, 520)
    figure.update_xaxes(type="date")
    figure.update_xaxes(title="time, UTC", row=2, col=1)
    figure.update_yaxes(title="equity, quote currency", row=1, col=1)
    figure.update_yaxes(title="drawdown, %", row=2, col=1)
    return figure


def equity_arms(result: RunResult) -> list[tuple[str, pd.DataFrame, str, str]]:
    """The curves of the equity chart: (name, table, colour, dash), the strategy drawn last."""
    arms = [("buy and hold", result.benchmark_equity, HOLD, "solid")]
    if result.equity_without_macro is not None:
        arms.append(("without macro", result.equity_without_macro, WITHOUT, "solid"))
    name = "with macro" if result.uses_macro else "strategy (no macro)"
    return [*arms, (name, result.equity, STRATEGY, "solid")]


def week_figure(result: RunResult, symbol: str) -> go.Figure:
    """One symbol's last week: price with fills; score, thresholds, score under a zero embedding."""
    rows = result.signals[result.signals["symbol"] == symbol]
    end = int(rows["close_time_ms"].max())
    start = end - 7 * DAY_MS
    rows = rows[rows["close_time_ms"].between(start, end)].sort_values("close_time_ms")
    figure = make_subplots(
        rows=2, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.05
    )
    stamps, close = _columns(rows, "close")
    figure.add_trace(
        _line(stamps, close, "close", "#39424e", candles=True, width=1.1), row=1, col=1
    )
    for trace in _fill_marks(result.fills, symbol, start, end):
        figure.add_trace(trace, row=1, col=1)
    for column, name, colour, dash in (
        ("score_zero", "without macro", "#ecc9a0", "solid"),
        ("score", "score", STRATEGY, "solid"),
        ("upper", "upper", BUY, "dot"),
        ("lower", "lower", SELL, "dot"),
    ):
        x, y = _columns(rows, column)
        figure.add_trace(
            _line(x, y, name, colour, candles=True, width=1.2, dash=dash), row=2, col=1
        )
    style(figure, 520)
    figure.update_xaxes(type="date", range=[start, end])
    figure.update_xaxes(title="time, UTC", row=2, col=1)
    figure.update_yaxes(title="price, quote currency", row=1, col=1)
    figure.update_yaxes(title="score, −1 to 1", row=2, col=1)
    return figure


def _fill_marks(fills: pd.DataFrame, symbol: str, start: int, end: int) -> list[go.Scatter]:
    mine = fills[(fills["symbol"] == symbol) & (fills["status"] == "filled")]
    mine = mine[mine["executed_ms"].between(start, end)]
    marks = []
    for side, colour, shape in (("buy", BUY, "triangle-up"), ("sell", SELL, "triangle-down")):
        part = mine[mine["side"] == side]
        marks.append(
            go.Scatter(
                x=part["executed_ms"].to_numpy(np.int64),
                y=part["price"].to_numpy(np.float64),
                name=side,
                mode="markers",
                marker={"color": colour, "symbol": shape, "size": 9},
            )
        )
    return marks


def quality_figure(quality: dict[str, Any]) -> go.Figure:
    """Hit ratio with its interval beside the hit ratio that would pay the costs, per side."""
    sides = [s for s in ("buy", "sell", "both") if quality[s]["hit_ratio"]["value"] is not None]
    figure = go.Figure()
    if sides:
        estimates = [quality[side]["hit_ratio"] for side in sides]
        values = np.array([100 * e["value"] for e in estimates])
        low = np.array([100 * (e["value"] if e["low"] is None else e["low"]) for e in estimates])
        high = np.array([100 * (e["value"] if e["high"] is None else e["high"]) for e in estimates])
        error = {
            "type": "data",
            "symmetric": False,
            "array": high - values,
            "arrayminus": values - low,
            "thickness": 2,
            "width": 8,
        }
        figure.add_trace(
            go.Scatter(
                x=sides,
                y=values,
                mode="markers",
                name="hit ratio, 95 % interval",
                marker={"size": 11, "color": STRATEGY},
                error_y=error,
            )
        )
        needed = [(s, quality[s]["break_even_hit_ratio"]) for s in sides]
        figure.add_trace(
            go.Scatter(
                x=[s for s, v in needed if v is not None],
                y=[100 * v for _, v in needed if v is not None],
                mode="markers",
                name="break-even",
                marker={"symbol": "line-ew", "size": 46, "line": {"width": 3, "color": SELL}},
            )
        )
    figure.add_hline(50, line={"color": HOLD, "dash": "dot", "width": 1})
    style(figure, 320)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="side of the signal")
    figure.update_yaxes(title="hit ratio, %", rangemode="normal")
    figure.add_scatter(
        x=sides[:1],
        y=[49],
        mode="markers",
        marker={"opacity": 0},
        showlegend=False,
        hoverinfo="skip",
    )
    return figure


def calibration_figure(result: RunResult) -> go.Figure:
    """Observed frequency against predicted probability, in ten bins of equal count."""
    quality = result.metrics["signals"]
    forward = forward_returns(result.signals, quality["horizon"], quality["interval_ms"])
    threshold = quality["label_threshold_bps"] * BPS
    figure = go.Figure()
    for column, direction, name, colour in (
        ("p_buy", 1, "p_buy: rise beyond the threshold", BUY),
        ("p_sell", -1, "p_sell: fall beyond the threshold", SELL),
    ):
        predicted = result.signals[column].to_numpy(np.float64)
        known = ~np.isnan(predicted) & ~np.isnan(forward)
        x, y, low, high = _reliability(predicted[known], forward[known] * direction > threshold)
        error = {
            "type": "data",
            "symmetric": False,
            "array": high - y,
            "arrayminus": y - low,
            "thickness": 1.2,
            "width": 3,
        }
        figure.add_trace(
            go.Scatter(
                x=x, y=y, mode="lines+markers", name=name, error_y=error, line={"color": colour}
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            name="perfect",
            showlegend=False,
            line={"color": HOLD, "dash": "dot", "width": 1},
            hoverinfo="skip",
        )
    )
    style(figure, 360)
    figure.update_layout(hovermode="closest")
    top = _upper_limit(figure)
    figure.update_xaxes(title="predicted probability", range=[0, top])
    figure.update_yaxes(title="observed frequency", range=[0, top])
    return figure


def _upper_limit(figure: go.Figure) -> float:
    """The end of both axes: a little above the largest of the curves, at most 1."""
    ends = [np.max(np.concatenate([t.x, t.y])) for t in figure.data[:2] if len(t.x)]
    return float(min(1.0, 1.15 * max(ends, default=1.0)))


def _reliability(
    predicted: FloatArray, came: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    rows = []
    for index in np.array_split(np.argsort(predicted, kind="stable"), CALIBRATION_BINS):
        if len(index):
            hits = int(came[index].sum())
            low, high = wilson_interval(hits, len(index))
            rows.append((predicted[index].mean(), hits / len(index), low, high))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return columns[0], columns[1], columns[2], columns[3]


def drift_figure(result: RunResult) -> go.Figure:
    """Drift of each day's embedding per symbol, as a multiple of the bundle's baseline distance."""
    figure = go.Figure()
    day = result.signals["close_time_ms"] // DAY_MS
    daily = result.signals.groupby(["symbol", day])["drift"].last()
    for k, symbol in enumerate(daily.index.unique(level=0)):
        part = daily[symbol]
        stamps = part.index.to_numpy(np.int64) * DAY_MS
        colour = SYMBOL_COLOURS[k % len(SYMBOL_COLOURS)]
        figure.add_trace(_line(stamps, part.to_numpy(np.float64), label(symbol), colour))
    for bundle in result.bundles:
        if bundle.get("valid_from_ms") is not None:
            line = {"color": HOLD, "dash": "dot", "width": 1}
            figure.add_vline(bundle["valid_from_ms"], line=line)
    style(figure, 300)
    figure.update_xaxes(type="date")
    figure.update_xaxes(title="day, UTC")
    figure.update_yaxes(title="drift, × baseline distance")
    return figure


def contribution_figure(result: RunResult) -> go.Figure:
    """Distribution of score minus score_zero: how far the embedding moved the decision."""
    difference = (result.signals["score"] - result.signals["score_zero"]).to_numpy(np.float64)
    known = difference[~np.isnan(difference)]
    counts, edges = np.histogram(known, bins=61) if len(known) else (np.zeros(0), np.zeros(1))
    share = 100 * counts / max(len(known), 1)
    figure = go.Figure(
        go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=share, marker={"color": STRATEGY}, name="candles")
    )
    style(figure, 300, bargap=0.04)
    figure.update_xaxes(title="score − score without macro")
    figure.update_yaxes(title="share of candles, %")
    return figure


def evidence_figure(table: pd.DataFrame) -> go.Figure:
    """Wealth of each bet after each day on a logarithmic axis, and the wealth that is needed.

    Shaded: days that begin with evidence (of any bet).
    """
    figure = go.Figure()
    for k, (name, rows) in enumerate(table.groupby("bet", sort=False)):
        after_ms = rows["session_ms"].to_numpy(np.int64) + DAY_MS
        colour = SYMBOL_COLOURS[k % len(SYMBOL_COLOURS)]
        wealth = rows["wealth"].to_numpy(np.float64)
        figure.add_trace(_line(after_ms, wealth, label(name), colour))
        for start_ms, end_ms in _open_spans(after_ms, rows["open"].to_numpy(np.int64)):
            figure.add_vrect(start_ms, end_ms, fillcolor=SHADE, line_width=0, layer="below")
    ends = np.array([table["session_ms"].min(), table["session_ms"].max()]) + DAY_MS
    needed = np.full(2, float(table["needed"].max()))
    figure.add_trace(_line(ends, needed, "needed", SELL, width=1.2, dash="dot"))
    style(figure, 320)
    figure.update_xaxes(type="date", title="end of the day, UTC")
    figure.update_yaxes(type="log", title="wealth (log)")
    return figure


def _open_spans(after_ms: IntArray, opened: IntArray) -> list[tuple[int, int]]:
    """Stretches from the day that opened to the day that closed, or to the last one."""
    turns = np.diff(opened, prepend=0, append=0)
    starts, ends = np.flatnonzero(turns > 0), np.flatnonzero(turns < 0)
    last = len(after_ms) - 1
    return [
        (int(after_ms[start]), int(after_ms[min(end, last)]))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
