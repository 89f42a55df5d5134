"""Genomes, substrates and the two decoders."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.hyperneat.champion import read_champion
from cppncripto_strategy.models.hyperneat.decoding import decode, decode_by_coordinate
from cppncripto_strategy.models.hyperneat.genome import (
    ACTIVATIONS,
    AGGREGATIONS,
    MOST_COORDINATES,
    Genome,
    Link,
    Node,
)
from cppncripto_strategy.models.hyperneat.neat_python import neat_config, random_genome
from cppncripto_strategy.models.hyperneat.substrate import Layer, Substrate

SMALL = Substrate.temporal(n_features=5, width=8, channels=6, taps=3, dilations=(1, 2, 4))
UNEVEN = Substrate((Layer(3, 4, 2, 1), Layer(4, 7, 5, 3), Layer(7, 7, 5, 6), Layer(7, 2, 1, 1)), 4)


def constant_genome(weight, expression):
    """A CPPN that answers the same everywhere: both outputs have a bias and no input."""
    nodes = (Node(0, weight, 1.0, "identity", "sum"), Node(1, expression, 1.0, "identity", "sum"))
    return Genome(1, nodes, ())


def half_expressed_genome(substrate):
    """The first random genome that expresses some connections of every layer and not all."""
    for seed in range(200):
        genome = random_genome(seed, 60)
        masks = decode(genome, substrate).masks
        if all(mask.any() and not mask.all() for mask in masks):
            return genome
    raise AssertionError("no random genome paints a partial mask")


def assert_same_kernels(genome, substrate):
    fast, slow = decode(genome, substrate), decode_by_coordinate(genome, substrate)
    for ours, theirs in zip(fast.weights, slow.weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for ours, theirs in zip(fast.masks, slow.masks, strict=True):
        assert torch.equal(ours, theirs)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), mutations=st.integers(0, 150))
def test_whole_grid_agrees_with_asking_each_coordinate(seed, mutations):
    """A node sorted before its input, an axis mixed up, a disabled link used: kernels differ."""
    assert_same_kernels(random_genome(seed, mutations), UNEVEN)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_function_means_what_it_means_to_neat(activation, aggregation):
    """sin(z) for neat-python's sin(5z), or an unclipped Gaussian, paints another picture."""
    hidden = Node(5, 0.3, 1.7, activation, aggregation)
    outputs = (Node(0, 0.1, 0.8, "identity", "sum"), Node(1, -0.05, 1.0, "identity", "sum"))
    links = tuple(Link(-1 - i, 5, w, True, i + 1) for i, w in enumerate((2.5, -3.0, 1.1, 4.0, 2.0)))
    links += (Link(5, 0, 1.3, True, 6), Link(5, 1, 0.9, True, 7), Link(-2, 1, 0.4, False, 8))
    assert_same_kernels(Genome(1, (*outputs, hidden), links), SMALL)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_node_without_input_uses_the_empty_aggregation(aggregation):
    """The product of nothing is 1 and its sum 0; a mix-up shifts every weight."""
    nodes = (
        Node(0, 0.0, 1.0, "identity", "sum"),
        Node(1, 0.5, 1.0, "identity", "sum"),
        Node(9, 0.25, 2.0, "identity", aggregation),
    )
    assert_same_kernels(Genome(1, nodes, (Link(9, 0, 1.0, True, 1),)), SMALL)


def test_filters_have_unit_length_and_masked_weights_are_zero():
    """Normalising before masking leaves filters of random loudness."""
    kernels = decode(half_expressed_genome(SMALL), SMALL)
    assert 0 < kernels.connections < SMALL.weights
    for weight, mask in zip(kernels.weights, kernels.masks, strict=True):
        assert not weight[~mask].any()
        lengths = weight.flatten(1).norm(dim=1)
        assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()


def test_expression_of_exactly_zero_is_not_expressed():
    """The rule is above 0, so that a CPPN that says nothing connects nothing."""
    assert decode(constant_genome(1.0, 0.0), SMALL).connections == 0
    everything = decode(constant_genome(1.0, 1e-9), SMALL)
    assert everything.connections == SMALL.weights
    fan_in = SMALL.layers[0].inputs * SMALL.layers[0].taps
    expected = torch.full_like(everything.weights[0], fan_in**-0.5)
    torch.testing.assert_close(everything.weights[0], expected)


