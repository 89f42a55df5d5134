"""A plugin as a user would write one: an encoder, an objective and a label in one file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cppncripto_strategy.models.encoders import ENCODERS, Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import LABELS, LabelKind, Labels
from cppncripto_strategy.models.labels.fixed import fixed_horizon
from cppncripto_strategy.models.options import Count, PartOptions
from cppncripto_strategy.models.pretraining import OBJECTIVES, Objective


@ENCODERS.register("patches")
class Patches(Encoder):
    """Every patch of candles through one linear layer; rows know nothing of each other."""

    class Options(PartOptions):
        """stride : candles per patch."""

        stride: Count = 6

    def __init__(self, n_features: int, width: int, options: Options) -> None:
        super().__init__(n_features, width, options)
        self.stride = options.stride
        self.mix = nn.Linear(n_features * self.stride, width)

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        return torch.tanh(self.mix(x.unflatten(1, (-1, self.stride)).flatten(2)))


@OBJECTIVES.register("last return")
class LastReturn(Objective):
    """The pooled vector gives back the window's mean of the first feature."""

    class Options(PartOptions):
        """weight : of the loss."""

        weight: float = 1.0

    def __init__(
        self, encoder: Encoder, columns: FeatureTable, day_candles: int, options: Options
    ) -> None:
        super().__init__()
        self.weight, self.column = options.weight, columns.scaled[0]
        self.read = nn.Linear(encoder.width, 1)

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of a batch of windows (B, T_long, F)."""
        wanted = x[..., self.column].mean(dim=1)  # (B,)
        return self.weight * (self.read(encoder(x))[:, 0] - wanted).square().mean()


@LABELS.register("sign")
class Sign(LabelKind):
    """Up or down over the horizon, whatever the size above a floor."""

    class Options(PartOptions):
        """floor_bps : a smaller move is nothing."""

        floor_bps: float = 0.0

    def compute(self, grid: CandleGrid) -> Labels:
        """Labels of every row of a grid."""
        return fixed_horizon(grid, self.horizon, self.options.floor_bps)
