"""Work spread over workers: the same results everywhere, and a lost worker's calls made again."""

import os
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.spreading import crew as crew_module
from cppncripto_strategy.spreading.crew import crew
from cppncripto_strategy.spreading.spread import Spread


def results(workers, count):
    for number in range(count):
        workers.submit(number, number)
    found = dict(workers.completed() for _ in range(count))
    assert workers.busy == 0
    return found


def make(source):
    """A function of its source, which travels with it."""
    space: dict[str, object] = {}
    exec(source, space)
    return space["call"]


TIMES = make("def call(shared, x): return shared * x")
DIES_ONCE = make(
    "import os, signal\n"
    "def call(shared, x):\n"
    "    try:\n"
    "        os.close(os.open(f'{shared}/{x}', os.O_CREAT | os.O_EXCL))\n"
    "    except FileExistsError:\n"
    "        return x\n"
    "    if x == 2:\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
    "    return x\n"
)
DIES = make("import os, signal\ndef call(shared, x): os.kill(os.getpid(), signal.SIGKILL)")
SAYS = make(
    "def call(shared, x, say):\n"
    "    for number in range(shared):\n"
    "        say(['x', x, number])\n"
    "    return x\n"
)
FAILS = make("def call(shared, x): raise ValueError(f'call {x}')")


def test_calls_here_are_made_in_order_when_asked_for():
    """A crew of one that computes ahead: what to do next may depend on what came before."""
    made = []

    def call(shared, x):
        made.append(x)
        return x

    with crew(Spread("none"), call) as workers:
        workers.submit("a", 1)
        workers.submit("b", 2)
        assert made == []
        assert workers.completed() == ("a", 1)
        assert (made, workers.busy, workers.size) == ([1], 1, 1)


def test_processes_give_what_one_process_gives():
    """Results under another call's key."""
    with crew(Spread("processes", 2), TIMES, 3) as workers:
        assert workers.size == 2
        assert results(workers, 7) == {x: 3 * x for x in range(7)}


