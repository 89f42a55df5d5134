"""Evolving the CPPN behind an encoder: one run of NEAT, generation after generation.

NEAT maximises one number, a genome's fitness (`fitness.py`); the front of probe against connections
is kept beside it (`front.py`), and the champion is a point on it.

A run is a pure function of its settings and its data. Its state between two generations is one
JSON document, so that a run killed at any moment resumes to the result it would have had; genes,
species, counters and the generator's state are written out one by one, never pickled. How a
generation is spread over processes or machines is in `workers.py`.

Source: Stanley & Miikkulainen 2002 (NEAT, through neat-python).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cppncripto_strategy.errors import BundleError, TrainingError
from cppncripto_strategy.foreign import read_object, reading, unsealed
from cppncripto_strategy.models.hyperneat.fitness import SILENT, Score
from cppncripto_strategy.models.hyperneat.front import (
    Candidate,
    candidate_from_json,
    candidate_json,
    update_front,
)
from cppncripto_strategy.models.hyperneat.genome import OUTPUTS, Genome
from cppncripto_strategy.models.hyperneat.neat_python import neat_config, neat_random
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, NeatSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate

CHECKPOINT_FORMAT = "cppn-evolution"


@dataclass(frozen=True, slots=True)
class Generation:
    """One line of a run's history."""

    number: int
    best_fitness: float
    median_fitness: float
    best_probe: float
    best_connections: int
    species: int
    silent: int


