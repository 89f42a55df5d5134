"""MacroNet encoder: a dilated, gated, causal temporal convolution over patches of candles.

Candles are first gathered into patches of `stride` (an hour of 5-minute candles by default), so
that 30 days are 720 steps. Then gated residual blocks with doubling dilation follow (van den Oord
et al. 2016, "WaveNet", eq. 2): the gate multiplies features, so a product such as volume times
time of day, which a plain convolution can only approximate, is one step away. Deviations: padding
is on the left only and zero, no skip connections, no batch statistics.

Several members are as many networks side by side, in grouped convolutions: no number of one enters
another, so that the mean of their forecasts errs less than each (Lakshminarayanan et al. 2017, deep
ensembles, without their adversarial examples).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders._base import Encoder
from cppncripto_strategy.models.encoders.options import TCNOptions


class GatedBlock(nn.Module):
    """Residual gated causal convolution: z + W(tanh(filter * z) . sigmoid(gate * z)).

    Parameters
    ----------
    channels : of each member. members : networks side by side.
    """

    def __init__(self, channels: int, kernel: int, dilation: int, members: int = 1) -> None:
        super().__init__()
        self.padding, self.members = (kernel - 1) * dilation, members
        wide = members * channels
        self.convolution = nn.Conv1d(wide, 2 * wide, kernel, dilation=dilation, groups=members)
        self.mix = nn.Conv1d(wide, wide, 1, groups=members)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T), causal."""
        padded = functional.pad(z, (self.padding, 0))  # (B, C, P + T)
        if self.members == 1:
            content, gate = self.convolution(padded).chunk(2, dim=1)  # 2 x (B, C, T)
        else:  # each group's output is its content, then its gate
            grouped = self.convolution(padded).unflatten(1, (self.members, 2, -1))
            content, gate = (grouped[:, :, side].flatten(1, 2) for side in (0, 1))  # 2 x (B, C, T)
        mixed: Tensor = self.mix(torch.tanh(content) * torch.sigmoid(gate))  # (B, C, T)
        return z + mixed


class TCNEncoder(Encoder):
    """Dilated temporal CNN over patches.

    Parameters
    ----------
    n_features : columns of the scaled feature array.
    width : length of the pooled vector.
    options : see `TCNOptions`.
    """

    Options = TCNOptions

    def __init__(self, n_features: int, width: int, options: TCNOptions) -> None:
        super().__init__(n_features, width, options)
        self.stride, self.members = options.stride, options.members
        if width < self.members:
            raise RecipeError(
                f"an embedding leaves the encoder {width} numbers, too few for"
                f" {self.members} members: choose fewer of them, or fewer features and terms"
            )
        channels = self.members * options.channels
        self.patch = nn.Conv1d(n_features, 2 * channels, self.stride, stride=self.stride)
        self.blocks = nn.Sequential(
            *(
                GatedBlock(options.channels, options.kernel, d, self.members)
                for d in options.dilations
            )
        )
        self.used = width - width % self.members
        self.output = nn.Conv1d(channels, self.used, 1, groups=self.members)
        self.half_life = options.half_life

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        content, gate = self.patch(x.transpose(1, 2)).chunk(2, dim=1)  # 2 x (B, C, T')
        z: Tensor = self.blocks(torch.tanh(content) * torch.sigmoid(gate))  # (B, C, T')
        z = self.output(functional.gelu(z))  # (B, used, T')
        z = functional.pad(z, (0, 0, 0, self.width - self.used))  # (B, width, T')
        return z.transpose(1, 2)  # (B, T', width)

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, T', width) -> one vector per window (B, width); see `half_life`."""
        mean = super().pool(z)  # (B, width)
        if self.half_life is None:
            return mean
        age = torch.arange(z.shape[1] - 1, -1, -1, device=z.device)  # (T',)
        weight = torch.softmax(-age * (math.log(2.0) / self.half_life), dim=0)
        recent = torch.einsum("t,btc->bc", weight, z)
        size = self.used // self.members
        place = torch.arange(self.width, device=z.device)
        early = (place % size < size // 2) & (place < self.used)  # of each member's part
        return torch.where(early, recent, mean)
