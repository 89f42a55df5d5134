"""Figures for plotly's script, as plain values: data and layout. Colours of text and grid are the
page's own (`desk.js` sets them, light or dark).

Plotly reads some HTML in labels: every text from outside is escaped. Times are UTC
milliseconds, which plotly draws in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from cppncripto_strategy.desk.journals import Record
from cppncripto_strategy.desk.schema import Comparison, Days
from cppncripto_strategy.desk.sessions import Folded, Ohlc, Scored

UP, DOWN, BLUE, ORANGE, GREY = "#14915a", "#d0392b", "#3b7ddd", "#e08a2e", "#8792a0"
COLOURS = (BLUE, ORANGE, UP, "#9467d6", DOWN, "#17a2a6", "#b07d2b")
Figure = dict[str, Any]
# Heights of the session's rows from the top: candles, score, equity, drawdown.
_ROWS = ((0.56, 1.0), (0.36, 0.52), (0.15, 0.32), (0.0, 0.12))


def session_figure(folded: Folded, symbol: str, interval_ms: int) -> Figure:
    """Candles with fills, score with its thresholds, equity and drawdown on one time axis."""
    candles = list(folded.candles.get(symbol, ()))
    scores = list(folded.scores.get(symbol, ()))
    first_ms = candles[0][0] if candles else 0
    money = [(ms, equity, fall) for ms, equity, _, fall in folded.equity if ms >= first_ms]
    fills = [f for f in folded.fills if f["symbol"] == symbol and f["executed_ms"] >= first_ms]
    holes = [ms for name, ms in folded.holes if name == symbol and ms >= first_ms]
    return {
        "data": [
            _candles(candles),
            *_fills(fills, candles),
            *_scores(scores),
            *_money(money),
        ],
        "layout": {
            "height": 760,
            "xaxis": {"type": "date", "rangeslider": {"visible": False}, "anchor": "y4"},
            "yaxis": {"domain": list(_ROWS[0]), "title": {"text": escape(symbol)}},
            "yaxis2": {"domain": list(_ROWS[1]), "title": {"text": "score"}},
            "yaxis3": {"domain": list(_ROWS[2]), "title": {"text": "equity"}},
            "yaxis4": {
                "domain": list(_ROWS[3]),
                "title": {"text": "drawdown"},
                "tickformat": ".1%",
            },
            "shapes": [_hole(ms, interval_ms) for ms in holes],
        },
    }


def comparison_figure(found: Comparison) -> Figure:
    """Every run's equity over its first value."""
    data = [
        {
            "type": "scatter", "mode": "lines", "name": escape(curve.name),
            "x": curve.time_ms, "y": curve.growth,
            "line": {"color": COLOURS[place % len(COLOURS)], "width": 1.6},
        }
        for place, curve in enumerate(found.curves)
    ]  # fmt: skip
    layout = {"height": 420, "yaxis": {"title": {"text": "equity over its first value"}}}
    return {"data": data, "layout": {**layout, "xaxis": {"type": "date"}}}


def days_figure(found: Days) -> Figure:
    """Days on two principal components, coloured by the day's return; grey where not known."""
    known = [day for day in found.days if day.day_return is not None]
    unknown = [day for day in found.days if day.day_return is None]
    width = max((abs(day.day_return or 0.0) for day in known), default=0.0) or 1.0
    scale = {
        "color": [day.day_return for day in known], "cmin": -width, "cmax": width,
        "colorscale": [[0, DOWN], [0.5, "#c9ced6"], [1, UP]], "size": 8, "showscale": True,
        "colorbar": {"title": {"text": "return that day"}, "tickformat": ".0%", "thickness": 10},
    }  # fmt: skip
    shares = [f" ({share:.0%} of variance)" for share in found.explained] or ["", ""]
    layout = {
        "height": 520, "hovermode": "closest",
        "xaxis": {"title": {"text": f"component 1{shares[0]}"}},
        "yaxis": {"title": {"text": f"component 2{shares[-1]}"}},
    }  # fmt: skip
    traces = [(known, scale, "known"), (unknown, {"color": GREY, "size": 7}, "not known")]
    return {"data": [_dots(days, mark, name) for days, mark, name in traces if days],
            "layout": layout}  # fmt: skip


