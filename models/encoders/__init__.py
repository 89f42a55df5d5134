"""MacroNet's encoders, one file each."""

from cppncripto_strategy.models.encoders._base import ENCODERS, Encoder, build_encoder

__all__ = ["ENCODERS", "Encoder", "build_encoder"]
