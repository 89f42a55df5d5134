"""Pruners: who continues, held against Optuna's own halving."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import SuccessiveHalvingPruner, WilcoxonPruner

from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.tuning.samplers import HalvingPruner, make_pruner

optuna.logging.set_verbosity(optuna.logging.WARNING)


def stopped(pruner, direction, rows):
    """After how many steps each trial is stopped; its length where it is not."""
    study = optuna.create_study(direction=direction, pruner=pruner)
    ends = []
    for row in rows:
        trial = study.ask()
        for step, value in enumerate(row, 1):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, row[-1])
        ends.append(step)
    return ends


@settings(max_examples=40)
@given(
    st.sampled_from(["minimize", "maximize"]),
    st.lists(st.lists(st.integers(-9, 9), min_size=8, max_size=8), min_size=1, max_size=12),
)
def test_halving_stops_whom_optunas_stops(direction, rows):
    """The worse half continues, or nobody does."""
    theirs = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    assert stopped(HalvingPruner(), direction, rows) == stopped(theirs, direction, rows)


def test_halving_asked_twice_says_the_same():
    """A trial killed between the decision and its end: it continues where it was to be stopped."""
    study = optuna.create_study(direction="maximize", pruner=HalvingPruner())
    for value in (1.0, 2.0, 3.0):
        trial = study.ask()
        trial.report(value, 1)
        study.tell(trial, value)
    worst = study.ask()
    worst.report(0.0, 1)
    assert [worst.should_prune(), worst.should_prune()] == [True, True]


def test_the_pruner_is_the_one_that_was_named():
    """A name that is accepted and means another pruner."""
    search = SearchRecipe(pruner="wilcoxon", pruning_probability=0.2)
    assert isinstance(make_pruner(search), WilcoxonPruner)
    assert isinstance(make_pruner(SearchRecipe()), HalvingPruner)
    for none in (SearchRecipe(pruner="none"), SearchRecipe(objectives=("sharpe", "drawdown"))):
        assert isinstance(make_pruner(none), optuna.pruners.NopPruner)
    with pytest.raises(ValueError, match="cannot prune"):
        SearchRecipe(objectives=("sharpe", "drawdown"), pruner="halving")
