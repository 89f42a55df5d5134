"""Objectives of steps, against numbers worked out by hand or by another way."""

import math

import numpy as np
import pytest

from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.tuning.measures import (
    MEASURES,
    StepResult,
    daily_of,
    excesses,
    objective_values,
)


def test_losses_weigh_by_candles_and_hits_by_signals(tiny):
    """The mean of two windows' means: a window with three signals rules one with a hundred."""
    steps = [
        tiny.step({}, 0, 0, candles=10, loss=20.0, signals=1, hits=1.0, break_even=0.5),
        tiny.step({}, 1, 0, candles=30, loss=30.0, signals=9, hits=4.5, break_even=0.6),
    ]
    assert MEASURES["log_loss"].of(steps) == pytest.approx(50 / 40)
    assert MEASURES["hit_margin"].of(steps) == pytest.approx(5.5 / 10 - (0.5 + 9 * 0.6) / 10)


def test_sharpe_is_of_all_days_together_and_averaged_over_seeds(tiny):
    """Sharpe ratios of single weeks averaged: a week without deviation is worth infinity."""
    steps = [tiny.step({}, window, seed) for seed in (0, 1) for window in (0, 1)]
    expected = []
    for seed in (0, 1):
        days = np.concatenate([s.daily for s in steps if s.seed == seed])
        expected.append(days.mean() / days.std(ddof=1) * math.sqrt(365))
    assert MEASURES["sharpe"].of(steps) == pytest.approx(np.mean(expected))


def test_an_account_in_cash_has_a_sharpe_ratio_of_0(tiny):
    """A candidate that never trades fails, and the search never learns to leave it."""
    cash = tiny.step({}, 0, 0, daily=(0.0,) * 7, trades=0)
    assert MEASURES["sharpe"].of([cash]) == 0.0
    assert MEASURES["sharpe"].of([tiny.step({}, 0, 0, daily=(0.0,) * 7, trades=2)]) is None


def test_drawdown_spans_windows(tiny):
    """A fall that lasts three windows counted as three small ones."""
    steps = [tiny.step({}, w, 0, daily=(-0.1, 0.0), days=(w, w + 9), drawdown=0.1) for w in (0, 1)]
    assert MEASURES["drawdown"].of(steps) == pytest.approx(1 - 0.9**2)
    deep = [*steps, tiny.step({}, 2, 0, daily=(0.5,), days=(30,), drawdown=0.4)]
    assert MEASURES["drawdown"].of(deep) == 0.4


def test_undefined_objectives_are_none_and_break_every_limit(tiny):
    """No signals at all, praised for never being wrong."""
    silent = [tiny.step({}, 0, 0, signals=0, hits=None, break_even=None, loss=None)]
    search = SearchRecipe(objectives=("hit_margin", "log_loss"), constraints={"hit_margin": 0.0})
    assert objective_values(search, silent) == [None, None]
    assert excesses(search, silent) == {"hit_margin": math.inf}


def test_limits_are_at_most_for_what_is_sought_low(tiny):
    """A drawdown limit read as a demand for a larger one."""
    search = SearchRecipe(constraints={"turnover": 150.0, "sharpe": 1.0})
    (steps,) = [[tiny.step({}, 0, 0, turnover=200.0)]]
    found = excesses(search, steps)
    assert found["turnover"] == pytest.approx(50.0)
    assert found["sharpe"] == pytest.approx(1.0 - MEASURES["sharpe"].of(steps))


def test_results_survive_json(tiny):
    """A list where a tuple was: the step of a resumed search differs from a fresh one's."""
    import json

    step = tiny.step({}, 1, 2)
    assert StepResult.from_plain(json.loads(json.dumps(step.to_plain()))) == step


def test_daily_returns_are_means_over_seeds_in_order_of_time(tiny):
    """Seeds strung one after another: twice the days, and half the deviation of the mean."""
    steps = [tiny.step({}, w, seed) for seed in (0, 1) for w in (1, 0)]
    days, daily = daily_of(steps)
    assert days.tolist() == list(range(14))
    by_hand = (np.array(steps[1].daily) + np.array(steps[3].daily)) / 2
    assert daily[:7] == pytest.approx(by_hand)
