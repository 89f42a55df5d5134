"""What the reconstructing objectives aim at: block means of the scaled features."""

from __future__ import annotations

import torch
from torch import Tensor

from cppncripto_strategy.models.inputs.features import FeatureTable


def block_means(x: Tensor, size: int, columns: FeatureTable) -> tuple[Tensor, Tensor]:
    """Means of the scaled features over blocks of `size` candles, counted from the window's end.

    Parameters
    ----------
    x : Tensor of shape (B, T, F), scaled; a missing candle has present = 0.

    Returns
    -------
    means (B, N, S), over the candles that exist, 0 in a block without any; known : bool (B, N), the
    block has at least one candle. N = T // size; candles before the first whole block are left out.
    """
    blocks = x.shape[1] // size
    tail = x[:, x.shape[1] - blocks * size :]  # (B, N size, F)
    whole = tail.reshape(len(x), blocks, size, x.shape[2])  # (B, N, size, F)
    present = whole[..., columns.present : columns.present + 1]  # (B, N, size, 1)
    count = present.sum(dim=2)  # (B, N, 1)
    total = (whole[..., list(columns.scaled)] * present).sum(dim=2)  # (B, N, S)
    return total / count.clamp(min=1), count[..., 0] > 0


def masked_mse(decoded: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error over the blocks where `counted` (B, N) is true; 0 where none is."""
    error = ((decoded - target) ** 2).mean(dim=-1)  # (B, N)
    weight = counted.to(error.dtype)
    return (error * weight).sum() / torch.clamp(weight.sum(), min=1)
