"""How an encoder learns without labels, one objective per file.

Torch is imported when an objective, or the training loop, is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cppncripto_strategy.models.pretraining._registry import (
    OBJECTIVES,
    objective_names,
    objective_options,
)

if TYPE_CHECKING:
    from cppncripto_strategy.models.pretraining._base import (
        LossCurve,
        MacroWindows,
        Objective,
        build_objective,
        pretrain,
    )

__all__ = [
    "OBJECTIVES",
    "LossCurve",
    "MacroWindows",
    "Objective",
    "build_objective",
    "objective_names",
    "objective_options",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cppncripto_strategy.models.pretraining import _base

    return getattr(_base, name)
