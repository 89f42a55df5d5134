"""The summary of a run in the terminal: the compared accounts, the signals, the verdict.

Every row of a table fits into 80 columns without wrapping, so that the numbers stay below each
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cppncripto_strategy.reports.report import span
from cppncripto_strategy.reports.sections.accounts import account_table
from cppncripto_strategy.reports.sections.signals import SIDES
from cppncripto_strategy.reports.values import (
    MISSING,
    anything,
    bounds,
    filters_line,
    interval,
    percent,
    whole,
    words,
)
from cppncripto_strategy.results import RunResult

# Longer than this a planted fact is a sentence, not a value.
SENTENCE = 40


def terminal_summary(result: RunResult) -> RenderableType:
    """The verdict and the tables it rests on."""
    verdict = result.metrics["verdict"]
    parts: list[RenderableType] = [_accounts(result), _signals(result.metrics["signals"])]
    if result.planted:
        parts.append(_planted(result.planted))
    luck = result.metrics.get("statistics")
    if luck and luck["deflated_sharpe"] is not None:
        alike = f"{luck['trials']} trials, about {luck['effective_trials']} of them independent"
        tried = "1 trial" if luck["trials"] == 1 else alike
        sure = f"{percent(luck['deflated_sharpe'], 1)} sure after {tried}"
        parts.append(Text(f"Sharpe ratio above 0: {sure}", style="dim"))
    if result.filters:
        parts.append(_filters(result.filters))
    colour = "green" if verdict["edge"] else "yellow"
    parts.append(Text(verdict["headline"], style=f"bold {colour}"))
    return Group(*parts, Text(verdict["detail"]))


def _titled(title: str, table: Table) -> RenderableType:
    """A table under its title; a title of its own would wrap where the table is narrow."""
    return Group(Text(title, style="dim"), table)


def _table(*head: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=bool(head))
    table.add_column("", no_wrap=True)
    for heading in head:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _accounts(result: RunResult) -> RenderableType:
    shown = account_table(result)
    table = _table(*shown.head[1:])
    for row in shown.rows:
        table.add_row(*row)
    return _titled(span(result), table)


def _signals(quality: Mapping[str, Any]) -> RenderableType:
    parts = [quality[side] for side in SIDES]
    columns = [
        SIDES,
        [whole(part["signals"]) for part in parts],
        _aligned([part["hit_ratio"] for part in parts], 100, " %"),
        [percent(part["break_even_hit_ratio"], 1) for part in parts],
        _aligned([part["net_return_bps"] for part in parts], 1, ""),
    ]
    table = _table("Count", "Hit ratio", "Break-even", "Net, bps per signal")
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    horizon = quality["horizon"]
    return _titled(f"Signals, judged {horizon} candles later; brackets: 95 % intervals", table)


def _aligned(estimates: Sequence[Mapping[str, Any]], scale: float, unit: str) -> list[str]:
    """Estimates with their brackets, the numbers below each other."""
    values = [interval({**each, "low": None}, scale, unit) for each in estimates]
    brackets = [bounds(each, scale).replace(MISSING, "") for each in estimates]
    width = max(map(len, brackets))
    return [f"{value} {end:>{width}}".rstrip() for value, end in zip(values, brackets, strict=True)]


def _planted(planted: Mapping[str, Any]) -> RenderableType:
    """Facts with a common beginning ("hit at setups, ...") stand below it, indented."""
    facts = {words(key): anything(value, key) for key, value in planted.items()}
    sentences = [value for value in facts.values() if len(value) > SENTENCE]
    short = {label: value for label, value in facts.items() if len(value) <= SENTENCE}
    stems = Counter(_stem(label) for label in short)
    table = _table()
    above = ""
    for label, value in short.items():
        stem = _stem(label) if stems[_stem(label)] > 1 else ""
        if stem and stem != above:
            table.add_row(stem)
        above = stem
        table.add_row(f"  {label[len(stem) + 2 :]}" if stem else label, value)
    return _titled(". ".join(["Planted market", *map(words, sentences)]), table)


def _filters(filters: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One line per symbol: step, tick, minimum notional, and where they came from."""
    lines = [filters_line(rules["symbol"], rules) for rules in filters]
    return Text("\n".join(["Exchange rules", *lines]), style="dim")


def _stem(label: str) -> str:
    """What stands before the first comma, "" without one."""
    return label.partition(", ")[0] if ", " in label else ""
