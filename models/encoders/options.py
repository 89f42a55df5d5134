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
    members : networks of this shape, from different initial weights, that share the vector: each
        makes a part of it. With objective "forecast" the mean of their forecasts is made.
    """

    channels: Count = 48
    stride: Count = 12
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    kernel: Count = 3
    half_life: Annotated[float, Field(gt=0)] | None = None
    members: Annotated[int, Field(ge=1, le=16)] = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values; what came later only where it is used, so that bundles keep their names."""
        plain, unused = super().to_json(), {"half_life": None, "members": 1}
        return {k: v for k, v in plain.items() if k not in unused or v != unused[k]}


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
