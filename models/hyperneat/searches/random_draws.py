"""Random search: as many genomes as another search would evaluate, and no selection.

It is what any other search has to beat. Every genome has a seed of its own, so that a run's state
is the number of genomes drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cppncripto_strategy.models.hyperneat.archive import Archive
from cppncripto_strategy.models.hyperneat.fitness import Score
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.searches._base import Search

# Genomes of different seeds of a run must not be each other's: more than any run draws.
_SEED_STEP = 10**7


class RandomSearch(Search):
    """Genomes that nothing has selected, a population at a time."""

    _first = 0

    def begin(self) -> None:
        """The first genomes."""
        self._first = 0

    def genomes(self) -> list[Genome]:
        """The next genomes, drawn from their numbers."""
        base = self.settings.seed * _SEED_STEP
        shape = {"inputs": self.substrate.inputs, "outputs": self.substrate.outputs}
        numbers = range(self._first, self._first + self.settings.neat.population)
        return [
            random_genome(base + number, key=number + 1, local=self.settings.neat.locality, **shape)
            for number in numbers
        ]

    def breed(self, scores: Mapping[int, Score], archive: Archive, generation: int) -> None:
        """Go on to the next genomes, whatever the others were worth."""
        self._first = generation * self.settings.neat.population

    def to_json(self) -> dict[str, Any]:
        """How many genomes came before this generation."""
        return {"first": self._first}

    def restore(self, document: Mapping[str, Any], scores: Mapping[int, Score]) -> None:
        """Go on at a number."""
        self._first = int(document["first"])
