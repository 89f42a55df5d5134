"""Charts: thinning loses no extreme, axes say what they show."""

from __future__ import annotations

import dataclasses

import numpy as np
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
