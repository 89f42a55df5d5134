"""Paired comparison of two arms: planted gains are found, nothing is found in nothing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.statistics import Estimate
from cppncripto_strategy.experiments import comparison, verdicts
from cppncripto_strategy.experiments.comparison import (
    ArmTables,
    CellTables,
    Question,
    Resampling,
    compare,
)

DAY = 86_400_000
HOUR = 3_600_000


def cell(seed, skill, days=60, market=None, mean=0.0, symbols=("BTCUSDT",), setups=1.0):
    """One arm on a made-up market: the score leans the right way with probability `skill`."""
    rng = np.random.default_rng([seed, round(1000 * skill), len(symbols)])
    world = np.random.default_rng(seed if market is None else market)
    tables = []
    for symbol in symbols:
        count = days * 24
        forward = world.normal(0, 0.01, count)
        right = np.where(rng.random(count) < skill, 1, -1)
        score = np.sign(forward) * right * rng.uniform(0.1, 0.9, count)
        tables.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "close_time_ms": HOUR * np.arange(count, dtype=np.int64),
                    "score": score,
                    "signal": np.where(score > 0.5, 1, np.where(score < -0.5, -1, 0)),
                    "forward_return": forward,
                    "setup": world.random(count) < setups,
                }
            )
        )
    daily = pd.Series(rng.normal(mean, 0.02, days), index=pd.date_range("2024-01-01", periods=days))
    return CellTables(seed, pd.concat(tables, ignore_index=True), daily)


def compared(a, b, where="all", shared=False, resamples=300, **more):
    question = Question(where, 1, 0.002, Resampling(shared, resamples=resamples, **more))
    return compare(ArmTables("a", a), ArmTables("b", b), question)


def test_planted_gain_is_found_and_has_its_size():
    """Dies here: arms swapped, candles left unpaired, or a gain lost in averaging over seeds."""
    skilled, plain = ([cell(s, skill) for s in range(3)] for skill in (0.60, 0.52))
    found = compared(skilled, plain)
    hits = [
        [
            (np.sign(c.decisions["score"]) == np.sign(c.decisions["forward_return"])).mean()
            for c in arm
        ]
        for arm in (skilled, plain)
    ]
    assert (found.hit_a, found.hit_b) == pytest.approx(tuple(np.mean(hits, axis=1)))
    assert found.hit_difference.value == pytest.approx(np.mean(hits[0]) - np.mean(hits[1]))
    assert found.hit_by_seed == pytest.approx(np.subtract(hits[0], hits[1]).tolist())
    assert found.candles == 3 * 60 * 24
    assert found.hit_proved
    verdict = verdicts.judge_macro(found)
    assert verdict.met
    assert "as much as hoped" in verdict.headline
    back = compared(plain, skilled)
    assert not back.hit_proved
    assert "hurts" in verdicts.judge_macro(back).headline


def test_equal_arms_are_told_apart_in_at_most_one_of_twenty_seeds():
    """Dies here: intervals so narrow that luck becomes a finding."""
    proved = sum(
        compared([cell(s, 0.5)], [cell(s, 0.5001)], resamples=200).hit_proved for s in range(40)
    )
    assert proved <= 2


def test_comparison_keeps_to_setups_or_signals_when_asked():
    """Dies here: a gain at setups watered down by every candle between them."""
    a, b = [cell(1, 0.6, setups=0.1)], [cell(1, 0.5, setups=0.1)]
    setups = int(a[0].decisions["setup"].sum())
    signals = ((a[0].decisions["signal"] != 0) | (b[0].decisions["signal"] != 0)).sum()
    assert compared(a, b, "setups").candles == setups
    assert compared(a, b, "signals").candles == int(signals)
    assert 0 < setups < signals < len(a[0].decisions)


def test_candle_missing_in_one_arm_is_left_out_of_both():
    """Dies here: rows joined by position, which compares different candles after the first gap."""
    full, other = cell(2, 0.7), cell(2, 0.7)
    holed = CellTables(2, other.decisions.drop(index=range(10, 400)), other.daily)
    found = compared([full], [holed])
    assert found.candles == len(full.decisions) - 390
    assert found.hit_difference.value == 0.0


def test_several_symbols_are_joined_within_a_symbol():
    """Dies here: a join by time alone, which crosses BTC's rows with ETH's."""
    both = ("BTCUSDT", "ETHUSDT")
    found = compared([cell(3, 0.6, symbols=both)], [cell(3, 0.5, symbols=both)])
    assert found.candles == 2 * 60 * 24


def test_seed_luck_widens_the_interval():
    """Dies here: an interval over days alone, which calls one lucky initialisation an effect."""
    good = [cell(s, skill, market=9) for s, skill in ((0, 0.9), (1, 0.45), (2, 0.45))]
    base = [cell(s, 0.5, market=9) for s in range(3)]
    found = compared(good, base, shared=True)
    assert found.hit_difference.value > 0.05
    assert found.hit_difference.low < 0
    alone = compared(good[:1], base[:1], shared=True)
    assert alone.hit_difference.low > 0.2


def test_pooled_sharpe_and_drawdown_differences_agree_with_numpy():
    """Dies here: a Sharpe difference of pooled returns, or a drawdown with its sign turned."""
    a, b = ([cell(s, 0.5 + d, mean=m) for s in range(2)] for d, m in ((0, 0.004), (0.001, 0.0)))
    found = compared(a, b)

    def sharpe(c):
        return c.daily.mean() / c.daily.std() * math.sqrt(365)

    def drawdown(c):
        equity = np.cumprod(np.r_[1, 1 + c.daily.to_numpy()])
        return max(1 - equity[k] / equity[: k + 1].max() for k in range(len(equity)))

    gaps = [np.mean([f(x) - f(y) for x, y in zip(a, b, strict=True)]) for f in (sharpe, drawdown)]
    assert found.sharpe_difference.value == pytest.approx(gaps[0])
    assert found.drawdown_difference.value == pytest.approx(gaps[1])
    assert found.sharpe_difference.low < gaps[0] < found.sharpe_difference.high


def test_precision_difference_counts_moves_beyond_the_threshold():
    """Dies here: precision judged by the sign alone."""
    a, b = cell(4, 0.7), cell(4, 0.5)

    def precision(c):
        t = c.decisions[c.decisions["signal"] != 0]
        return (t["signal"] * t["forward_return"] > 0.002).mean()

    found = compared([a], [b])
    assert found.precision_difference.value == pytest.approx(precision(a) - precision(b))


def test_account_that_never_traded_has_no_sharpe_difference():
    """Dies here: 0/0 taken for a Sharpe ratio of 0."""
    a, b = cell(5, 0.6), cell(5, 0.5)
    idle = CellTables(5, a.decisions, a.daily * 0)
    found = compared([idle], [b])
    assert found.sharpe_difference.value is None
    assert not verdicts.judge_window(found, 1.0).met


def with_gaps(sharpe=(0.0, -1.0, 1.0), drawdown=(0.0, -0.1, 0.1), precision=(0.0, -0.1, 0.1)):
    estimates = [Estimate(*values, 100) for values in (sharpe, drawdown, precision)]
    none = Estimate(0.0, -0.1, 0.1, 100)
    return comparison.Comparison(
        "adaptive", "static", "all", 100, 0.5, 0.5, none, (0.0,), None, *estimates
    )


def test_threshold_verdict_needs_lower_drawdown_and_no_lost_precision():
    """Dies here: a win for a threshold that draws down less because it is wrong more cautiously."""
    lower = (-0.05, -0.08, -0.02)
    assert verdicts.judge_threshold(with_gaps(drawdown=lower), 0.5).met
    worse = with_gaps(drawdown=lower, precision=(-0.04, -0.06, -0.02))
    assert not verdicts.judge_threshold(worse, 0.5).met
    assert not verdicts.judge_threshold(with_gaps(), 0.5).met
    turned = verdicts.judge_threshold(with_gaps(drawdown=(0.05, 0.02, 0.08)), 0.5)
    assert "more than" in turned.headline


def test_objective_verdict_needs_both_sharpe_and_reconstruction():
    """Dies here: half of the criterion taken for the whole."""
    better = with_gaps(sharpe=(1.0, 0.2, 1.8))
    assert verdicts.judge_objective(better, 0.5, 0.4, 0.5).met
    assert not verdicts.judge_objective(better, 0.5, 0.5, 0.4).met
    assert not verdicts.judge_objective(with_gaps(), 0.5, 0.4, 0.5).met
    assert not verdicts.judge_objective(better, 0.5, None, 0.5).met


@pytest.mark.parametrize("sharpe", [-0.1, 0.0, None])
def test_smaller_loss_is_no_gain(sharpe):
    """Dies here: an arm that trades less, and so pays less, praised on a market of coin tosses."""
    better = with_gaps(sharpe=(1.0, 0.2, 1.8), drawdown=(-0.05, -0.08, -0.02))
    found = [
        verdicts.judge_window(better, sharpe),
        verdicts.judge_objective(better, sharpe, 0.4, 0.5),
        verdicts.judge_threshold(better, sharpe),
    ]
    assert not any(verdict.met for verdict in found)
    assert "only loses less" in found[0].headline
    assert "only loses less" in found[2].headline
    assert verdicts.judge_window(better, 0.1).met
    assert verdicts.judge_objective(better, 0.1, 0.4, 0.5).met
    assert verdicts.judge_threshold(better, 0.1).met