def test_a_worker_process_takes_one_thread(monkeypatch):
    """Two workers whose algebra takes both cores each: they ran at a third of one's pace."""
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(library, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")  # whoever asks for more gets it
    seen = make(
        "import os\n"
        "def call(shared, x):\n"
        "    return [os.environ.get(f'{name}_NUM_THREADS') for name in ('OMP', 'OPENBLAS', 'MKL')]"
    )
    with crew(Spread("processes", 1), seen) as workers:
        assert results(workers, 1) == {0: ["1", "1", "2"]}


def heard_by(spread):
    """What was heard of every call by the time its result was taken."""
    heard, complete = {}, {}

    def hear(key, event):
        heard.setdefault(key, []).append(event)

    with crew(spread, SAYS, 40, hear) as workers:
        for number in range(5):
            workers.submit(number, number)
        while workers.busy:
            key, result = workers.completed()
            assert key == result
            complete[key] = list(heard[key])
    return complete


SAID = {x: [["x", x, number] for number in range(40)] for x in range(5)}


@pytest.mark.parametrize("spread", [Spread("none"), Spread("processes", 2)], ids=str)
def test_what_calls_say_is_heard_before_their_results(spread):
    """The last warning of a call, lost because its result was faster."""
    assert heard_by(spread) == SAID


@pytest.mark.posix
def test_a_lost_workers_calls_are_made_again(tmp_path, caplog):
    """kill -9 of a worker loses what it did, or ends the search."""
    with crew(Spread("processes", 2), DIES_ONCE, str(tmp_path)) as workers:
        assert results(workers, 5) == {x: x for x in range(5)}
    assert "a worker was lost" in caplog.text


@pytest.mark.posix
def test_workers_that_keep_dying_end_the_work():
    """A call that kills every worker, tried for ever."""
    with (
        crew(Spread("processes", 1), DIES) as workers,
        pytest.raises(TrainingError, match="died 4 times in a row"),
    ):
        results(workers, 1)


def test_a_call_that_fails_says_so():
    """A bug in a worker taken for a lost one, and tried again."""
    with crew(Spread("processes", 1), FAILS) as workers, pytest.raises(ValueError, match="call 0"):
        results(workers, 1)


@pytest.mark.posix
def test_workers_end_with_their_master(tmp_path):
    """Processes left behind by kill -9, computing for nobody."""
    import subprocess
    import time

    script = (
        "import os, sys\nsys.path[:] = sys.argv[2].split(os.pathsep)\n"
        "from cppncripto_strategy.spreading.crew import crew\n"
        "from cppncripto_strategy.spreading.spread import Spread\n"
        "def call(shared, x):\n"
        "    import os, pathlib, time\n"
        "    pathlib.Path(shared, 'pid').write_text(str(os.getpid())); time.sleep(600)\n"
        "with crew(Spread('processes', 1), call, sys.argv[1]) as w:\n"
        "    w.submit(0, 0); w.completed()\n"
    )
    master = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), os.pathsep.join(sys.path)]
    )
    until = time.monotonic() + 120
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert master.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    worker = Path(f"/proc/{(tmp_path / 'pid').read_text()}")
    master.send_signal(signal.SIGKILL)
    master.wait()
    while worker.exists() and "Z" not in (worker / "stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.05)


class Forgetful:
    """A backend that forgets its first calls, and says whether it is idle."""

    size = 1

    def __init__(self, idle):
        self.looks, self.made, self.renewed = iter(idle), 0, 0

    def submit(self, function, arguments, number):
        future = Future()
        self.made += 1
        if self.made > 2:
            future.set_result((function(None, *arguments), 0))
        return future

    def renew(self):
        self.renewed += 1

    def idle(self):
        return next(self.looks)


def test_calls_that_a_backend_forgot_are_made_again(monkeypatch):
    """Dask that says nothing of a killed worker's calls: the search would wait for ever."""
    monkeypatch.setattr(crew_module, "_LOOK_S", 0.01)
    busy_once = [True, True, False, True, True, True]
    backend = Forgetful(busy_once)
    apart = crew_module._Apart(backend, lambda shared, x: x)
    assert results(apart, 2) == {0: 0, 1: 1}
    assert (backend.made, backend.renewed) == (4, 1)
    assert next(backend.looks, "none is left") == "none is left"


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.distributed
def test_dask_that_loses_a_worker_gives_the_same(tmp_path):
    """A cluster of two of which one dies."""
    distributed = pytest.importorskip("distributed", reason="extra [dask] is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        crew(
            Spread("dask", scheduler=cluster.scheduler_address), DIES_ONCE, str(tmp_path)
        ) as apart,
    ):
        assert apart.size == 2
        assert results(apart, 6) == {x: x for x in range(6)}
        assert heard_by(Spread("dask", scheduler=cluster.scheduler_address)) == SAID


MEETS = make(
    "def call(shared, x):\n"
    "    import sys, threading\n"
    "    try:\n"
    "        sys.modules['meeting'].barrier.wait(2.0)\n"
    "    except threading.BrokenBarrierError:\n"
    "        return 'alone'\n"
    "    return 'together'\n"
)


@pytest.mark.slow
@pytest.mark.distributed
def test_dask_worker_with_threads_makes_one_call_at_a_time(monkeypatch, caplog):
    """Two trainings that draw from one state of random numbers, each with the other's share."""
    distributed = pytest.importorskip("distributed", reason="extra [dask] is not installed")
    monkeypatch.setitem(sys.modules, "meeting", SimpleNamespace(barrier=threading.Barrier(2)))
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        crew(Spread("dask", 2, cluster.scheduler_address), MEETS) as workers,
    ):
        assert results(workers, 2) == {0: "alone", 1: "alone"}
    assert "1 of 1 Dask workers have several threads" in caplog.text


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.distributed
def test_ray_that_loses_a_worker_gives_the_same(tmp_path):
    """Ray's own retries must not hide that a call is lost, nor make it twice at once."""
    ray = pytest.importorskip("ray", reason="extra [ray] is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with crew(Spread("ray"), DIES_ONCE, str(tmp_path)) as apart:
            assert results(apart, 6) == {x: x for x in range(6)}
        assert heard_by(Spread("ray")) == SAID
    finally:
        ray.shutdown()


def test_impossible_backends_are_refused():
    """A run that fails after an hour because of a typo."""
    with pytest.raises(RecipeError, match="'threads' is unknown"):
        Spread("threads")
    with pytest.raises(RecipeError, match="needs the address"):
        Spread("dask")
