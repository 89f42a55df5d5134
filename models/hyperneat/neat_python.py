"""neat-python's side: its configuration, its random state, and a genome it has mutated."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from cppncripto_strategy.models.hyperneat.genome import (
    COORDINATES,
    EXPRESSION_KEY,
    OUTPUTS,
    Genome,
)
from cppncripto_strategy.models.hyperneat.settings import NeatSettings

# Inputs that say which channel a connection goes to and comes from.
_CHANNELS = (-1 - COORDINATES.index("out channel"), -1 - COORDINATES.index("in channel"))
_NEAT_FILE = """
[NEAT]
fitness_criterion = max
fitness_threshold = 0
no_fitness_termination = True
pop_size = {population}
reset_on_extinction = False
[DefaultGenome]
num_inputs = {inputs}
num_outputs = {outputs}
num_hidden = 0
feed_forward = True
initial_connection = full_direct
compatibility_disjoint_coefficient = 1.0
compatibility_weight_coefficient = 0.5
node_add_prob = {add_node}
node_delete_prob = {delete_node}
conn_add_prob = {add_link}
conn_delete_prob = {delete_link}
single_structural_mutation = False
structural_mutation_surer = default
activation_default = random
activation_options = sin gauss tanh sigmoid identity abs
activation_mutate_rate = {change_activation}
aggregation_default = sum
aggregation_options = sum product
aggregation_mutate_rate = 0.02
bias_init_mean = 0.0
bias_init_stdev = 0.5
bias_init_type = gaussian
bias_max_value = 5.0
bias_min_value = -5.0
bias_mutate_power = {bias_step}
bias_mutate_rate = 0.5
bias_replace_rate = 0.05
response_init_mean = 1.0
response_init_stdev = 0.0
response_init_type = gaussian
response_max_value = 5.0
response_min_value = -5.0
response_mutate_power = 0.0
response_mutate_rate = 0.0
response_replace_rate = 0.0
weight_init_mean = 0.0
weight_init_stdev = 1.0
weight_init_type = gaussian
weight_max_value = 5.0
weight_min_value = -5.0
weight_mutate_power = {weight_step}
weight_mutate_rate = 0.7
weight_replace_rate = 0.05
enabled_default = True
enabled_mutate_rate = 0.01
[DefaultSpeciesSet]
compatibility_threshold = {species_distance}
[DefaultStagnation]
species_fitness_func = max
max_stagnation = {stagnation}
species_elitism = 2
[DefaultReproduction]
elitism = {elitism}
survival_threshold = {survival}
min_species_size = 1
"""


def neat_config(
    settings: NeatSettings | None = None,
    inputs: int = len(COORDINATES),
    outputs: int = len(OUTPUTS),
) -> Any:
    """neat-python's configuration for CPPNs of so many coordinates and outputs."""
    import neat

    text = _NEAT_FILE.format(inputs=inputs, outputs=outputs, **asdict(settings or NeatSettings()))
    # neat-python reads its configuration from a file and from nothing else.
    handle, name = tempfile.mkstemp(suffix=".neat")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        return neat.Config(
            neat.DefaultGenome,
            neat.DefaultReproduction,
            neat.DefaultSpeciesSet,
            neat.DefaultStagnation,
            name,
        )
    finally:
        os.unlink(name)


@contextmanager
def neat_random(state: object) -> Iterator[None]:
    """Run neat-python from this state (or seed) of Python's global generator, then put it back.

    neat-python draws from the global generator alone, so without this the caller's own draws would
    change a run, and a run the caller's draws.
    """
    before = random.getstate()
    try:
        if isinstance(state, tuple):
            random.setstate(state)
        else:
            random.seed(state)  # type: ignore[arg-type]
        yield
    finally:
        random.setstate(before)


def random_genome(
    seed: int,
    mutations: int = 20,
    inputs: int = len(COORDINATES),
    outputs: int = len(OUTPUTS),
    key: int = 1,
    local: bool = False,
) -> Genome:
    """A CPPN that no selection has touched: a first-generation genome mutated so many times.

    `local` : see `seed_locality`.
    """
    from neat.genome import DefaultGenome
    from neat.innovation import InnovationTracker

    config = _shared_config(inputs, outputs).genome_config
    config.innovation_tracker, config.node_indexer = InnovationTracker(), None
    with neat_random(seed):
        genome = DefaultGenome(key)
        genome.configure_new(config)
        if local:
            seed_locality(genome, config)
        for _ in range(mutations):
            genome.mutate(config)
    return Genome.from_neat(genome, outputs)


def seed_locality(genome: Any, config: Any) -> None:
    """Let a first-generation genome express connections among near channels alone.

    The expression is above 0 where two channels are less than a third apart, on axes from -1 to 1;
    whatever else reached it is switched off (after Verbancsics & Stanley 2011, who use a Gaussian
    less a threshold).
    """
    for (source, target), link in genome.connections.items():
        if target == EXPRESSION_KEY:
            link.enabled = source in _CHANNELS
            if source in _CHANNELS:
                link.weight = 3.0 if source == _CHANNELS[0] else -3.0
    node = genome.nodes[EXPRESSION_KEY]
    node.activation, node.aggregation, node.bias = "hat", "sum", 0.0


@lru_cache(maxsize=8)
def _shared_config(inputs: int, outputs: int) -> Any:
    """The default configuration, read once: a search draws hundreds of genomes."""
    return neat_config(None, inputs, outputs)
