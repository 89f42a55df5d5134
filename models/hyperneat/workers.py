"""Spreading a generation over processes or machines, with joblib.

Scores do not depend on where they are computed or in which order they arrive, so every backend
gives the same run. A worker that dies takes nothing with it: the genomes that have no score yet are
evaluated again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any, Literal, Protocol, get_args

import torch

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.models.hyperneat.fitness import ProbeData, Score, evaluate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate

log = logging.getLogger(__name__)

BackendName = Literal["processes", "dask", "ray", "none"]
# Rounds in a row that may end without a single new score before the run gives up.
_FRUITLESS_ROUNDS = 3
_WATCH_S = 2.0
_RAY_BATCH = 16
_INSTALL = {
    "dask": "pip install 'cppncripto-strategy[dask]'",
    "ray": "pip install 'cppncripto-strategy[ray]'",
}

# By name, because naming the classes would import backends that are not installed.
_LOST_WORKER = {
    "BrokenExecutor",  # concurrent.futures and loky
    "KilledWorker",  # distributed, after several deaths
    "FutureCancelledError",
    "CancelledError",
    "CommClosedError",
    "WorkerCrashedError",  # ray
    "RayActorError",
}

OnScore = Callable[[int, Score], None]
Job = tuple[Substrate, ProbeData, EvolutionSettings]


class Evaluator(Protocol):
    """Scores genomes by key; `on_score` hears of each as it arrives."""

    def __call__(
        self, genomes: Sequence[Genome], on_score: OnScore | None = None
    ) -> dict[int, Score]: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """Where genomes are evaluated.

    Parameters
    ----------
    backend : "processes" (joblib's loky, on this machine), "dask", "ray", or "none" (here).
    workers : processes, or tasks in flight; 0 for one per core, or for all that dask or ray has.
    scheduler : address of a Dask scheduler ("tcp://host:8786") or a Ray cluster; needed by dask.
    """

    backend: BackendName = "processes"
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in get_args(BackendName):
            known = ", ".join(get_args(BackendName))
            raise RecipeError(f"backend {self.backend!r} is unknown; there are: {known}")
        if self.backend == "dask" and not self.scheduler:
            raise RecipeError(
                "backend dask needs the address of a scheduler: --scheduler tcp://..."
            )


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
    job = (substrate, data, settings)
    if spread.backend == "none":
        yield partial(_here, job)
        return
    with _backend(spread, data) as options:
        yield partial(_spread, job, options)


def _here(job: Job, genomes: Sequence[Genome], on_score: OnScore | None = None) -> dict[int, Score]:
    scores: dict[int, Score] = {}
    for genome in genomes:
        key, scores[genome.key] = _evaluate(genome, *job)
        if on_score is not None:
            on_score(key, scores[key])
    return scores


def _evaluate(
    genome: Genome, substrate: Substrate, data: ProbeData, settings: EvolutionSettings
) -> tuple[int, Score]:
    return genome.key, evaluate(genome, substrate, data, settings)


def _evaluate_apart(
    master: int | None,
    genome: Genome,
    substrate: Substrate,
    data: ProbeData,
    settings: EvolutionSettings,
) -> tuple[int, Score]:
    """As `_evaluate`, in a worker of its own: the cores are shared out already."""
    torch.set_num_threads(1)
    if master is not None:
        _end_with(master)
    return _evaluate(genome, substrate, data, settings)


@cache
def _end_with(master: int) -> None:
    """End this worker process once its master is gone: loky's would always wait for it."""

    def watch() -> None:
        while os.getppid() == master:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _spread(
    job: Job,
    options: dict[str, Any],
    genomes: Sequence[Genome],
    on_score: OnScore | None = None,
) -> dict[int, Score]:
    """Evaluate until every genome has a score, round after round if workers are lost."""
    scores: dict[int, Score] = {}
    fruitless = 0
    while missing := [genome for genome in genomes if genome.key not in scores]:
        before = len(scores)
        try:
            for key, score in _round(missing, job, options):
                scores[key] = score
                if on_score is not None:
                    on_score(key, score)
        except Exception as error:
            if not _is_lost_worker(error):
                raise
            fruitless = fruitless + 1 if len(scores) == before else 0
            log.warning(
                "a worker was lost (%s); %d of %d genomes are evaluated again",
                type(error).__name__,
                len(genomes) - len(scores),
                len(genomes),
            )
            if fruitless >= _FRUITLESS_ROUNDS:
                raise TrainingError(
                    f"workers died {fruitless} times in a row without one score: they may lack "
                    "memory, or this package; try fewer workers or --backend none"
                ) from error
    return scores


def _round(
    genomes: Sequence[Genome], job: Job, options: dict[str, Any]
) -> Iterator[tuple[int, Score]]:
    import joblib

    master = os.getpid() if options.get("backend") == "loky" else None
    tasks = (joblib.delayed(_evaluate_apart)(master, genome, *job) for genome in genomes)
    if options.get("backend") != "ray":
        yield from joblib.Parallel(return_as="generator_unordered", **options)(tasks)
        return
    # Ray's backend returns nothing before everything: batches, so that few are lost with a worker.
    while batch := list(islice(tasks, _RAY_BATCH)):
        yield from joblib.Parallel(**options)(batch)


def _is_lost_worker(error: BaseException) -> bool:
    """Whether the error says that a worker went away, in any backend's words."""
    return any(kind.__name__ in _LOST_WORKER for kind in type(error).__mro__)


@contextmanager
def _backend(spread: Spread, data: ProbeData) -> Iterator[dict[str, Any]]:
    """Options for `joblib.Parallel`, with the backend connected."""
    if spread.backend == "processes":
        yield {"backend": "loky", "n_jobs": spread.workers or os.cpu_count() or 1}
    elif spread.backend == "dask":
        with _dask(spread, data) as options:
            yield options
    else:
        with _ray(spread) as options:
            yield options


@contextmanager
def _dask(spread: Spread, data: ProbeData) -> Iterator[dict[str, Any]]:
    import joblib

    try:
        from distributed import Client
    except ImportError as error:
        raise RecipeError(f"backend dask is not installed: {_INSTALL['dask']}") from error
    try:
        client = Client(spread.scheduler, set_as_default=False, timeout=20)
    except OSError as error:
        raise RecipeError(f"no Dask scheduler answers at {spread.scheduler}: {error}") from error
    with client, joblib.parallel_config("dask", client=client, scatter=[data]):
        yield {"n_jobs": spread.workers or -1}


@contextmanager
def _ray(spread: Spread) -> Iterator[dict[str, Any]]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise RecipeError(f"backend ray is not installed: {_INSTALL['ray']}") from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=spread.scheduler)
    try:
        register_ray()
        yield {"backend": "ray", "n_jobs": spread.workers or -1}
    finally:
        if started:
            ray.shutdown()
