"""The first picture of a chart: true to the numbers, and nothing of anybody's in it but numbers."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("fastapi")

from cppncripto_strategy.desk import figures
from cppncripto_strategy.desk.sessions import Folded
from cppncripto_strategy.desk.sketch import HEIGHT, WIDTH, sketch

LAYOUT = {"yaxis": {"domain": [0.5, 1.0]}, "yaxis2": {"domain": [0.0, 0.4]}}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def line(x: list[Any], y: list[Any], axis: str = "y") -> dict[str, Any]:
    """A trace."""
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "yaxis": axis,
            "line": {"color": figures.BLUE}}  # fmt: skip


def paths(figure: dict[str, Any]) -> list[Any]:
    """The paths of its picture."""
    return list(ElementTree.fromstring(str(sketch(figure))))


def points(path: Any) -> list[tuple[float, float]]:
    """Corners of a path of straight lines."""
    numbers = [float(number) for number in NUMBER.findall(path.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_line_is_where_its_values_are():
    """A curve upside down is a loss that looks like a gain."""
    times = [1_716_163_200_000 + hours * 3_600_000 for hours in (0, 1, 3)]
    first, second = paths({"data": [line(times, [1.0, 3.0, 2.0]), line(times, [5, 5, 9], "y2")],
                           "layout": LAYOUT})  # fmt: skip
    (x0, y0), (x1, y1), (x2, y2) = points(first)
    assert x2 - x0 == pytest.approx(3 * (x1 - x0), abs=0.3)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.3)
    assert y1 < y2 < y0  # a picture's height grows downwards
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT / 2 for x, y in points(first))
    assert all(0.6 * HEIGHT <= y <= HEIGHT for _, y in points(second))


def test_what_is_not_known_is_a_break():
    """A straight line over a hole."""
    [path] = paths({"data": [line([1, 2, 3, 4, 5], [1.0, 2.0, None, 2.0, math.nan])],
                    "layout": LAYOUT})  # fmt: skip
    assert path.get("d").count("M") == 2
    assert len(points(path)) == 3


def test_candles_are_those_of_the_session(results, desk):
    """A picture of other candles, or a falling one that is green."""
    from cppncripto_strategy.desk.listing import Listing
    from cppncripto_strategy.desk.sessions import SessionWatch

    [entry] = Listing(results).of("session")
    folded = SessionWatch(entry).look()
    figure = figures.session_figure(folded, "AUSDT", desk.step_ms)
    drawn = paths(figure)
    [rising] = [path for path in drawn if path.get("fill") == figures.UP]
    assert not [path for path in drawn if path.get("fill") == figures.DOWN]
    assert rising.get("d").count("Z") == len(folded.candles["AUSDT"]) == desk.rounds
    highs = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)V", rising.get("d"))]
    assert all(before > after for before, after in pairwise(highs))  # each closes higher


def test_nothing_to_draw_is_nothing():
    """A session that has not begun, and a page that fails on it."""
    assert sketch(None) == ""
    assert sketch({"data": [], "layout": {}}) == ""
    assert sketch(figures.session_figure(Folded(), "AUSDT", 300_000)) == ""
    flat = {"data": [line([1, 1], [2.0, 2.0])], "layout": LAYOUT}
    assert all(math.isfinite(number) for point in points(paths(flat)[0]) for number in point)


def test_no_text_of_a_figure_gets_into_the_page():
    """A name that becomes markup in a picture."""
    trace = {**line([1, 2], [1.0, 2.0]), "name": "<script>", "text": ["<b>"] * 2}
    dots = {**trace, "mode": "markers", "marker": {"color": [0.1, -0.1]}}
    drawn = str(sketch({"data": [trace, dots], "layout": LAYOUT}))
    assert "script" not in drawn
    assert "<b>" not in drawn
    tags = {element.tag for element in ElementTree.fromstring(drawn).iter()}
    assert tags == {"svg", "path"}
