"""Cells run by workers: the bytes of a serial experiment, also when a worker was lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal

import pytest

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.experiments import beside
from cppncripto_strategy.experiments.arms import build_experiment
from cppncripto_strategy.experiments.beside import run_cells_beside
from cppncripto_strategy.experiments.cells import CELL_FILE, cell_folder, keep_cell, obtain_cell
from cppncripto_strategy.experiments.experiment import cell_key
from cppncripto_strategy.experiments.runner import RecipeRunner
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.spreading import crew
from cppncripto_strategy.spreading.spread import Spread

TINY = {
    "symbols": ["PLANTED"],
    "interval": "1h",
    "candles": {"source": "planted", "planted": {"days": 90}},
    "macro": {"long_window": 288, "epochs": 1, "encoder_options": {"channels": 4}},
    "label": {"horizon": 6},
    "micro": {"short_window": 12, "epochs": 1, "initialisations": 1},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 14},
    "threshold": {"window": 240},
}
SEEDS, ARMS = (0, 1), ("macro", "no macro")


def silent(*_):
    """Draw nothing."""


class Killer:
    """Kills a process as soon as a cell has said how far it is."""

    def __init__(self):
        self.victims, self.names = [], set()

    def __call__(self, phase, done, total, text):
        self.names.add(phase)
        if self.victims and 0 < done < total:
            os.kill(self.victims.pop(), signal.SIGKILL)


def cells_of(out):
    """Every file of every cell, less the seconds that the cell took."""
    files = {}
    for path in sorted((out / "cells").rglob("*")):
        if path.name == CELL_FILE:
            row = json.loads(path.read_text("utf-8"))
            files[path.relative_to(out)] = {k: v for k, v in row.items() if k != "seconds"}
        elif path.is_file() and not path.name.startswith("."):
            files[path.relative_to(out)] = path.read_bytes()
    return files


def run(folder, spread, progress=silent):
    """The cells of E1, each folder with bundles of its own."""
    runner = RecipeRunner(parse_recipe(TINY), folder / "bundles")
    experiment = build_experiment("e1", runner.recipe)
    run_cells_beside(runner, experiment, SEEDS, folder / "out", spread, progress)
    return cells_of(folder / "out")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The cells that one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    runner = RecipeRunner(parse_recipe(TINY), folder / "bundles")
    for arm in build_experiment("e1", runner.recipe).arms:
        for seed in SEEDS:
            key = cell_key(runner.identity(arm), seed)
            obtain_cell(arm, seed, key, folder / "out", runner, silent)
    return cells_of(folder / "out")


@pytest.mark.slow
def test_processes_leave_the_bytes_of_one(alone, tmp_path):
    """A seed, a thread or a cache that hangs on who runs a cell."""
    assert len(alone) == 3 * 2 * len(SEEDS)
    assert run(tmp_path, Spread(workers=2)) == alone


@pytest.mark.slow
def test_cell_handed_back_is_kept_with_the_bytes_of_one_run_here(alone, tmp_path):
    """A cell of another machine that differs from ours, whether it was run there or found."""
    runner = RecipeRunner(parse_recipe(TINY), tmp_path / "bundles")
    arm = build_experiment("e1", runner.recipe).arms[0]
    key = cell_key(runner.identity(arm), 0)
    for name in ("run", "found"):
        cell = obtain_cell(arm, 0, key, tmp_path / "there", runner, silent)
        keep_cell(cell, key, tmp_path / name)
        kept = cells_of(tmp_path / name)
        assert len(kept) == 3
        assert kept == {path: alone[path] for path in kept}
    before = (cell_folder(tmp_path / "run", key) / CELL_FILE).stat().st_mtime_ns
    keep_cell(cell, key, tmp_path / "run")
    assert (cell_folder(tmp_path / "run", key) / CELL_FILE).stat().st_mtime_ns == before


def test_worker_with_other_candles_runs_nothing(tmp_path, monkeypatch, caplog):
    """A machine whose candles or version differ, and whose cells stand beside ours as equal."""
    monkeypatch.setattr(beside, "obtain_cell", pytest.fail)

    def run_jobs(jobs, spread, progress, bytes_each, take):
        recipe, *rest = jobs[0].arguments
        planted = recipe.candles.planted.model_copy(update={"mu": 0.5})
        candles = recipe.candles.model_copy(update={"planted": planted})
        other = recipe.model_copy(update={"candles": candles})
        with pytest.raises(beside.SourceError, match="candles, plugins or version differ"):
            jobs[0].target(other, *rest, silent)

    monkeypatch.setattr(beside, "run_jobs", run_jobs)
    assert run(tmp_path, Spread(workers=2)) == {}


def test_scheduler_that_does_not_answer_ends_the_command(tmp_path, monkeypatch):
    """An experiment meant for a hundred machines, run by this one without a word."""

    @contextlib.contextmanager
    def refused(spread, shared):
        raise RecipeError("no Dask scheduler answers")
        yield

    monkeypatch.setitem(crew._BACKENDS, "dask", refused)
    with pytest.raises(RecipeError, match="no Dask scheduler answers"):
        run(tmp_path, Spread("dask", scheduler="tcp://127.0.0.1:1"))


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.distributed
def test_dask_that_loses_a_worker_leaves_the_same_bytes(alone, tmp_path, caplog):
    """A cluster of two of which one dies in the middle of a cell."""
    distributed = pytest.importorskip("distributed", reason="extra [dask] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        killer = Killer()
        killer.victims.append(cluster.workers[0].process.process.pid)
        with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
            found = run(tmp_path, Spread("dask", scheduler=cluster.scheduler_address), killer)
    assert killer.victims == []
    assert killer.names == {f"e1 {arm}, seed {seed}" for arm in ARMS for seed in SEEDS}
    assert "left to this process" not in caplog.text
    assert found == alone


@pytest.mark.slow
@pytest.mark.distributed
def test_ray_leaves_the_same_bytes(alone, tmp_path, caplog):
    """Cells kept under another one's key, because they came in another order."""
    ray = pytest.importorskip("ray", reason="extra [ray] is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    heard = Killer()
    try:
        with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
            found = run(tmp_path, Spread("ray"), heard)
    finally:
        ray.shutdown()
    assert heard.names == {f"e1 {arm}, seed {seed}" for arm in ARMS for seed in SEEDS}
    assert "left to this process" not in caplog.text
    assert found == alone
