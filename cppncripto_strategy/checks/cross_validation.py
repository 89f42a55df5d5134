"""How much of a recipe's Sharpe ratio hangs on which days it learned from, and which it traded?

A walk-forward is one path through history. Here the days are cut into groups; for each combination
of tested groups the recipe's networks learn from the other days, later ones too, and trade the
tested ones by the recipe's own strategy and costs. Put together, the parts make several paths, each
over every day, and a Sharpe ratio for each (`evaluation.cross_paths`).

While networks learn, the candles of tested days do not exist: they are taken out of the market
before anything is computed, so that no feature, scaler, embedding or label can have seen one. What
comes after a tested group is taken out as well: the recipe's purge (the longer of label horizon and
holding limit, in which outcomes of tested signals lie) and its embargo (the memory of features and
the short window, in which inputs reach back). Labels that reach into a group from before lack their
candles. A macro window counts once half of its candles exist, so days after a group come back late.

Left out: retraining (one training per combination, on about two thirds of the days), and waiting
for evidence (each group is too short for it: entries are sent all the same).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.evaluation.cross_paths import Folds, PathSpread, join_paths, spread_of
from cppncripto_strategy.evaluation.returns import daily_returns
from cppncripto_strategy.evaluation.undefined import Refusal
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_date
from cppncripto_strategy.market import Market, load_market, session_tables
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.forecaster import REMEMBERED_DAYS
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import replay
from cppncripto_strategy.results import to_plain


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a recipe earned over combinatorial paths.

    Parameters
    ----------
    recipe : its name. folds : how days were cut.
    first_ms : 00:00 UTC of the first day of the paths.
    paths : float array (paths, days), daily net returns.
    purge, embargo : candles taken out after each tested group.
    """

    recipe: str
    folds: Folds
    first_ms: int
    paths: FloatArray
    purge: int
    embargo: int

    @property
    def spread(self) -> PathSpread:
        """The Sharpe ratio of each path."""
        return spread_of(self.paths, self.folds)

    def words(self) -> list[str]:
        """What was found, in sentences."""
        spread, known = self.spread, self.spread.known
        last_ms = self.first_ms + (spread.days - 1) * DAY_MS
        about = (
            f"{len(self.paths)} paths over {spread.days:,} days ({ms_to_date(self.first_ms)} to"
            f" {ms_to_date(last_ms)}), from {spread.folds} trainings, each on the days of"
            f" {self.folds.groups - self.folds.tested} of {self.folds.groups} groups."
        )
        if not known:
            return [about, "No path's account ever moved: there is no Sharpe ratio."]
        return [
            about,
            f"Sharpe ratio: median {spread.median:.2f}, from {known[0]:.2f} to {known[-1]:.2f};"
            f" {spread.losing} of {len(self.paths)} paths earned nothing.",
            "Paths share days and networks, so their range is not a confidence interval: it says"
            " how much hangs on which days were learned from.",
        ]

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON: words first."""
        totals = np.prod(1 + self.paths, axis=1) - 1
        plain: dict[str, Any] = to_plain(
            {
                "recipe": self.recipe,
                "words": self.words(),
                "groups": self.folds.groups,
                "tested": self.folds.tested,
                "first_day": ms_to_date(self.first_ms),
                "days": self.paths.shape[1],
                "trainings": len(self.folds.combinations),
                "sharpes": self.spread.sharpes,
                "total_returns": totals,
                "purge_candles": self.purge,
                "embargo_candles": self.embargo,
            }
        )
        return plain


def cross_validate(
    recipe: Recipe, folds: Folds | None = None, progress: Progress | None = None
) -> CrossValidation:
    """Train a recipe on every combination of the other days, and trade the tested ones.

    The days are all that the candles leave after the first warm-up, until the end of the recipe's
    timerange. Costs one training of the recipe per combination (15 for 6 groups of which 2 are
    tested) and as many replays as tested groups.

    Parameters
    ----------
    folds : how days are cut; default 6 groups, 2 of them tested: 5 paths.
    progress : called with (done, total, text), over all trainings.

    Raises
    ------
    TrainingError
        When the days are too few for so many groups.
    CppnError
        When candles cannot be read, or a symbol has none in a group.
    """
    work = CrossPlan.of(recipe, folds or Folds())
    returns = []
    for number, fold in enumerate(work.folds.combinations):

        def report(done: int, total: int, text: str, number: int = number) -> None:
            if progress is not None:
                share = round(1000 * (number + done / max(total, 1)))
                whole = len(work.folds.combinations)
                progress(share, 1000 * whole, f"training {number + 1}/{whole}: {text}")

        returns.append(work.fold(fold, report))
    return CrossValidation(
        recipe=recipe.name,
        folds=work.folds,
        first_ms=work.groups[0].start_ms,
        paths=join_paths(returns, work.folds, work.days),
        purge=work.purge,
        embargo=work.embargo,
    )


@dataclass(frozen=True, eq=False)
class CrossPlan:
    """What every fold needs.

    Parameters
    ----------
    recipe : sends entries without waiting for evidence. market : its candles.
    tables : sessions of each symbol, all candles present. learn : how the recipe learns.
    folds, groups : how days are cut, and the span of each group.
    """

    recipe: Recipe
    market: Market
    tables: Mapping[str, SessionTable]
    learn: LearnSettings
    folds: Folds
    groups: Sequence[Span]

    @classmethod
    def of(cls, recipe: Recipe, folds: Folds) -> CrossPlan:
        """Read the candles and cut their days. Raises TrainingError when they are too few."""
        strategy = recipe.strategy.model_copy(update={"evidence": "trade"})
        recipe = recipe.model_copy(update={"strategy": strategy})
        market, learn = load_market(recipe), recipe.learn_settings(recipe.macro.enabled)
        tables = {table.symbol: table for table in session_tables(market, learn.session)}
        first_ms, days = _days(tables.values())
        groups = [
            Span(first_ms + int(part[0]) * DAY_MS, first_ms + (int(part[-1]) + 1) * DAY_MS)
            for part in folds.days_of(days)
            if len(part)
        ]
        _require(folds, days, learn)
        return cls(recipe, market, tables, learn, folds, groups)

    @property
    def days(self) -> int:
        """Days of all groups."""
        return (self.groups[-1].end_ms - self.groups[0].start_ms) // DAY_MS

    @property
    def purge(self) -> int:
        """Candles after a tested group in which outcomes of its signals lie."""
        return max(self.learn.label.horizon, self.recipe.strategy.hold_candles)

    @property
    def embargo(self) -> int:
        """Candles after them whose inputs reach back into the group."""
        return self.learn.session.table.memory + self.learn.micro_settings().receptive_field

    def fold(self, tested: Sequence[int], progress: Progress) -> FloatArray:
        """Daily returns of the tested groups, one after the other, by networks of the others."""
        bundle = self.learned_without(tested, progress)
        parts: FloatArray = np.concatenate([self.traded(self.groups[k], bundle) for k in tested])
        return parts

    def learned_without(self, tested: Sequence[int], progress: Progress) -> Bundle:
        """The recipe's networks, from a market without the tested groups' candles."""
        learn, groups = self.learn, self.groups
        until_ms = groups[max(set(range(len(groups))) - set(tested))].end_ms
        days = (until_ms - groups[0].start_ms) // DAY_MS - learn.validate_days
        after_ms = (self.purge + self.embargo) * self.recipe.interval_ms
        hidden = [Span(groups[k].start_ms, groups[k].end_ms + after_ms) for k in tested]
        tables = session_tables(_without(self.market, hidden), learn.session)
        settings = dataclasses.replace(learn, train_days=days)
        return learn_bundle(tables, until_ms, settings, self.recipe.seed, progress=progress)

    def traded(self, span: Span, bundle: Bundle) -> FloatArray:
        """Daily returns (days,) of a group; a day without a candle returns 0."""
        # By date the bundle has seen this group; its candles were not there when it learned.
        timeline = BundleTimeline((self._remembering(bundle, span),), in_sample=True)
        equity = replay(self.recipe, self.market.every, timeline, span).tables(span)["equity"]
        days = pd.date_range(ms_to_date(span.start_ms), periods=_length(span), freq="D")
        returns = daily_returns(equity).reindex(days, fill_value=0.0)
        return np.asarray(returns, dtype=np.float64)

    def _remembering(self, bundle: Bundle, span: Span) -> Bundle:
        """The bundle, its forecaster looking back on the days before a span, as at that time."""
        if bundle.forecaster is None:
            return bundle
        grids = {name: table.grid for name, table in self.tables.items()}
        memory = {
            name: day_table(grid.rows(0, grid.row_of(span.start_ms))).last(REMEMBERED_DAYS)
            for name, grid in grids.items()
        }
        market = bundle.forecaster.market
        if market is not None:
            beside = max((grid.of_market() for grid in grids.values()), key=len)
            before = beside.rows(0, beside.row_of(span.start_ms))
            market = day_table(before).last(REMEMBERED_DAYS)
        forecaster = dataclasses.replace(bundle.forecaster, memory=memory, market=market)
        return dataclasses.replace(bundle, forecaster=forecaster)


def _length(span: Span) -> int:
    return (span.end_ms - span.start_ms) // DAY_MS


def _days(tables: Iterable[SessionTable]) -> tuple[int, int]:
    """00:00 UTC of the first day on which every symbol has a session, and the days from there."""
    tables = list(tables)
    usable = [table.start_ms[table.ok] for table in tables]
    if not all(len(starts) for starts in usable):
        return 0, 0
    first_ms = max(int(starts[0]) for starts in usable)
    end_ms = min(int(table.grid.end_ms) for table in tables) // DAY_MS * DAY_MS
    return first_ms, max(0, (end_ms - first_ms) // DAY_MS)


def _require(folds: Folds, days: int, learn: LearnSettings) -> None:
    """Refuse groups too short to be judged or to validate on. Raises TrainingError."""
    refused, shortest = folds.refusal(days), days // folds.groups
    if refused is None and shortest <= learn.validate_days:
        refused = Refusal(
            f"{days} days make {folds.groups} groups of {shortest}, and the"
            f" {learn.validate_days} validation days (walkforward.validate_days) have to fit into"
            " the last group that is learned from, with some to spare"
        )
    if refused is not None:
        raise TrainingError(f"{refused.reason}: give more candles, or ask for fewer groups")


def _without(market: Market, hidden: Sequence[Span]) -> Market:
    """The market without the candles that close inside the spans, as if they had never been."""

    def kept(candles: Candles) -> Candles:
        gone = np.zeros(len(candles), np.bool_)
        for span in hidden:  # one that opens at the start closes inside
            gone |= (candles.open_time >= span.start_ms) & (candles.open_time < span.end_ms)
        return candles[~gone]

    return Market(
        {symbol: kept(candles) for symbol, candles in market.candles.items()},
        market.planted,
        {symbol: kept(candles) for symbol, candles in market.beside.items()},
    )
