"""The pretraining objectives there are, by name, and their options. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cppncripto_strategy.models.options import PartOptions, part_options
from cppncripto_strategy.registry import Registry

# Classes of Objective, which needs torch.
OBJECTIVES: Registry[type[Any]] = Registry(
    "objective",
    "cppncripto_strategy.objectives",
    {
        "contrastive": "cppncripto_strategy.models.pretraining.contrastive:SameDayContrast",
        "autoencoder": "cppncripto_strategy.models.pretraining.autoencoder:HourlyAutoencoder",
        "masked": "cppncripto_strategy.models.pretraining.masked:MaskedPatches",
        "forecast": "cppncripto_strategy.models.pretraining.forecast:DayForecast",
    },
)
SCHEMAS = {
    "contrastive": "cppncripto_strategy.models.pretraining.options:ContrastOptions",
    "autoencoder": "cppncripto_strategy.models.pretraining.options:AutoencoderOptions",
    "masked": "cppncripto_strategy.models.pretraining.options:MaskedOptions",
    "forecast": "cppncripto_strategy.models.pretraining.options:ForecastOptions",
}


def objective_names(name: str, values: Mapping[str, Any]) -> list[str]:
    """An objective and those that its options have learned beside it."""
    beside = getattr(objective_options(name, values), "beside", {})
    return [name, *beside]


def objective_options(name: str, values: Mapping[str, Any]) -> PartOptions:
    """Checked options of an objective, from plain values.

    Raises
    ------
    RecipeError
        When the objective or an option is unknown (with the nearest known one), or a value is
        impossible.
    """
    return part_options(OBJECTIVES, SCHEMAS, name, values)
