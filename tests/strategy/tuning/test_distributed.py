"""A search over Dask and Ray: the same candidates and the same choice, with a worker lost."""

import os
import signal
from pathlib import Path

import pytest

from cppncripto_strategy.spreading.spread import Spread
from cppncripto_strategy.tuning.search import Where, tune

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
# Random and unpruned: what a candidate tries does not depend on who finished before it.
SEARCH = {"sampler": "random", "pruner": "none", "trials": 10, "windows": 2}


def evaluate_by_value():
    """The formula as a function that travels whole: workers cannot import this folder."""
    source = Path(__file__).with_name("conftest.py").read_text("utf-8")
    space: dict[str, object] = {"__name__": "formulas"}
    exec(compile(source, "formulas", "exec"), space)
    return space["formula"]


@pytest.fixture
def alone(tiny, quick, tmp_path):
    """What one process finds."""
    return tune(tiny.recipe(search=SEARCH), where(tmp_path, "alone", None), keep_sealed=True)


def where(folder, name, spread):
    return Where(folder / name, folder / name / "tuning", spread=spread or Spread("none"))


def same(found, alone):
    assert found.best.changes == alone.best.changes
    assert found.best.values == alone.best.values
    assert [t.changes for t in found.trials] == [t.changes for t in alone.trials]


@pytest.mark.posix
def test_dask_with_a_worker_killed_chooses_the_same(tiny, alone, tmp_path, monkeypatch):
    """A cluster that loses half of itself in the middle of a search."""
    distributed = pytest.importorskip("distributed", reason="extra [dask] is not installed")
    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", evaluate_by_value())
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        victims = [cluster.workers[0].process.process.pid]

        def kill(pulse):
            if victims and pulse.done >= 3:
                os.kill(victims.pop(), signal.SIGKILL)

        spread = Spread("dask", scheduler=cluster.scheduler_address)
        recipe = tiny.recipe(search=SEARCH)
        found = tune(recipe, where(tmp_path, "dask", spread), kill, keep_sealed=True)
    assert victims == []
    same(found, alone)


def test_ray_with_two_workers_chooses_the_same(tiny, alone, tmp_path, monkeypatch):
    """Results told for another candidate, because they came in another order."""
    ray = pytest.importorskip("ray", reason="extra [ray] is not installed")
    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", evaluate_by_value())
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        recipe = tiny.recipe(search=SEARCH)
        found = tune(recipe, where(tmp_path, "ray", Spread("ray")), keep_sealed=True)
    finally:
        ray.shutdown()
    same(found, alone)
