"""What every MacroNet encoder promises.

An encoder is causal and stationary in time: it maps scaled features (batch, time, feature) to a
feature map (batch, time // stride, width) whose row j depends on candles before (j + 1) * stride
alone, and pools that map over time. It takes any length that is a multiple of its stride.
`cppncripto_strategy.testing.check_encoder` tests all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders._registry import ENCODERS, encoder_options
from cppncripto_strategy.models.options import PartOptions

# What two statistics for each of six scaled features leave of an embedding of 128 numbers.
DEFAULT_WIDTH = 116


class Encoder(nn.Module):
    """Base of the encoders.

    A subclass takes `(n_features, width, options)`, hands all three to this constructor, and sets
    `Options` to the class of its options, whose default values are the only ones it has.

    Parameters
    ----------
    n_features : columns of the scaled feature array.
    width : channels of the feature map, and length of the pooled vector.
    options : an instance of the class's `Options`; its JSON goes into the bundle and, with the
        weights, rebuilds the encoder.

    Attributes
    ----------
    stride : candles per row of the feature map; set by the subclass.
    members : networks that share a window and nothing else: each makes a part of the vector, of
        `width // members` numbers, one part behind the other. An objective that makes forecasts
        gives each its own and averages them.
    chosen_until_ms : close of the last candle that chose the architecture (an evolved genome, say),
        UTC ms; None: no candle did. A bundle that must know nothing so late refuses the encoder.
    chosen_features : names of the features that the architecture was chosen on, in order; () for
        any. A bundle of others refuses the encoder.
    """

    Options: ClassVar[type[PartOptions]] = PartOptions
    stride: int
    members: int = 1
    chosen_until_ms: int | None = None
    chosen_features: tuple[str, ...] = ()

    def __init__(self, n_features: int, width: int, options: Any) -> None:
        super().__init__()
        self.n_features, self.width = n_features, width
        self.options: PartOptions = options

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        raise NotImplementedError

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, T // stride, width) -> one vector per window (B, width); their mean."""
        return z.mean(dim=1)  # (B, C)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> pooled embedding (B, width)."""
        return self.pool(self.feature_map(x))

    def penalty(self) -> Tensor | None:
        """What is added to the loss of every training step, a scalar; None for nothing."""
        return None


def build_encoder(
    name: str,
    n_features: int,
    options: Mapping[str, Any] | None = None,
    width: int = DEFAULT_WIDTH,
) -> Encoder:
    """The encoder of this name, freshly initialised from torch's current random state.

    Parameters
    ----------
    n_features : columns of the scaled feature array.
    options : plain values, as a recipe or a bundle has them.
    width : length of the pooled vector.

    Raises
    ------
    RecipeError
        When encoder or option is unknown, or a value is impossible.
    """
    checked = encoder_options(name, options or {})
    encoder = ENCODERS.get(name)(n_features, width, checked)
    if not isinstance(encoder, Encoder):
        raise RecipeError(f"encoder {name!r} is no subclass of {Encoder.__module__}.Encoder")
    return encoder
