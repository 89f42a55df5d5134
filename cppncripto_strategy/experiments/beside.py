"""Cells of an experiment run by workers: beside this process, or on other machines.

A worker runs the cells of one seed, or one cell, and leaves them among the results of its own
machine as a serial experiment does; what it hands back is kept here where it is not there yet. So
the experiment reads what it would have made: the same bytes, but for the seconds that a cell took.
Left out: comparing (`experiment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.experiments.cells import (
    CELL_FILE,
    Arm,
    Cell,
    cell_folder,
    keep_cell,
    obtain_cell,
)
from cppncripto_strategy.experiments.experiment import Experiment, cell_key
from cppncripto_strategy.experiments.runner import RecipeRunner
from cppncripto_strategy.progress import PhaseProgress, Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.spreading.jobs import PROCESS_BYTES, Job, run_jobs
from cppncripto_strategy.spreading.spread import Spread, cores

Asked = tuple[Arm, int, str]
"""A cell: its arm, its seed and its key."""

_CANDLE_BYTES = 600  # candles, features and tables, per candle


def run_cells_beside(
    runner: RecipeRunner,
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    spread: Spread,
    progress: PhaseProgress,
) -> None:
    """Run the cells that are not there yet where `spread` says, as far as that goes.

    A cell that failed is left to whoever runs the experiment: there it fails again, and is heard.

    Raises
    ------
    RecipeError
        When Dask or Ray is not installed or does not answer.
    TrainingError
        When workers of other machines keep dying.
    """
    out = out.resolve()
    lacking = [
        (arm, seed, key)
        for seed in seeds
        for arm in experiment.arms
        if not (cell_folder(out, key := cell_key(runner.identity(arm), seed)) / CELL_FILE).is_file()
    ]
    cache = runner.cache.resolve()
    work = [
        Job(f"{experiment.name} {name}", _run_cells, (runner.recipe, cache, part, out))
        for name, part in _parts(lacking, spread).items()
    ]

    def take(made: Sequence[tuple[str, Cell]]) -> None:
        for key, cell in made:
            keep_cell(cell, key, out)

    if work and spread.backend != "none":
        candles = sum(len(part) for part in runner.market().every.values())
        run_jobs(work, spread, progress, PROCESS_BYTES + _CANDLE_BYTES * candles, take)


def _parts(cells: Sequence[Asked], spread: Spread) -> dict[str, list[Asked]]:
    """The cells by seed or, where there are fewer seeds than workers, one by one.

    An arm that only trades otherwise reads the bundles of another, so a seed's arms stay together
    as far as nobody is idle for it. How many machines there are is known to Dask and Ray alone.
    """
    seeds = len({seed for _, seed, _ in cells})
    by_seed = seeds >= (spread.workers or (cores() if spread.here else seeds + 1))
    parts: dict[str, list[Asked]] = {}
    for arm, seed, key in cells:
        name = f"seed {seed}" if by_seed else f"{arm.name}, seed {seed}"
        parts.setdefault(name, []).append((arm, seed, key))
    return parts


def _run_cells(
    recipe: Recipe, cache: Path, cells: Sequence[Asked], out: Path, progress: Progress
) -> list[tuple[str, Cell]]:
    """In a worker: some cells, one after the other, each with its key.

    Raises
    ------
    SourceError
        When candles, plugins or code of this machine would give another cell than the one asked.
    """
    recipe.plugin_digests()  # which runs the recipe's plugins
    runner = RecipeRunner(recipe, cache)
    made = []
    for number, (arm, seed, key) in enumerate(cells):

        def report(
            done: int, total: int, text: str, number: int = number, name: str = arm.name
        ) -> None:
            share = number + done / max(total, 1)
            progress(round(1000 * share), 1000 * len(cells), f"{name}: {text}")

        if cell_key(runner.identity(arm), seed) != key:
            raise SourceError(
                f"the cell {arm.name}, seed {seed} would be another one on this worker: its"
                " candles, plugins or version differ from those of the machine that asks"
            )
        made.append((key, obtain_cell(arm, seed, key, out, runner, report)))
    return made
