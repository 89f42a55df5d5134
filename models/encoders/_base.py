"""What every MacroNet encoder promises, and the table of those there are.

An encoder is causal and stationary in time: it maps scaled features (batch, time, feature) to a
feature map (batch, time // stride, width) whose row j depends on candles before (j + 1) * stride
alone, and pools that map over time. It takes any length that is a multiple of its stride.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor, nn

from cppncripto_strategy.errors import RecipeError

ENCODERS = {
    "tcn": "cppncripto_strategy.models.encoders.tcn:TCNEncoder",
    "transformer": "cppncripto_strategy.models.encoders.transformer:TransformerEncoder",
    "gru": "cppncripto_strategy.models.encoders.gru:GRUEncoder",
    "cppn": "cppncripto_strategy.models.hyperneat.encoder:CPPNEncoder",
}


class Encoder(nn.Module):
    """Base of the encoders.

    Attributes
    ----------
    name : the recipe key.
    stride : candles a row of the feature map advances.
    width : channels of the feature map, and length of the pooled vector.
    options : the keyword arguments that rebuild this encoder; they go into the bundle as JSON.
    """

    name: ClassVar[str]
    stride: int
    width: int
    options: dict[str, Any]

    def feature_map(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> causal feature map (B, T // stride, width)."""
        raise NotImplementedError

    def pool(self, z: Tensor) -> Tensor:
        """Feature map (B, T // stride, width) -> a vector a window (B, width); mean by default."""
        return z.mean(dim=1)  # (B, C)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> pooled embedding (B, width)."""
        return self.pool(self.feature_map(x))


def build_encoder(name: str, n_features: int, options: dict[str, Any] | None = None) -> Encoder:
    """The encoder of this name, freshly initialised from torch's current random state.

    Raises
    ------
    RecipeError
        When no encoder has this name.
    """
    if name not in ENCODERS:
        raise RecipeError(f"encoder {name!r} is unknown; there are: {', '.join(ENCODERS)}")
    module, attribute = ENCODERS[name].split(":")
    encoder_class: type[Encoder] = getattr(import_module(module), attribute)
    return encoder_class(n_features=n_features, **(options or {}))
