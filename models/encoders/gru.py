"""MacroNet encoder: a stacked GRU over patches of candles, pooled by attention.

Candles are gathered into gated patches of `stride` (an hour of 5-minute candles by default), so
that 30 days are 720 steps of the recurrence, and a stack of gated recurrent units (Cho et al. 2014)
reads them forwards only: a row knows nothing of later ones. A window becomes one vector by additive
attention over its rows (Bahdanau et al. 2015, with one learned query), so that the days that say
most weigh most. Left out: bidirectional reading, which would see the future, and dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cppncripto_strategy.models.encoders._base import Encoder
from cppncripto_strategy.models.encoders.options import GRUOptions


class GRUEncoder(Encoder):
    """Stacked GRU over patches, with attention pooling.

    Parameters
    ----------
    n_features : columns of the scaled feature array.
    width : length of the pooled vector.
    options : see `GRUOptions`.
    """

    Options = GRUOptions

    def __init__(self, n_features: int, width: int, options: GRUOptions) -> None:
        super().__init__(n_features, width, options)
        self.stride, channels = options.stride, options.channels
        self.patch = nn.Conv1d(n_features, 2 * channels, self.stride, stride=self.stride)
        self.recurrence = nn.GRU(channels, channels, num_layers=options.layers, batch_first=True)
        self.output = nn.Linear(channels, width)
        self.weigh = nn.Sequential(nn.Linear(width, channels), nn.Tanh(), nn.Linear(channels, 1))

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        content, gate = self.patch(x.transpose(1, 2)).chunk(2, dim=1)  # 2 x (B, C, T')
        z = (torch.tanh(content) * torch.sigmoid(gate)).transpose(1, 2)  # (B, T', C)
        states, _ = self.recurrence(z)  # (B, T', C)
        result: Tensor = self.output(states)  # (B, T', width)
        return result

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, T // stride, width) -> its attention-weighted mean (B, width)."""
        weight = torch.softmax(self.weigh(z), dim=1)  # (B, T', 1)
        return (weight * z).sum(dim=1)  # (B, C)
