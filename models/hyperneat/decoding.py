"""From a genome and a substrate to Conv1d weights and masks.

Two decoders live here and must agree: `decode` evaluates each node of the graph once, on whole
coordinate axes; `decode_by_coordinate` asks neat-python's own network for one connection at a time.
The network that wears the kernels is in `encoder.py`.

Deviation from HyperNEAT-LEO: a filter is scaled to unit length after masking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.hyperneat.genome import Genome, Step, sorted_program
from cppncripto_strategy.models.hyperneat.neat_python import neat_config
from cppncripto_strategy.models.hyperneat.substrate import Substrate, even_axis

# neat-python scales and clips its arguments (its sine is sin(5z)); a genome means the same only
# with the very same functions. Each may overwrite its argument: a fresh grid costs as much as a
# sine.
ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
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


AGGREGATE: dict[str, Callable[[Weighted], Tensor]] = {
    "sum": _sum,
    "product": _fold(torch.mul),
    "max": _fold(torch.maximum),
    "min": _fold(torch.minimum),
    "mean": lambda inputs: _sum(inputs) / len(inputs),
}
# What neat-python's aggregations make of no input at all.
_EMPTY = {"sum": 0.0, "product": 1.0, "max": 0.0, "min": 0.0, "mean": 0.0}


def _run_program(
    program: Sequence[Step], coordinates: Sequence[Tensor], outputs: int
) -> list[Tensor]:
    """Every output on the grid that the coordinate axes span (still broadcastable)."""
    values: dict[int, Tensor] = {-1 - i: axis for i, axis in enumerate(coordinates)}
    for step in program:
        node = step.node
        # Small arrays first: axes meet as late as possible, and few operations see the whole grid.
        inputs = sorted(((values[key], w) for key, w in step.inputs), key=lambda p: p[0].numel())
        if inputs:
            total = AGGREGATE[node.aggregation](inputs)
        else:
            total = torch.full((1, 1, 1, 1), _EMPTY[node.aggregation], dtype=torch.float64)
        if node.response != 1.0:
            total = total.mul_(node.response)
        # `total` is ours alone (every aggregation makes a new array), so it may be overwritten.
        total = total.add_(node.bias)
        values[node.key] = ACTIVATE[node.activation](total)
    return [values[key] for key in range(outputs)]


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Painted convolutions, one pair of arrays per layer.

    Parameters
    ----------
    weights : float32 tensors (out, in, tap), oldest tap first; 0 where not expressed, every filter
        (a row of `out`) of length 1 or entirely 0.
    masks : bool tensors of the same shapes, whether the connection is expressed.
    gates : float32 tensors like `weights`, of each filter's gate; () where there are none.
    """

    weights: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    gates: tuple[Tensor, ...] = ()

    @property
    def connections(self) -> int:
        """Expressed connections; a filter with a gate has each of them twice."""
        expressed = sum(int(mask.count_nonzero()) for mask in self.masks)
        return expressed * (2 if self.gates else 1)


def decode(genome: Genome, substrate: Substrate) -> Kernels:
    """Paint a substrate: every node evaluated once for all layers of equal shape.

    A node's array is only as large as the coordinates it depends on; axes are broadcast where they
    meet. A connection is expressed where the expression output is above 0.

    Raises
    ------
    RecipeError
        When the genome cannot be evaluated (see `Genome.from_json`), or reads or answers something
        else than the substrate offers.
    """
    program = _program_for(genome, substrate)
    weights: list[Tensor] = []
    masks: list[Tensor] = []
    gates: list[Tensor] = []
    first = 0
    for shape, group in groupby(substrate.layers, key=lambda y: (y.outputs, y.inputs, y.taps)):
        last = first + len(list(group))
        axes = _coordinate_axes(substrate, first, last)
        weight, expression, *gate = _run_program(program, axes, genome.outputs)
        painted, mask = _finish(weight, expression, (last - first, *shape))
        weights.extend(painted)
        masks.extend(mask)
        for other in gate:
            gates.extend(_finish(other, expression, (last - first, *shape))[0])
        first = last
    return Kernels(tuple(weights), tuple(masks), tuple(gates))


def _program_for(genome: Genome, substrate: Substrate) -> list[Step]:
    """The genome's nodes in order. Raises RecipeError when it is of another kind of substrate."""
    reads = max((-link.source for link in genome.links), default=0)
    if reads > substrate.inputs or genome.outputs != substrate.outputs:
        raise RecipeError(
            f"the genome reads up to {max(reads, 0)} coordinates and has {genome.outputs} outputs, "
            f"the substrate offers {substrate.inputs} and needs {substrate.outputs}: give it the "
            "substrate it was evolved on (coordinates, gated)"
        )
    return sorted_program(genome)


@lru_cache(maxsize=64)
def _coordinate_axes(substrate: Substrate, first: int, last: int) -> tuple[Tensor, ...]:
    """The coordinates of equally shaped layers as axes of (layer, out, in, tap), float64."""
    members = range(first, last)
    layer = substrate.layers[first]
    depth = np.array([substrate.layer_coordinate(i) for i in members])
    times = np.stack([substrate.tap_times(substrate.layers[i]) for i in members])
    more = zip(*(substrate.more_axes(substrate.layers[i]) for i in members), strict=True)
    axes = (
        depth[:, None, None, None],  # (L, 1, 1, 1)
        even_axis(layer.outputs)[None, :, None, None],  # (1, O, 1, 1)
        even_axis(layer.inputs)[None, None, :, None],  # (1, 1, I, 1)
        even_axis(layer.taps)[None, None, None, :],  # (1, 1, 1, K)
        times[:, None, None, :],  # (L, 1, 1, K)
        *(np.stack(axis) for axis in more),  # each (L, 1, 1, K), (L, O, 1, 1) or (L, 1, I, 1)
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
    """For each layer, the coordinates of every connection in (out, in, tap) order."""
    for index, layer in enumerate(substrate.layers):
        depth, times = substrate.layer_coordinate(index), substrate.tap_times(layer).tolist()
        taps, shape = even_axis(layer.taps).tolist(), (layer.outputs, layer.inputs, layer.taps)
        more = [np.broadcast_to(axis, shape) for axis in substrate.more_axes(layer)]
        yield [
            (depth, out, into, tap, time, *(float(axis[o, i, k]) for axis in more))
            for o, out in enumerate(even_axis(layer.outputs).tolist())
            for i, into in enumerate(even_axis(layer.inputs).tolist())
            for k, (tap, time) in enumerate(zip(taps, times, strict=True))
        ]


def decode_by_coordinate(genome: Genome, substrate: Substrate) -> Kernels:
    """The definition: neat-python's network asked at one connection after another. Slow."""
    from neat.nn import FeedForwardNetwork

    config = neat_config(None, substrate.inputs, substrate.outputs)
    network = FeedForwardNetwork.create(genome.to_neat(), config)
    weights: list[Tensor] = []
    masks: list[Tensor] = []
    gates: list[Tensor] = []
    for layer, coordinates in zip(substrate.layers, substrate_coordinates(substrate), strict=True):
        raw = torch.tensor([network.activate(point) for point in coordinates], dtype=torch.float64)
        shape = (1, layer.outputs, layer.inputs, layer.taps)
        painted, mask = _finish(raw[:, 0].reshape(shape), raw[:, 1].reshape(shape), shape)
        weights.append(painted[0])
        masks.append(mask[0])
        if substrate.gated:
            gates.append(_finish(raw[:, 2].reshape(shape), raw[:, 1].reshape(shape), shape)[0][0])
    return Kernels(tuple(weights), tuple(masks), tuple(gates))
