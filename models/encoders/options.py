"""Options of the encoders in this folder: type, range and default of each. Torch is not imported.

A stride is in candles: how many are gathered into one patch (12 of 5 minutes are an hour).
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from cppncripto_strategy.models.options import Count, PartOptions


class TCNOptions(PartOptions):
    """Options of encoder "tcn".

    Parameters
    ----------
    channels : channels inside the blocks.
    stride : candles per patch.
    dilations : one block each, in patches.
    kernel : taps of each block.
    half_life : patches after which one counts half as much in the first half of the pooled vector;
        the second half is the plain mean. Unset, all of it is: a month's days count alike.
    """

    channels: Count = 48
    stride: Count = 12
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    kernel: Count = 3
    half_life: Annotated[float, Field(gt=0)] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; a half-life only where there is one, so that bundles keep their names."""
        plain = super().to_json()
        return {k: v for k, v in plain.items() if k != "half_life" or v is not None}


class TransformerOptions(PartOptions):
    """Options of encoder "transformer".

    Parameters
    ----------
    channels : token width; a multiple of `heads`.
    stride : candles per patch.
    layers : each lets a token see `window` - 1 tokens further back.
    heads : attention heads.
    window : tokens a token sees in one layer (24 patches of an hour: a day).
    """

    channels: Count = 48
    stride: Count = 12
    layers: Count = 2
    heads: Count = 4
    window: Count = 24

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.channels % self.heads:
            raise ValueError(f"channels={self.channels} must be a multiple of heads={self.heads}")
        return self


class GRUOptions(PartOptions):
    """Options of encoder "gru".

    Parameters
    ----------
    channels : width of the patches and of the recurrent state.
    stride : candles per patch.
    layers : recurrent layers.
    """

    channels: Count = 64
    stride: Count = 12
    layers: Count = 2
