"""The search for a genome: fitness, front, reproducibility, checkpoints, lost workers."""

import dataclasses
import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import BundleError, RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.foreign import sealed
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.hyperneat.decoding import decode
from cppncripto_strategy.models.hyperneat.evolution import Evolution, champion_json, load_run
from cppncripto_strategy.models.hyperneat.fitness import (
    SILENT,
    ProbeData,
    Score,
    evaluate,
)
from cppncripto_strategy.models.hyperneat.front import Candidate, knee, update_front
from cppncripto_strategy.models.hyperneat.genome import Genome, Node
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, NeatSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.hyperneat.workers import evaluator
from cppncripto_strategy.models.judging.probes import walk_forward_r2
from cppncripto_strategy.results import to_plain, write_json
from cppncripto_strategy.spreading.spread import Spread

SUBSTRATE = Substrate.temporal(
    n_features=4, width=6, channels=5, taps=3, dilations=(1, 2), stride=12
)
SETTINGS = EvolutionSettings(
    generations=4, search="neat", fitness="profile", seed=5, neat=NeatSettings(population=12)
)


def encoder_of(**options):
    return build_encoder("cppn", 4, options, 6)


@pytest.fixture(scope="module")
def data():
    """Days whose next-day profile is the mean of a product of two features, plus noise."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((70, 16, 4)).astype(np.float32)
    signal_ = np.maximum(rows[:, :, 0] + rows[:, :, 1], 0).mean(axis=1)
    targets = signal_[:, None] + 0.1 * rng.standard_normal((70, 3))
    return ProbeData(rows, targets, np.arange(70) * DAY_MS)


@pytest.fixture(scope="module")
def score(data):
    """Scores of genomes, each kind of genome evaluated once for all tests."""
    known = {}

    def of(genomes):
        scores = {}
        for genome in genomes:
            kind = (genome.nodes, genome.links)
            if kind not in known:
                known[kind] = evaluate(genome, SUBSTRATE, data, SETTINGS)
            scores[genome.key] = known[kind]
        return scores

    return of


def run_to_end(run, score):
    while not run.finished:
        run.advance(score(run.pending()))
    return run


@pytest.fixture(scope="module")
def finished(data, score):
    return run_to_end(Evolution.begin(SETTINGS, SUBSTRATE, data.fingerprint()), score)


def test_fitness_is_the_probe_less_the_price_of_connections(data):
    """A price per connection instead of per share would swamp the probe on wide substrates."""
    genome = next(
        g
        for g in map(random_genome, range(100))
        if 10 < decode(g, SUBSTRATE).connections < SUBSTRATE.weights - 10
        and evaluate(g, SUBSTRATE, data, SETTINGS).probe > SILENT
    )
    score = evaluate(genome, SUBSTRATE, data, SETTINGS)
    encoder = encoder_of(genome=genome.to_json(), substrate=SUBSTRATE.to_json())
    with torch.no_grad():
        embedding = encoder.pool(encoder.rows_map(torch.from_numpy(data.rows))).double().numpy()
    r2 = walk_forward_r2(embedding, data.targets, data.day_ms, SETTINGS.folds)
    assert score.probe == pytest.approx(r2, abs=1e-6)
    assert score.connections == encoder.connections
    share = encoder.connections / SUBSTRATE.weights
    assert score.fitness == pytest.approx(score.probe - SETTINGS.connection_cost * share)


def test_genome_that_expresses_nothing_is_worth_less_than_any_other(data):
    """A constant embedding has an R2 of 0, which beats every honest negative one."""
    nodes = (Node(0, 1.0, 1.0, "identity", "sum"), Node(1, -1.0, 1.0, "identity", "sum"))
    score = evaluate(Genome(1, nodes, ()), SUBSTRATE, data, SETTINGS)
    assert score == Score(SILENT, 0, SILENT)


def test_evolution_finds_what_is_planted(finished):
    """Selection that minimised, or a probe that never learned, would not climb."""
    first, last = finished.history[0], finished.history[-1]
    assert last.median_fitness > first.median_fitness
    assert last.best_fitness >= first.best_fitness
    assert finished.front[-1].score.probe > 0.3


def test_best_fitness_never_falls(finished):
    """Each species keeps its elite, and an elite's score is not drawn again."""
    best = [line.best_fitness for line in finished.history]
    assert best == sorted(best)


