"""What is checked, and how much training a check can afford.

Left out: the checks themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.market import load_market, session_tables
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import replay
from cppncripto_strategy.strategy import MacroMicroStrategy

Trade = Callable[
    [Mapping[str, CandleGrid], BundleTimeline, Span], tuple[pd.DataFrame, pd.DataFrame]
]
"""Trades a span of candles under a timeline: the tables of signals and of fills."""
Weigh = Callable[[Mapping[str, CandleGrid], BundleTimeline, Span], MacroMicroStrategy]
"""Trades likewise, and gives the strategy with its evidence."""
Report = Callable[[float, str], None]
"""Called with the share of a check that is done, in [0, 1], and what is going on."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckPlan:
    """What is checked.

    Parameters
    ----------
    interval : of the candles, such as "5m".
    grids : symbol -> its candles, history for training included.
    learn : how the recipe learns.
    threshold : how its scores become signals.
    start_ms : where the recipe starts to trade, UTC milliseconds.
    seed : of training, perturbations, shuffles and planted markets.
    trade : trades candles as the recipe does; None leaves orders unchecked.
    weigh : the same, giving the strategy; None leaves evidence unchecked.
    """

    interval: str
    grids: Mapping[str, CandleGrid]
    learn: LearnSettings
    threshold: ThresholdSettings
    start_ms: int
    seed: int = 0
    trade: Trade | None = None
    weigh: Weigh | None = None


def plan_of(recipe: Recipe) -> CheckPlan:
    """The plan that checks a recipe: its candles, networks, thresholds and orders.

    It is checked on the processor, whatever its device: checks compare bits.

    Raises
    ------
    CppnError
        When the recipe's candles cannot be read, leave nothing to trade after training, or the run
        could not mean anything.
    """
    recipe = recipe.model_copy(update={"device": "cpu"})
    market = load_market(recipe)
    learn = recipe.learn_settings(recipe.macro.enabled)

    def weigh(
        grids: Mapping[str, CandleGrid], timeline: BundleTimeline, span: Span
    ) -> MacroMicroStrategy:
        candles = {name: candles_of(grid) for name, grid in grids.items()}
        for name in recipe.beside:  # every grid carries the same market, over its own rows
            longest = max((grid.of_market() for grid in grids.values()), key=len)
            candles[name] = candles_of(longest)
        return replay(recipe, candles, timeline, span).strategy

    def trade(
        grids: Mapping[str, CandleGrid], timeline: BundleTimeline, span: Span
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        strategy = weigh(grids, timeline, span)
        return strategy.signals, strategy.fills

    return CheckPlan(
        interval=recipe.interval,
        grids={table.symbol: table.grid for table in session_tables(market, learn.session)},
        learn=learn,
        threshold=recipe.threshold.settings(),
        start_ms=checked_span(recipe, market).start_ms,
        seed=recipe.seed,
        trade=trade,
        weigh=weigh,
    )


def candles_of(grid: CandleGrid) -> Candles:
    """The candles that a grid holds."""
    present = grid.present
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    columns = {name: getattr(grid, name)[present] for name in names}
    return Candles.from_columns(open_time=grid.open_time[present], **columns)


def brief_training(learn: LearnSettings) -> LearnSettings:
    """The recipe's networks, trained for moments: enough to show a leak in the plumbing."""
    return dataclasses.replace(
        learn,
        train_days=min(learn.train_days, 40),
        validate_days=min(learn.validate_days, 10),
        pretrain=dataclasses.replace(learn.pretrain, epochs=min(learn.pretrain.epochs, 2)),
        train=dataclasses.replace(
            learn.train, epochs=min(learn.train.epochs, 2), initialisations=1
        ),
        warm_epochs=1,
    )


def affordable_training(learn: LearnSettings) -> LearnSettings:
    """The recipe's networks, on spans that a check can afford."""
    return dataclasses.replace(
        learn,
        train_days=min(learn.train_days, 240),
        validate_days=min(learn.validate_days, 30),
    )


def training_stamp(plan: CheckPlan, learn: LearnSettings, days_after: int) -> int:
    """A midnight to train until: the recipe's first, or earlier where too few candles follow it."""
    end_ms = min(grid.end_ms for grid in plan.grids.values())
    first = calendar(plan.start_ms, plan.start_ms + 1, learn.retrain_days)[0]
    return min(first, (end_ms - days_after * DAY_MS) // DAY_MS * DAY_MS)


def silent(share: float, text: str) -> None:
    """Report nothing."""


def part_of(report: Report, number: int = 0, parts: int = 1) -> Progress:
    """Training progress as one of `parts` equal parts of a check."""

    def progress(done: int, total: int, text: str) -> None:
        report((number + done / max(total, 1)) / parts, text)

    return progress
