"""A temporal CNN whose kernels and sparsity a CPPN paints (HyperNEAT), to evolve and to fine-tune.

Candles are averaged into rows of `stride` candles, then pass causal dilated convolutions with
residual connections. The kernels come from `decode(genome, substrate)`; training moves the weights
of expressed connections, and the mask is frozen: what the CPPN left out stays out. It leaves out
the search for the genome, which is in `evolution.py`.

Source: Verbancsics & Harguess 2013 (HyperNEAT as a feature extractor); Fernando et al. 2016
(weights painted, then learned).
"""

from __future__ import annotations

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
    """Causal convolution with a frozen connection mask.

    Parameters
    ----------
    layer : shape and dilation.
    weight, mask : float32 and bool tensors (out, in, tap).
    """

    mask: Tensor

    def __init__(self, layer: Layer, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros(layer.outputs))
        self.register_buffer("mask", mask.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Rows (B, in, R) -> (B, out, R); output row j reads rows j and earlier, zeros before 0."""
        padded = functional.pad(z, ((self.layer.taps - 1) * self.layer.dilation, 0))
        kernel = self.weight * self.mask  # (O, I, K): no gradient reaches what is not expressed
        return functional.conv1d(padded, kernel, self.bias, dilation=self.layer.dilation)


class CPPNEncoder(Encoder):
    """Encoder "cppn".

    Parameters
    ----------
    n_features : features of a candle.
    width : length of the pooled vector; kernels are painted for the width that is asked for.
    options : see `CPPNOptions`.

    Attributes
    ----------
    genome, substrate : what paints, and where.

    Raises
    ------
    RecipeError
        When genome or substrate cannot be used, or the substrate reads another number of features.
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
        genome = inlined.genome
        chosen = Genome.from_json(genome) if isinstance(genome, dict) else None
        drawn = chosen or draw_random_genome(where)
        rebuild = {"genome": drawn.to_json(), "substrate": where.to_json()}
        super().__init__(n_features, width, inlined.model_copy(update=rebuild))
        self.genome, self.substrate, self.stride = drawn, where, where.stride
        self.chosen_until_ms = inlined.evolved_until_ms
        self.chosen_features = where.features
        kernels = decode(self.genome, where)
        self.layers = nn.ModuleList(
            PaintedConv(layer, weight, mask)
            for layer, weight, mask in zip(
                where.layers, kernels.weights, kernels.masks, strict=True
            )
        )

    @property
    def connections(self) -> int:
        """Expressed connections: weights that training can move, biases aside."""
        return sum(int(layer.mask.count_nonzero()) for layer in self.painted)

    @property
    def painted(self) -> list[PaintedConv]:
        """The convolutions, first to last."""
        return [layer for layer in self.layers if isinstance(layer, PaintedConv)]

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        return self.rows_map(self.rows(x))

    def rows(self, x: Tensor) -> Tensor:
        """Candles (B, T, F) averaged into rows (B, T // stride, F); no parameter is involved."""
        return average_rows(x, self.stride)

    def rows_map(self, rows: Tensor) -> Tensor:
        """Rows (B, R, F) -> feature map (B, R, width)."""
        z = rows.transpose(1, 2)  # (B, F, R)
        for layer in self.painted:
            new = functional.gelu(layer(z))  # (B, C, R)
            z = z + new if z.shape == new.shape else new  # (B, C, R)
        return z.transpose(1, 2)  # (B, R, C)


def average_rows(x: Tensor, stride: int) -> Tensor:
    """Mean of every `stride` candles: (B, T, F) -> (B, T // stride, F); NaN stays NaN."""
    batch, time, features = x.shape
    return x.reshape(batch, time // stride, stride, features).mean(dim=2)


def draw_random_genome(substrate: Substrate) -> Genome:
    """A random CPPN from torch's random state, one that expresses at least a few connections."""
    while True:
        genome = random_genome(int(torch.randint(2**31, ()).item()))
        if is_expressed(decode(genome, substrate), substrate):
            return genome


def is_expressed(kernels: Kernels, substrate: Substrate) -> bool:
    """Whether enough connections are expressed for anything to pass the network."""
    every_layer = all(bool(mask.any()) for mask in kernels.masks)
    return every_layer and kernels.connections >= MIN_EXPRESSED * substrate.weights
