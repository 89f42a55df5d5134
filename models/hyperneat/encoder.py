"""A temporal CNN whose kernels and sparsity a CPPN paints (HyperNEAT), to evolve and to fine-tune.

Candles are averaged into rows of `stride` candles, then pass causal dilated convolutions with
residual connections. The kernels come from `decode(genome, substrate)`; training moves the weights
of expressed connections, and the mask is frozen: what the CPPN left out stays out. It leaves out
the search for the genome, which is in `evolution.py`.

Source: Verbancsics & Harguess 2013 (HyperNEAT as a feature extractor); Fernando et al. 2016
(weights painted, then learned).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.hyperneat.decoding import Kernels, decode
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.substrate import Layer, Substrate

# A random CPPN that expresses less than this share of its connections is drawn again.
MIN_EXPRESSED = 0.02


class PaintedConv(nn.Module):
    """Causal convolution with a frozen connection mask, and a gate where one is painted.

    Parameters
    ----------
    layer : shape and dilation.
    weight, mask : float32 and bool tensors (out, in, tap).
    gate : float32 weights of the gate, like `weight`; None without.
    """

    mask: Tensor
    painted: Tensor

    def __init__(
        self, layer: Layer, weight: Tensor, mask: Tensor, gate: Tensor | None = None
    ) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros(layer.outputs))
        self.gate = None if gate is None else nn.Parameter(gate.clone())
        self.gate_bias = None if gate is None else nn.Parameter(torch.zeros(layer.outputs))
        self.register_buffer("mask", mask.clone())
        # Not part of the state: whoever builds the network paints it.
        self.register_buffer("painted", weight.clone(), persistent=False)

    @property
    def connections(self) -> int:
        """Weights that training can move, biases aside."""
        return int(self.mask.count_nonzero()) * (1 if self.gate is None else 2)

    def only(self, filters: Tensor) -> PaintedConv:
        """A layer of some of the filters (bool, (out,)), as painted."""
        layer = replace(self.layer, outputs=int(filters.sum()))
        gate = None if self.gate is None else self.gate[filters]
        return PaintedConv(layer, self.weight[filters], self.mask[filters], gate)

    def forward(self, z: Tensor) -> Tensor:
        """Rows (B, in, R) -> (B, out, R); output row j reads rows j and earlier, zeros before 0."""
        answer = functional.gelu(self._convolved(z, self.weight, self.bias))
        if self.gate is None:
            return answer
        return answer * torch.sigmoid(self._convolved(z, self.gate, self.gate_bias))

    def _convolved(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = functional.pad(z, ((self.layer.taps - 1) * self.layer.dilation, 0))
        kernel = weight * self.mask  # (O, I, K): no gradient reaches what is not expressed
        return functional.conv1d(padded, kernel, bias, dilation=self.layer.dilation)


class CPPNEncoder(Encoder):
    """Encoder "cppn".

    Parameters
    ----------
    n_features : features of a candle.
    width : length of the pooled vector; kernels are painted for the width that is asked for.
    options : see `CPPNOptions`.

    Attributes
    ----------
    genomes, substrate : what paints, and where. Several genomes share out the vector: each paints a
        network of its own, for the part that is its.

    Raises
    ------
    RecipeError
        When genome or substrate cannot be used, the substrate reads another number of features, or
        the vector is too short for the genomes.
    """

    Options = CPPNOptions

    def __init__(self, n_features: int, width: int, options: CPPNOptions) -> None:
        inlined = options.inlined()
        where = inlined.substrate_for(n_features, width)
        if where.layers[0].inputs != n_features:
            raise RecipeError(
                f"the substrate reads {where.layers[0].inputs} features and the candles have "
                f"{n_features}; evolve a genome with the same features"
            )
        genomes = _genomes_of(inlined) or (draw_random_genome(where),)
        documents = [genome.to_json() for genome in genomes]
        rebuild = {
            "genome": documents[0],
            "bank": tuple(documents[1:]),
            "substrate": where.to_json(),
        }
        super().__init__(n_features, width, inlined.model_copy(update=rebuild))
        self.genomes, self.substrate, self.stride = genomes, where, where.stride
        self.chosen_until_ms = inlined.evolved_until_ms
        self.chosen_features = where.features
        self.layers = nn.ModuleList(
            layer for genome, part in self._parts() for layer in painted_layers(genome, part)
        )

    def _parts(self) -> list[tuple[Genome, Substrate]]:
        """Each genome with the substrate of its share of the vector."""
        count = len(self.genomes)
        if count > self.width:
            raise RecipeError(f"{count} genomes cannot share out a vector of {self.width} numbers")
        shares = [self.width // count + (i < self.width % count) for i in range(count)]
        pairs = zip(self.genomes, shares, strict=True)
        return [(genome, self.substrate.with_width(share)) for genome, share in pairs]

    @property
    def genome(self) -> Genome:
        """The first genome."""
        return self.genomes[0]

    @property
    def connections(self) -> int:
        """Expressed connections: weights that training can move, biases aside."""
        return sum(layer.connections for layer in self.painted)

    @property
    def painted(self) -> list[PaintedConv]:
        """The convolutions, first to last, genome after genome."""
        return [layer for layer in self.layers if isinstance(layer, PaintedConv)]

    def penalty(self) -> Tensor | None:
        """`decay` times the squared distance of the weights from those painted; None without."""
        decay = self.options.decay if isinstance(self.options, CPPNOptions) else 0.0
        if not decay:
            return None
        moved = [((y.weight - y.painted) * y.mask).square().sum() for y in self.painted]
        return decay * torch.stack(moved).sum()

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        return self.rows_map(self.rows(x))

    def rows(self, x: Tensor) -> Tensor:
        """Candles (B, T, F) averaged into rows (B, T // stride, F); no parameter is involved."""
        return average_rows(x, self.stride)

    def rows_map(self, rows: Tensor) -> Tensor:
        """Rows (B, R, F) -> feature map (B, R, width)."""
        z, depth = rows.transpose(1, 2), len(self.substrate.layers)  # (B, F, R)
        layers = self.painted
        networks = [layers[i : i + depth] for i in range(0, len(layers), depth)]
        answers = [run_layers(network, z) for network in networks]
        return torch.cat(answers, dim=1).transpose(1, 2)  # (B, R, C)

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, R, width) -> one vector per window (B, width)."""
        return pooled(z, self.substrate.half_life)


def _genomes_of(options: CPPNOptions) -> tuple[Genome, ...]:
    """The genome of the options and its bank; () where there is none."""
    if not isinstance(options.genome, dict):
        return ()
    return tuple(Genome.from_json(document) for document in (options.genome, *options.bank))


def painted_layers(genome: Genome, substrate: Substrate) -> list[PaintedConv]:
    """The convolutions that a genome paints."""
    return worn(decode(genome, substrate), substrate)


def worn(kernels: Kernels, substrate: Substrate) -> list[PaintedConv]:
    """Convolutions with these kernels."""
    gates = kernels.gates or (None,) * len(substrate.layers)
    parts = zip(substrate.layers, kernels.weights, kernels.masks, gates, strict=True)
    return [PaintedConv(*part) for part in parts]


def run_layers(layers: Iterable[PaintedConv], z: Tensor) -> Tensor:
    """Rows (B, F, R) through convolutions, (B, C, R); a layer of equal shape adds to its input."""
    for layer in layers:
        new = layer(z)  # (B, C, R)
        z = z + new if z.shape == new.shape else new  # (B, C, R)
    return z


def pooled(z: Tensor, half_life: float | None, early: int | None = None) -> Tensor:
    """Feature map (B, R, C) -> its mean over the rows (B, C).

    With a half-life, later rows count more in the first `early` channels (half of them where it is
    left out): one of that many rows ago half as much as the last.
    """
    if half_life is None:
        return z.mean(dim=1)
    age = torch.arange(z.shape[1] - 1, -1, -1, device=z.device)  # (R,)
    weight = torch.softmax(-age * (math.log(2.0) / half_life), dim=0)
    early = z.shape[2] // 2 if early is None else early
    recent = torch.einsum("t,btc->bc", weight, z[:, :, :early])
    return torch.cat([recent, z[:, :, early:].mean(dim=1)], dim=1)


def average_rows(x: Tensor, stride: int) -> Tensor:
    """Mean of every `stride` candles: (B, T, F) -> (B, T // stride, F); NaN stays NaN."""
    batch, time, features = x.shape
    return x.reshape(batch, time // stride, stride, features).mean(dim=2)


def draw_random_genome(substrate: Substrate) -> Genome:
    """A random CPPN from torch's random state, one that expresses at least a few connections."""
    while True:
        seed = int(torch.randint(2**31, ()).item())
        genome = random_genome(seed, inputs=substrate.inputs, outputs=substrate.outputs)
        if is_expressed(decode(genome, substrate), substrate):
            return genome


def is_expressed(kernels: Kernels, substrate: Substrate) -> bool:
    """Whether enough connections are expressed for anything to pass the network."""
    every_layer = all(bool(mask.any()) for mask in kernels.masks)
    return every_layer and kernels.connections >= MIN_EXPRESSED * substrate.weights
