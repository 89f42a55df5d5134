"""Where things lie: one rule for every command, and no two runs in one folder."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pandas as pd

from cppncripto_strategy import outcome
from cppncripto_strategy.evaluation.trials import TrialLedger
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.paths import RecipeHome

THREADS, CLAIMS = 8, 5


def test_home_is_beside_the_recipe_in_out_or_under_runs(tmp_path):
    """A command that looks for bundles where no other command puts them."""
    recipe = tmp_path / "mine.toml"
    beside = RecipeHome.of(recipe, shipped=False)
    assert beside.path == tmp_path / "mine"
    assert RecipeHome.of(recipe, shipped=False, out=tmp_path / "out").path == (
        tmp_path / "out" / "mine"
    )
    assert RecipeHome.of(recipe, shipped=True).path == Path("runs/mine")
    folders = beside.bundles, beside.experiments, beside.evolution
    assert [folder.name for folder in folders] == ["bundles", "experiments", "evolution"]
    assert {folder.parent for folder in folders} == {beside.path}


def test_results_never_share_a_folder(tmp_path):
    """A second run within the same second overwriting the first."""
    home = RecipeHome.of(tmp_path / "mine.toml", shipped=False)
    claimed = [home.claim_run() for _ in range(3)]
    assert len(set(claimed)) == 3
    assert {folder.parent for folder in claimed} == {tmp_path / "mine"}
    assert all(folder.is_dir() for folder in claimed)


def test_runs_of_one_second_in_two_threads_have_folders_and_trials_of_their_own(hourly, tmp_path):
    """A folder that is looked for and then made: both threads find the name free, and share it."""
    home = RecipeHome.of(tmp_path / "mine.toml", shipped=False)
    barrier = Barrier(THREADS)

    def run(number):
        folders = []
        for _ in range(CLAIMS):
            barrier.wait(timeout=30)
            folders.append(home.claim_run())
            equity = pd.DataFrame(
                {
                    "close_time_ms": hourly.start_ms + np.arange(1, 5) * DAY_MS,
                    "equity": [1.0, 1.1, 1.0, 1.2],
                }
            )
            recipe = hourly.recipe(seed=number)
            outcome._count_trial(recipe, equity, "data", folders[-1])
        return folders

    with ThreadPoolExecutor(THREADS) as pool:
        folders = [folder for mine in pool.map(run, range(THREADS)) for folder in mine]
    assert len(set(folders)) == THREADS * CLAIMS
    rows = [trial.folder for trial in TrialLedger(home.path).read()]
    assert sorted(rows) == sorted(folder.name for folder in folders)


def test_runs_of_one_second_in_two_processes_have_folders_of_their_own(tmp_path):
    """A claim that only threads of one process respect."""
    code = (
        "from pathlib import Path\n"
        "from cppncripto_strategy.paths import RecipeHome\n"
        f"home = RecipeHome(Path({str(tmp_path / 'mine')!r}))\n"
        "print(*[home.claim_run() for _ in range(50)], sep='\\n')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = [line for process in running for line in process.communicate(timeout=60)[0].split()]
    assert len(folders) == 100
    assert len(set(folders)) == 100
