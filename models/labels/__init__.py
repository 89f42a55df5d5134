"""What MicroNet learns to predict, one kind of label per file. Torch is not imported."""

from cppncripto_strategy.models.labels._base import BPS, Costs, LabelKind, Labels
from cppncripto_strategy.models.labels._registry import (
    LABELS,
    LabelSettings,
    label_options,
    label_schema,
)

__all__ = [
    "BPS",
    "LABELS",
    "Costs",
    "LabelKind",
    "LabelSettings",
    "Labels",
    "label_options",
    "label_schema",
]
