"""CPPN genomes, and the kernels they paint: genome + substrate -> Conv1d weights and masks.

A compositional pattern-producing network (CPPN) is a small graph of sines, Gaussians and the like.
Asked at the coordinates of one connection of a convolution it answers with that connection's
weight and with whether it is expressed at all (link expression output, LEO). The substrate says
where the connections lie. Because a kernel is a picture over coordinates, the same genome can be
painted on another substrate: another dilation, width, stride or candle interval.

Two decoders live here and must agree: `decode` evaluates each node of the graph once, on whole
coordinate axes; `decode_by_coordinate` asks neat-python's own network for one connection at a time.
How genomes change from one generation to the next is in `evolution.py`; the network that wears the
kernels is in `encoders/cppn.py`.

Sources: Stanley, D'Ambrosio & Gauci 2009 (HyperNEAT); Verbancsics & Stanley 2011 (HyperNEAT-LEO).
Deviations: a filter is scaled to unit length after masking, and time is a coordinate of its own, so
that dilated taps sit where they act instead of where they are stored.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, reduce
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError

COORDINATES = ("layer", "out channel", "in channel", "tap", "time")
OUTPUTS = ("weight", "expression")
WEIGHT_KEY, EXPRESSION_KEY = 0, 1
GENOME_FORMAT = "cppn-genome"
FIVE_MINUTES_MS = 300_000
# One day of 5-minute candles back is time coordinate -1.
_LOG2_DAY = float(np.log2(1 + 288))


# ---------------------------------------------------------------------------------- genome
@dataclass(frozen=True, slots=True)
class Node:
    """A node of a CPPN: output = activation(bias + response * aggregation(weighted inputs))."""

    key: int
    bias: float
    response: float
    activation: str
    aggregation: str


@dataclass(frozen=True, slots=True)
class Link:
    """A connection of a CPPN. Inputs have the keys -1 .. -5, outputs 0 and 1."""

    source: int
    target: int
    weight: float
    enabled: bool
    innovation: int


@dataclass(frozen=True, slots=True)
class Genome:
    """A CPPN as plain data, in neat-python's order (which its random choices depend on)."""

    key: int
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    @classmethod
    def from_neat(cls, genome: Any) -> Genome:
        """The plain form of a neat-python `DefaultGenome`."""
        nodes = tuple(
            Node(n.key, n.bias, n.response, n.activation, n.aggregation)
            for n in genome.nodes.values()
        )
        links = tuple(
            Link(c.key[0], c.key[1], c.weight, c.enabled, c.innovation)
            for c in genome.connections.values()
        )
        return cls(genome.key, nodes, links)

    def to_neat(self) -> Any:
        """A neat-python `DefaultGenome` that is gene for gene this one."""
        from neat.genes import DefaultConnectionGene, DefaultNodeGene
        from neat.genome import DefaultGenome

        genome = DefaultGenome(self.key)
        for node in self.nodes:
            gene = DefaultNodeGene(node.key)
            gene.bias, gene.response, gene.time_constant = node.bias, node.response, 1.0
            gene.activation, gene.aggregation = node.activation, node.aggregation
            genome.nodes[node.key] = gene
        for link in self.links:
            connection = DefaultConnectionGene((link.source, link.target), link.innovation)
            connection.weight, connection.enabled = link.weight, link.enabled
            genome.connections[connection.key] = connection
        return genome

    def to_json(self) -> dict[str, Any]:
        """JSON document; numbers come back bit for bit."""
        return {
            "format": GENOME_FORMAT,
            "version": 1,
            "key": self.key,
            "nodes": [asdict(node) for node in self.nodes],
            "links": [asdict(link) for link in self.links],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Genome:
        """The genome of a document written by `to_json`.

        Raises
        ------
        RecipeError
            When the document is not a genome, or has an unknown function, a loop or a loose end.
        """
        if document.get("format") != GENOME_FORMAT:
            found = document.get("format")
            raise RecipeError(
                f"this is not a genome: its format is {found!r} and not {GENOME_FORMAT!r}; "
                "give the champion.json that `cppn-bt evolve` wrote"
            )
        try:
            nodes = tuple(Node(**node) for node in document["nodes"])
            links = tuple(Link(**link) for link in document["links"])
            genome = cls(int(document["key"]), nodes, links)
        except (KeyError, TypeError) as error:
            raise RecipeError(f"the genome is incomplete: {error}") from error
        _sorted_program(genome)
        return genome

    @property
    def hidden(self) -> int:
        """Nodes besides the two outputs."""
        return len(self.nodes) - len(OUTPUTS)


def read_champion(path: Path) -> dict[str, Any]:
    """The document of a champion.json: `genome`, and `substrate` where it was evolved on one.

    A file that is a bare genome is read as a champion without a substrate.

    Raises
    ------
    RecipeError
        When there is no such file or it holds no genome.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RecipeError(f"no genome can be read from {path}: {error}") from error
    champion: dict[str, Any] = document if "genome" in document else {"genome": document}
    Genome.from_json(champion["genome"])
    return champion


# ------------------------------------------------------------------------------- substrate
@dataclass(frozen=True, slots=True)
class Layer:
    """One causal convolution: kernel (outputs, inputs, taps), taps `dilation` rows apart."""

    inputs: int
    outputs: int
    taps: int
    dilation: int

    @property
    def weights(self) -> int:
        """Weights of the dense kernel."""
        return self.outputs * self.inputs * self.taps


@dataclass(frozen=True, slots=True)
class Substrate:
    """Where a genome paints: causal convolutions over rows of `stride` candles.

    Parameters
    ----------
    layers : the convolutions, the first reading the features.
    stride : candles averaged into one row before the first layer.
    interval_ms : length of a candle, milliseconds; with the stride it puts taps at physical times.
    """

    layers: tuple[Layer, ...]
    stride: int = 12
    interval_ms: int = FIVE_MINUTES_MS

    def __post_init__(self) -> None:
        if not self.layers:
            raise RecipeError("a substrate needs at least one layer")
        values = [v for layer in self.layers for v in asdict(layer).values()]
        if min(*values, self.stride, self.interval_ms) < 1:
            raise RecipeError(f"sizes of a substrate must be 1 or more: {self}")
        for i, (below, above) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if below.outputs != above.inputs:
                raise RecipeError(
                    f"layer {i} has {below.outputs} outputs, layer {i + 1} {above.inputs} inputs"
                )

    @classmethod
    def temporal(
        cls,
        n_features: int,
        width: int,
        channels: int = 24,
        taps: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
        stride: int = 12,
        interval_ms: int = FIVE_MINUTES_MS,
    ) -> Substrate:
        """A stack of dilated convolutions, one for each dilation; the last has `width` outputs."""
        sizes = [n_features, *([channels] * (len(dilations) - 1)), width]
        layers = tuple(
            Layer(inputs, outputs, taps, dilation)
            for inputs, outputs, dilation in zip(sizes, sizes[1:], dilations, strict=False)
        )
        return cls(layers, stride, interval_ms)

    def with_width(self, width: int) -> Substrate:
        """The same substrate with another number of outputs."""
        last = replace(self.layers[-1], outputs=width)
        return replace(self, layers=(*self.layers[:-1], last))

    @property
    def width(self) -> int:
        """Channels of the last layer."""
        return self.layers[-1].outputs

    @property
    def weights(self) -> int:
        """Weights of all dense kernels: the most connections a genome can express here."""
        return sum(layer.weights for layer in self.layers)

    @property
    def receptive_field(self) -> int:
        """Rows (of `stride` candles) that one row of the feature map depends on."""
        return 1 + sum((layer.taps - 1) * layer.dilation for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """JSON document that `from_json` reads."""
        return asdict(self) | {"layers": [asdict(layer) for layer in self.layers]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Substrate:
        """The substrate of a document written by `to_json`; Raises RecipeError when it is not."""
        try:
            layers = tuple(Layer(**layer) for layer in document["layers"])
            return cls(layers, int(document["stride"]), int(document["interval_ms"]))
        except (KeyError, TypeError) as error:
            raise RecipeError(f"the substrate is incomplete: {error}") from error

    def layer_coordinate(self, index: int) -> float:
        """Depth of a layer: -1 for the first, 1 for the last."""
        return float(_axis(len(self.layers))[index])

    def tap_times(self, layer: Layer) -> FloatArray:
        """Time of each tap, oldest first: minus log2 of its lag, -1 a day ago, (taps,)."""
        row_ms = self.stride * self.interval_ms
        lag_ms = np.arange(layer.taps - 1, -1, -1) * layer.dilation * row_ms
        return np.asarray(-np.log2(1 + lag_ms / FIVE_MINUTES_MS) / _LOG2_DAY)


def _axis(size: int) -> FloatArray:
    """Evenly spaced coordinates from -1 to 1; 0 where there is only one."""
    return np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)


# ------------------------------------------------------------------- functions of the nodes
# neat-python scales and clips its arguments (its sine is sin(5z)); a genome means the same only
# with the very same functions. Each may overwrite its argument: a fresh grid costs as much as a
# sine.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda z: z.mul_(5.0).clamp_(-60.0, 60.0).sigmoid_(),
    "tanh": lambda z: z.mul_(2.5).clamp_(-60.0, 60.0).tanh_(),
    "sin": lambda z: z.mul_(5.0).clamp_(-60.0, 60.0).sin_(),
    "gauss": lambda z: z.clamp_(-3.4, 3.4).square_().mul_(-5.0).exp_(),
    "relu": lambda z: z.clamp_(min=0.0),
    "identity": lambda z: z,
    "clamped": lambda z: z.clamp_(-1.0, 1.0),
    "abs": lambda z: z.abs_(),
    "hat": lambda z: z.abs_().neg_().add_(1.0).clamp_(min=0.0),
    "square": lambda z: z.square_(),
}


Weighted = Sequence[tuple[Tensor, float]]


def _sum(inputs: Weighted) -> Tensor:
    (first, weight), *others = inputs
    total = first * weight
    for value, weight in others:
        total = torch.add(total, value, alpha=weight)  # one pass instead of two
    return total


def _fold(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Weighted], Tensor]:
    return lambda inputs: reduce(combine, (value * weight for value, weight in inputs))


AGGREGATIONS: dict[str, Callable[[Weighted], Tensor]] = {
    "sum": _sum,
    "product": _fold(torch.mul),
    "max": _fold(torch.maximum),
    "min": _fold(torch.minimum),
    "mean": lambda inputs: _sum(inputs) / len(inputs),
}
# What neat-python's aggregations make of no input at all.
_EMPTY = {"sum": 0.0, "product": 1.0, "max": 0.0, "min": 0.0, "mean": 0.0}


# --------------------------------------------------------------------------------- decoding
@dataclass(frozen=True, slots=True)
class _Step:
    """One node in evaluation order, with its enabled inputs."""

    node: Node
    inputs: tuple[tuple[int, float], ...]


def _sorted_program(genome: Genome) -> list[_Step]:
    """The nodes that the outputs depend on, each after everything it reads.

    Raises
    ------
    RecipeError
        When a function is unknown, a link has a loose end, an output is missing, or there is a
        loop.
    """
    nodes = {node.key: node for node in genome.nodes}
    incoming: dict[int, list[tuple[int, float]]] = {key: [] for key in nodes}
    for link in genome.links:
        if link.target not in nodes or (link.source not in nodes and link.source >= 0):
            raise RecipeError(f"link {link.source} -> {link.target} ends at no node of the genome")
        if link.source < -len(COORDINATES):
            raise RecipeError(
                f"input {link.source} is unknown; inputs are -1 .. -{len(COORDINATES)}"
            )
        if link.enabled:
            incoming[link.target].append((link.source, link.weight))
    order: list[_Step] = []
    state: dict[int, int] = {}  # 1: being visited, 2: done
    for output in (WEIGHT_KEY, EXPRESSION_KEY):
        if output not in nodes:
            raise RecipeError(f"the genome has no output node {output}")
        _visit(output, nodes, incoming, state, order)
    return order


def _visit(
    key: int,
    nodes: Mapping[int, Node],
    incoming: Mapping[int, list[tuple[int, float]]],
    state: dict[int, int],
    order: list[_Step],
) -> None:
    if state.get(key) == 2:
        return
    if state.get(key) == 1:
        raise RecipeError(f"node {key} of the genome feeds itself: a CPPN must have no loop")
    state[key] = 1
    for source, _ in incoming[key]:
        if source >= 0:
            _visit(source, nodes, incoming, state, order)
    state[key] = 2
    node = nodes[key]
    if node.activation not in ACTIVATIONS:
        raise RecipeError(f"activation {node.activation!r} is unknown; there are: {[*ACTIVATIONS]}")
    if node.aggregation not in AGGREGATIONS:
        raise RecipeError(
            f"aggregation {node.aggregation!r} is unknown; there are: {[*AGGREGATIONS]}"
        )
    order.append(_Step(node, tuple(incoming[key])))


def _run_program(program: Sequence[_Step], coordinates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and expression on the grid that the coordinate axes span (still broadcastable)."""
    values: dict[int, Tensor] = {-1 - i: axis for i, axis in enumerate(coordinates)}
    for step in program:
        node = step.node
        # Small arrays first: axes meet as late as possible, and few operations see the whole grid.
        inputs = sorted(((values[key], w) for key, w in step.inputs), key=lambda p: p[0].numel())
        if inputs:
            total = AGGREGATIONS[node.aggregation](inputs)
        else:
            total = torch.full((1, 1, 1, 1), _EMPTY[node.aggregation], dtype=torch.float64)
        if node.response != 1.0:
            total = total.mul_(node.response)
        # `total` is ours alone (every aggregation makes a new array), so it may be overwritten.
        total = total.add_(node.bias)
        values[node.key] = ACTIVATIONS[node.activation](total)
    return values[WEIGHT_KEY], values[EXPRESSION_KEY]


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Painted convolutions, one pair of arrays a layer.

    Parameters
    ----------
    weights : float32 tensors (out, in, tap), oldest tap first; 0 where not expressed, every filter
        (a row of `out`) of length 1 or entirely 0.
    masks : bool tensors of the same shapes, whether the connection is expressed.
    """

    weights: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]

    @property
    def connections(self) -> int:
        """Expressed connections."""
        return sum(int(mask.count_nonzero()) for mask in self.masks)


def decode(genome: Genome, substrate: Substrate) -> Kernels:
    """Paint a substrate: every node evaluated once for all layers of equal shape.

    A node's array is only as large as the coordinates it depends on; axes are broadcast where they
    meet. A connection is expressed where the expression output is above 0.

    Raises
    ------
    RecipeError
        When the genome cannot be evaluated: see `Genome.from_json`.
    """
    program = _sorted_program(genome)
    weights: list[Tensor] = []
    masks: list[Tensor] = []
    first = 0
    for shape, group in groupby(substrate.layers, key=lambda y: (y.outputs, y.inputs, y.taps)):
        last = first + len(list(group))
        weight, expression = _run_program(program, _coordinate_axes(substrate, first, last))
        painted, mask = _finish(weight, expression, (last - first, *shape))
        weights.extend(painted)
        masks.extend(mask)
        first = last
    return Kernels(tuple(weights), tuple(masks))


@lru_cache(maxsize=64)
def _coordinate_axes(substrate: Substrate, first: int, last: int) -> tuple[Tensor, ...]:
    """The five coordinates of equally shaped layers as axes of (layer, out, in, tap), float64."""
    members = range(first, last)
    layer = substrate.layers[first]
    depth = np.array([substrate.layer_coordinate(i) for i in members])
    times = np.stack([substrate.tap_times(substrate.layers[i]) for i in members])
    axes = (
        depth[:, None, None, None],  # (L, 1, 1, 1)
        _axis(layer.outputs)[None, :, None, None],  # (1, O, 1, 1)
        _axis(layer.inputs)[None, None, :, None],  # (1, 1, I, 1)
        _axis(layer.taps)[None, None, None, :],  # (1, 1, 1, K)
        times[:, None, None, :],  # (L, 1, 1, K)
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(axis)) for axis in axes)


def _finish(weight: Tensor, expression: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Raw outputs -> unit-length masked filters (L, O, I, K), float32, and their masks."""
    expressed = (expression > 0).view(torch.uint8)
    masked = (weight.float() * expressed).expand(shape).contiguous()  # (L, O, I, K)
    length = torch.linalg.vector_norm(masked, dim=(2, 3), keepdim=True)  # (L, O, 1, 1)
    # A filter without connections stays 0.
    masked.div_(length.masked_fill_(length == 0, 1.0))
    return masked, expressed.view(torch.bool).expand(shape).contiguous()


def substrate_coordinates(substrate: Substrate) -> Iterator[list[tuple[float, ...]]]:
    """For each layer, the five coordinates of every connection in (out, in, tap) order."""
    for index, layer in enumerate(substrate.layers):
        depth, times = substrate.layer_coordinate(index), substrate.tap_times(layer).tolist()
        taps = _axis(layer.taps).tolist()
        yield [
            (depth, out, into, tap, time)
            for out in _axis(layer.outputs).tolist()
            for into in _axis(layer.inputs).tolist()
            for tap, time in zip(taps, times, strict=True)
        ]


def decode_by_coordinate(genome: Genome, substrate: Substrate) -> Kernels:
    """The definition: neat-python's network asked at one connection after another. Slow."""
    from neat.nn import FeedForwardNetwork

    network = FeedForwardNetwork.create(genome.to_neat(), neat_config())
    weights: list[Tensor] = []
    masks: list[Tensor] = []
    for layer, coordinates in zip(substrate.layers, substrate_coordinates(substrate), strict=True):
        raw = torch.tensor([network.activate(point) for point in coordinates], dtype=torch.float64)
        shape = (1, layer.outputs, layer.inputs, layer.taps)
        painted, mask = _finish(raw[:, 0].reshape(shape), raw[:, 1].reshape(shape), shape)
        weights.append(painted[0])
        masks.append(mask[0])
    return Kernels(tuple(weights), tuple(masks))


# ------------------------------------------------------------------------------ neat-python
@dataclass(frozen=True, slots=True)
class NeatSettings:
    """How genomes vary and compete; probabilities are per genome or per gene and generation."""

    population: int = 48
    add_node: float = 0.15
    delete_node: float = 0.08
    add_link: float = 0.25
    delete_link: float = 0.15
    weight_step: float = 0.4
    bias_step: float = 0.3
    change_activation: float = 0.1
    species_distance: float = 1.6
    stagnation: int = 8
    elitism: int = 1
    survival: float = 0.3


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


def neat_config(settings: NeatSettings | None = None) -> Any:
    """neat-python's configuration for CPPNs of five coordinates and two outputs."""
    import neat

    text = _NEAT_FILE.format(
        inputs=len(COORDINATES), outputs=len(OUTPUTS), **asdict(settings or NeatSettings())
    )
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


def random_genome(seed: int, mutations: int = 20) -> Genome:
    """A CPPN that no selection has touched: a first-generation genome mutated so many times."""
    from neat.genome import DefaultGenome
    from neat.innovation import InnovationTracker

    config = neat_config().genome_config
    config.innovation_tracker = InnovationTracker()
    with neat_random(seed):
        genome = DefaultGenome(1)
        genome.configure_new(config)
        for _ in range(mutations):
            genome.mutate(config)
    return Genome.from_neat(genome)
