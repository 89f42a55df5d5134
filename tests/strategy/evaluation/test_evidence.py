"""The bet and the end of an edge: by their definitions, exactly, day by day and at once."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.evidence import (
    CLOSING_STAKES,
    MAX_STAKE,
    Bet,
    EvidenceSettings,
    bet,
    closing_sum,
    weigh,
)

RESULTS = st.lists(st.floats(-1, 1, allow_subnormal=False), max_size=60)
QUICK = EvidenceSettings(alpha=0.4, closing_days=3.0)  # opens and closes within few days
FIELDS = ("x", "stake", "wealth", "closing", "open")


def by_definition(x, prior):
    """Stakes and wealth from the formulas, every day from scratch."""
    stakes, wealth, wealths = [], 1.0, []
    for day in range(len(x)):
        past = x[:day]
        means = [sum(past[: i + 1]) / (prior + i + 1) for i in range(day)]
        mean = means[-1] if means else 0.0
        squares = sum((value - m) ** 2 for value, m in zip(past, means, strict=True))
        variance = (prior + squares) / (prior + day)
        stakes.append(min(max(mean / (variance + mean**2), 0.0), MAX_STAKE))
        wealth *= 1 + stakes[-1] * x[day]
        wealths.append(wealth)
    return stakes, wealths


def test_the_example_opens_and_closes():
    """Equal paths on which nothing happens."""
    path = weigh(np.array([1.0] * 6 + [-0.5] * 9 + [0.8] * 9), QUICK)
    assert len(np.flatnonzero(np.diff(path.open.astype(int)))) >= 2


def drawn(days, mean, seed):
    return np.clip(np.random.default_rng(seed).normal(mean, 0.4, days), -1, 1)


@pytest.mark.parametrize("prior", [1, 7])
def test_the_wealth_is_that_of_the_formulas(prior):
    """A stake that uses its own day, a prior forgotten, an estimate off by one day."""
    x = drawn(80, 0.15, seed=1)
    stakes, wealth = bet(x, prior)
    expected = by_definition(x.tolist(), prior)
    np.testing.assert_allclose(stakes, expected[0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(wealth, expected[1], rtol=1e-12)
    assert 0 < (stakes > 0).mean() <= 1


def test_the_wealth_is_that_of_confseq():
    """A bet that only we understand that way."""
    betting = pytest.importorskip("confseq.betting", reason="confseq is not installed")
    strategies = pytest.importorskip("confseq.betting_strategies")
    x = drawn(300, 0.1, seed=2)
    theirs = betting.betting_mart(
        (x + 1) / 2,
        0.5,
        lambdas_fn_positive=lambda y, m: np.maximum(strategies.lambda_aKelly(y, m), 0),
        theta=1,
        trunc_scale=MAX_STAKE,
    )
    np.testing.assert_allclose(bet(x)[1], theirs, rtol=1e-9)


def test_a_fair_coin_cannot_be_beaten():
    """A process that is no martingale: over all coin tosses the mean wealth is 1, and at most
    alpha of them ever reach 1 / alpha (Ville)."""
    alpha, tosses = 0.2, 13
    every = np.array(list(itertools.product((-1.0, 1.0), repeat=tosses)))
    wealth = np.array([bet(row)[1] for row in every])
    np.testing.assert_allclose(wealth.mean(axis=0), 1.0, rtol=1e-12)
    reached = (wealth.max(axis=1) >= 1 / alpha).mean()
    assert 0 < reached <= alpha


def test_the_sum_of_bets_grows_by_one_a_day_on_a_fair_coin():
    """An e-detector whose run length is not what its threshold says: M_t - t is a martingale."""
    tosses = 11
    every = np.array(list(itertools.product((-1.0, 1.0), repeat=tosses)))
    sums = np.array([closing_sum(row) for row in every])
    np.testing.assert_allclose(sums.mean(axis=0), np.arange(1, tosses + 1), rtol=1e-12)


def test_the_sum_of_bets_is_that_of_every_start_day():
    """A recursion that forgets a start day, or counts it twice."""
    x = drawn(40, -0.1, seed=3)
    expected = [
        np.mean(
            [
                sum(np.prod(1 - stake * x[start : day + 1]) for start in range(day + 1))
                for stake in CLOSING_STAKES
            ]
        )
        for day in range(len(x))
    ]
    np.testing.assert_allclose(closing_sum(x), expected, rtol=1e-12)


@example([1.0] * 6 + [-0.5] * 9 + [0.8] * 9)
@given(RESULTS)
def test_day_by_day_is_all_at_once_to_the_last_bit(results):
    """A live session that sees another wealth than its backtest."""
    path = weigh(np.array(results), QUICK)
    stream = Bet(QUICK, QUICK.needed())
    days = [stream.update(x) for x in results]
    for place, name in enumerate(FIELDS):
        assert [day[place] for day in days] == getattr(path, name).tolist()


@given(RESULTS, st.integers(0, 60))
def test_later_days_change_nothing_before_them(results, cut):
    """A stake, an opening or a closing that knows what comes."""
    x = np.array(results)
    whole, part = weigh(x, QUICK), weigh(x[:cut], QUICK)
    for name in FIELDS:
        assert getattr(whole, name)[:cut].tolist() == getattr(part, name).tolist()


def test_evidence_opens_closes_and_begins_again():
    """Evidence that never ends, or that remembers what it was closed for."""
    settings = EvidenceSettings(closing_days=50.0)
    x = np.concatenate([drawn(120, 0.4, seed=4), drawn(120, -0.4, 5), drawn(240, 0.4, seed=6)])
    path = weigh(x, settings)
    turns = np.flatnonzero(np.diff(path.open.astype(int), prepend=0))
    opened, closed, again = turns.tolist()
    assert opened < 120 < closed < 240 < again < len(x)
    assert path.wealth[opened] >= 20 > path.wealth[:opened].max()
    assert path.closing[closed] >= 50 > path.closing[:closed].max()
    fresh = weigh(x[closed + 1 :], settings)
    for name in FIELDS:
        assert getattr(path, name)[closed + 1 :].tolist() == getattr(fresh, name).tolist()


def test_the_account_needs_more_where_each_symbol_bets():
    """Twenty symbols, of which one opens by luck."""
    assert EvidenceSettings(alpha=0.05).needed() == pytest.approx(20)
    assert EvidenceSettings(alpha=0.05).needed(bets=15) == pytest.approx(300)


@example([1.0] * 6 + [-0.5] * 9 + [0.8] * 9, 8)
@given(RESULTS, st.integers(0, 60))
def test_a_restored_bet_continues_to_the_last_bit(results, cut):
    """A restart after which E is another number."""
    first, second = (Bet(QUICK, QUICK.needed()) for _ in range(2))
    for x in results[:cut]:
        first.update(x)
    second.restore(json.loads(json.dumps(first.snapshot())))
    assert [first.update(x) for x in results[cut:]] == [second.update(x) for x in results[cut:]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 1.0),
        ("clip_bps", 0.0),
        ("clip_bps", float("inf")),
        ("prior_days", 0),
        ("closing_days", 0.5),
        ("per", "trade"),
        ("sides", "long"),
        ("horizon", -1),
    ],
)
def test_impossible_settings_are_refused(name, value):
    """A setting that makes the test wrong without a word."""
    with pytest.raises(RecipeError, match=name):
        EvidenceSettings(**{name: value})


def test_a_day_is_cut_at_the_clip():
    """A result outside [-1, 1], with which wealth could fall below 0."""
    settings = EvidenceSettings(clip_bps=50.0)
    assert [settings.clipped(bps) for bps in (-80.0, -25.0, 10.0, 400.0)] == [-1.0, -0.5, 0.2, 1.0]
