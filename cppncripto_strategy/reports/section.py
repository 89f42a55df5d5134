"""The sections of a run's report: the table of those that exist, open to a user's own.

A section is a function of the run that returns a `Section`, or None where it has nothing to say.
Built-in ones are made the same way and come first, in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cppncripto_strategy.registry import Registry
from cppncripto_strategy.reports.blocks import Section
from cppncripto_strategy.results import RunResult

__all__ = ["BUILT_IN", "SECTIONS", "ReportSection", "Section"]

ReportSection: TypeAlias = Callable[[RunResult], Section | None]

_ROOM = "cppncripto_strategy.reports.sections"
BUILT_IN = {
    "verdict": f"{_ROOM}.verdict:verdict",
    "headline": f"{_ROOM}.verdict:headline",
    "planted": f"{_ROOM}.verdict:planted",
    "evidence": f"{_ROOM}.evidence:evidence",
    "accounts": f"{_ROOM}.accounts:accounts",
    "equity": f"{_ROOM}.accounts:equity",
    "signals": f"{_ROOM}.signals:signals",
    "macro": f"{_ROOM}.macro:macro",
    "luck": f"{_ROOM}.accounts:luck",
    "week": f"{_ROOM}.signals:week",
    "contribution": f"{_ROOM}.macro:contribution",
    "calibration": f"{_ROOM}.signals:calibration",
    "drift": f"{_ROOM}.macro:drift",
    "orders": f"{_ROOM}.record:orders",
    "filters": f"{_ROOM}.record:filters",
    "gaps": f"{_ROOM}.record:gaps",
    "exchange": f"{_ROOM}.record:exchange",
    "crosscheck": f"{_ROOM}.record:crosscheck",
    "bundles": f"{_ROOM}.record:bundles",
    "settings": f"{_ROOM}.record:settings",
}
SECTIONS: Registry[ReportSection] = Registry(
    "report section", "cppncripto_strategy.report_sections", BUILT_IN
)
