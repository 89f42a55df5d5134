"""What a search will do, before it does anything: inner windows, the sealed span, steps.

    |<- window 0 ->|<- window 1 ->| ... |<- window n ->|<- sealed ->|
                     the recipe's traded span

Candidates get candles that closed by the beginning of the sealed span, and no later ones. A plan is
plain values: it is handed to workers on any machine, and kept in the study. Left out: running it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import CandleError, CppnError, RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_date
from cppncripto_strategy.market import Market, load_market
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.tuning.space import Space, candidate, check_space


@dataclass(frozen=True)
class Plan:
    """Everything an evaluation follows from, but the candidate.

    Parameters
    ----------
    recipe : plain values of the recipe that is tuned, paths absolute.
    search : how.
    windows : inner windows, in order of time.
    sealed : the span after them.
    candles_sha256 : of the inner windows' candles.
    cache : folder of finished bundles, on each machine its own; None keeps nothing.
    """

    recipe: dict[str, Any]
    search: SearchRecipe
    windows: tuple[Span, ...]
    sealed: Span
    candles_sha256: str
    cache: Path | None

    @property
    def steps(self) -> list[tuple[int, int]]:
        """(window, seed) of every step, in the order in which they are taken."""
        seeds, windows = range(self.search.seeds), range(len(self.windows))
        return [(window, seed) for seed in seeds for window in windows]

    @property
    def digest(self) -> str:
        """Names the plan; of the recipe, windows and candles."""
        spans = [(span.start_ms, span.end_ms) for span in (*self.windows, self.sealed)]
        content = json.dumps([self.recipe, spans, self.candles_sha256])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def traded(self, changes: Mapping[str, Any], span: Span, seed: int = 0) -> Recipe:
        """The changed recipe, traded over a span under one of the networks' seeds."""
        base = parse_recipe(self.recipe)
        recipe = candidate(base, changes)
        return recipe.model_copy(update={"timerange": timerange_of(span), "seed": base.seed + seed})

    def inner_market(self) -> Market:
        """The candles that candidates may see: none that closes inside the sealed span.

        Raises
        ------
        CandleError
            When they are not those of the machine that made the plan.
        """
        whole = Span(self.windows[0].start_ms, self.sealed.start_ms)
        market = until(load_market(self.traded({}, whole)), self.sealed.start_ms)
        if market.digest() != self.candles_sha256:
            raise CandleError(
                "the candles of the inner windows are others than those that the search was"
                f" planned on: copy {self.recipe['candles']['folder']} of the machine that searches"
                " to every worker, or start again where they changed meanwhile"
            )
        return market

    def whole_market(self) -> Market:
        """All candles, those of the sealed span among them: for who opens it."""
        return until(load_market(self.traded({}, self.sealed)), self.sealed.end_ms)


def make_plan(recipe: Recipe, space: Space, cache: Path | None) -> Plan:
    """The plan of a search, after everything that can be refused was refused.

    Raises
    ------
    CppnError
        When the space holds an impossible value, the traded span is too short for the windows and
        the sealed days, or a recipe of the space could not mean anything.
    """
    search = recipe.search or SearchRecipe()
    _refuse_moving_target(search, space)
    extremes = check_space(recipe, space)
    market = load_market(recipe)
    span = checked_span(recipe, market)
    windows, sealed = cut(span, search)
    inner = until(market, sealed.start_ms)
    values = recipe.to_plain()
    values["candles"]["folder"] = str(recipe.candles.folder)
    values.pop("search", None), values.pop("space", None)
    plan = Plan(values, search, windows, sealed, inner.digest(), cache)
    _check_extremes(plan, extremes, inner)
    return plan


def _refuse_moving_target(search: SearchRecipe, space: Space) -> None:
    """A loss of labels cannot be compared between candidates with other labels."""
    labels = [key for key in space.keys if key.startswith("label.") or key == "micro.head"]
    if "log_loss" in {*search.objectives, *(search.constraints or {})} and labels:
        raise RecipeError(
            f"the objective log_loss cannot compare candidates that differ in {', '.join(labels)}:"
            " an easier label has a lower loss. Take hit_margin or sharpe, or leave these keys out"
        )


def cut(span: Span, search: SearchRecipe) -> tuple[tuple[Span, ...], Span]:
    """Inner windows and sealed span of a traded span, at whole days, UTC.

    Raises
    ------
    TrainingError
        When the days do not suffice.
    """
    days = (span.end_ms - span.start_ms) // DAY_MS
    inner = days - search.sealed_days
    each = inner // search.windows
    if each < 2:
        raise TrainingError(
            f"the traded span has {days} days: {search.sealed_days} sealed ones leave"
            f" {max(inner, 0)} for {search.windows} windows of at least 2. Lower"
            " search.sealed_days or search.windows, or trade a longer span"
        )
    sealed_ms = span.start_ms + inner * DAY_MS
    # The days that do not divide come first, in no window: those before the seal are the latest.
    first = sealed_ms - search.windows * each * DAY_MS
    starts = [first + number * each * DAY_MS for number in range(search.windows)]
    windows = tuple(Span(start, start + each * DAY_MS) for start in starts)
    return windows, Span(sealed_ms, span.start_ms + days * DAY_MS)


def until(market: Market, end_ms: int) -> Market:
    """The candles that closed by a stamp: nothing later can reach whoever gets this market."""
    traded, beside = (
        {name: candles.between(int(candles.open_time[0]), end_ms) for name, candles in part.items()}
        for part in (market.candles, market.beside)
    )
    return Market(traded, market.planted, beside)


def _check_extremes(plan: Plan, extremes: Mapping[str, Recipe], market: Market) -> None:
    """Refuse a space of which an end could not be run on these candles."""
    problems = []
    for where, recipe in extremes.items():
        traded = recipe.model_copy(update={"timerange": timerange_of(plan.windows[0])})
        try:
            checked_span(traded, market)
        except CppnError as cause:
            problems.append(f"{where}: {cause}")
    if problems:
        raise RecipeError("\n".join(problems))


def timerange_of(span: Span) -> str:
    """A span of whole days as recipes write it: 20240101-20240901."""
    dates = (ms_to_date(ms).replace("-", "") for ms in (span.start_ms, span.end_ms))
    return "-".join(dates)
