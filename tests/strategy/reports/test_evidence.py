"""The section "Evidence": in words first, both accounts, each bet, a wealth on a log axis."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from cppncripto_strategy.evaluation.evidence_summary import evidence_summary, sentence, short
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.reports import charts
from cppncripto_strategy.reports.report import write_report
from cppncripto_strategy.reports.sections.evidence import evidence, waiting_words

START_MS = utc_to_ms("2024-01-01")


def table(wealth, opened, name="account", needed=20.0):
    return pd.DataFrame(
        {
            "bet": name,
            "session_ms": [START_MS + day * DAY_MS for day in range(len(wealth))],
            "signals": 5,
            "crossed": 1,
            "incomplete": 0,
            "mean_net_bps": 10.0,
            "stake": 0.2,
            "wealth": wealth,
            "closing": 0.0,
            "open": opened,
            "needed": needed,
        }
    )


NEVER = table([1.0, 0.7, 0.43], [0, 0, 0])
OPEN = table([1.0, 21.0, 143.2], [0, 1, 1])
GONE = table([1.0, 21.0, 6.0], [0, 1, 0])


@pytest.mark.parametrize(
    ("rows", "rule", "expected"),
    [
        (
            NEVER,
            "wait",
            "Evidence: not enough yet: a test bet of 1 on the signals stands at 0.43, and 20 is"
            " enough; the account stayed in cash.",
        ),
        (
            NEVER,
            "trade",
            "Evidence: not enough yet: a test bet of 1 on the signals stands at 0.43, and 20 is"
            " enough; the account traded without it.",
        ),
        (
            OPEN,
            "wait",
            "Evidence: enough since 2024-01-03: a test bet of 1 on the signals stands at 143, and"
            " 20 is enough; the account traded from 2024-01-03 on.",
        ),
        (
            GONE,
            "wait",
            "Evidence: enough on 2024-01-03, when a test bet of 1 on the signals reached 20, and"
            " gone on 2024-01-04; the account sent no entry from then on.",
        ),
        (
            pd.concat(
                [table([1.0, 400.0], [0, 1], "A", 40.0), table([1.0, 2.0], [0, 0], "B", 40.0)]
            ),
            "wait",
            "Evidence: enough for 1 of 2 symbols, where a test bet of 1 on the signals has to reach"
            " 40; the highest was A with 400; the others stayed in cash.",
        ),
    ],
)
def test_the_evidence_in_one_sentence(rows, rule, expected):
    """A sentence that says more, or less, than the numbers."""
    assert evidence_summary(rows, rule)["sentence"] == expected


def test_a_run_without_signals_says_so():
    """A run that waits for what never comes, without a word."""
    found = evidence_summary(NEVER.iloc[:0], "wait")
    assert found["bets"] == []
    assert found["open"] is False
    assert sentence([], "wait").startswith("Evidence: none, no signal's outcome was known")


def test_wealth_is_short_and_not_rounded_to_nothing():
    """0.0 for a wealth that is not 0."""
    assert [short(w) for w in (0.0042, 0.4321, 9.96, 1249.7)] == ["0.0042", "0.43", "10", "1,250"]


@pytest.mark.parametrize(
    ("waited", "traded", "expected"),
    [
        (10_000.0, 7_260.0, "Waiting saved 2,740.00"),
        (29_000.0, 43_000.0, "Waiting cost 14,000.00"),
        (10_000.0, 10_000.0, "Waiting changed nothing"),
        (None, 10_000.0, "is not defined"),
    ],
)
def test_what_waiting_meant_in_words(waited, traded, expected):
    """A gain called a cost."""
    accounts = [{"final_equity": end, "total_return": 0.0} for end in (waited, traded)]
    assert expected in waiting_words(*accounts)


def with_evidence(run, rows, rule="wait"):
    other = run.metrics["strategy"]
    metrics = {**run.metrics, "evidence": evidence_summary(rows, rule, other)}
    return dataclasses.replace(run, metrics=metrics, evidence=rows)


def test_the_section_begins_with_words_and_holds_both_accounts(run):
    """A chart that a reader has to interpret alone."""
    section = evidence(with_evidence(run, OPEN))
    assert section is not None
    assert section.content[0].startswith("Evidence: enough since 2024-01-03")
    heads = [list(block.head) for block in section.blocks() if block.kind == "table"]
    assert heads[0] == ["", "Waited for evidence", "Traded all the same"]
    (row,) = section.blocks()[3].rows
    assert row[-2:] == ["opened 2024-01-03", "3 beyond midnight, 0 incomplete"]


def test_the_wealth_is_drawn_on_a_log_axis_with_what_is_needed():
    """A curve from 1 to 10,000 on which nothing before the end is seen."""
    figure = charts.evidence_figure(GONE)
    assert figure.layout.yaxis.type == "log"
    assert list(figure.data[0].y) == GONE["wealth"].tolist()
    assert list(figure.data[1].y) == [20.0, 20.0]
    (shade,) = figure.layout.shapes
    assert (shade.x0, shade.x1) == (START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS)


def test_the_page_has_the_section(run, tmp_path):
    """A section that nobody shows."""
    write_report(with_evidence(run, OPEN), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Evidence: enough since 2024-01-03" in page
    assert "this section failed" not in page


def test_a_run_that_counted_none_has_no_section(run):
    """An empty frame on the pages of older runs."""
    assert evidence(run) is None
