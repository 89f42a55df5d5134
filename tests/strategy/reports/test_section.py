"""The seam of report sections: a user's own, from a plugin file, in its place, or failing."""

from __future__ import annotations

import logging
import re

import pytest

from cppncripto_strategy.plugins import load_plugins
from cppncripto_strategy.reports.report import placed, write_report
from cppncripto_strategy.reports.section import BUILT_IN, SECTIONS

HEAD = """
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from cppncripto_strategy.reports.section import SECTIONS, Section
"""
WEEKENDS = """
@SECTIONS.register("weekends")
def weekends(result):
    table = pd.DataFrame({"symbol": ["BTC"], "fills": [len(result.fills)]})
    figure = go.Figure(go.Bar(x=["Sat", "Sun"], y=[1, 2]))
    parts = ["Plain <words>.", table, figure, Markup("<em>by hand</em>")]
    return Section("Trading on weekends", parts, note="My own.", after="accounts")
"""


@pytest.fixture(autouse=True)
def _clean():
    yield
    SECTIONS._registered.clear()


def report_with(run, folder, body):
    path = folder / "mine.py"
    path.write_text(HEAD + body)
    load_plugins([path])
    write_report(run, folder / "report.html")
    return (folder / "report.html").read_text("utf-8")


def titles(page):
    return re.findall("<h2>(.*?)</h2>", page)


def test_a_plugin_file_adds_a_section_where_it_asks(run, tmp_path):
    """A seam that needs a file of ours edited; a section lost at the page's end."""
    page = report_with(run, tmp_path, WEEKENDS)
    found = titles(page)
    assert found[found.index("The accounts") + 1] == "Trading on weekends"
    for part in ("My own.", "Plain &lt;words&gt;.", "<td>40</td>", 'id="weekends-2"'):
        assert part in page
    assert "<em>by hand</em>" in page


def test_built_in_sections_keep_their_order(run, tmp_path):
    """A report whose verdict is no longer first because somebody added a chart."""
    write_report(run, tmp_path / "report.html")
    before = titles((tmp_path / "report.html").read_text("utf-8"))
    after = titles(report_with(run, tmp_path, WEEKENDS))
    assert [title for title in after if title != "Trading on weekends"] == before
    assert before[0] == run.metrics["verdict"]["headline"]
    assert not any("failed" in title for title in before)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return pd.DataFrame()", "it returned DataFrame"),
        ("return Section('Mine', {1})", "cannot show set"),
        ("raise ValueError('<script>alert(1)</script>')", "&lt;script&gt;alert(1)"),
    ],
)
def test_a_failing_section_is_a_note_not_a_lost_run(run, tmp_path, caplog, body, words):
    """Hours of training without a report, for a division by zero in a chart."""
    plugin = f"@SECTIONS.register('mine')\ndef mine(result):\n    {body}\n"
    with caplog.at_level(logging.WARNING):
        page = report_with(run, tmp_path, plugin)
    assert "mine: this section failed" in page
    assert words in page
    assert "Settings and hashes" in page
    assert "report section 'mine' failed" in caplog.text


def test_a_section_with_nothing_to_say_is_left_out(run, tmp_path):
    """An empty box."""
    page = report_with(run, tmp_path, "SECTIONS.register('mute')(lambda result: None)\n")
    assert "mute" not in page[page.index("<body>") :]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, ["verdict", "gaps", "a", "b"]),
        ({"a": "verdict"}, ["verdict", "a", "gaps", "b"]),
        ({"a": "verdict", "b": "verdict"}, ["verdict", "a", "b", "gaps"]),
        ({"a": "b", "b": "verdict"}, ["verdict", "b", "a", "gaps"]),
        ({"gaps": "a"}, ["verdict", "gaps", "a", "b"]),
    ],
)
def test_sections_follow_the_one_they_name(after, expected):
    """Two sections behind one another swapped; a built-in one moved."""
    assert {"verdict", "gaps"} < set(BUILT_IN)
    assert placed(["verdict", "gaps", "a", "b"], after) == expected


@pytest.mark.parametrize("after", [{"a": "nobody"}, {"a": "b", "b": "a"}])
def test_a_place_that_does_not_exist_is_logged(after, caplog):
    """A section that vanishes because of a typo or a circle."""
    assert sorted(placed(["verdict", "a", "b"], after)) == ["a", "b", "verdict"]
    assert "report section" in caplog.text