def test_a_tap_is_painted_at_its_physical_time():
    """The same lag must be the same coordinate, whether dilation, stride or interval makes it."""
    one_hour_rows = Substrate((Layer(1, 1, 3, 2),), stride=12, interval_ms=300_000)
    quarter_hours = Substrate((Layer(1, 1, 3, 8),), stride=1, interval_ms=900_000)
    times = one_hour_rows.tap_times(one_hour_rows.layers[0])
    np.testing.assert_array_equal(times, quarter_hours.tap_times(quarter_hours.layers[0]))
    expected = [-np.log2(1 + lag_h * 12) / np.log2(289) for lag_h in (4, 2, 0)]
    np.testing.assert_allclose(times, expected, rtol=1e-12)


def test_same_genome_paints_a_wider_and_longer_substrate():
    """Resolution transfer: the corners of a finer grid are the corners of the coarse one."""
    genome = random_genome(11, 60)
    coarse = Substrate((Layer(4, 4, 3, 1), Layer(4, 4, 3, 2)))
    fine = Substrate((Layer(7, 7, 3, 1), Layer(7, 7, 3, 2)))
    for narrow, wide in zip(decode(genome, coarse).masks, decode(genome, fine).masks, strict=True):
        assert torch.equal(narrow, wide[::2, ::2])


@given(seed=st.integers(0, 10**6), mutations=st.integers(0, 80))
@settings(max_examples=20, deadline=None)
def test_genome_survives_json_bit_for_bit(seed, mutations):
    """A rounded weight or a re-ordered gene makes a resumed evolution another one."""
    genome = random_genome(seed, mutations)
    document = json.loads(json.dumps(genome.to_json()))
    assert Genome.from_json(document) == genome
    assert Genome.from_neat(Genome.from_json(document).to_neat()) == genome


def test_substrate_survives_json():
    """A bundle must rebuild the substrate it was painted on."""
    assert Substrate.from_json(json.loads(json.dumps(UNEVEN.to_json()))) == UNEVEN


def test_random_genome_depends_on_its_seed_alone():
    """neat-python draws from Python's global generator: the caller's draws must not matter."""
    random.seed(1)
    first = random_genome(3)
    after_first = random.random()
    random.seed(1)
    assert random.random() == after_first
    assert random_genome(3) == first
    assert random_genome(4) != first


def test_mutations_of_neat_keep_functions_the_decoder_knows():
    """A function added to the mutation options and not to the decoder fails in mid-evolution."""
    config = neat_config().genome_config
    assert set(config.activation_options) <= set(ACTIVATIONS)
    assert set(config.aggregation_options) <= set(AGGREGATIONS)


UNKNOWN = -1 - MOST_COORDINATES
OUTPUTS_ONLY = (Node(0, 0.0, 1.0, "sin", "sum"), Node(1, 0.0, 1.0, "sin", "sum"))


@pytest.mark.parametrize(
    ("nodes", "links", "message"),
    [
        (OUTPUTS_ONLY[:1], (), "no output node 1"),
        (OUTPUTS_ONLY, (Link(7, 0, 1.0, True, 1),), "ends at no node"),
        (OUTPUTS_ONLY, (Link(UNKNOWN, 0, 1.0, True, 1),), f"input {UNKNOWN} is unknown"),
        (
            (*OUTPUTS_ONLY, Node(2, 0.0, 1.0, "sin", "sum")),
            (Link(2, 2, 1.0, True, 1), Link(2, 0, 1.0, True, 2)),
            "feeds itself",
        ),
        ((OUTPUTS_ONLY[0], Node(1, 0.0, 1.0, "relish", "sum")), (), "'relish' is unknown"),
        ((OUTPUTS_ONLY[0], Node(1, 0.0, 1.0, "sin", "mode")), (), "'mode' is unknown"),
    ],
)
def test_impossible_genome_is_refused_with_the_reason(nodes, links, message):
    """A hand-edited genome must fail when read, not paint zeros."""
    with pytest.raises(RecipeError, match=message):
        Genome.from_json(json.loads(json.dumps(Genome(1, nodes, links).to_json())))


def test_file_that_is_no_genome_is_refused(tmp_path):
    """Another JSON file must not become an empty CPPN."""
    path = tmp_path / "metrics.json"
    path.write_text('{"sharpe": 1}')
    with pytest.raises(RecipeError, match="not a genome"):
        read_champion(path)
    with pytest.raises(RecipeError, match="not a readable genome: No such file"):
        read_champion(tmp_path / "absent.json")


def test_layers_that_do_not_fit_together_are_refused():
    """A convolution would fail later, with a message about tensors."""
    with pytest.raises(RecipeError, match="layer 0 has 4 outputs, layer 1 5 inputs"):
        Substrate((Layer(3, 4, 3, 1), Layer(5, 4, 3, 1)))
