"""A search in words and tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.reports.values import number, percent
from cppncripto_strategy.tuning.found import Found
from cppncripto_strategy.tuning.measures import MEASURES, StepResult, all_values

_SHARES = ("hit_margin", "drawdown")


def measure_text(name: str, value: float | None) -> str:
    """A measure as a reader takes it in."""
    return percent(value, 2) if name in _SHARES else number(value, 4 if name == "log_loss" else 2)


def how_far(found: Found) -> str:
    """Trials by state, and how long it took."""
    pulse = found.pulse
    parts = [f"{pulse.complete} judged to the end", f"{pulse.pruned} pruned"]
    parts += [f"{pulse.failed} failed"] if pulse.failed else []
    parts += [f"{pulse.running} running elsewhere or lost"] if pulse.running else []
    text = f"{pulse.done} of {pulse.total} trials: {', '.join(parts)}."
    if found.interrupted is not None:
        text += " The search was stopped; the same command resumes it."
    return text


def windows_text(found: Found) -> str:
    """What candidates were judged on."""
    plan = found.plan
    first, last = plan.windows[0], plan.windows[-1]
    days = (first.end_ms - first.start_ms) // 86_400_000
    seeds = plan.search.seeds
    under = f", each under {seeds} seeds" if seeds > 1 else ""
    return (
        f"{len(plan.windows)} inner windows of {days} days, {ms_to_date(first.start_ms)} to"
        f" {ms_to_date(last.end_ms)}{under}; sealed: {ms_to_date(plan.sealed.start_ms)} to"
        f" {ms_to_date(plan.sealed.end_ms)}"
    )


def compared(found: Found) -> tuple[list[str], list[list[str]]]:
    """Head and rows: every measure of the chosen and the untuned recipe, inside and sealed."""
    best = found.best
    columns: list[tuple[str, Sequence[StepResult]]] = []
    if best is not None:
        columns.append(("chosen, inner windows", best.steps))
    columns.append(("untuned, inner windows", found.untuned))
    if found.sealed is not None:
        columns.append(("chosen, sealed days", found.sealed.chosen))
        columns.append(("untuned, sealed days", found.sealed.untuned))
    values = [all_values(steps) for _, steps in columns]
    rows = [
        [m.title, *(measure_text(name, column[name]) for column in values)]
        for name, m in MEASURES.items()
    ]
    return ["", *(name for name, _ in columns)], rows


def to_adopt(found: Found) -> str:
    """How to write the chosen recipe."""
    best = found.best
    return (
        "" if best is None else f"its recipe as a file: the same command with --adopt {best.number}"
    )
