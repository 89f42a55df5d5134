"""Candles that come where candles are already: what differs, and which are kept.

A null never replaces a value: a source without trade counts says nothing about them. Nothing here
reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import BoolArray
from cppncripto_strategy.feeds.candles import COLUMNS, NULLABLE_COLUMNS, Candles, merge
from cppncripto_strategy.feeds.clock import ms_to_utc


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """One column's differences: how many rows, the largest one relative to the stored value, when.

    Rows whose stored value is null or 0 have no size; `largest` is None where no row has one.
    """

    column: str
    rows: int
    largest: float | None
    open_time: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """Candles that are both stored and new: how many, how many differ, and in what."""

    rows: int = 0
    differing: int = 0
    columns: tuple[ColumnDifference, ...] = ()

    def __str__(self) -> str:
        if not self.rows:
            return "none of them was stored before"
        if not self.differing:
            return f"{self.rows:,} of them were stored already, and are the same"
        parts = ", ".join(
            f"{c.column} in {c.rows:,}"
            + (
                f" (by {c.largest:.3g} of its value at most, {ms_to_utc(c.open_time)})"
                if c.largest is not None
                else ""
            )
            for c in self.columns
        )
        stored = f"{self.rows:,} of them were stored already"
        return f"{stored}, of which {self.differing:,} differ: {parts}"


def fill(stored: Candles, newer: Candles) -> Candles:
    """`newer`, with stored values where it has nulls and a stored candle has none."""
    mine, theirs = _shared(stored, newer)
    columns: dict[str, object] = {}
    for name in NULLABLE_COLUMNS:
        values = getattr(newer, name).copy()
        old = getattr(stored, name)[mine]
        values[theirs] = np.where(np.isnan(values[theirs]), old, values[theirs])
        columns[name] = values
    return newer.replace(**columns)


def merge_filled(stored: Candles, newer: Candles) -> Candles:
    """Union by open time; where both have a candle `newer` wins, but for its nulls."""
    return merge(stored, fill(stored, newer))


def changed_rows(stored: Candles, newer: Candles) -> BoolArray:
    """Rows of `newer` (N,) that would add something: a candle, or another value; not a null."""
    mine, theirs = _shared(stored, newer)
    changed = np.ones(len(newer), dtype=np.bool_)
    changed[theirs] = False
    for _, differs in _differences(stored[mine], newer[theirs]):
        changed[theirs] |= differs
    return changed


def compare(stored: Candles, newer: Candles) -> Overlap:
    """What is in both, and how it differs; nulls of `newer` do not count."""
    mine, theirs = _shared(stored, newer)
    old, new = stored[mine], newer[theirs]
    any_differs = np.zeros(len(old), dtype=np.bool_)
    columns = []
    for name, differs in _differences(old, new):
        any_differs |= differs
        if differs.any():
            columns.append(_column(name, differs, old, new))
    return Overlap(len(old), int(any_differs.sum()), tuple(columns))


def total(overlaps: Iterable[Overlap]) -> Overlap:
    """Several overlaps as one."""
    listed = list(overlaps)
    columns: dict[str, ColumnDifference] = {}
    for part in (column for overlap in listed for column in overlap.columns):
        known = columns.get(part.column, part)
        largest = max((known, part), key=lambda c: c.largest or -1.0)
        rows = part.rows + (known.rows if part.column in columns else 0)
        columns[part.column] = ColumnDifference(
            part.column, rows, largest.largest, largest.open_time
        )
    rows, differing = (sum(getattr(o, name) for o in listed) for name in ("rows", "differing"))
    return Overlap(rows, differing, tuple(columns.values()))


def _shared(stored: Candles, newer: Candles) -> tuple[np.ndarray, np.ndarray]:
    """Positions in both of the open times that both have."""
    _, mine, theirs = np.intersect1d(stored.open_time, newer.open_time, True, True)
    return mine, theirs


def _differences(old: Candles, new: Candles) -> Iterable[tuple[str, BoolArray]]:
    for name in COLUMNS[1:]:
        values = getattr(new, name)
        yield name, (values != getattr(old, name)) & ~np.isnan(values)


def _column(name: str, differs: BoolArray, old: Candles, new: Candles) -> ColumnDifference:
    before, after = getattr(old, name)[differs], getattr(new, name)[differs]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(after - before) / np.abs(before)
    sized = np.where(np.isfinite(relative), relative, -1.0)
    row = int(np.argmax(sized))
    largest = float(relative[row]) if sized[row] >= 0 else None
    return ColumnDifference(name, int(differs.sum()), largest, int(old.open_time[differs][row]))
