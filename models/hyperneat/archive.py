"""The archive: the best genome of each kind, by what its kernels see (MAP-Elites).

A kind is a cell of a grid over three properties of the painted kernels: how far back they look, at
which period, and through how many connections. Every search fills one, so that the page can show
what it found where; the search "map-elites" breeds from it.

Source: Mouret & Clune 2015 (MAP-Elites). Deviation: fixed edges instead of evenly spaced ones, in
shares of the receptive field and in rows, so that the cells mean the same on any substrate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from cppncripto_strategy.models.hyperneat.fitness import SILENT, Score
from cppncripto_strategy.models.hyperneat.front import (
    Candidate,
    candidate_from_json,
    candidate_json,
)
from cppncripto_strategy.models.hyperneat.substrate import Substrate

Cell = tuple[int, int, int]
REACH_EDGES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Mean age of what is read, in shares of the longest age within the receptive field."""
PERIOD_EDGES = (1e-9, 4.0, 8.0, 16.0, 32.0)
"""Rows per cycle of the strongest frequency; below the first there is none."""
SHARE_EDGES = (0.05, 0.15, 0.4)
"""Connections expressed, in shares of all."""
SHAPE = (len(REACH_EDGES) + 1, len(PERIOD_EDGES) + 1, len(SHARE_EDGES) + 1)
_HOUR_MS = 3_600_000


def cell_of(score: Score, substrate: Substrate) -> Cell:
    """The cell of a genome that was scored on a substrate."""
    row_h = substrate.stride * substrate.interval_ms / _HOUR_MS
    longest = max(substrate.receptive_field - 1, 1) * row_h
    return (
        bisect_right(REACH_EDGES, score.reach_h / longest),
        bisect_right(PERIOD_EDGES, score.period_h / row_h),
        bisect_right(SHARE_EDGES, score.connections / substrate.weights),
    )


class Archive:
    """The fittest genome of every cell that was ever reached; it lives as long as its run."""

    def __init__(self, substrate: Substrate) -> None:
        self._substrate = substrate
        self._cells: dict[Cell, Candidate] = {}

    def add(self, newcomer: Candidate) -> bool:
        """Keep a genome where it beats its cell's; an equal one came too late.

        One that expresses next to nothing is never kept.
        """
        if newcomer.score.fitness <= SILENT:
            return False
        cell = cell_of(newcomer.score, self._substrate)
        old = self._cells.get(cell)
        if old is not None and old.score.fitness >= newcomer.score.fitness:
            return False
        self._cells[cell] = newcomer
        return True

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def cells(self) -> Mapping[Cell, Candidate]:
        """The elites by cell, in the order of the cells."""
        return dict(sorted(self._cells.items()))

    def elites(self, count: int | None = None) -> list[Candidate]:
        """The elites, fittest first; of equals the one whose cell comes first."""
        ordered = sorted(self.cells.values(), key=lambda c: -c.score.fitness)
        return ordered[:count]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values that `from_json` reads."""
        return [candidate_json(candidate) for candidate in self.cells.values()]

    @classmethod
    def from_json(cls, documents: list[Mapping[str, Any]], substrate: Substrate) -> Archive:
        """The archive of documents written by `to_json`. Raises KeyError when they are none."""
        archive = cls(substrate)
        for document in documents:
            archive.add(candidate_from_json(document))
        return archive
