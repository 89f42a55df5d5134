"""Options of the objectives: type, range and default of each. Torch is not imported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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


class MaskedOptions(PartOptions):
    """Options of objective "masked".

    Parameters
    ----------
    share : share of the patches that is hidden.
    hidden : width of the decoder, which is dropped afterwards.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.4
    hidden: Count = 128
