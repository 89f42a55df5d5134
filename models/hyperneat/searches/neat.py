"""NEAT: a population in species, bred by fitness; an elite of each keeps its score.

Genes, species, counters and the generator's state are written out one by one, never pickled.

Source: Stanley & Miikkulainen 2002 (through neat-python).
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
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate


class NeatSearch(Search):
    """A population of neat-python's, and what it needs to breed the next."""

    def __init__(self, settings: EvolutionSettings, substrate: Substrate) -> None:
        from neat.reporting import ReporterSet

        super().__init__(settings, substrate)
        self._config = neat_config(settings.neat, substrate.inputs, substrate.outputs)
        self._reporters = ReporterSet()
        stagnation = self._config.stagnation_type(self._config.stagnation_config, self._reporters)
        self._reproduction = self._config.reproduction_type(
            self._config.reproduction_config, self._reporters, stagnation
        )
        self._species = self._config.species_set_type(
            self._config.species_set_config, self._reporters
        )
        self._reproduction.genome_indexer = Counter(1)
        self._species.indexer = Counter(1)
        self._config.genome_config.node_indexer = Counter(substrate.outputs)
        self._config.genome_config.innovation_tracker = self._reproduction.innovation_tracker
        self._population: dict[int, Any] = {}
        self._random_state: tuple[Any, ...] = ()

    def begin(self) -> None:
        """Draw the first generation and sort it into species."""
        config = self._config
        with neat_random(self.settings.seed):
            self._population = self._reproduction.create_new(
                config.genome_type, config.genome_config, config.pop_size
            )
            if self.settings.neat.locality:
                for genome in self._population.values():
                    seed_locality(genome, config.genome_config)
            self._species.speciate(config, self._population, 0)
            self._random_state = random.getstate()

    def genomes(self) -> list[Genome]:
        """The population."""
        return [Genome.from_neat(g, self.substrate.outputs) for g in self._population.values()]

    def breed(self, scores: Mapping[int, Score], archive: Archive, generation: int) -> None:
        """Let the fitter ones of each species reproduce."""
        config = self._config
        for key, genome in self._population.items():
            genome.fitness = scores[key].fitness
        with neat_random(self._random_state):
            self._population = self._reproduction.reproduce(
                config, self._species, config.pop_size, generation - 1
            )
            self._species.speciate(config, self._population, generation)
            self._random_state = random.getstate()

    @property
    def groups(self) -> int:
        """Species alive."""
        return len(self._species.species)

    def to_json(self) -> dict[str, Any]:
        """Population, species, counters and the generator's state."""
        return {
            "population": [genome.to_json() for genome in self.genomes()],
            "species": [self._species_json(s) for s in self._species.species.values()],
            "counters": {
                "genome": self._reproduction.genome_indexer.value,
                "species": self._species.indexer.value,
                "node": self._config.genome_config.node_indexer.value,
                "innovation": self._reproduction.innovation_tracker.global_counter,
            },
            "random": self._random_state,
        }

    @staticmethod
    def _species_json(species: Any) -> dict[str, Any]:
        return {
            "key": species.key,
            "created": species.created,
            "last_improved": species.last_improved,
            "representative": species.representative.key,
            "members": list(species.members),
            "fitness": species.fitness,
            "adjusted_fitness": species.adjusted_fitness,
            "fitness_history": species.fitness_history,
        }

    def restore(self, document: Mapping[str, Any], scores: Mapping[int, Score]) -> None:
        """Take the state of a document; elites get back the scores that they keep."""
        for plain in document["population"]:
            genome = Genome.from_json(plain).to_neat()
            if genome.key in scores:
                genome.fitness = scores[genome.key].fitness
            self._population[genome.key] = genome
        for species in document["species"]:
            self._restore_species(species)
        counters = document["counters"]
        self._reproduction.genome_indexer.value = counters["genome"]
        self._species.indexer.value = counters["species"]
        self._config.genome_config.node_indexer.value = counters["node"]
        self._reproduction.innovation_tracker.global_counter = counters["innovation"]
        version, words, gauss_next = document["random"]
        self._random_state = (version, tuple(words), gauss_next)

    def _restore_species(self, plain: Mapping[str, Any]) -> None:
        from neat.species import Species

        species = Species(plain["key"], plain["created"])
        species.last_improved = plain["last_improved"]
        members = {key: self._population[key] for key in plain["members"]}
        species.update(self._population[plain["representative"]], members)
        species.fitness, species.adjusted_fitness = plain["fitness"], plain["adjusted_fitness"]
        species.fitness_history = list(plain["fitness_history"])
        self._species.species[species.key] = species
        self._species.genome_to_species.update(dict.fromkeys(members, species.key))
