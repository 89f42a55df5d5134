"""The kinds of search, the archive they fill, and what painted kernels see."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.hyperneat.archive import SHAPE, Archive, cell_of
from cppncripto_strategy.models.hyperneat.decoding import (
    Kernels,
    decode,
    decode_by_coordinate,
)
from cppncripto_strategy.models.hyperneat.evolution import Evolution
from cppncripto_strategy.models.hyperneat.fitness import SILENT, Score
from cppncripto_strategy.models.hyperneat.front import Candidate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.settings import (
    SEARCHES,
    EvolutionSettings,
    NeatSettings,
)
from cppncripto_strategy.models.hyperneat.sight import impulse_response, sight_of
from cppncripto_strategy.models.hyperneat.substrate import Layer, Substrate, scattered

SUBSTRATE = Substrate.temporal(4, width=6, channels=5, taps=3, dilations=(1, 2))
ROW_H = 1.0


def settings_of(search, **changes):
    return EvolutionSettings(
        generations=6, search=search, seed=5, neat=NeatSettings(population=12), **changes
    )


def drawn_score(genome):
    """A score that follows from the genome alone and scatters over the archive."""
    rng = random.Random(repr((genome.nodes, genome.links)))
    share = rng.choice((0.02, 0.1, 0.3, 0.9))
    probe = rng.random()
    return Score(probe, round(share * SUBSTRATE.weights), probe, 6 * rng.random(), 9 * rng.random())


def constant_score(genome):
    """Every genome as good as any other, in its own cell."""
    return dataclasses.replace(drawn_score(genome), probe=0.25, fitness=0.25)


def advance(run, score=drawn_score):
    run.advance({genome.key: score(genome) for genome in run.pending()})
    return run


def to_end(run, score=drawn_score):
    while not run.finished:
        advance(run, score)
    return run


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_is_a_function_of_its_seed(search):
    """A draw from somebody else's generator, or a seed that is not used."""
    first = to_end(Evolution.begin(settings_of(search), SUBSTRATE, ""))
    random.seed(1)
    again = to_end(Evolution.begin(settings_of(search), SUBSTRATE, ""))
    assert first.to_json() == again.to_json()
    other = dataclasses.replace(settings_of(search), seed=6)
    assert to_end(Evolution.begin(other, SUBSTRATE, "")).history != first.history


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_resumes_from_any_generation_to_the_same_bytes(search):
    """An elite, a counter or the generator's state left out of the checkpoint."""
    whole = json.dumps(to_end(Evolution.begin(settings_of(search), SUBSTRATE, "")).to_json())
    run = Evolution.begin(settings_of(search), SUBSTRATE, "")
    while not run.finished:
        run = Evolution.from_json(json.loads(json.dumps(run.to_json())))
        advance(run)
    assert json.dumps(run.to_json()) == whole


def test_random_search_draws_what_nothing_has_selected():
    """Scores must not reach it, or it would be no null for the others."""
    runs = [
        to_end(Evolution.begin(settings_of("random"), SUBSTRATE, ""), score)
        for score in (drawn_score, constant_score)
    ]
    seen = [{c.genome for c in run.archive.elites()} for run in runs]
    base = 5 * 10**7
    drawn = {random_genome(base + i, key=i + 1) for i in range(72)}
    assert seen[0] <= drawn
    assert seen[1] <= drawn


def test_random_search_draws_every_genome_once():
    """A generation drawn twice would halve the search."""
    run, keys = Evolution.begin(settings_of("random"), SUBSTRATE, ""), []
    while not run.finished:
        keys += [genome.key for genome in run.pending()]
        advance(run)
    assert keys == list(range(1, 73))


def test_elites_of_a_constant_fitness_are_the_first_of_their_cells():
    """MAP-Elites selects within a cell alone: where nothing is better, nothing is replaced."""
    run = Evolution.begin(settings_of("map-elites"), SUBSTRATE, "")
    first = {}
    while not run.finished:
        for genome in run.pending():
            first.setdefault(cell_of(constant_score(genome), SUBSTRATE), genome.key)
        advance(run, constant_score)
    assert {cell: c.genome.key for cell, c in run.archive.cells.items()} == first
    best = [line.best_fitness for line in run.history]
    assert best == [0.25] * 6


