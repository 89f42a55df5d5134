"""What every search promises: genomes, generation by generation, as a function of the scores.

A search draws from its own random state alone, and its state between two generations is one JSON
document: a run that was killed resumes to the result it would have had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from cppncripto_strategy.models.hyperneat.archive import Archive
from cppncripto_strategy.models.hyperneat.fitness import Score
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate


class Search(ABC):
    """Base of the searches; each instance serves one run."""

    def __init__(self, settings: EvolutionSettings, substrate: Substrate) -> None:
        self.settings, self.substrate = settings, substrate

    @abstractmethod
    def begin(self) -> None:
        """Draw the first generation."""

    @abstractmethod
    def genomes(self) -> list[Genome]:
        """This generation, in an order that depends on the state alone."""

    @abstractmethod
    def breed(self, scores: Mapping[int, Score], archive: Archive, generation: int) -> None:
        """Make this generation, the first being 0, of the one before.

        Parameters
        ----------
        scores : of the generation before, by genome key.
        archive : the best of every kind so far.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The state, as a JSON document that `restore` reads."""

    @abstractmethod
    def restore(self, document: Mapping[str, Any], scores: Mapping[int, Score]) -> None:
        """Take the state of a document; Raises KeyError, TypeError or ValueError when damaged."""

    @property
    def groups(self) -> int:
        """Species alive; 1 where there are none."""
        return 1


class Counter(Iterator[int]):
    """`itertools.count` whose next value can be read, and so be written to a checkpoint."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __next__(self) -> int:
        self.value += 1
        return self.value - 1
