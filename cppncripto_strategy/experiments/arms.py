"""The arms of E1 to E4 as changes to a user's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.experiments import verdicts
from cppncripto_strategy.experiments.cells import Arm
from cppncripto_strategy.experiments.comparison import Comparison
from cppncripto_strategy.experiments.experiment import Experiment, mean_of
from cppncripto_strategy.experiments.verdicts import Verdict
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.recipe import Recipe

SHORT_WINDOW_HOURS = (2, 5, 10)
OBJECTIVES = {"contrast": "contrastive", "autoencoder": "autoencoder", "masked": "masked"}
NAMES = ("e1", "e2", "e3", "e4")


def build_experiment(name: str, recipe: Recipe) -> Experiment:
    """E1 to E4 for a recipe.

    Raises
    ------
    RecipeError
        For another name, or a recipe without macro where macro is the question.
    """
    if name not in NAMES:
        raise RecipeError(f"no experiment {name!r}: there are {', '.join(NAMES)}")
    if not recipe.macro.enabled:
        raise RecipeError(
            "the recipe has macro.enabled = false: the experiments change one setting of a recipe"
            " that trades with macro"
        )
    return {"e1": _e1, "e2": _e2, "e3": _e3, "e4": _e4}[name](recipe)


def _e1(recipe: Recipe) -> Experiment:
    return Experiment(
        name="e1",
        title="macro against no macro",
        question="Does knowing the last days make a decision on the last hours better?",
        criterion="Asked for: at least 5 points more hit ratio than without macro.",
        arms=(Arm("macro"), Arm("no macro", {"macro.enabled": False})),
        pairs=(("macro", "no macro"),),
        judge=_judge_macro,
        wanted_points=100 * verdicts.MACRO_GAIN,
    )


def _e2(recipe: Recipe) -> Experiment:
    arms = tuple(Arm(name, _objective(recipe, objective)) for name, objective in OBJECTIVES.items())
    return Experiment(
        name="e2",
        title="how MacroNet is pretrained",
        question="Which objective leaves the better embedding: contrast of segments of a day, an"
        " autoencoder, or masked patches?",
        criterion="Asked for: a better Sharpe ratio, above 0, and a lower reconstruction error.",
        arms=arms,
        pairs=(("contrast", "autoencoder"), ("masked", "autoencoder"), ("contrast", "masked")),
        judge=_judge_objective,
    )


def _objective(recipe: Recipe, objective: str) -> Mapping[str, Any]:
    """Another objective; its options are the recipe's only where the objective is the recipe's."""
    if objective == recipe.macro.objective:
        return {}
    return {"macro.objective": objective, "macro.objective_options": {}}


def _e3(recipe: Recipe) -> Experiment:
    two, five, ten = (
        Arm(f"{hours} h", _short_window(recipe, hours)) for hours in SHORT_WINDOW_HOURS
    )
    alone = [
        Arm(f"{arm.name} alone", {**arm.changes, "macro.enabled": False}) for arm in (two, five)
    ]
    return Experiment(
        name="e3",
        title="how much MicroNet sees",
        question="Does a short window of 5 hours serve better than one of 2 hours, or one of 10?"
        ' ("Alone": without macro, which already knows some of what a longer window shows.)',
        criterion="Asked for: a higher return for its risk, not merely a smaller loss.",
        arms=(five, two, ten, alone[1], alone[0]),
        pairs=((five.name, two.name), (ten.name, five.name), (alone[1].name, alone[0].name)),
        judge=_judge_window,
    )


def _short_window(recipe: Recipe, hours: int) -> Mapping[str, Any]:
    candles = hours * HOUR_MS // recipe.interval_ms
    return {} if candles == recipe.micro.short_window else {"micro.short_window": candles}


def _e4(recipe: Recipe) -> Experiment:
    def mode(value: str) -> Mapping[str, Any]:
        return {} if recipe.threshold.mode == value else {"threshold.mode": value}

    return Experiment(
        name="e4",
        title="static against adaptive threshold",
        question="Does a threshold that follows the scores serve better than a fixed one?",
        criterion="Asked for: a lower drawdown and high precision, of an account that earns.",
        arms=(Arm("adaptive", mode("adaptive")), Arm("static", mode("static"))),
        pairs=(("adaptive", "static"),),
        judge=_judge_threshold,
    )


def _judge_macro(found: Comparison, _a: pd.DataFrame, _b: pd.DataFrame) -> Verdict:
    return verdicts.judge_macro(found)


def _judge_window(found: Comparison, a: pd.DataFrame, _b: pd.DataFrame) -> Verdict:
    return verdicts.judge_window(found, mean_of(a, "sharpe"))


def _judge_threshold(found: Comparison, a: pd.DataFrame, _b: pd.DataFrame) -> Verdict:
    return verdicts.judge_threshold(found, mean_of(a, "sharpe"))


def _judge_objective(found: Comparison, a: pd.DataFrame, b: pd.DataFrame) -> Verdict:
    name = "reconstruction_error"
    sharpe = mean_of(a, "sharpe")
    return verdicts.judge_objective(found, sharpe, mean_of(a, name), mean_of(b, name))
