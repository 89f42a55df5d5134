"""The report page of a run: its sections in order, those of users among them, on one page.

A section that fails is named on the page, and logged: a chart that cannot be drawn costs no run.
What the sections say is in `sections/`; the terminal's summary is `terminal.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.reports.blocks import Section
from cppncripto_strategy.reports.pages import render_section, write_page
from cppncripto_strategy.reports.section import BUILT_IN, SECTIONS
from cppncripto_strategy.results import RunResult

logger = logging.getLogger(__name__)


def write_report(result: RunResult, path: Path) -> None:
    """Write report.html: verdict, tables and charts of one run, self-contained.

    Every registered report section is asked; built-in ones come in their own order, a user's behind
    the section they name (`Section.after`), or at the end.
    """
    name = str(result.recipe.get("name") or result.manifest.get("recipe") or "run")
    ready: dict[str, tuple[str, Markup]] = {}
    for key in SECTIONS.names():
        made = _made(key, result)
        if made is not None:
            ready[key] = made
    order = placed(SECTIONS.names(), {key: after for key, (after, _) in ready.items() if after})
    sections = [ready[key][1] for key in order if key in ready]
    write_page(path, f"Report: {name}", sections, subtitle=span(result), footer=_footer(result))


def span(result: RunResult) -> str:
    """Symbols, first and last traded candle and days of a run, in one line."""
    account = result.metrics["strategy"]
    symbols = ", ".join(map(str, pd.unique(result.signals["symbol"])))
    if account["start_ms"] is None:
        return symbols
    times = f"{ms_to_utc(account['start_ms'])} to {ms_to_utc(account['end_ms'])} UTC"
    return f"{symbols} · {times} · {account['days']:.0f} days out of sample"


def placed(names: Sequence[str], after: Mapping[str, str]) -> list[str]:
    """The names in the order of the page.

    Parameters
    ----------
    names : in the order of registration, the built-in ones first.
    after : name -> the name it follows. An unknown one, or a circle, is logged, and the section
        goes to the end. Built-in sections stay where they are.
    """
    known, followers = set(names), dict[str, list[str]]()
    for name in names:
        anchor = "" if name in BUILT_IN else after.get(name, "")
        if anchor and anchor not in known:
            logger.warning(
                "report section %r follows %r, which is none of: %s",
                name,
                anchor,
                ", ".join(other for other in names if other != name),
            )
            anchor = ""
        followers.setdefault(anchor, []).append(name)
    order: list[str] = []

    def place(name: str) -> None:
        order.append(name)
        for follower in followers.get(name, ()):
            place(follower)

    for name in followers.get("", ()):
        place(name)
    circle = [name for name in names if name not in order]
    if circle:
        logger.warning("report sections follow each other in a circle: %s", ", ".join(circle))
    return order + circle


def _made(key: str, result: RunResult) -> tuple[str, Markup] | None:
    """A section's anchor and HTML, or a note that names its failure; None where it is silent."""
    try:
        section: object = SECTIONS.get(key)(result)
        if section is None:
            return None
        if not isinstance(section, Section):
            found = type(section).__name__
            raise TypeError(f"it returned {found}; a section returns a Section or None")
        return section.after, render_section(section, key)
    except Exception as cause:  # anybody's code: whatever it raises, the run's results stand
        logger.warning("report section %r failed", key, exc_info=True)
        words = f"{type(cause).__name__}: {cause}"
        return "", render_section(Section(f"{key}: this section failed", words, kind="failed"))


def _footer(result: RunResult) -> str:
    parts = [
        f"{key} {result.manifest[key]}" for key in ("created", "commit") if result.manifest.get(key)
    ]
    return " · ".join(["All times UTC", "365 days a year", *parts])
