"""MacroNet: an encoder over the last days, and the embedding it leaves.

embedding = standardise([encoder(scaled window), scaler centres, log scaler widths, terms]): the
scaler takes the level of volatility and volume out of the window, so its own statistics are
appended, else that level would be lost; terms are what a recipe wants to be there as it is, such as
the weekday. Standardisation uses the training days alone and is part of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import Encoder, build_encoder
from cppncripto_strategy.models.settings import EMBEDDING_SIZE

# Standardised coordinates beyond this many standard deviations are clipped: a day unlike every
# training day should look extreme, not multiply a FiLM layer by a hundred.
CLIP = 5.0


class MacroNet(nn.Module):
    """Encoder plus standardiser.

    Parameters
    ----------
    encoder : an Encoder whose width is EMBEDDING_SIZE - n_statistics.
    n_statistics : int, numbers appended: two per scaled feature, and the session's terms.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, encoder: Encoder, n_statistics: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = encoder.width + n_statistics
        self.register_buffer("center", torch.zeros(self.size))
        self.register_buffer("spread", torch.ones(self.size))

    def raw(self, windows: Tensor, statistics: Tensor) -> Tensor:
        """Windows (B, T_long, F) and statistics (B, n_statistics) -> (B, size), unscaled."""
        return torch.cat([self.encoder(windows), statistics], dim=1)

    def forward(self, windows: Tensor, statistics: Tensor) -> Tensor:
        """Windows (B, T_long, F) and statistics (B, n_statistics) -> embedding (B, size)."""
        z = (self.raw(windows, statistics) - self.center) / self.spread
        return z.clamp(-CLIP, CLIP)

    def calibrate(self, raw: Tensor) -> None:
        """Set the standardiser from the training days' raw embeddings (D, size)."""
        self.center.copy_(raw.mean(dim=0))
        self.spread.copy_(raw.std(dim=0).clamp(min=1e-6))


def build_macronet(
    encoder: str, n_features: int, n_statistics: int, options: Mapping[str, Any] | None = None
) -> MacroNet:
    """A MacroNet with a freshly initialised encoder, embedding size EMBEDDING_SIZE.

    Raises
    ------
    RecipeError
        When encoder or option is unknown, a value is impossible, or the statistics leave no room
        for the encoder.
    """
    width = EMBEDDING_SIZE - n_statistics
    if width < 1:
        raise RecipeError(
            f"scaled features take two numbers each and macro.terms theirs, {n_statistics} in all:"
            f" they leave no room for the encoder in an embedding of {EMBEDDING_SIZE}. Choose fewer"
        )
    return MacroNet(build_encoder(encoder, n_features, options, width), n_statistics)
