"""The front of probe against connections, an archive that selection never reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cppncripto_strategy.models.hyperneat.fitness import SILENT, Score
from cppncripto_strategy.models.hyperneat.genome import Genome


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genome on the front, its score and the generation it was first seen in."""

    genome: Genome
    score: Score
    generation: int


def update_front(front: Sequence[Candidate], newcomer: Candidate) -> list[Candidate]:
    """The front with a newcomer: by connections ascending, which is by probe ascending too.

    A newcomer that equals a point in both numbers is left out: the earlier one stays.
    """
    new = newcomer.score
    if new.fitness <= SILENT:
        return list(front)
    for old in front:
        if old.score.connections <= new.connections and old.score.probe >= new.probe:
            return list(front)
    kept = [
        old
        for old in front
        if not (old.score.connections >= new.connections and old.score.probe <= new.probe)
    ]
    return sorted([*kept, newcomer], key=lambda c: c.score.connections)


def knee(front: Sequence[Candidate], weights: int) -> int:
    """Place of the front's knee: the point farthest above the line from nothing to everything.

    The line runs from no connections and a probe of 0 to all `weights` connections and the front's
    best probe. (Drawn between the ends of the front instead, it makes a knee of the first useless
    genome that is a little less bad than another.) Where no probe is above 0, the last.
    """
    best = front[-1].score.probe
    if best <= 0:
        return len(front) - 1
    above = [c.score.probe / best - c.score.connections / weights for c in front]
    return above.index(max(above))


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """Plain values that `candidate_from_json` reads."""
    return {
        "genome": candidate.genome.to_json(),
        "score": asdict(candidate.score),
        "generation": candidate.generation,
    }


def candidate_from_json(document: Mapping[str, Any]) -> Candidate:
    """The candidate of a document written by `candidate_json`. Raises KeyError when it is none."""
    return Candidate(
        Genome.from_json(document["genome"]), Score(**document["score"]), document["generation"]
    )
