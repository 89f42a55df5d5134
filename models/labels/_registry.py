"""The kinds of labels there are, by name, and a recipe's choice among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels._base import Costs, LabelKind, Labels
from cppncripto_strategy.models.options import PartOptions, options_schema, part_options
from cppncripto_strategy.registry import Registry

LABELS: Registry[type[LabelKind]] = Registry(
    "label",
    "cppncripto_strategy.labels",
    {
        "fixed": "cppncripto_strategy.models.labels.fixed:FixedHorizon",
        "barrier": "cppncripto_strategy.models.labels.barrier:TripleBarrier",
        "trade": "cppncripto_strategy.models.labels.trade:NetTrade",
    },
)


def label_schema(name: str) -> type[PartOptions]:
    """The class of a kind's options. Raises RecipeError when the kind is unknown."""
    return options_schema(LABELS, {}, name)


def label_options(name: str, values: Mapping[str, Any]) -> PartOptions:
    """Checked options of a kind of label, from plain values.

    Raises
    ------
    RecipeError
        When the kind or an option is unknown (with the nearest known one), or a value is
        impossible.
    """
    return part_options(LABELS, {}, name, values)


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """What MicroNet is asked to predict.

    Parameters
    ----------
    kind : name of a registered kind.
    horizon : candles ahead that the label is about, at least 1.
    options : plain values; what there is depends on the kind.
    costs : of a trade, for kinds that count them.
    """

    kind: str = "fixed"
    horizon: int = 48
    options: Mapping[str, Any] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    def make(self) -> LabelKind:
        """The kind with its options. Raises RecipeError as `label_options` does."""
        options = label_options(self.kind, self.options)
        return LABELS.get(self.kind)(self.horizon, options, self.costs)

    def compute(self, grid: CandleGrid) -> Labels:
        """Labels of every row of a grid. Raises RecipeError as `label_options` does."""
        return self.make().compute(grid)

    def to_json(self) -> dict[str, Any]:
        """Plain values with every option, for a bundle."""
        return {
            "kind": self.kind,
            "horizon": self.horizon,
            "options": label_options(self.kind, self.options).to_json(),
            "fee_bps": self.costs.fee_bps,
            "slippage_bps": self.costs.slippage_bps,
        }
