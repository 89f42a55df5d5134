"""A run judged by its recipe: account, benchmark and signals, at the recipe's costs and horizon.

The same judge for a backtest, a cell of an experiment and a paper session. Left out: what the
numbers mean (`evaluation`), and what else a run reports (`outcome`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from cppncripto_strategy.evaluation.account import (
    Account,
    Costs,
    account_metrics,
    buy_and_hold,
)
from cppncripto_strategy.evaluation.class_scores import class_scores
from cppncripto_strategy.evaluation.evidence_summary import evidence_summary
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.evaluation.statistics import DEFAULT_RESAMPLES
from cppncripto_strategy.memory import give_back, return_pages
from cppncripto_strategy.recipe import Recipe

Tables = Mapping[str, pd.DataFrame]
"""signals, fills, trades, equity and, where it was counted, evidence, as `results` describes them.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What `judge` found: metrics as plain nested values, and the buy-and-hold equity table."""

    metrics: dict[str, Any]
    benchmark: pd.DataFrame


def judge(
    recipe: Recipe,
    traded: Tables,
    without_macro: Tables | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    other_rule: Tables | None = None,
    classes: pd.DataFrame | None = None,
) -> Judgement:
    """Judge what a run traded, and what it would have traded without macro.

    Parameters
    ----------
    traded, without_macro : tables of the span; None where there was no run without macro.
    resamples : of days, for the intervals of signal quality; 0 leaves them undefined.
    other_rule : tables of the same run under the other rule of `strategy.evidence`, or None.
    classes : labels and class frequencies (`class_labels.class_table`), or None: then the
        probabilities of the classes are not judged.
    """
    yardstick = yardstick_of(recipe, resamples)
    probabilities = _probabilities(traded, without_macro, classes, yardstick)
    if classes is not None:
        del classes
        give_back()  # a row per candle of every symbol: what is judged next would come on top
    benchmark = buy_and_hold(traded["signals"], recipe.broker.cash, _costs(recipe))
    return_pages()  # of arrays that came and went
    bare = account_of(without_macro) if without_macro is not None else None
    evidence = _evidence(recipe, traded, other_rule)
    metrics = run_metrics(
        traded["signals"],
        account_of(traded),
        benchmark,
        yardstick,
        bare,
        evidence,
        probabilities,
    )
    return Judgement(metrics, benchmark)


def yardstick_of(recipe: Recipe, resamples: int) -> Yardstick:
    """What a recipe's signals are measured against."""
    return Yardstick(
        horizon=recipe.label.horizon,
        interval_ms=recipe.interval_ms,
        round_trip_cost_bps=_costs(recipe).round_trip_bps,
        label_threshold_bps=recipe.label.threshold_bps,
        seed=recipe.seed,
        resamples=resamples,
    )


def _costs(recipe: Recipe) -> Costs:
    return Costs(recipe.broker.fee_bps, recipe.broker.slippage_bps)


def _evidence(recipe: Recipe, traded: Tables, other_rule: Tables | None) -> dict[str, Any] | None:
    if "evidence" not in traded:
        return None
    other = None if other_rule is None else asdict(account_metrics(account_of(other_rule)))
    return evidence_summary(traded["evidence"], recipe.strategy.evidence, other)


def _probabilities(
    traded: Tables, without_macro: Tables | None, classes: pd.DataFrame | None, yardstick: Yardstick
) -> dict[str, Any] | None:
    if classes is None:
        return None
    bare = None if without_macro is None else without_macro["signals"]
    return class_scores(traded["signals"], bare, classes, yardstick)


def account_of(tables: Tables) -> Account:
    """The account of a run's tables."""
    return Account(tables["equity"], tables["fills"], tables["trades"])
