"""What a candidate is worth: the results of its steps, and objectives made of them.

A step is one inner window under one seed. Its result is plain values, so that it can come from any
machine and be kept as JSON. Left out: how a step is run (`evaluation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.returns import drawdown_series, sharpe_ratio
from cppncripto_strategy.recipe_search import Objective, SearchRecipe


@dataclass(frozen=True)
class StepResult:
    """One window under one seed.

    Parameters
    ----------
    window, seed : numbers of both, from 0.
    candles, loss : labelled candles with probabilities, and their summed log loss in nats; the loss
        is None where there were none.
    signals, hits, break_even : judged signals, those that were right, and the hit ratio that pays
        the costs; None where undefined.
    days, daily : days since 1970 and the account's return on each, as fractions.
    drawdown : maximum on every bar, 0 to 1.
    turnover : annual, as a multiple of the equity.
    trades : round trips.
    networks : names the networks that were traded: equal where a candidate trains no others.
    train_s, trade_s : seconds of processor for the networks (0 where they were ready), and for
        scoring and trading.
    """

    window: int
    seed: int
    candles: int
    loss: float | None
    signals: int
    hits: float | None
    break_even: float | None
    days: tuple[int, ...]
    daily: tuple[float, ...]
    drawdown: float
    turnover: float
    trades: int
    networks: str
    train_s: float
    trade_s: float

    def to_plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {**asdict(self), "days": list(self.days), "daily": list(self.daily)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> StepResult:
        """What `to_plain` gave. Raises TypeError or KeyError on anything else."""
        lists = {"days": tuple(values["days"]), "daily": tuple(values["daily"])}
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Measure:
    """An objective: how steps make a number of it, and which way is better."""

    name: Objective
    title: str
    higher: bool
    of: Callable[[Sequence[StepResult]], float | None]

    def excess(self, value: float, limit: float) -> float:
        """How far a value breaks a limit; 0 or less where it keeps it."""
        return limit - value if self.higher else value - limit


def _log_loss(steps: Sequence[StepResult]) -> float | None:
    judged = [step for step in steps if step.loss is not None]
    candles = sum(step.candles for step in judged)
    return sum(step.loss or 0.0 for step in judged) / candles if candles else None


def _hit_margin(steps: Sequence[StepResult]) -> float | None:
    judged = [s for s in steps if s.hits is not None and s.break_even is not None]
    signals = sum(step.signals for step in judged)
    if not signals:
        return None
    needed = sum(step.signals * (step.break_even or 0.0) for step in judged)
    return (sum(step.hits or 0.0 for step in judged) - needed) / signals


def _sharpe(steps: Sequence[StepResult]) -> float | None:
    """Of the days of all windows together, averaged over seeds; an account in cash has 0."""
    values = []
    for part in _by_seed(steps):
        ratio = sharpe_ratio(daily_of(part)[1])
        values.append(0.0 if ratio is None and not any(s.trades for s in part) else ratio)
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) and known else None


def _drawdown(steps: Sequence[StepResult]) -> float | None:
    """The largest, of one window bar by bar or of all their days one after another."""
    falls = []
    for part in _by_seed(steps):
        equity: FloatArray = np.concatenate([[1.0], np.cumprod(1 + daily_of(part)[1])])
        falls.append(float(drawdown_series(equity).max()))
    return max([*falls, *(step.drawdown for step in steps)], default=None)


def _turnover(steps: Sequence[StepResult]) -> float | None:
    return float(np.mean([step.turnover for step in steps])) if steps else None


def _cpu(steps: Sequence[StepResult]) -> float | None:
    return sum(step.train_s + step.trade_s for step in steps) if steps else None


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("log_loss", "log loss, nats", False, _log_loss),
        Measure("hit_margin", "hit ratio less break-even", True, _hit_margin),
        Measure("sharpe", "Sharpe ratio", True, _sharpe),
        Measure("drawdown", "maximum drawdown", False, _drawdown),
        Measure("turnover", "annual turnover", False, _turnover),
        Measure("cpu_s", "seconds of processor", False, _cpu),
    )
}


def _by_seed(steps: Sequence[StepResult]) -> list[list[StepResult]]:
    seeds = dict.fromkeys(step.seed for step in steps)
    return [[step for step in steps if step.seed == seed] for seed in seeds]


def daily_of(steps: Iterable[StepResult]) -> tuple[IntArray, FloatArray]:
    """Days since 1970 and mean return over seeds, in order of time; both (days,)."""
    by_day: dict[int, list[float]] = {}
    for step in steps:
        for day, value in zip(step.days, step.daily, strict=True):
            by_day.setdefault(day, []).append(value)
    days = sorted(by_day)
    return np.array(days, np.int64), np.array([np.mean(by_day[day]) for day in days], np.float64)


def objective_values(search: SearchRecipe, steps: Sequence[StepResult]) -> list[float | None]:
    """One number per objective, in the recipe's order; None where undefined."""
    return [MEASURES[name].of(steps) for name in search.objectives]


def all_values(steps: Sequence[StepResult]) -> dict[str, float | None]:
    """Every measure by name, sought or not."""
    return {name: measure.of(steps) for name, measure in MEASURES.items()}


def excesses(search: SearchRecipe, steps: Sequence[StepResult]) -> dict[str, float]:
    """How far each constraint is broken, 0 or less where it is kept; infinite where undefined."""
    found = {}
    for name, limit in (search.constraints or {}).items():
        value = MEASURES[name].of(steps)
        found[name] = math.inf if value is None else MEASURES[name].excess(value, limit)
    return found
