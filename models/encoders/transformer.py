"""MacroNet encoder: a light Transformer over patches of candles, its attention causal and local.

Candles are gathered into patches of `stride` (as PatchTST does, Nie et al. 2023), so that 30 days
of 5-minute candles are 720 tokens, and every token attends to itself and the `window` - 1 tokens
before it (Longformer's sliding window, Beltagy et al. 2020, its past half). Scores are computed
block by block, each block against itself and the block before it: memory grows with T, not with its
square.

Deviations: patches are gated, as the temporal CNN's are, so that a product of volume and time of
day is one step away; places are known by a learned bias per lag and head (after T5, Raffel et al.
2020), never by absolute position, so that the map is stationary in time; no dropout, no class
token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.models.encoders._base import Encoder
from cppncripto_strategy.models.encoders.options import TransformerOptions


class LocalAttention(nn.Module):
    """Multi-head attention of each token to itself and the `window` - 1 tokens before it.

    Parameters
    ----------
    channels : int, a multiple of `heads`.
    heads : int.
    window : int, tokens a token sees, itself included.
    """

    lag: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros(heads, window))
        # Key k of a block and the block before it stands at k - window, query q at q.
        place = torch.arange(window)[:, None] - (torch.arange(2 * window)[None, :] - window)
        self.register_buffer("lag", place, persistent=False)  # (w, 2w)

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), causal."""
        length = z.shape[1]
        # Padding goes behind the last token: no real token may look there.
        padded = functional.pad(z, (0, 0, 0, -length % self.window))  # (B, N w, C)
        query, key, value = (
            part.unflatten(1, (-1, self.window)).unflatten(-1, (self.heads, -1)).transpose(2, 3)
            for part in self.to_qkv(padded).chunk(3, dim=-1)
        )  # 3 x (B, N, H, w, D)
        scores = query @ _with_block_before(key).transpose(-1, -2)  # (B, N, H, w, 2w)
        scores = scores / math.sqrt(query.shape[-1]) + self._lag_bias(query.shape[1])
        mixed = torch.softmax(scores, dim=-1) @ _with_block_before(value)  # (B, N, H, w, D)
        joined = mixed.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, N w, C)
        result: Tensor = self.mix(joined[:, :length])
        return result

    def _lag_bias(self, blocks: int) -> Tensor:
        """Bias by lag, -inf outside the window and before the first block, (N, H, w, 2w)."""
        inside = (self.lag >= 0) & (self.lag < self.window)
        bias = self.bias[:, self.lag.clamp(0, self.window - 1)]  # (H, w, 2w)
        bias = bias.masked_fill(~inside, -math.inf).expand(blocks, -1, -1, -1)
        nothing = torch.zeros(blocks, 1, 1, 2 * self.window, dtype=torch.bool)
        nothing[0, ..., : self.window] = True
        return bias.masked_fill(nothing.to(bias.device), -math.inf)


class TransformerBlock(nn.Module):
    """Pre-norm residual block: local attention, then a two-layer network on each token."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(channels), LocalAttention(channels, heads, window))
        self.think = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, channels),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), causal."""
        z = z + self.attend(z)  # (B, T, C)
        thought: Tensor = self.think(z)  # (B, T, C)
        return z + thought


class TransformerEncoder(Encoder):
    """Local-window Transformer over patches.

    Parameters
    ----------
    n_features : columns of the scaled feature array.
    width : length of the pooled vector.
    options : see `TransformerOptions`.
    """

    Options = TransformerOptions

    def __init__(self, n_features: int, width: int, options: TransformerOptions) -> None:
        super().__init__(n_features, width, options)
        self.stride, channels = options.stride, options.channels
        shape = channels, options.heads, options.window
        self.patch = nn.Conv1d(n_features, 2 * channels, self.stride, stride=self.stride)
        self.blocks = nn.Sequential(*(TransformerBlock(*shape) for _ in range(options.layers)))
        self.output = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        content, gate = self.patch(x.transpose(1, 2)).chunk(2, dim=1)  # 2 x (B, C, T')
        z = (torch.tanh(content) * torch.sigmoid(gate)).transpose(1, 2)  # (B, T', C)
        result: Tensor = self.output(self.blocks(z))  # (B, T', width)
        return result


def _with_block_before(z: Tensor) -> Tensor:
    """Blocks (B, N, H, w, D) -> each behind the block before it (B, N, H, 2w, D), zeros first."""
    before = functional.pad(z, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]  # (B, N, H, w, D)
    return torch.cat([before, z], dim=3)
