"""The ridge with a penalty per block, against closed forms, and what noise may cost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.models.forecasting import ridge
from cppncripto_strategy.models.forecasting.ridge import fit_blocks, forward_folds

SYMBOLS, DAYS = 3, 240


@pytest.fixture
def rows() -> tuple[FloatArray, FloatArray, FloatArray, IntArray, IntArray]:
    """Terms (N, 4), noise (N, 40), target, symbol and day of three symbols' days."""
    rng = np.random.default_rng(0)
    symbol = np.repeat(np.arange(SYMBOLS), DAYS)
    day = np.tile(np.arange(DAYS), SYMBOLS)
    terms = rng.normal(size=(len(symbol), 4))
    target = terms @ [1.0, -0.5, 0.25, 0.0] + np.array([0.0, 5.0, -3.0])[symbol]
    target += rng.normal(0, 0.5, len(symbol))
    return terms, rng.normal(size=(len(symbol), 40)), target, symbol, day


def test_one_block_without_penalty_is_least_squares_with_a_constant_per_symbol(rows) -> None:
    """Kills a slip in the means, the scales or the constants."""
    terms, _, target, symbol, day = rows
    fitted = fit_blocks([terms], target, symbol, day)
    dummies = np.eye(SYMBOLS)[symbol]
    expected = np.linalg.lstsq(np.concatenate([terms, dummies], axis=1), target, rcond=None)[0]
    assert fitted.penalties[0] <= 1.0
    np.testing.assert_allclose([*fitted.weights, *fitted.constants], expected, atol=5e-3)
    unseen = fitted.predict([terms[:2]], np.array([-1, -1]))
    np.testing.assert_allclose(
        unseen, terms[:2] @ fitted.weights + fitted.constants.mean(), rtol=1e-12
    )


def test_noise_beside_the_anchor_is_left_out(rows) -> None:
    """Kills one penalty for all columns: an embedding of 128 numbers would cost the anchor's R2."""
    terms, noise, target, symbol, day = rows
    alone = fit_blocks([terms], target, symbol, day)
    both = fit_blocks([terms, noise], target, symbol, day)
    assert both.penalties == (alone.penalties[0], math.inf)
    assert np.array_equal(both.weights[:4], alone.weights)
    assert not both.weights[4:].any()
    assert np.array_equal(both.errors, alone.errors)
    found = both.predict([terms, noise], symbol)
    assert np.array_equal(found, alone.predict([terms], symbol))


def test_a_block_that_knows_something_is_kept_with_a_penalty_of_its_own(rows) -> None:
    """Kills a rule so strict that it leaves everything out."""
    terms, noise, target, symbol, day = rows
    noise[:, 7] = target - terms @ [1.0, -0.5, 0.25, 0.0] - np.array([0.0, 5.0, -3.0])[symbol]
    noise[:, 7] += np.random.default_rng(1).normal(0, 0.5, len(target))
    alone = fit_blocks([terms], target, symbol, day)
    both = fit_blocks([terms, noise], target, symbol, day)
    assert math.isfinite(both.penalties[1])
    assert (both.errors**2).mean() < 0.8 * (alone.errors**2).mean()


def test_validation_days_come_after_what_is_learned_and_stay_together() -> None:
    """Kills a penalty chosen on the days it was fitted on, or symbols of a day on both sides."""
    day = np.tile(np.arange(90), 2)
    folds = forward_folds(day)
    judged = np.concatenate([judge for _, judge in folds])
    assert sorted(judged.tolist()) == np.flatnonzero(day >= 45).tolist()
    assert len(folds) == ridge.VALIDATION_PARTS
    for learn, judge in folds:
        assert day[learn].max() < day[judge].min()


def test_a_symbol_without_a_learning_day_gets_the_mean_constant(rows) -> None:
    """Kills a NaN forecast for a symbol that was listed yesterday."""
    terms, _, target, symbol, day = rows
    known = symbol < 2
    fitted = fit_blocks([terms[known]], target[known], symbol[known], day[known], symbols=3)
    assert np.isnan(fitted.constants[2])
    found = fitted.predict([terms[:1]], np.array([2]))[0]
    assert found == pytest.approx(terms[0] @ fitted.weights + fitted.constants[:2].mean())


def test_columns_that_do_not_vary_or_repeat_each_other_do_no_harm(rows) -> None:
    """Kills a singular system: a market symbol's own terms are the market's terms."""
    terms, _, target, symbol, day = rows
    alone = fit_blocks([terms], target, symbol, day)
    twice = np.concatenate([terms, terms, np.ones((len(target), 1))], axis=1)
    fitted = fit_blocks([twice], target, symbol, day)
    assert fitted.weights[-1] == 0.0
    np.testing.assert_allclose(
        fitted.predict([twice], symbol), alone.predict([terms], symbol), atol=0.02
    )


def test_days_that_an_encoder_learned_from_do_not_speak_for_its_embedding(rows) -> None:
    """Kills an embedding trusted for days it was fitted to, and one trusted after three days."""
    terms, noise, target, symbol, day = rows
    memory = noise.copy()  # knows every answer up to day 218 and nothing afterwards
    memory[day < 218, 0] = target[day < 218]
    trusting = fit_blocks([terms, memory], target, symbol, day)
    assert math.isfinite(trusting.penalties[1])
    wary = fit_blocks([terms, memory], target, symbol, day, earn_from=218)
    assert wary.penalties[1] == math.inf
    useful = noise.copy()
    useful[:, 0] = target
    late = DAYS - ridge.MIN_EARN_DAYS
    assert math.isfinite(fit_blocks([terms, useful], target, symbol, day, late).penalties[1])
    assert fit_blocks([terms, useful], target, symbol, day, late + 1).penalties[1] == math.inf
