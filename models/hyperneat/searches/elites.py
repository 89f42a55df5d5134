"""MAP-Elites: children of the best genome of each kind, so that kinds do not crowd each other out.

The first generation is drawn at random; from then on each child is a mutated copy of an elite,
drawn from the archive with equal chances. Left out: crossover, and a model of where to look next.

Source: Mouret & Clune 2015. Deviation: a generation is evaluated at once, so that it can be spread
over machines; elites change between generations.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from cppncripto_strategy.models.hyperneat.archive import Archive
from cppncripto_strategy.models.hyperneat.fitness import Score
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import neat_config, neat_random, seed_locality
from cppncripto_strategy.models.hyperneat.searches._base import Counter, Search

# A random genome's mutations, as many as `random_genome` has.
_FIRST_MUTATIONS = 20
# Mutations of a child: one step, or several at once to leave a cell.
_CHILD_MUTATIONS = (1, 1, 2, 4)


class EliteSearch(Search):
    """Mutated copies of an archive's elites."""

    _population: list[Genome]
    _random_state: tuple[Any, ...]

    def begin(self) -> None:
        """Draw the first generation."""
        self._prepare()
        with neat_random(self.settings.seed):
            self._population = [self._drawn() for _ in range(self.settings.neat.population)]
            self._random_state = random.getstate()

    def _prepare(self) -> None:
        from neat.innovation import InnovationTracker

        shape = self.substrate.inputs, self.substrate.outputs
        self._config = neat_config(self.settings.neat, *shape).genome_config
        self._config.innovation_tracker = InnovationTracker()
        self._config.node_indexer = Counter(self.substrate.outputs)
        self._keys = Counter(1)

    def _drawn(self) -> Genome:
        from neat.genome import DefaultGenome

        genome = DefaultGenome(next(self._keys))
        genome.configure_new(self._config)
        if self.settings.neat.locality:
            seed_locality(genome, self._config)
        return self._mutated(genome, _FIRST_MUTATIONS)

    def _mutated(self, genome: Any, times: int) -> Genome:
        for _ in range(times):
            genome.mutate(self._config)
        return Genome.from_neat(genome, self.substrate.outputs)

    def genomes(self) -> list[Genome]:
        """The children of this generation."""
        return list(self._population)

    def breed(self, scores: Mapping[int, Score], archive: Archive, generation: int) -> None:
        """Children of the elites; drawn at random while there is none."""
        parents = [elite.genome for elite in archive.cells.values()]
        self._config.innovation_tracker.reset_generation()
        with neat_random(self._random_state):
            self._population = [
                self._child(random.choice(parents)) if parents else self._drawn()
                for _ in range(self.settings.neat.population)
            ]
            self._random_state = random.getstate()

    def _child(self, parent: Genome) -> Genome:
        genome = parent.to_neat()
        genome.key = next(self._keys)
        return self._mutated(genome, random.choice(_CHILD_MUTATIONS))

    def to_json(self) -> dict[str, Any]:
        """The children, the counters and the generator's state."""
        return {
            "population": [genome.to_json() for genome in self._population],
            "counters": {
                "genome": self._keys.value,
                "node": self._config.node_indexer.value,
                "innovation": self._config.innovation_tracker.global_counter,
            },
            "random": self._random_state,
        }

    def restore(self, document: Mapping[str, Any], scores: Mapping[int, Score]) -> None:
        """Take the state of a document."""
        self._prepare()
        self._population = [Genome.from_json(plain) for plain in document["population"]]
        counters = document["counters"]
        self._keys.value = counters["genome"]
        self._config.node_indexer.value = counters["node"]
        self._config.innovation_tracker.global_counter = counters["innovation"]
        version, words, gauss_next = document["random"]
        self._random_state = (version, tuple(words), gauss_next)
