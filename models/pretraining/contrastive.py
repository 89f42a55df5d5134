"""Same-day contrast: two segments of one day should embed alike, segments of other days apart.

From each macro window one day is drawn, from that day two segments of different place and length,
and the batch is scored with InfoNCE (van den Oord et al. 2018, eq. 4; symmetric, as in SimCLR, Chen
et al. 2020). What two segments of one day share and two days do not is the day's regime: that is
what the embedding learns to hold. Segments keep their time-of-day columns; without a clock the
phase of a daily pattern could not be known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.pretraining._base import Objective
from cppncripto_strategy.models.pretraining.options import ContrastOptions


class SameDayContrast(Objective):
    """InfoNCE between segments of the same day.

    Parameters
    ----------
    encoder : the encoder to be trained (its width and stride are read).
    columns : unused; every objective takes it.
    day_candles : int, candles per day at this interval.
    options : see `ContrastOptions`.

    Raises
    ------
    RecipeError
        When a day holds less than one patch of the encoder.
    """

    Options = ContrastOptions

    def __init__(
        self, encoder: Encoder, columns: FeatureTable, day_candles: int, options: ContrastOptions
    ) -> None:
        super().__init__()
        if day_candles < encoder.stride:
            raise RecipeError(
                f"a day of {day_candles} candles is shorter than the encoder's stride of"
                f" {encoder.stride}: give a smaller stride in macro.encoder_options"
            )
        self.day_candles, self.min_share = day_candles, options.min_share
        self.temperature = options.temperature
        self.project = nn.Sequential(
            nn.Linear(encoder.width, encoder.width),
            nn.ReLU(),
            nn.Linear(encoder.width, options.projection),
        )

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Symmetric InfoNCE of a batch x (B, T_long, F); B >= 2."""
        day = self._one_day_each(x, generator)  # (B, day, F)
        first = self._embed_segment(encoder, day, generator)  # (B, P)
        second = self._embed_segment(encoder, day, generator)  # (B, P)
        similarity = first @ second.T / self.temperature  # (B, B)
        own = torch.arange(len(x), device=x.device)
        return (
            functional.cross_entropy(similarity, own) + functional.cross_entropy(similarity.T, own)
        ) / 2

    def _one_day_each(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One whole day out of each macro window, (B, day, F)."""
        days = max(x.shape[1] // self.day_candles, 1)
        length = min(self.day_candles, x.shape[1])
        offset = x.shape[1] - days * length
        chosen = torch.randint(days, (len(x),), generator=generator)  # (B,)
        rows = offset + chosen[:, None] * length + torch.arange(length)  # (B, day)
        return x[torch.arange(len(x), device=x.device)[:, None], rows.to(x.device)]

    def _embed_segment(self, encoder: Encoder, day: Tensor, generator: torch.Generator) -> Tensor:
        """Projected, unit-length embedding of one random segment of each day, (B, P)."""
        stride, patches = encoder.stride, day.shape[1] // encoder.stride
        shortest = max(int(self.min_share * patches), 1)
        length = int(
            torch.randint(shortest, max(patches * 2 // 3, shortest) + 1, (1,), generator=generator)
        )
        starts = torch.randint(patches - length + 1, (len(day),), generator=generator) * stride
        rows = starts[:, None] + torch.arange(length * stride)  # (B, segment)
        days = torch.arange(len(day), device=day.device)[:, None]  # (B, 1)
        segment = day[days, rows.to(day.device)]  # (B, segment, F)
        return functional.normalize(self.project(encoder(segment)), dim=-1)
