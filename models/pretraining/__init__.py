"""How an encoder learns without labels, one objective a file."""

from cppncripto_strategy.models.pretraining._base import (
    OBJECTIVES,
    LossCurve,
    MacroWindows,
    Objective,
    PretrainSettings,
    build_objective,
    pretrain,
)

__all__ = [
    "OBJECTIVES",
    "LossCurve",
    "MacroWindows",
    "Objective",
    "PretrainSettings",
    "build_objective",
    "pretrain",
]
