"""MacroNet encoder: a dilated, gated, causal temporal convolution over patches of candles.

Candles are first gathered into patches of `stride` (an hour of 5-minute candles by default), so
that 30 days are 720 steps. Then gated residual blocks with doubling dilation follow (van den Oord
et al. 2016, "WaveNet", eq. 2): the gate multiplies features, so a product such as volume times
time of day, which a plain convolution can only approximate, is one step away. Deviations: padding
is on the left only and zero, no skip connections, no batch statistics.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.models.encoders._base import Encoder
from cppncripto_strategy.models.encoders.options import TCNOptions


class GatedBlock(nn.Module):
    """Residual gated causal convolution: z + W(tanh(filter * z) . sigmoid(gate * z))."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation
        self.convolution = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T), causal."""
        padded = functional.pad(z, (self.padding, 0))  # (B, C, P + T)
        content, gate = self.convolution(padded).chunk(2, dim=1)  # 2 x (B, C, T)
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
        self.stride, channels = options.stride, options.channels
        self.patch = nn.Conv1d(n_features, 2 * channels, self.stride, stride=self.stride)
        self.blocks = nn.Sequential(
            *(GatedBlock(channels, options.kernel, d) for d in options.dilations)
        )
        self.output = nn.Conv1d(channels, width, 1)
        self.half_life = options.half_life

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        content, gate = self.patch(x.transpose(1, 2)).chunk(2, dim=1)  # 2 x (B, C, T')
        z: Tensor = self.blocks(torch.tanh(content) * torch.sigmoid(gate))  # (B, C, T')
        z = self.output(functional.gelu(z))  # (B, width, T')
        return z.transpose(1, 2)  # (B, T', width)

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, T', width) -> one vector per window (B, width); see `half_life`."""
        mean = super().pool(z)  # (B, width)
        if self.half_life is None:
            return mean
        age = torch.arange(z.shape[1] - 1, -1, -1, device=z.device)  # (T',)
        weight = torch.softmax(-age * (math.log(2.0) / self.half_life), dim=0)
        recent = torch.einsum("t,btc->bc", weight, z[..., : self.width // 2])
        return torch.cat([recent, mean[:, self.width // 2 :]], dim=1)