class Counter(Iterator[int]):
    """`itertools.count` whose next value can be read, and so be written to a checkpoint."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __next__(self) -> int:
        self.value += 1
        return self.value - 1


class Evolution:
    """The state of a run; it lives from the first generation to the last and owns all of it.

    Ask `pending` for the genomes that need a score, and hand the scores to `advance`.
    """

    def __init__(
        self, settings: EvolutionSettings, substrate: Substrate, data_fingerprint: str
    ) -> None:
        from neat.reporting import ReporterSet

        self.settings, self.substrate = settings, substrate
        self.data_fingerprint = data_fingerprint
        self.generation = 0
        self.front: list[Candidate] = []
        self.history: list[Generation] = []
        self._config = neat_config(settings.neat)
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
        self._config.genome_config.node_indexer = Counter(len(OUTPUTS))
        self._config.genome_config.innovation_tracker = self._reproduction.innovation_tracker
        self._population: dict[int, Any] = {}
        self._scores: dict[int, Score] = {}
        self._random_state: tuple[Any, ...] = ()

    @classmethod
    def begin(
        cls, settings: EvolutionSettings, substrate: Substrate, data_fingerprint: str
    ) -> Evolution:
        """A new run, its first generation drawn."""
        run = cls(settings, substrate, data_fingerprint)
        config = run._config
        with neat_random(settings.seed):
            run._population = run._reproduction.create_new(
                config.genome_type, config.genome_config, config.pop_size
            )
            run._species.speciate(config, run._population, 0)
            run._random_state = random.getstate()
        return run

    @property
    def finished(self) -> bool:
        """Whether the last generation has been scored."""
        return self.generation >= self.settings.generations

    @property
    def species(self) -> int:
        """Species alive."""
        return len(self._species.species)

    def pending(self) -> list[Genome]:
        """Genomes of this generation without a score; elites keep the one they have."""
        if self.finished:
            return []
        waiting = (g for key, g in self._population.items() if key not in self._scores)
        return [Genome.from_neat(genome) for genome in waiting]

    def advance(self, scores: Mapping[int, Score]) -> Generation:
        """Take the pending genomes' scores by genome key, then breed the next generation.

        Raises
        ------
        TrainingError
            When a genome of this generation has no score.
        """
        known = {**self._scores, **scores}
        missing = [key for key in self._population if key not in known]
        if missing:
            raise TrainingError(f"generation {self.generation} lacks scores of genomes {missing}")
        # In the population's order: the order in which scores arrive differs from run to run.
        self._scores = {key: known[key] for key in self._population}
        for key, genome in self._population.items():
            genome.fitness = self._scores[key].fitness
            candidate = Candidate(Genome.from_neat(genome), self._scores[key], self.generation)
            self.front = update_front(self.front, candidate)
        line = self._summary()
        self.history.append(line)
        self.generation += 1
        if not self.finished:
            self._breed()
        return line

    def _summary(self) -> Generation:
        scores = [self._scores[key] for key in self._population]
        best = max(scores, key=lambda score: score.fitness)
        return Generation(
            number=self.generation,
            best_fitness=best.fitness,
            median_fitness=median(score.fitness for score in scores),
            best_probe=best.probe,
            best_connections=best.connections,
            species=self.species,
            silent=sum(score.fitness <= SILENT for score in scores),
        )

    def _breed(self) -> None:
        config = self._config
        with neat_random(self._random_state):
            self._population = self._reproduction.reproduce(
                config, self._species, config.pop_size, self.generation - 1
            )
            self._species.speciate(config, self._population, self.generation)
            self._random_state = random.getstate()
        self._scores = {k: s for k, s in self._scores.items() if k in self._population}

    # ------------------------------------------------------------------ checkpoint
    def to_json(self) -> dict[str, Any]:
        """The whole state, as a JSON document that `from_json` reads."""
        return {
            "format": CHECKPOINT_FORMAT,
            "version": 1,
            "settings": asdict(self.settings),
            "substrate": self.substrate.to_json(),
            "data": self.data_fingerprint,
            "generation": self.generation,
            "population": [Genome.from_neat(g).to_json() for g in self._population.values()],
            "scores": {str(key): asdict(score) for key, score in self._scores.items()},
            "species": [self._species_json(s) for s in self._species.species.values()],
            "counters": {
                "genome": self._reproduction.genome_indexer.value,
                "species": self._species.indexer.value,
                "node": self._config.genome_config.node_indexer.value,
                "innovation": self._reproduction.innovation_tracker.global_counter,
            },
            "random": self._random_state,
            "front": [candidate_json(c) for c in self.front],
            "history": [asdict(line) for line in self.history],
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

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Evolution:
        """The run of a document written by `to_json`.

        Raises
        ------
        BundleError
            When the document is no checkpoint, or is incomplete.
        """
        if document.get("format") != CHECKPOINT_FORMAT or document.get("version") != 1:
            raise BundleError(
                f"this is no checkpoint of an evolution: format {document.get('format')!r}, "
                f"version {document.get('version')!r}"
            )
        try:
            return cls._from_json(document)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"the checkpoint of the evolution is incomplete: {error!r}"
            ) from error

    @classmethod
    def _from_json(cls, document: Mapping[str, Any]) -> Evolution:
        raw = dict(document["settings"])
        settings = EvolutionSettings(**{**raw, "neat": NeatSettings(**raw["neat"])})
        run = cls(settings, Substrate.from_json(document["substrate"]), document["data"])
        run.generation = document["generation"]
        run._scores = {int(k): Score(**score) for k, score in document["scores"].items()}
        for plain in document["population"]:
            genome = Genome.from_json(plain).to_neat()
            if genome.key in run._scores:
                genome.fitness = run._scores[genome.key].fitness
            run._population[genome.key] = genome
        for species in document["species"]:
            run._restore_species(species)
        counters = document["counters"]
        run._reproduction.genome_indexer.value = counters["genome"]
        run._species.indexer.value = counters["species"]
        run._config.genome_config.node_indexer.value = counters["node"]
        run._reproduction.innovation_tracker.global_counter = counters["innovation"]
        version, words, gauss_next = document["random"]
        run._random_state = (version, tuple(words), gauss_next)
        run.front = [candidate_from_json(c) for c in document["front"]]
        run.history = [Generation(**line) for line in document["history"]]
        return run

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


def champion_json(run: Evolution, place: int, until_ms: int) -> dict[str, Any]:
    """What a champion.json holds: the genome at this place of the front, and its origin.

    until_ms : close of the last candle that the evolution saw; an encoder with this genome must not
        be scored on earlier ones.
    """
    candidate = run.front[place]
    return {
        "until_ms": until_ms,
        "genome": candidate.genome.to_json(),
        "substrate": run.substrate.to_json(),
        "score": asdict(candidate.score),
        "generation": candidate.generation,
        "settings": asdict(run.settings),
        "data": run.data_fingerprint,
    }


def load_run(
    path: Path, settings: EvolutionSettings, substrate: Substrate, data_fingerprint: str
) -> Evolution:
    """The run that a checkpoint (`foreign.sealed`) holds, if it is of these settings and data.

    Raises
    ------
    BundleError
        When the checkpoint is damaged, or of another run; the message names what differs.
    """
    with reading(path, "checkpoint", BundleError, "Start afresh with --fresh"):
        run = Evolution.from_json(unsealed(read_object(path)))
    found = {
        "settings": (run.settings, settings),
        "substrate": (run.substrate, substrate),
        "candles": (run.data_fingerprint, data_fingerprint),
    }
    differ = [name for name, (old, new) in found.items() if old != new]
    if differ:
        raise BundleError(
            f"the checkpoint {path} is of another evolution: its {' and '.join(differ)} differ. "
            "Give another folder, or start afresh with --fresh"
        )
    return run
