"""Who proposes candidates, and who stops bad ones, by name.

A sampler here draws each trial's values from a generator seeded by the search's seed and the
trial's number, so a search that was killed and resumed with one worker tries what it would have
tried anyway, bit for bit, and no two workers try the same.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.tuning.space import Space

# Candidates drawn at random before a model of them is worth anything.
_STARTUP_TRIALS = 10
_POPULATION = 20


class SeededSampler(BaseSampler):
    """Another sampler, made anew for every trial from the search's seed and the trial's number.

    Parameters
    ----------
    make : a sampler from a seed. It may remember nothing that the study does not hold.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._inner = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draw from the trial's own generator from here on."""
        self._inner = self._for(trial.number)
        self._inner.before_trial(study, trial)

    def _for(self, *numbers: int) -> BaseSampler:
        sequence = np.random.SeedSequence([self._seed, *numbers])
        return self._make(int(sequence.generate_state(1)[0]))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As the inner sampler does."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the inner sampler does."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As the inner sampler does, each key from a generator of its own.

        A trial that was killed between two keys has the first already, and draws it not again.
        """
        inner = self._for(trial.number, zlib.crc32(param_name.encode()))
        return inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """As the inner sampler does."""
        self._inner.after_trial(study, trial, state, values)


class _Grid(GridSampler):
    """Optuna's grid; who asks for trials counts them, so it need not stop anything."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Nothing."""


def make_sampler(search: SearchRecipe, space: Space) -> BaseSampler:
    """The sampler that `search.sampler` names.

    Raises
    ------
    RecipeError
        When the grid is asked for and the space has none, or a front of the sampler gp.
    """
    if search.sampler == "gp" and len(search.objectives) > 1 and search.constraints:
        raise RecipeError(
            "the sampler gp takes several objectives or constraints, not both: take tpe or nsga3"
        )
    grid = space.grid() if search.sampler == "grid" else {}

    def make(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if search.sampler == "tpe":
                return TPESampler(
                    n_startup_trials=_STARTUP_TRIALS,
                    multivariate=True,
                    group=True,  # keys under a condition
                    constant_liar=True,
                    seed=seed,
                )
            if search.sampler == "nsga3":
                return NSGAIIISampler(population_size=_POPULATION, seed=seed)
            if search.sampler == "gp":
                return GPSampler(n_startup_trials=_STARTUP_TRIALS, seed=seed)
            if search.sampler == "grid":
                return _Grid(grid, seed=search.seed)  # a shuffle that all trials share
            return RandomSampler(seed=seed)

    return SeededSampler(make, search.seed)


class HalvingPruner(BasePruner):
    """Asynchronous successive halving: after 1, 2, 4, ... steps the better half continues.

    As Optuna's `SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)`, but it decides by
    what trials have reported and nothing else. Optuna's writes each decision into the trial, and a
    trial that was killed between the decision and its end would continue where it was to be pruned.

    Source: Li et al. 2018 (ASHA).
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a trial is not among the better half at the step it reported last."""
        step = trial.last_step
        if step is None or step & (step - 1):
            return False
        own = trial.intermediate_values[step]
        others = study.get_trials(deepcopy=False)
        known = [
            t.intermediate_values[step]
            for t in others
            if step in t.intermediate_values and t.number != trial.number
        ]
        higher = study.direction == StudyDirection.MAXIMIZE
        ranked = sorted([*known, own], reverse=higher)
        last = ranked[max(len(ranked) // 2 - 1, 0)]
        return own < last if higher else own > last


def make_pruner(search: SearchRecipe) -> BasePruner:
    """The pruner that `search.pruner` names; none with several objectives."""
    if search.active_pruner == "none":
        return NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.active_pruner == "wilcoxon":
            return WilcoxonPruner(p_threshold=search.pruning_probability)
        return HalvingPruner()
