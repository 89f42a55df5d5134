"""Autoencoder: the pooled embedding must give back every hour's mean of every feature.

The decoder is asked for one hour at a time: it gets the embedding, the hour's time of day and how
long ago it was, and answers with the hour's mean scaled features. So it has a few thousand weights
at any window length, and the embedding cannot hide behind a decoder with a weight for each hour.
Hourly means are the target, not candles: most of a 5-minute candle is noise that no embedding
should spend itself on.

Source: the denoising-free autoencoder of Hinton & Salakhutdinov 2006; decoding by query after
Jaegle et al. 2022 (Perceiver IO).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.pretraining._base import Objective
from cppncripto_strategy.models.pretraining._targets import block_means, masked_mse
from cppncripto_strategy.models.pretraining.options import AutoencoderOptions

# Wavelengths of the age code, in spans of the whole window: one turn, two, four ...
_AGE_TURNS = (0.5, 1.0, 2.0, 4.0, 8.0)


class HourlyAutoencoder(Objective):
    """Mean squared error of the hourly means decoded from the pooled embedding.

    Parameters
    ----------
    encoder : the encoder to be trained (its width is read).
    columns : the features of a window, by column.
    day_candles : int, candles per day at this interval; a 24th of them is averaged per target.
    options : see `AutoencoderOptions`.
    """

    Options = AutoencoderOptions

    def __init__(
        self, encoder: Encoder, columns: FeatureTable, day_candles: int, options: AutoencoderOptions
    ) -> None:
        super().__init__()
        hidden = options.hidden
        self.hour_candles = max(day_candles // 24, 1)
        self.columns = columns
        query = len(self.columns.clock) + 2 * len(_AGE_TURNS)
        self.from_embedding = nn.Linear(encoder.width, hidden)
        self.from_query = nn.Linear(query, 2 * hidden)
        self.decode = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, len(self.columns.scaled))
        )

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error over the hours that have candles, of windows x (B, T_long, F)."""
        target, known = block_means(x, self.hour_candles, self.columns)  # (B, H, S), (B, H)
        return masked_mse(self.reconstruct(encoder(x), x), target, known)

    def reconstruct(self, embedding: Tensor, x: Tensor) -> Tensor:
        """Hourly means (B, H, S) from the embedding (B, width); of x only the clock."""
        content = self.from_embedding(embedding)[:, None]  # (B, 1, D)
        scale, shift = self.from_query(self._queries(x)).chunk(2, dim=-1)  # 2 x (B, H, D)
        decoded: Tensor = self.decode(nn.functional.gelu(content * (1 + scale) + shift))
        return decoded

    def _queries(self, x: Tensor) -> Tensor:
        """Which hour is asked for: its time of day, its age in turns of the window, (B, H, Q)."""
        hours = x.shape[1] // self.hour_candles
        ends = x[:, x.shape[1] - hours * self.hour_candles :][
            :, self.hour_candles - 1 :: self.hour_candles
        ]
        clock = ends[..., list(self.columns.clock)]  # (B, H, 2)
        age = torch.arange(hours - 1, -1, -1, device=x.device) / hours  # (H,)
        angle = 2 * math.pi * age[:, None] * torch.tensor(_AGE_TURNS, device=x.device)  # (H, A)
        code = torch.cat([angle.sin(), angle.cos()], dim=-1).expand(len(x), -1, -1)  # (B, H, 2A)
        return torch.cat([clock, code], dim=-1)
