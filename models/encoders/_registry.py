"""The encoders there are, by name, and their options. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cppncripto_strategy.models.options import PartOptions, part_options
from cppncripto_strategy.registry import Registry

# Classes of Encoder, which needs torch.
ENCODERS: Registry[type[Any]] = Registry(
    "encoder",
    "cppncripto_strategy.encoders",
    {
        "tcn": "cppncripto_strategy.models.encoders.tcn:TCNEncoder",
        "transformer": "cppncripto_strategy.models.encoders.transformer:TransformerEncoder",
        "gru": "cppncripto_strategy.models.encoders.gru:GRUEncoder",
        "cppn": "cppncripto_strategy.models.hyperneat.encoder:CPPNEncoder",
    },
)
SCHEMAS = {
    "tcn": "cppncripto_strategy.models.encoders.options:TCNOptions",
    "transformer": "cppncripto_strategy.models.encoders.options:TransformerOptions",
    "gru": "cppncripto_strategy.models.encoders.options:GRUOptions",
    "cppn": "cppncripto_strategy.models.hyperneat.options:CPPNOptions",
}


def encoder_options(name: str, values: Mapping[str, Any]) -> PartOptions:
    """Checked options of an encoder, from plain values.

    Raises
    ------
    RecipeError
        When the encoder or an option is unknown (with the nearest known one), or a value is
        impossible.
    """
    return part_options(ENCODERS, SCHEMAS, name, values)
