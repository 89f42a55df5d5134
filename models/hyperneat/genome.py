"""A CPPN genome as plain data: nodes, links, and the order in which they are evaluated.

A compositional pattern-producing network (CPPN) is a small graph of sines, Gaussians and the like.
Asked at the coordinates of one connection of a convolution it answers with that connection's
weight and with whether it is expressed at all (link expression output, LEO).

Left out: what the answers paint (`decoding.py`), where (`substrate.py`), and how genomes change
from one generation to the next (`evolution.py`). Torch is not imported: recipes are checked with
this.

Sources: Stanley, D'Ambrosio & Gauci 2009 (HyperNEAT); Verbancsics & Stanley 2011 (HyperNEAT-LEO).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cppncripto_strategy.errors import RecipeError

COORDINATES = ("layer", "out channel", "in channel", "tap", "time")
MORE_COORDINATES = {
    "period": ("period sine", "period cosine"),
    "day": ("day sine", "day cosine"),
    "week": ("week sine", "week cosine"),
    "scatter": ("out scatter", "in scatter"),
}
"""Pairs of coordinates that a substrate may offer beside the five, by name."""
MOST_COORDINATES = len(COORDINATES) + sum(map(len, MORE_COORDINATES.values()))
OUTPUTS = ("weight", "expression")
WEIGHT_KEY, EXPRESSION_KEY, GATE_KEY = 0, 1, 2
GATED_OUTPUTS = (*OUTPUTS, "gate")
"""Outputs of a genome for a substrate whose filters have gates."""
GENOME_FORMAT = "cppn-genome"
# Functions of the nodes; `decoding.py` has what they compute.
ACTIVATIONS = (
    "sigmoid",
    "tanh",
    "sin",
    "gauss",
    "relu",
    "identity",
    "clamped",
    "abs",
    "hat",
    "square",
)
AGGREGATIONS = ("sum", "product", "max", "min", "mean")


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
    """A connection of a CPPN. Inputs have the keys -1, -2, .., outputs 0, 1 and, gated, 2."""

    source: int
    target: int
    weight: float
    enabled: bool
    innovation: int


@dataclass(frozen=True, slots=True)
class Genome:
    """A CPPN as plain data, in neat-python's order (which its random choices depend on).

    Parameters
    ----------
    outputs : 2 (weight and expression), or 3 with the weight of a gate.
    """

    key: int
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    outputs: int = len(OUTPUTS)

    @classmethod
    def from_neat(cls, genome: Any, outputs: int = len(OUTPUTS)) -> Genome:
        """The plain form of a neat-python `DefaultGenome` with so many outputs."""
        nodes = tuple(
            Node(n.key, n.bias, n.response, n.activation, n.aggregation)
            for n in genome.nodes.values()
        )
        links = tuple(
            Link(c.key[0], c.key[1], c.weight, c.enabled, c.innovation)
            for c in genome.connections.values()
        )
        return cls(genome.key, nodes, links, outputs)

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
        gated = {} if self.outputs == len(OUTPUTS) else {"outputs": self.outputs}
        return {
            "format": GENOME_FORMAT,
            "version": 1,
            "key": self.key,
            "nodes": [asdict(node) for node in self.nodes],
            "links": [asdict(link) for link in self.links],
            **gated,
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
            outputs = int(document.get("outputs", len(OUTPUTS)))
            genome = cls(int(document["key"]), nodes, links, outputs)
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"the genome is incomplete: {error}") from error
        if outputs not in (len(OUTPUTS), len(GATED_OUTPUTS)):
            raise RecipeError(f"a genome has 2 or 3 outputs, this one says {outputs}")
        sorted_program(genome)
        return genome

    @property
    def hidden(self) -> int:
        """Nodes besides the outputs."""
        return len(self.nodes) - self.outputs


@dataclass(frozen=True, slots=True)
class Step:
    """One node in evaluation order, with its enabled inputs."""

    node: Node
    inputs: tuple[tuple[int, float], ...]


def sorted_program(genome: Genome) -> list[Step]:
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
        if link.source < -MOST_COORDINATES:
            raise RecipeError(
                f"input {link.source} is unknown; inputs are -1 .. -{MOST_COORDINATES}"
            )
        if link.enabled:
            incoming[link.target].append((link.source, link.weight))
    order: list[Step] = []
    state: dict[int, int] = {}  # 1: being visited, 2: done
    for output in range(genome.outputs):
        if output not in nodes:
            raise RecipeError(f"the genome has no output node {output}")
        _visit(output, nodes, incoming, state, order)
    return order


def _visit(
    key: int,
    nodes: Mapping[int, Node],
    incoming: Mapping[int, list[tuple[int, float]]],
    state: dict[int, int],
    order: list[Step],
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
    order.append(Step(node, tuple(incoming[key])))
