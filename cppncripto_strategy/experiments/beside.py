"""Cells of an experiment run in processes of their own, one seed or one cell at a time in each.

They leave finished cells where a serial experiment looks for them, so that it reads what it would
have made: the same bytes, but for the seconds that a cell took. Left out: comparing (`experiment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cppncripto_strategy.experiments.cells import CELL_FILE, Arm, cell_folder, obtain_cell
from cppncripto_strategy.experiments.experiment import Experiment, cell_key
from cppncripto_strategy.experiments.runner import RecipeRunner
from cppncripto_strategy.processes import PROCESS_BYTES, Job, run_jobs
from cppncripto_strategy.progress import PhaseProgress, Progress
from cppncripto_strategy.recipe import Recipe

Asked = tuple[Arm, int, str]
"""A cell: its arm, its seed and its key."""

# An arm that only trades otherwise reads the bundles of another, so a seed's arms stay together.
_CANDLE_BYTES = 600  # candles, features and tables, per candle


def run_cells_beside(
    runner: RecipeRunner,
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    jobs: int,
    progress: PhaseProgress,
) -> None:
    """Run the cells that are not there yet in at most `jobs` processes, as far as that goes.

    A cell that failed is left to whoever runs the experiment: there it fails again, and is heard.
    """
    lacking = [
        (arm, seed, key)
        for seed in seeds
        for arm in experiment.arms
        if not (cell_folder(out, key := cell_key(runner.identity(arm), seed)) / CELL_FILE).is_file()
    ]
    work = [
        Job(f"{experiment.name} {name}", _run_cells, (runner.recipe, runner.cache, part, out))
        for name, part in _parts(lacking, jobs).items()
    ]
    if len(work) > 1 and jobs > 1:
        candles = sum(len(part) for part in runner.market().every.values())
        run_jobs(work, jobs, progress, PROCESS_BYTES + _CANDLE_BYTES * candles)


def _parts(cells: Sequence[Asked], jobs: int) -> dict[str, list[Asked]]:
    """The cells by seed or, where there are fewer seeds than processes, one by one."""
    by_seed = len({seed for _, seed, _ in cells}) >= jobs
    parts: dict[str, list[Asked]] = {}
    for arm, seed, key in cells:
        name = f"seed {seed}" if by_seed else f"{arm.name}, seed {seed}"
        parts.setdefault(name, []).append((arm, seed, key))
    return parts


def _run_cells(
    recipe: Recipe, cache: Path, cells: Sequence[Asked], out: Path, progress: Progress
) -> None:
    """In a process of its own: some cells, one after the other."""
    recipe.plugin_digests()  # which runs the recipe's plugins
    runner = RecipeRunner(recipe, cache)
    for number, (arm, seed, key) in enumerate(cells):

        def report(
            done: int, total: int, text: str, number: int = number, name: str = arm.name
        ) -> None:
            share = number + done / max(total, 1)
            progress(round(1000 * share), 1000 * len(cells), f"{name}: {text}")

        obtain_cell(arm, seed, key, out, runner, report)
