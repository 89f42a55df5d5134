"""MacroNet's encoders, one file each. Torch is imported when an encoder is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cppncripto_strategy.models.encoders._registry import ENCODERS, encoder_options

if TYPE_CHECKING:
    from cppncripto_strategy.models.encoders._base import Encoder, build_encoder

__all__ = ["ENCODERS", "Encoder", "build_encoder", "encoder_options"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cppncripto_strategy.models.encoders import _base

    return getattr(_base, name)
