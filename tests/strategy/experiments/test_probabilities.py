"""Proper scores of two arms: paired by candle and day, beside the class frequencies of training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.experiments.comparison import (
    ArmTables,
    CellTables,
    Question,
    Resampling,
    compare,
)
from cppncripto_strategy.feeds.clock import HOUR_MS

TRUE = {True: (0.1, 0.1), False: (0.35, 0.35)}  # p_buy, p_sell on calm and on wild days
CONSTANT = (0.225, 0.225)


def cell(seed: int, knows: bool, sure: float = 1.0, days: int = 60) -> CellTables:
    """An arm whose probabilities are the day's own (or the mean of all), made surer by a factor."""
    world = np.random.default_rng(9)
    count = days * 24
    calm = np.repeat(world.random(days) < 0.5, 24)
    p = np.array([TRUE[bool(c)] for c in calm])
    draw = world.random(count)
    label = np.where(draw < p[:, 0], 1.0, np.where(draw > 1 - p[:, 1], -1.0, 0.0))
    given = (p if knows else np.tile(CONSTANT, (count, 1))) * sure
    score = np.random.default_rng(seed).normal(size=count)
    table = pd.DataFrame(
        {
            "symbol": "AUSDT",
            "close_time_ms": HOUR_MS * np.arange(count, dtype=np.int64),
            "score": score,
            "signal": np.sign(score).astype(np.int64),
            "forward_return": 0.01 * (label + world.normal(0, 0.1, count)),
            "setup": False,
            "p_buy": given[:, 0],
            "p_sell": given[:, 1],
            "label": label,
            "constant_buy": CONSTANT[0],
            "constant_sell": CONSTANT[1],
        }
    )
    daily = pd.Series(0.001, index=pd.date_range("2024-01-01", periods=days))
    return CellTables(seed, table, daily)


def compared(a, b):
    question = Question("all", 1, 0.002, Resampling(shared=True, resamples=100))
    return compare(ArmTables("a", a), ArmTables("b", b), question)


def test_knowing_how_wild_the_day_is_is_seen_though_no_side_is_known() -> None:
    """Kills a score that hits could replace, and arms or the constant exchanged."""
    found = compared([cell(0, True), cell(1, True)], [cell(0, False), cell(1, False)])
    assert not found.hit_proved
    for score in found.proper_scores.values():
        assert score.difference.high < 0
        assert score.over_constant.value == pytest.approx(score.a - score.constant)
        assert score.difference.value == pytest.approx(score.a - score.b)
        assert score.b == pytest.approx(score.constant)
    entropies = [-sum(q * np.log(q) for q in (b, 1 - b - s, s)) for b, s in TRUE.values()]
    assert found.proper_scores["log_loss"].a == pytest.approx(np.mean(entropies), abs=0.05)


def test_too_much_confidence_is_worse_than_the_constant() -> None:
    """Kills a page on which both arms look fine because only their difference is shown."""
    sure = compared([cell(0, True, sure=0.2)], [cell(0, True)])
    assert sure.proper_scores["log_loss"].over_constant.low > 0
    assert sure.proper_scores["log_loss"].difference.low > 0


def test_candles_of_one_arm_alone_are_left_out_and_old_cells_have_no_scores() -> None:
    """Kills rows joined by position, and a crash on cells kept from before."""
    full, holed = cell(0, True), cell(0, True)
    holed = dataclasses.replace(holed, decisions=holed.decisions.drop(index=range(50, 700)))
    both = compared([full], [holed])
    assert both.proper_scores["brier"].difference.value == 0.0
    old = full.decisions.drop(columns=["p_buy", "p_sell", "label"])
    assert compared([dataclasses.replace(full, decisions=old)], [full]).proper_scores is None
    silent = full.decisions.assign(p_buy=np.nan)  # a regression head has no classes
    assert compared([dataclasses.replace(full, decisions=silent)], [full]).proper_scores is None
