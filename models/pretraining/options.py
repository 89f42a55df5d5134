"""Options of the objectives: type, range and default of each. Torch is not imported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from cppncripto_strategy.models.options import Count, PartOptions


class ContrastOptions(PartOptions):
    """Options of objective "contrastive".

    Parameters
    ----------
    min_share : shortest segment as a share of the day.
    temperature : of the cosine similarities.
    projection : width of the projection head, which is dropped afterwards.
    """

    min_share: Annotated[float, Field(gt=0, le=1)] = 0.33
    temperature: Annotated[float, Field(gt=0)] = 0.2
    projection: Count = 32


class AutoencoderOptions(PartOptions):
    """Options of objective "autoencoder".

    Parameters
    ----------
    hidden : width of the decoder, which is dropped afterwards.
    """

    hidden: Count = 128


class ForecastOptions(PartOptions):
    """Options of objective "forecast".

    Parameters
    ----------
    variance : weight of the likelihood of the coming day's realised variance.
    volume : weight of that of its volume.
    range : weight of that of its range.
    ridge : penalty of the linear part, per session and unit of a standardised coefficient squared.
    dropout : share of the encoder's vector that is hidden from the head in a training step.
    beside : other objectives learned on the same windows, and the weight of each one's loss; they
        have their default options.
    """

    variance: Annotated[float, Field(ge=0)] = 1.0
    volume: Annotated[float, Field(ge=0)] = 0.5
    range: Annotated[float, Field(ge=0)] = 0.5
    ridge: Annotated[float, Field(gt=0)] = 1e-3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beside: dict[str, Annotated[float, Field(gt=0)]] = {}

    @field_validator("beside")
    @classmethod
    def _others(cls, weights: dict[str, float]) -> dict[str, float]:
        from cppncripto_strategy.models.pretraining._registry import OBJECTIVES

        for name in weights:
            if OBJECTIVES.check(name) == "forecast":
                raise ValueError("forecast is learned already: name other objectives")
        return weights


class MaskedOptions(PartOptions):
    """Options of objective "masked".

    Parameters
    ----------
    share : share of the patches that is hidden.
    hidden : width of the decoder, which is dropped afterwards.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.4
    hidden: Count = 128
