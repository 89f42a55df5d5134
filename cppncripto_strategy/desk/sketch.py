"""A figure as plain SVG inside the page: seen at once, while plotly's script is still on its way.

It draws what `figures` makes of lines, candles and points, without axes, and gives way to the chart
proper. Only numbers and our own colours go into it, never a text from outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from cppncripto_strategy.desk.figures import DOWN, GREY, UP, Figure

# Units of the picture's width and height; it is stretched to its place.
WIDTH, HEIGHT = 2_000, 1_000
# Space beyond the values of an axis, about what plotly leaves.
SPARE, SPARE_ACROSS = 0.06, 0.03
_COLOURS = {UP, DOWN, GREY}
Point = tuple[float, float]


def sketch(figure: Figure | None) -> Markup:
    """The figure's traces as one SVG element; empty where there is nothing to draw."""
    traces = [] if figure is None else figure["data"]
    xs = [x for trace in traces for x in _numbers(trace["x"])]
    if figure is None or len(xs) < 2:
        return Markup()
    across = _Scale(min(xs), max(xs), 0, WIDTH, SPARE_ACROSS)
    paths: list[str] = []
    for axis in dict.fromkeys(trace.get("yaxis", "y") for trace in traces):
        mine = [trace for trace in traces if trace.get("yaxis", "y") == axis]
        domain = figure["layout"].get(axis.replace("y", "yaxis"), {}).get("domain", (0, 1))
        values = [y for trace in mine for y in _heights(trace)]
        if values:
            up = _Scale(
                min(values), max(values), HEIGHT * (1 - domain[0]), HEIGHT * (1 - domain[1])
            )
            paths += [path for trace in mine for path in _paths(trace, across, up)]
    return Markup(
        f'<svg class="sketch" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
        f' role="img" aria-label="a first sketch of the chart">{"".join(paths)}</svg>'
    )


class _Scale:
    """Values to places, the lowest to `start` and the highest to `end`, with some space beyond."""

    def __init__(
        self, low: float, high: float, start: float, end: float, share: float = SPARE
    ) -> None:
        spare = (high - low) * share or 1.0
        self._low, self._start = low - spare, start
        self._factor = (end - start) / (high - low + 2 * spare)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._factor


def _numbers(values: Iterable[Any]) -> list[float]:
    """NaN for what is not known."""
    return [math.nan if value is None else float(value) for value in values]


def _heights(trace: dict[str, Any]) -> Iterator[float]:
    names = ("low", "high") if trace["type"] == "candlestick" else ("y",)
    for name in names:
        yield from (value for value in _numbers(trace[name]) if math.isfinite(value))


def _paths(trace: dict[str, Any], across: _Scale, up: _Scale) -> Iterator[str]:
    if trace["type"] == "candlestick":
        yield from _candles(trace, across, up)
        return
    pairs = zip(_numbers(trace["x"]), _numbers(trace["y"]), strict=True)
    points = [(across(x), up(y)) for x, y in pairs]
    if trace["mode"] == "lines":
        yield _path(_line(points), trace["line"]["color"], 1.4)
        return
    colours = trace["marker"]["color"]
    if isinstance(colours, str):
        yield _path(_dots(points), colours, 7)
        return
    kinds = [UP if value > 0 else DOWN if value < 0 else GREY for value in colours]
    for colour in sorted(_COLOURS):
        some = [point for point, kind in zip(points, kinds, strict=True) if kind == colour]
        yield _path(_dots(some), colour, 7)


def _candles(trace: dict[str, Any], across: _Scale, up: _Scale) -> Iterator[str]:
    columns = [_numbers(trace[name]) for name in ("x", "open", "high", "low", "close")]
    rows = list(zip(*columns, strict=True))
    step = min((b[0] - a[0] for a, b in pairwise(rows)), default=1.0)
    half = abs(across(step) - across(0)) * 0.3
    for colour, rising in ((UP, True), (DOWN, False)):
        drawn = [
            f"M{x:.1f} {up(high):.1f}V{up(low):.1f}"
            f"M{x - half:.1f} {up(first):.1f}h{2 * half:.1f}V{up(last):.1f}h{-2 * half:.1f}Z"
            for at, first, high, low, last in rows
            if (last >= first) == rising
            for x in (across(at),)
        ]
        yield _path("".join(drawn), colour, 1, filled=True)


def _line(points: Iterable[Point]) -> str:
    """Straight from point to point; broken where a value is not known."""
    drawn, pen_up = [], True
    for x, y in points:
        if math.isfinite(y):
            drawn.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return "".join(drawn)


def _dots(points: Iterable[Point]) -> str:
    """Strokes without length: their round ends are dots, however the picture is stretched."""
    return "".join(f"M{x:.1f} {y:.1f}h.1" for x, y in points if math.isfinite(y))


def _path(drawn: str, colour: str, width: float, filled: bool = False) -> str:
    if not drawn:
        return ""
    fill = colour if filled else "none"
    return f'<path d="{drawn}" stroke="{colour}" stroke-width="{width}" fill="{fill}"/>'
