"""Spreading a generation over processes or machines (`spreading.crew`).

Scores do not depend on where they are computed or in which order they arrive, so every backend
gives the same run. A worker that dies takes nothing with it: the genomes that have no score yet are
evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeAlias

import torch

from cppncripto_strategy.models.hyperneat.fitness import ProbeData, Score, evaluate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.spreading.crew import Crew, crew
from cppncripto_strategy.spreading.spread import Spread

OnScore = Callable[[int, Score], None]
Job: TypeAlias = tuple[Substrate, ProbeData, EvolutionSettings]


class Evaluator(Protocol):
    """Scores genomes by key; `on_score` hears of each as it arrives."""

    def __call__(
        self, genomes: Sequence[Genome], on_score: OnScore | None = None
    ) -> dict[int, Score]: ...


@contextmanager
def evaluator(
    spread: Spread, substrate: Substrate, data: ProbeData, settings: EvolutionSettings
) -> Iterator[Evaluator]:
    """A function that scores genomes by key; connections to other machines live as long as this.

    Raises
    ------
    RecipeError
        When the backend is not installed or does not answer.
    TrainingError
        From the function: when workers keep dying, or an evaluation itself fails.
    """
    with crew(spread, _evaluate, (substrate, data, settings)) as workers:
        yield partial(_scores, workers)


def _evaluate(job: Job, genome: Genome) -> Score:
    torch.set_num_threads(1)  # in a worker of its own the cores are shared out already
    return evaluate(genome, *job)


def _scores(
    workers: Crew, genomes: Sequence[Genome], on_score: OnScore | None = None
) -> dict[int, Score]:
    for genome in genomes:
        workers.submit(genome.key, genome)
    scores: dict[int, Score] = {}
    while workers.busy:
        key, scores[key] = workers.completed()
        if on_score is not None:
            on_score(key, scores[key])
    return scores
