"""Searching for the CPPN behind an encoder: one run, generation after generation.

A search (`searches`) proposes genomes by one number, their fitness (`fitness.py`). The front of
probe against connections (`front.py`) and the best genome of each kind (`archive.py`) are kept
beside it, whatever the search; the champion is a point on the front.

A run is a pure function of its settings and its data. Its state between two generations is one
JSON document, so that a run killed at any moment resumes to the result it would have had. How a
generation is spread over processes or machines is in `workers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cppncripto_strategy.errors import BundleError, TrainingError
from cppncripto_strategy.foreign import read_object, reading, unsealed
from cppncripto_strategy.models.hyperneat.archive import Archive
from cppncripto_strategy.models.hyperneat.fitness import SILENT, Score
from cppncripto_strategy.models.hyperneat.front import (
    Candidate,
    candidate_from_json,
    candidate_json,
    update_front,
)
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.searches import search_of
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, NeatSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate

CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "cppn-evolution", 2


@dataclass(frozen=True, slots=True)
class Generation:
    """One line of a run's history; `cells` are those that the archive has filled by then."""

    number: int
    best_fitness: float
    median_fitness: float
    best_probe: float
    best_connections: int
    species: int
    silent: int
    cells: int = 0


class Evolution:
    """The state of a run; it lives from the first generation to the last and owns all of it.

    Ask `pending` for the genomes that need a score, and hand the scores to `advance`.
    """

    def __init__(
        self, settings: EvolutionSettings, substrate: Substrate, data_fingerprint: str
    ) -> None:
        self.settings, self.substrate = settings, substrate
        self.data_fingerprint = data_fingerprint
        self.generation = 0
        self.front: list[Candidate] = []
        self.archive = Archive(substrate)
        self.history: list[Generation] = []
        self._search = search_of(settings, substrate)
        self._population: dict[int, Genome] = {}
        self._scores: dict[int, Score] = {}

    @classmethod
    def begin(
        cls, settings: EvolutionSettings, substrate: Substrate, data_fingerprint: str
    ) -> Evolution:
        """A new run, its first generation drawn."""
        run = cls(settings, substrate, data_fingerprint)
        run._search.begin()
        run._take_population()
        return run

    def _take_population(self) -> None:
        self._population = {genome.key: genome for genome in self._search.genomes()}

    @property
    def finished(self) -> bool:
        """Whether the last generation has been scored."""
        return self.generation >= self.settings.generations

    def pending(self) -> list[Genome]:
        """Genomes of this generation without a score; elites keep the one they have."""
        if self.finished:
            return []
        return [genome for key, genome in self._population.items() if key not in self._scores]

    def advance(self, scores: Mapping[int, Score]) -> Generation:
        """Take the pending genomes' scores by genome key, then make the next generation.

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
            candidate = Candidate(genome, self._scores[key], self.generation)
            self.front = update_front(self.front, candidate)
            self.archive.add(candidate)
        line = self._summary()
        self.history.append(line)
        self.generation += 1
        if not self.finished:
            self._search.breed(self._scores, self.archive, self.generation)
            self._take_population()
            self._scores = {k: s for k, s in self._scores.items() if k in self._population}
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
            species=self._search.groups,
            silent=sum(score.fitness <= SILENT for score in scores),
            cells=len(self.archive),
        )

    # ------------------------------------------------------------------ checkpoint
    def to_json(self) -> dict[str, Any]:
        """The whole state, as a JSON document that `from_json` reads."""
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "settings": asdict(self.settings),
            "substrate": self.substrate.to_json(),
            "data": self.data_fingerprint,
            "generation": self.generation,
            "search": self._search.to_json(),
            "scores": {str(key): asdict(score) for key, score in self._scores.items()},
            "front": [candidate_json(c) for c in self.front],
            "archive": self.archive.to_json(),
            "history": [asdict(line) for line in self.history],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Evolution:
        """The run of a document written by `to_json`.

        Raises
        ------
        BundleError
            When the document is no checkpoint, is of another version, or is incomplete.
        """
        found = document.get("format"), document.get("version")
        if found[0] == CHECKPOINT_FORMAT and found[1] == 1:
            raise BundleError(
                "the checkpoint of the evolution has the format of version 1, which knew no kinds "
                f"of search; this one reads {CHECKPOINT_VERSION}. Its champion.json still serves; "
                "to go on searching, start afresh with --fresh"
            )
        if found != (CHECKPOINT_FORMAT, CHECKPOINT_VERSION):
            raise BundleError(
                f"this is no checkpoint of an evolution: format {found[0]!r}, version {found[1]!r}"
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
        run._search.restore(document["search"], run._scores)
        run._take_population()
        run.front = [candidate_from_json(c) for c in document["front"]]
        run.archive = Archive.from_json(document["archive"], run.substrate)
        run.history = [Generation(**line) for line in document["history"]]
        return run


def champion_json(run: Evolution, chosen: Sequence[Candidate], until_ms: int) -> dict[str, Any]:
    """What a champion.json holds: the genome, and its origin.

    Parameters
    ----------
    chosen : the champion; the score of the first is given, and the others are its `bank`, which
        share out the vector with it.
    until_ms : close of the last candle that the evolution saw; an encoder with this genome must not
        be scored on earlier ones.
    """
    candidate, *others = chosen
    bank = {"bank": [other.genome.to_json() for other in others]} if others else {}
    return {
        "until_ms": until_ms,
        "genome": candidate.genome.to_json(),
        **bank,
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
