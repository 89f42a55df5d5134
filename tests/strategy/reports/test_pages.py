"""Pages: what they fetch, what they escape, how blocks become HTML."""

from __future__ import annotations

import dataclasses
import re

import pandas as pd
import plotly.graph_objects as go
import pytest
from markupsafe import Markup

from cppncripto_strategy.feeds.history.verify import MonthCoverage
from cppncripto_strategy.reports.blocks import (
    Cards,
    Chart,
    Code,
    Fold,
    Section,
    Table,
)
from cppncripto_strategy.reports.coverage_map import html_map
from cppncripto_strategy.reports.pages import minus, render_section, write_page
from cppncripto_strategy.reports.report import write_report
from cppncripto_strategy.reports.tearsheet import write_tearsheet


def test_requests_finds_what_a_browser_would_fetch(tmp_path, requests_of):
    """Dies here: an offline check that finds nothing because it looks at nothing."""
    page = tmp_path / "page.html"
    page.write_text(
        '<link href="//fonts.example/a.css"><script src="https://cdn.example/p.js"></script>'
        "<style>@import 'x.css'; a{background:url(http://e.example/i.png)}</style>"
        '<a href="https://fine.example">a link is not a request</a>'
    )
    assert len(requests_of(page)) == 4


def test_live_tags_finds_what_a_browser_would_run(tmp_path, live_tags_of, hostile):
    """Dies here: an escaping check that finds nothing because it looks at nothing."""
    page = tmp_path / "page.html"
    for harm in (f"<p>{hostile}</p>", f'<p title="{hostile}">', "<script>alert(1)</script>"):
        page.write_text(f"<html><body>{harm}</body></html>")
        assert live_tags_of(page), harm


def test_every_block_escapes_its_text(tmp_path, hostile, live_tags_of, requests_of):
    """Dies here: one kind of block, or one place of the page, that takes text as HTML."""
    labelled = go.Figure(go.Scatter(x=[1], y=[2], name=hostile))
    everything = [
        hostile,
        Code(hostile),
        Cards([(hostile, hostile)]),
        Table([hostile, hostile], [[hostile, hostile]], text=[1]),
        Fold(hostile, Code(hostile)),
        Chart(labelled, "named", hostile, hostile, scales=True),
        Chart(labelled, hostile),
        pd.DataFrame({hostile: [hostile]}, index=[hostile]),
    ]
    section = Section(hostile, everything, note=hostile, kind=hostile)
    path = tmp_path / "page.html"
    write_page(path, hostile, [section], subtitle=hostile, footer=hostile)
    assert live_tags_of(path) == []
    assert requests_of(path) == []
    assert path.read_text("utf-8").count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15


def test_markup_is_taken_as_it_is():
    """Dies here: a section's own HTML shown as source."""
    assert "<em>mine</em>" in render_section(Section("Own", Markup("<em>mine</em>")))


def test_report_escapes_every_field_from_outside(
    made_run, tmp_path, hostile, live_tags_of, requests_of
):
    """Dies here: an exchange's message, a symbol or a file's name that runs as a script."""
    run = made_run(days=6, symbols=(hostile, "B"))
    fills = run.fills.assign(status="refused", reason=hostile, detail=hostile)
    bad = dataclasses.replace(
        run,
        recipe={"name": hostile, "candles": {"folder": hostile}},
        manifest={"commit": hostile, "created": hostile, hostile: hostile, "files": [hostile]},
        metrics={**run.metrics, "verdict": {"edge": 0, "headline": hostile, "detail": hostile}},
        fills=fills,
        gaps=[{"symbol": hostile, "start_ms": 0, "end_ms": 300_000, "candles": 1}],
        bundles=[{"hash": hostile, "reason": hostile, "valid_from_ms": 0}],
        planted={hostile: hostile},
    )
    path = tmp_path / "report.html"
    write_report(bad, path)
    assert live_tags_of(path) == []
    assert requests_of(path) == []


@pytest.mark.parametrize("days", [3, 40])
def test_tearsheet_escapes_its_title(tmp_path, hostile, days, live_tags_of):
    """Dies here: a recipe's name, which QuantStats takes as HTML."""
    index = pd.date_range("2024-01-01", periods=days)
    returns = pd.Series([0.01, -0.02] * 20, name="return")[:days].set_axis(index)
    path = tmp_path / "tearsheet.html"
    assert write_tearsheet(returns, -returns, path, hostile) == (days > 5)
    assert live_tags_of(path) == []
    page = path.read_text("utf-8")
    # What we add is HTML: joined to a plain string, Markup would escape that string.
    assert page.count("</head>") == 1
    assert "&lt;/head&gt;" not in page


def test_coverage_map_escapes_symbols(tmp_path, hostile, live_tags_of, requests_of):
    """Dies here: a file called `<script>...-5m.parquet` in the candle store."""
    path = tmp_path / "coverage.html"
    html_map({(hostile, "5m"): [MonthCoverage("2024-01", 10, 9, 1)]}, path)
    assert live_tags_of(path) == []
    assert requests_of(path) == []
    assert "&lt;script" in path.read_text("utf-8")


def test_a_browser_is_told_to_ask_no_host(tmp_path):
    """Dies here: a user's section whose picture tells a server who reads the report."""
    path = tmp_path / "page.html"
    write_page(path, "Title", [Section("Words", "only")])
    page = path.read_text("utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "Plotly" not in page


def test_tables_of_pandas_show_words_left_and_holes_as_dashes():
    """Dies here: "nan" shown to a person; words right-aligned as if they were numbers."""
    frame = pd.DataFrame({"symbol": ["BTC", None], "hit": [0.5, float("nan")]})
    (table,) = Section("Own", frame).blocks()
    assert table.head == ["symbol", "hit"]
    assert table.rows == [("BTC", "0.5"), ("–", "–")]
    assert list(table.text) == [0]
    (indexed,) = Section("Own", frame.set_index("symbol")).blocks()
    assert indexed.head == ["symbol", "hit"]


def test_what_no_block_can_show_is_refused_by_name():
    """Dies here: `<object object at 0x...>` on a page."""
    with pytest.raises(TypeError, match="cannot show set"):
        Section("Own", [{1, 2}]).blocks()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-27.41 %", "−27.41 %"),
        ("-3.1 [-5.0, -1.2]", "−3.1 [−5.0, −1.2]"),
        ("2024-01-03 00:00", "2024-01-03 00:00"),
        ("3.7e-23 (-10.3)", "3.7e-23 (−10.3)"),
        ("Diebold-Mariano", "Diebold-Mariano"),
    ],
)
def test_only_the_minus_of_a_number_is_typeset(text, shown):
    """Dies here: dates and exponents with a minus sign in them."""
    assert minus(text) == shown