def _dots(days: Sequence[Any], marker: dict[str, Any], name: str) -> dict[str, Any]:
    texts = [
        f"{escape(day.symbol)} {day.day.iso[:10] if day.day else ''}"
        f"{', in sample' if day.in_sample else ''}"
        for day in days
    ]
    return {
        "type": "scatter", "mode": "markers", "name": name, "marker": marker,
        "x": [day.x for day in days], "y": [day.y for day in days],
        "text": texts, "hoverinfo": "text",
        "customdata": [[day.symbol, day.day.ms if day.day else 0] for day in days],
    }  # fmt: skip


def _candles(candles: Sequence[Ohlc]) -> dict[str, Any]:
    columns = {name: [candle[n] for candle in candles]
               for n, name in enumerate(("x", "open", "high", "low", "close"))}  # fmt: skip
    return {
        "type": "candlestick", "name": "candles", "showlegend": False, **columns,
        "increasing": {"line": {"color": UP, "width": 1}},
        "decreasing": {"line": {"color": DOWN, "width": 1}},
    }  # fmt: skip


def _fills(fills: Sequence[Record], candles: Sequence[Ohlc]) -> list[dict[str, Any]]:
    closes = {candle[0]: candle[4] for candle in candles}
    kinds = {
        "buy": ([f for f in fills if _is(f, "buy")], "triangle-up", UP),
        "sell": ([f for f in fills if _is(f, "sell")], "triangle-down", DOWN),
        "missed": ([f for f in fills if f["reason"] == "can_trade"], "circle-open", GREY),
    }
    return [
        {
            "type": "scatter", "mode": "markers", "name": name,
            "x": [f["executed_ms"] for f in some],
            "y": [f.get("price") or closes.get(f["created_ms"]) for f in some],
            "text": [escape(f"{f['side']} {f['quantity']:g}: {f['reason']}") for f in some],
            "hoverinfo": "text+x",
            "marker": {"symbol": symbol, "size": 10, "color": colour,
                       "line": {"width": 1, "color": colour}},
        }
        for name, (some, symbol, colour) in kinds.items() if some
    ]  # fmt: skip


def _is(fill: Record, side: str) -> bool:
    return bool(fill["status"] == "filled" and fill["side"] == side)


def _scores(scores: Sequence[Scored]) -> list[dict[str, Any]]:
    x = [scored[0] for scored in scores]
    lines = (("score", BLUE, "solid"), ("upper", UP, "dot"), ("lower", DOWN, "dot"))
    return [
        {
            "type": "scatter", "mode": "lines", "name": name, "showlegend": False, "yaxis": "y2",
            "x": x, "y": [scored[place] for scored in scores],
            "line": {"color": colour, "width": 1.3, "dash": dash},
        }
        for place, (name, colour, dash) in enumerate(lines, start=1)
    ]  # fmt: skip


def _money(money: Sequence[tuple[int, float, float]]) -> list[dict[str, Any]]:
    x = [ms for ms, _, _ in money]
    return [
        {"type": "scatter", "mode": "lines", "name": "equity", "showlegend": False, "yaxis": "y3",
         "x": x, "y": [equity for _, equity, _ in money], "line": {"color": BLUE, "width": 1.6}},
        {"type": "scatter", "mode": "lines", "name": "drawdown", "showlegend": False,
         "yaxis": "y4", "x": x, "y": [-fall for _, _, fall in money], "fill": "tozeroy",
         "line": {"color": DOWN, "width": 1}},
    ]  # fmt: skip


def _hole(close_ms: int, interval_ms: int) -> dict[str, Any]:
    start, end = close_ms - interval_ms // 2, close_ms + interval_ms // 2
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
        "line": {"width": 0}, "fillcolor": "rgba(224,138,46,0.25)",
    }  # fmt: skip