def test_children_of_elites_descend_from_the_archive():
    """Children of the last generation, or of the fittest genome alone, would be another search."""
    run = Evolution.begin(settings_of("map-elites"), SUBSTRATE, "")
    advance(run)
    parents = [c.genome for c in run.archive.elites()]
    marks = {p.key: {link.innovation for link in p.links} for p in parents}
    shared = []
    for child in run.pending():
        own = {link.innovation for link in child.links}
        shared.append({key for key, links in marks.items() if len(own & links) >= 5})
    assert all(shared), "a child has no parent in the archive"
    assert len({child.key for child in run.pending()}) == 12


def test_map_elites_climbs_within_its_cells():
    """An archive that forgot its best, or bred at random, would not improve."""

    def bias(genome):
        value = -abs(genome.nodes[0].bias - 2.0)
        return Score(value, 50, value, 1.0, 1.0)

    longer = dataclasses.replace(settings_of("map-elites"), generations=20)
    run = to_end(Evolution.begin(longer, SUBSTRATE, ""), bias)
    [elite] = run.archive.elites()
    assert elite.score.fitness > max(-0.05, run.history[0].best_fitness)


@given(
    st.lists(
        st.tuples(
            st.floats(-0.5, 1),
            st.integers(1, SUBSTRATE.weights),
            st.floats(0, 6),
            st.floats(0, 20),
        ),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_archive_keeps_the_best_of_every_cell(points):
    """Checked against the definition: the first of the fittest of every cell."""
    archive, best = Archive(SUBSTRATE), {}
    for number, (probe, connections, reach, period) in enumerate(points):
        score = Score(probe, connections, probe, reach, period)
        archive.add(Candidate(Genome(number, (), ()), score, 0))
        cell = cell_of(score, SUBSTRATE)
        if cell not in best or probe > best[cell][0]:
            best[cell] = probe, number
        assert all(0 <= place < size for place, size in zip(cell, SHAPE, strict=True))
    assert {c: e.genome.key for c, e in archive.cells.items()} == {
        cell: number for cell, (_, number) in best.items()
    }
    fitness = [elite.score.fitness for elite in archive.elites()]
    assert fitness == sorted(fitness, reverse=True)


def test_silent_genomes_are_no_elites():
    """A cell held by a genome that paints nothing would breed nothing."""
    archive = Archive(SUBSTRATE)
    assert not archive.add(Candidate(Genome(1, (), ()), Score(SILENT, 0, SILENT), 0))
    assert len(archive) == 0


def kernels_of(*weights):
    tensors = tuple(torch.tensor(w, dtype=torch.float32) for w in weights)
    return Kernels(tensors, tuple(t != 0 for t in tensors))


def test_kernel_that_reads_the_oldest_tap_sees_that_far():
    """Taps are stored oldest first; read the other way round, the far tap is the present."""
    where = Substrate((Layer(1, 1, 5, 3),), stride=12)
    oldest = sight_of(kernels_of([[[1.0, 0, 0, 0, 0]]]), where)
    newest = sight_of(kernels_of([[[0.0, 0, 0, 0, 1.0]]]), where)
    # As wide as its input, the layer is added to it: lag 0 answers 1, lag 12 half a slope.
    assert oldest.reach_h == pytest.approx(12 * ROW_H * 0.5**2 / (1 + 0.5**2), abs=1e-3)
    assert newest.reach_h == 0.0
    wider = dataclasses.replace(where, layers=(Layer(1, 2, 5, 3),))
    alone = sight_of(kernels_of([[[1.0, 0, 0, 0, 0]]] * 2), wider)
    assert alone.reach_h == 12 * ROW_H


def test_kernel_that_swings_has_its_period():
    """A wave of eight rows through a layer of two filters, which is not added to its input."""
    wave = np.cos(2 * np.pi * np.arange(32) / 8.0)
    where = Substrate((Layer(1, 2, 32, 1),), stride=12)
    sight = sight_of(kernels_of([[wave.tolist()], [(-wave).tolist()]]), where)
    assert sight.period_h == pytest.approx(8 * ROW_H, rel=0.1)
    flat = sight_of(kernels_of([[np.ones(32).tolist()]] * 2), Substrate((Layer(1, 2, 32, 1),)))
    assert flat.period_h == 0.0
    assert flat.reach_h == pytest.approx(15.5 * ROW_H, abs=1e-3)


def test_response_is_what_the_layers_do_to_an_impulse():
    """Checked by hand: two layers of one tap multiply, at half of each slope."""
    where = Substrate((Layer(2, 3, 1, 1), Layer(3, 2, 1, 1)))
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((3, 2, 1)), rng.standard_normal((2, 3, 1))
    response = impulse_response(kernels_of(one.tolist(), two.tolist()), where)
    np.testing.assert_allclose(response[:, :, 0], (two[..., 0] @ one[..., 0]).T / 4, rtol=1e-6)


def test_gated_genome_paints_gates_of_the_same_connections():
    """A gate with a mask of its own, or the weights again, is no gate."""
    gated = dataclasses.replace(SUBSTRATE, gated=True, coordinates=("day", "scatter", "period"))
    for seed in range(50):
        genome = random_genome(seed, 60, inputs=gated.inputs, outputs=gated.outputs)
        kernels = decode(genome, gated)
        if kernels.connections and not torch.equal(kernels.weights[0], kernels.gates[0]):
            break
    assert kernels.connections == 2 * sum(int(mask.sum()) for mask in kernels.masks)
    for gate, mask in zip(kernels.gates, kernels.masks, strict=True):
        assert not gate[~mask].any()
    assert Genome.from_json(json.loads(json.dumps(genome.to_json()))) == genome
    with pytest.raises(RecipeError, match=r"has 3 outputs, the substrate offers 5 and needs 2"):
        decode(genome, SUBSTRATE)


def test_tap_knows_its_phase_of_day_and_week():
    """By hand: six hours back is a quarter of a day, and a week's phase hardly moves."""
    where = Substrate((Layer(1, 1, 3, 6),), stride=12, coordinates=("day", "week"))
    axes = [axis.ravel() for axis in where.more_axes(where.layers[0])]
    day_sine, day_cosine, week_sine, _ = axes
    np.testing.assert_allclose(day_sine, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(day_cosine, [-1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(week_sine, np.sin(2 * np.pi * np.array([12, 6, 0]) / 168))


def test_phases_are_physical_whatever_makes_the_lag():
    """Resolution transfer: the same age in other rows is the same phase."""
    hours = Substrate((Layer(1, 1, 3, 2),), 12, coordinates=("day", "period"))
    quarters = dataclasses.replace(
        hours, layers=(Layer(1, 1, 3, 8),), stride=1, interval_ms=900_000
    )
    both = (where.more_axes(where.layers[0]) for where in (hours, quarters))
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_scattered_channels_keep_their_numbers_in_a_wider_layer():
    """Numbers drawn anew for every width would make another encoder of the same genome."""
    narrow, wide = scattered(5, 0), scattered(9, 0)
    np.testing.assert_array_equal(narrow, wide[:5])
    assert not np.array_equal(narrow, scattered(5, 1))
    assert np.abs(wide).max() <= 1
    assert not np.array_equal(wide, np.sort(wide))


def test_every_coordinate_means_the_same_to_both_decoders():
    """An axis that lies along the wrong dimension paints another picture."""
    where = dataclasses.replace(
        Substrate((Layer(3, 4, 2, 1), Layer(4, 4, 3, 3), Layer(4, 4, 3, 6)), 4),
        coordinates=("scatter", "day", "period", "week"),
        gated=True,
    )
    for seed in range(6):
        genome = random_genome(seed, 60, inputs=where.inputs, outputs=where.outputs)
        fast, slow = decode(genome, where), decode_by_coordinate(genome, where)
        for ours, theirs in zip(
            (*fast.weights, *fast.gates), (*slow.weights, *slow.gates), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        for ours, theirs in zip(fast.masks, slow.masks, strict=True):
            assert torch.equal(ours, theirs)


def test_local_genomes_start_among_neighbours():
    """The seed of locality: nothing is expressed between the far ends of the axes."""
    config = NeatSettings(population=6, locality=True)
    run = Evolution.begin(EvolutionSettings(search="neat", seed=2, neat=config), SUBSTRATE, "")
    for genome in run.pending():
        mask = decode(genome, SUBSTRATE).masks[1].any(dim=2)  # (6, 5): out, in
        near = np.abs(np.linspace(-1, 1, 6)[:, None] - np.linspace(-1, 1, 5)) < 1 / 3
        np.testing.assert_array_equal(mask.numpy(), near)


def test_unknown_kind_of_search_is_refused():
    """A typing error that silently becomes the default."""
    with pytest.raises(RecipeError, match="search 'anneal' is unknown; there are: neat, random"):
        EvolutionSettings(search="anneal")
    with pytest.raises(RecipeError, match="fitness 'sharpe' is unknown"):
        EvolutionSettings(fitness="sharpe")
