"""Running one step of a candidate: networks of one window trained or found, traded and judged.

Runs in whatever process a search uses. What steps have in common stays in this process's memory:
candles, sessions, networks. So a candidate that changes how signals are traded costs no training,
and one that changes MicroNet alone keeps MacroNet (`models.learning.cache`).

Left out: what the results are worth (`measures`), and the sealed span: a plan's candidates get
candles that end before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from cppncripto_strategy.class_labels import class_table
from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.evaluation.account import account_metrics
from cppncripto_strategy.evaluation.proper_scores import log_loss
from cppncripto_strategy.evaluation.returns import daily_returns
from cppncripto_strategy.evaluation.signals import signal_quality
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.indicators.score_memory import ScoreMemory
from cppncripto_strategy.judgement import Tables, account_of, yardstick_of
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import replay
from cppncripto_strategy.tuning.measures import StepResult
from cppncripto_strategy.tuning.plan import Plan

T = TypeVar("T")
# Networks of so many (candidate, window, seed) stay in memory, and their scores: a timeline takes
# less than a megabyte, what it says of three months of 5-minute candles one per symbol.
_KEPT_TIMELINES = 64
_KEPT_TABLES = 2


class Kept:
    """The last few values by key; made anew when they are asked for again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of a key, made where it is not there."""
        if key not in self._values:
            self._values[key] = make()
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        value: T = self._values[key]
        return value


class Ground:
    """What the steps of one plan share. Lives as long as the process; holds one market.

    Parameters
    ----------
    market : candles; of the inner windows for a search, all of them for who opens the sealed span.
    """

    def __init__(self, plan: Plan, market: Market) -> None:
        self.plan, self.market = plan, market
        self._tables = Kept(_KEPT_TABLES)
        self._timelines = Kept(_KEPT_TIMELINES)
        self._labels, self._losses = Kept(_KEPT_TIMELINES), Kept(_KEPT_TIMELINES)
        self._memories = Kept(_KEPT_TIMELINES)

    def step(self, changes: Mapping[str, Any], window: int, seed: int) -> StepResult:
        """One inner window under one seed."""
        return self.run(changes, self.plan.windows[window], window, seed)

    def run(self, changes: Mapping[str, Any], span: Span, window: int, seed: int) -> StepResult:
        """Train what is not there, trade a span and judge it.

        Raises
        ------
        CppnError
            When the candidate is impossible, or cannot be trained on these candles.
        """
        recipe = self.plan.traded(changes, span, seed)
        settings = recipe.learn_settings(recipe.macro.enabled)
        name = _name(recipe, settings, span)
        began = time.process_time()
        timeline = self._timelines.get(name, lambda: self._networks(recipe, settings, span))
        trained = time.process_time()
        memory = self._memories.get(name, ScoreMemory)
        passed = replay(recipe, self.market.every, timeline, span, memory=memory)
        tables = passed.tables(span)
        candles, loss = self._losses.get(name, lambda: self._loss(recipe, settings, tables, span))
        daily = daily_returns(tables["equity"])
        account = account_metrics(account_of(tables))
        both = signal_quality(tables["signals"], yardstick_of(recipe, resamples=0)).both
        return StepResult(
            window=window,
            seed=seed,
            candles=candles,
            loss=loss,
            signals=both.signals,
            hits=_product(both.signals, both.hit_ratio.value),
            break_even=both.break_even_hit_ratio,
            days=tuple(_days(daily)),
            daily=tuple(daily.fillna(0.0).tolist()),
            drawdown=account.max_drawdown or 0.0,
            turnover=account.turnover_per_year or 0.0,
            trades=account.trades or 0,
            networks=name,
            train_s=trained - began,
            trade_s=time.process_time() - trained,
        )

    def _networks(self, recipe: Recipe, settings: LearnSettings, span: Span) -> BundleTimeline:
        tables = self._sessions(settings)
        bounds = span.start_ms, span.end_ms
        return walk_forward(tables, *bounds, settings, recipe.seed, self.plan.cache)

    def _sessions(self, settings: LearnSettings) -> list[SessionTable]:
        key = digest_of(dataclasses.asdict(settings.session))
        return self._tables.get(key, lambda: session_tables(self.market, settings.session))

    def _loss(
        self, recipe: Recipe, settings: LearnSettings, tables: Tables, span: Span
    ) -> tuple[int, float | None]:
        """Candles with a label and probabilities, and their summed log loss.

        Both are the networks' own: how signals are traded does not move them.
        """
        key = digest_of([dataclasses.asdict(settings.label), recipe.micro.head, str(span)])
        labels = self._labels.get(key, lambda: class_table(recipe, self.market, span))
        if labels is None:
            return 0, None
        keys, own = ["symbol", "close_time_ms"], ["p_buy", "p_sell"]
        rows = tables["signals"][[*keys, *own]].merge(labels[[*keys, "label"]], on=keys).dropna()
        buy, sell, label = (rows[name].to_numpy(np.float64) for name in (*own, "label"))
        return len(rows), float(log_loss(buy, sell, label).sum()) if len(rows) else None


def _name(recipe: Recipe, settings: LearnSettings, span: Span) -> str:
    """Names the networks that trade a span."""
    return digest_of([dataclasses.asdict(settings), recipe.seed, span.start_ms, span.end_ms])[:16]


def digest_of(values: Any) -> str:
    """A name for plain values: equal for equal ones."""
    content = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


_GROUNDS = Kept(1)


def _days(daily: pd.Series[float]) -> list[int]:
    """Days since 1970 of daily returns."""
    stamps = pd.DatetimeIndex(daily.index).to_numpy().astype("datetime64[D]")
    days: list[int] = stamps.astype(np.int64).tolist()
    return days


def _product(count: float, share: float | None) -> float | None:
    return None if share is None else count * share


def evaluate(plan: Plan, changes: Mapping[str, Any], window: int, seed: int) -> dict[str, Any]:
    """One step as plain values, or {"refused": why} for an impossible candidate: a worker's task.

    The plan's candles are read once per process.
    """
    torch.set_num_threads(1)
    ground = _GROUNDS.get(plan.digest, lambda: Ground(plan, plan.inner_market()))
    try:
        return ground.step(changes, window, seed).to_plain()
    except CppnError as cause:
        return {"refused": str(cause)}
