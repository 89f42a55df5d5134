"""Charts: thinning loses no extreme, axes say what they show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.reports import charts
from cppncripto_strategy.reports.blocks import Chart
from cppncripto_strategy.reports.section import BUILT_IN, SECTIONS


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400))
def test_thinned_series_keeps_its_ends_and_extremes(values):
    """Dies here: a drawdown drawn shallower than it was, because every tenth point was taken."""
    y = np.array(values)
    x = np.arange(len(y), dtype=np.int64)
    xs, ys = charts.thin(x, y, points=20)
    assert len(xs) <= 24
    np.testing.assert_array_equal(ys, y[xs])
    assert (xs[0], xs[-1]) == (0, len(y) - 1)
    assert np.all(np.diff(xs) > 0)
    if not np.isnan(y).all():
        assert (np.nanmin(ys), np.nanmax(ys)) == (np.nanmin(y), np.nanmax(y))


def test_gap_before_the_traded_span_does_not_stretch_the_equity_chart(run):
    """Dies here: a gap in the training span draws months of nothing before the equity."""
    first = int(run.equity["close_time_ms"].iloc[0])
    hour = 3_600_000
    spans = [(first - 500 * hour, first - 499 * hour), (first + hour, first + 2 * hour)]
    gaps = [{"symbol": "X", "start_ms": a, "end_ms": b, "candles": 12} for a, b in spans]
    drawn = charts.equity_figure(dataclasses.replace(run, gaps=gaps)).layout.shapes
    assert {(shape.x0, shape.x1) for shape in drawn} == {spans[1]}


def test_every_chart_of_the_report_says_what_its_axes_show(run):
    """Dies here: a curve of nobody knows what, in nobody knows which unit."""
    charts_of = [
        block
        for name in BUILT_IN
        for section in [SECTIONS.get(name)(run)]
        if section is not None
        for block in section.blocks(name)
        if isinstance(block, Chart)
    ]
    assert len(charts_of) >= 7
    for chart in charts_of:
        layout = chart.figure.to_dict()["layout"]
        axes = {name: axis for name, axis in layout.items() if name[1:].startswith("axis")}
        shared = [axis for axis in axes.values() if axis.get("matches")]
        untitled = [n for n, axis in axes.items() if not axis.get("title", {}).get("text")]
        assert len(untitled) <= len(shared), (chart.name, untitled)


def test_every_chart_has_a_title_and_a_sentence(run):
    """Dies here: a chart without a word about what to look at."""
    for name in BUILT_IN:
        section = SECTIONS.get(name)(run)
        if section is not None and any(isinstance(b, Chart) for b in section.blocks(name)):
            assert section.title, name
            assert section.note.endswith("."), name


def test_symbols_with_markup_stay_text(run):
    """Dies here: plotly makes links and bold type of a symbol's name."""
    signals = run.signals.replace({"symbol": {"BTCUSDT": "<b>B</b>"}})
    names = {t.name for t in charts.drift_figure(dataclasses.replace(run, signals=signals)).data}
    assert names == {"&lt;b&gt;B&lt;/b&gt;", "ETHUSDT"}


def test_regular_stamps_need_no_list_and_what_is_missing_is_a_hole():
    """A line drawn straight over an outage; a point at another time than its candle's."""
    minute = 60_000
    stamps = np.array([3, 4, 5, 8, 9]) * minute
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    points = charts._points(stamps, values, candles=True)
    assert (points["x0"], points["dx"]) == (3 * minute, minute)
    drawn = dict(zip(points["x0"] + points["dx"] * np.arange(7), points["y"], strict=True))
    for stamp, value in zip(stamps, values, strict=True):
        np.testing.assert_equal(drawn[stamp], np.float32(value))
    assert np.isnan([drawn[6 * minute], drawn[7 * minute]]).all()


@pytest.mark.parametrize("candles", [True, False])
@pytest.mark.parametrize("stamps", [[0, 1, 1_000_000], [0, 2, 5], [7], []])
def test_irregular_stamps_are_listed(stamps, candles):
    """A page full of holes, or a stamp rounded to a grid that is not there."""
    at = np.array(stamps, dtype=np.int64)
    points = charts._points(at, np.arange(len(at), dtype=np.float64), candles)
    assert points["x"].tolist() == stamps
    assert points["y"].tolist() == list(range(len(at)))


def test_a_day_that_is_not_a_candle_leaves_no_hole():
    """Wealth that vanishes for a day on which nothing could be bet on."""
    days = np.array([3, 4, 5, 8, 9])
    points = charts._points(days, days / 2, candles=False)
    assert points["x"].tolist() == days.tolist()
    assert points["y"].tolist() == (days / 2).tolist()
