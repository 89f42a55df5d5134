"""The recipe's `[search]` table: how `cppn-bt tune` looks for better settings, and how it judges.

Left out: which settings it may choose (`[space]`, read by `tuning.space`), and the search itself.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from cppncripto_strategy.models.options import Count
from cppncripto_strategy.recipe_sections import Section, Seed

Objective = Literal["log_loss", "hit_margin", "sharpe", "drawdown", "turnover", "cpu_s"]
SamplerName = Literal["tpe", "nsga3", "random", "grid", "gp"]
PrunerName = Literal["halving", "wilcoxon", "none"]


class SearchRecipe(Section):
    """How `cppn-bt tune` searches.

    Candidates are judged on inner windows of the traded span alone. Its last days are sealed: they
    are opened once, for the recipe that was chosen.
    """

    trials: Count = 60
    """Candidates tried, each on up to `windows` x `seeds` steps."""
    sampler: SamplerName = "tpe"
    """Who proposes candidates: tpe (tree-structured Parzen estimator), nsga3 (for several
    objectives), random, grid, gp (Gaussian process)."""
    seed: Seed = 0
    """Seed of the search. With one worker the same seed tries the same candidates, bit for bit."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("sharpe",)
    """What is sought out of sample: log_loss, drawdown, turnover and cpu_s (seconds of processor)
    low, hit_margin (hit ratio less break-even) and sharpe high. Several give a front."""
    constraints: dict[str, float] | None = None
    """Limits by objective: at most for those that are sought low, at least for the others."""
    windows: Count = 4
    """Inner windows of equal length, in days, that every candidate is judged on, one by one."""
    sealed_days: Count = 90
    """Last days of the traded span, which no candidate sees."""
    seeds: Count = 1
    """Seeds of the networks that every candidate is trained under."""
    pruner: PrunerName | None = None
    """How a bad candidate is stopped before its last step: halving (the better half continues after
    1, 2, 4, ... steps), wilcoxon (paired test against the best candidate), or none. Unset, halving
    for one objective; several allow none."""
    pruning_probability: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Probability under which the pruner wilcoxon takes a candidate for worse than the best."""

    @field_validator("constraints")
    @classmethod
    def _known(cls, limits: dict[str, float] | None) -> dict[str, float] | None:
        for name in limits or {}:
            if name not in (known := get_args(Objective)):
                close = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"unknown objective {name!r}{hint}; known: {', '.join(known)}")
        return limits

    @model_validator(mode="after")
    def _check(self) -> SearchRecipe:
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"objectives repeat: {', '.join(self.objectives)}")
        if len(self.objectives) > 1 and self.pruner not in (None, "none"):
            raise ValueError("a search with several objectives cannot prune: pruner = 'none'")
        return self

    @property
    def active_pruner(self) -> PrunerName:
        """The pruner, also where it is left open."""
        return self.pruner or ("halving" if len(self.objectives) == 1 else "none")
