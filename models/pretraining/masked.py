"""Masked patches: 40 % of the patches are hidden, and what was in them must be predicted.

A hidden patch looks to the encoder like an outage: its scaled features are 0 and its candles
absent; the clock still runs. Each hidden patch's mean features are decoded from three things: the
pooled embedding of the whole window, the feature map's row at the patch (which knows what came
before it), and the patch's time of day. The pooled embedding is what is kept afterwards, so it has
to take part.

Source: PatchTST's self-supervised setting (Nie et al. 2023, section 4.2: 40 % of the patches, mean
squared error on the hidden ones). Deviations: the encoder is causal, so a row sees no later patch;
patch means are the target, not candles; the pooled vector joins the decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.pretraining._base import Objective
from cppncripto_strategy.models.pretraining._targets import block_means, masked_mse
from cppncripto_strategy.models.pretraining.options import MaskedOptions


class MaskedPatches(Objective):
    """Mean squared error of hidden patches' mean features.

    Parameters
    ----------
    encoder : the encoder to be trained (its width and stride are read).
    columns : the features of a window, by column.
    day_candles : unused; every objective takes it.
    options : see `MaskedOptions`.
    """

    Options = MaskedOptions

    def __init__(
        self, encoder: Encoder, columns: FeatureTable, day_candles: int, options: MaskedOptions
    ) -> None:
        super().__init__()
        hidden = options.hidden
        self.share, self.stride = options.share, encoder.stride
        self.columns = columns
        self.from_row = nn.Linear(encoder.width, hidden)
        self.from_embedding = nn.Linear(encoder.width, hidden)
        self.from_clock = nn.Linear(max(len(self.columns.clock), 1), 2 * hidden)
        self.decode = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, len(self.columns.scaled))
        )

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error over the hidden patches that have candles, of windows (B, T, F)."""
        target, known = block_means(x, self.stride, self.columns)  # (B, T', S), (B, T')
        hidden = self.draw(known.shape, generator).to(x.device)  # (B, T')
        z = encoder.feature_map(self.hide(x, hidden))  # (B, T', C)
        return masked_mse(self.decoded(encoder.pool(z), z, x), target, known & hidden)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Which patches are hidden, bool (B, T'): the same number in each window, at least one."""
        count = max(round(self.share * shape[1]), 1)
        order = torch.rand(shape, generator=generator).argsort(dim=1)  # (B, T')
        return torch.zeros(shape, dtype=torch.bool).scatter_(1, order[:, :count], True)

    def hide(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The windows with the hidden patches' candles absent, (B, T, F)."""
        candles = hidden.repeat_interleave(self.stride, dim=1)[..., None]  # (B, T, 1)
        gone = torch.ones(x.shape[2], dtype=torch.bool, device=x.device)
        gone[list(self.columns.clock)] = False
        return x.masked_fill(candles & gone, 0.0)

    def decoded(self, embedding: Tensor, z: Tensor, x: Tensor) -> Tensor:
        """Patch means (B, T', S) from the embedding (B, C), the rows (B, T', C) and the clock."""
        scale, shift = self.from_clock(self._clock(x)).chunk(2, dim=-1)  # 2 x (B, T', D)
        content = self.from_row(z) + self.from_embedding(embedding)[:, None]  # (B, T', D)
        decoded: Tensor = self.decode(nn.functional.gelu(content * (1 + scale) + shift))
        return decoded

    def _clock(self, x: Tensor) -> Tensor:
        """What each patch's last candle says of the time, (B, T', K); one zero where none does."""
        ends = x[:, self.stride - 1 :: self.stride]
        columns = list(self.columns.clock)
        return ends[..., columns] if columns else torch.zeros_like(ends[..., :1])