def test_same_seed_gives_the_same_run_whatever_the_caller_draws(finished, data, score):
    """neat-python draws from Python's global generator."""
    run = Evolution.begin(SETTINGS, SUBSTRATE, data.fingerprint())
    while not run.finished:
        random.seed(run.generation)
        before = random.getstate()
        run.advance(score(run.pending()))
        assert random.getstate() == before
    assert run.to_json() == finished.to_json()


def test_another_seed_gives_another_run(finished, data, score):
    """A seed that is ignored passes every reproducibility test."""
    other = dataclasses.replace(SETTINGS, seed=6)
    run = run_to_end(Evolution.begin(other, SUBSTRATE, data.fingerprint()), score)
    assert run.history != finished.history


@pytest.mark.parametrize("stop_after", range(SETTINGS.generations))
def test_run_resumed_from_json_ends_as_if_never_stopped(stop_after, finished, data, score):
    """A lost counter, species history or half of the generator's state shows generations later."""
    run = Evolution.begin(SETTINGS, SUBSTRATE, data.fingerprint())
    for _ in range(stop_after):
        run.advance(score(run.pending()))
    resumed = Evolution.from_json(json.loads(json.dumps(run.to_json())))
    assert resumed.to_json() == run.to_json()
    assert run_to_end(resumed, score).to_json() == finished.to_json()


def test_population_that_mutates_hard_survives_many_resumed_generations():
    """Node deletions, disabled links and new species: every kind of gene passes the checkpoint."""
    busy = EvolutionSettings(
        generations=12,
        search="neat",
        seed=1,
        neat=NeatSettings(
            population=20, add_node=0.8, delete_node=0.2, add_link=0.6, species_distance=1.0
        ),
    )

    def drawn(genomes):
        probes = {g.key: random.Random(repr(g)).random() for g in genomes}
        return {key: Score(probe, 1, probe) for key, probe in probes.items()}

    whole = Evolution.begin(busy, SUBSTRATE, "")
    resumed = Evolution.begin(busy, SUBSTRATE, "")
    while not whole.finished:
        whole.advance(drawn(whole.pending()))
        resumed.advance(drawn(resumed.pending()))
        resumed = Evolution.from_json(json.loads(json.dumps(resumed.to_json())))
    assert resumed.to_json() == whole.to_json()
    final = whole.to_json()
    population = final["search"]["population"]
    assert max(len(genome["nodes"]) for genome in population) > 3
    assert any(not link["enabled"] for genome in population for link in genome["links"])
    assert len(final["search"]["species"]) > 2


def test_missing_score_is_refused(data):
    """A genome without a score must not be bred from as if it had none."""
    run = Evolution.begin(SETTINGS, SUBSTRATE, data.fingerprint())
    scores = {g.key: Score(0.1, 5, 0.1) for g in run.pending()[1:]}
    with pytest.raises(TrainingError, match="lacks scores"):
        run.advance(scores)


def candidate(connections, probe):
    return Candidate(Genome(0, (), ()), Score(probe, connections, probe), 0)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(-5, 30).map(lambda k: k / 30)), max_size=40)
)
@settings(max_examples=100, deadline=None)
def test_front_is_the_set_that_nothing_beats(points):
    """Checked against the definition: better in one of the two, and no worse in the other."""
    front = []
    for connections, probe in points:
        front = update_front(front, candidate(connections, probe))
    undominated = {
        (n, p)
        for n, p in points
        if not any(m <= n and q >= p and (m, q) != (n, p) for m, q in points)
    }
    found = [(c.score.connections, c.score.probe) for c in front]
    assert found == sorted(undominated)


def test_knee_is_where_more_connections_stop_paying():
    """The corner of an L is its knee, and not the end where everything is expressed."""
    corner = [candidate(*p) for p in ((10, 0.02), (20, 0.08), (100, 0.085), (1000, 0.1))]
    assert knee(corner, weights=1000) == 1
    assert knee(corner[:2], weights=1000) == 1
    assert knee(corner[:1], weights=1000) == 0


def test_knee_passes_over_sparse_genomes_that_foretell_nothing():
    """Seen on a planted market: a constant embedding became champion, for beating a worse one."""
    front = [candidate(*p) for p in ((719, -0.054), (727, 0.0), (1059, 0.234))]
    assert knee(front, weights=10_728) == 2
    assert knee(front[:1], weights=10_728) == 0


def test_silent_genomes_stay_off_the_front():
    """Zero connections would be the far end of every front, and pull the knee towards it."""
    assert update_front([], Candidate(Genome(0, (), ()), Score(SILENT, 0, SILENT), 0)) == []


def test_checkpoint_of_another_run_is_refused_and_says_what_differs(tmp_path, finished, data):
    """Resuming with other candles or settings would mix two searches in one front."""
    path = tmp_path / "checkpoint.json"
    write_json(path, sealed(to_plain(finished.to_json())))
    loaded = load_run(path, SETTINGS, SUBSTRATE, data.fingerprint())
    assert loaded.to_json() == finished.to_json()
    other = dataclasses.replace(SETTINGS, connection_cost=0.5)
    with pytest.raises(BundleError, match="settings and candles differ"):
        load_run(path, other, SUBSTRATE, "another fingerprint")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(BundleError, match="not a readable checkpoint: not valid JSON"):
        load_run(path, SETTINGS, SUBSTRATE, data.fingerprint())
    write_json(path, sealed({"format": "cppn-evolution", "version": 1}))
    with pytest.raises(BundleError, match=r"version 1.*this one reads 2.*--fresh"):
        load_run(path, SETTINGS, SUBSTRATE, data.fingerprint())
    write_json(path, sealed({"format": "cppn-evolution", "version": 2}))
    with pytest.raises(BundleError, match="incomplete"):
        load_run(path, SETTINGS, SUBSTRATE, data.fingerprint())


def test_fingerprint_tells_candles_apart(data):
    """A checkpoint must not resume on candles that were mended in between."""
    rows = data.rows.copy()
    rows[3, 2, 1] += 1e-3
    assert ProbeData(rows, data.targets, data.day_ms).fingerprint() != data.fingerprint()


def test_champion_rebuilds_the_encoder_it_was_scored_as(finished, tmp_path):
    """The file a recipe names must hold the substrate too."""
    path = tmp_path / "champion.json"
    place = knee(finished.front, SUBSTRATE.weights)
    write_json(path, champion_json(finished, [finished.front[place]], 70 * DAY_MS))
    encoder = encoder_of(genome=str(path))
    assert encoder.connections == finished.front[place].score.connections


def _worker():
    """Process id of one of this process's workers."""
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in path.read_text().split():
            if b"popen_loky" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("no worker was found")


@pytest.mark.posix
@pytest.mark.slow
def test_genomes_of_a_killed_process_are_evaluated_again(data, caplog):
    """kill -9 of a worker loses no genome; scores do not depend on where they were computed."""
    genomes = Evolution.begin(SETTINGS, SUBSTRATE, "").pending()
    killed = []

    def kill_one(key, score):
        if not killed:
            killed.append(_worker())
            os.kill(killed[0], signal.SIGKILL)

    with evaluator(Spread("none"), SUBSTRATE, data, SETTINGS) as here:
        expected = here(genomes)
    with evaluator(Spread("processes", workers=2), SUBSTRATE, data, SETTINGS) as apart:
        assert apart(genomes, kill_one) == expected
    assert "a worker was lost" in caplog.text


@pytest.mark.posix
@pytest.mark.slow
def test_dask_cluster_that_loses_a_worker_gives_the_same_champion(finished, data):
    """A run over machines must survive one of them going away half way."""
    distributed = pytest.importorskip("distributed", reason="extra [dask] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        run = Evolution.begin(SETTINGS, SUBSTRATE, data.fingerprint())
        spread = Spread("dask", scheduler=cluster.scheduler_address)
        with evaluator(spread, SUBSTRATE, data, SETTINGS) as apart:
            while not run.finished:
                half_way = run.generation == SETTINGS.generations // 2
                run.advance(apart(run.pending(), _killer(cluster) if half_way else None))
    assert run.to_json() == finished.to_json()


def _killer(cluster):
    """A callback that kills one worker process of a cluster at the first score it hears of."""
    victims = [cluster.workers[0].process.process.pid]

    def kill(key, score):
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)

    return kill


def test_impossible_backend_is_refused_before_any_work():
    """A run that fails after an hour because of a typo."""
    with pytest.raises(RecipeError, match="'threads' is unknown"):
        Spread("threads")
    with pytest.raises(RecipeError, match="needs the address"):
        Spread("dask")
