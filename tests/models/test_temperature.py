"""Temperature: fitted to the lowest log loss, applied alike in batch and live, 1 in old bundles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.micronet import BUY, SELL
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.models.scoring.macro_stream import MacroStream
from cppncripto_strategy.models.scoring.round_scorer import ScoreStream
from cppncripto_strategy.models.temperature import COLDEST, HOTTEST, fit_temperature, tempered


def made_up(true_temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure by a known factor, and the classes that came."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (20_000, 3))
    true = torch.softmax(torch.from_numpy(logits / true_temperature), dim=-1).numpy()
    target = (rng.random((20_000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return torch.softmax(torch.from_numpy(logits), dim=-1).numpy(), target


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_classes_is_found(true) -> None:
    """Kills a temperature that is turned upside down, or fitted to another class."""
    probabilities, target = made_up(true)
    assert fit_temperature(probabilities, target) == pytest.approx(true, rel=0.06)


def test_no_temperature_near_the_fitted_one_has_a_lower_loss() -> None:
    """Kills a search that stops early."""
    probabilities, target = made_up(2.0)
    fitted = fit_temperature(probabilities, target)

    def loss(temperature: float) -> float:
        buy, sell = tempered(probabilities[:, 0], probabilities[:, 1], temperature)
        every = np.stack([buy, sell, 1 - buy - sell], axis=1)
        return -np.log(every[np.arange(len(target)), target]).mean()

    assert all(loss(fitted) <= loss(fitted * factor) for factor in (0.98, 0.995, 1.005, 1.02))
    assert loss(fitted) < loss(1.0)


def test_extremes_stay_within_bounds_and_nothing_learned_is_one() -> None:
    """Kills an infinite temperature of probabilities that say nothing, and a division by 0."""
    rng = np.random.default_rng(1)
    wrong = np.tile([0.98, 0.01, 0.01], (300, 1))
    assert fit_temperature(wrong, rng.integers(0, 3, 300)) <= HOTTEST * 1.001
    assert fit_temperature(np.tile([0.4, 0.3, 0.3], (300, 1)), np.zeros(300, int)) >= COLDEST * 0.99
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1.0


def test_tempering_keeps_the_order_the_sum_and_nan() -> None:
    """Kills a probability above 1, and a missing candle that gets one."""
    buy, sell = np.array([0.6, 0.0, np.nan]), np.array([0.3, 1.0, np.nan])
    warm = tempered(buy, sell, 2.0)
    root = np.sqrt([0.6, 0.3, 0.1])
    np.testing.assert_allclose([warm[0][0], warm[1][0]], root[:2] / root.sum())
    assert warm[1][1] == 1.0
    assert np.isnan(warm[0][2])
    same = tempered(buy, sell, 1.0)
    assert same[0] is buy
    assert same[1] is sell


def test_batch_and_stream_temper_alike_and_leave_the_score_alone(toy) -> None:
    """Kills a live probability that is surer than the backtest's, and a moved trade."""
    grid = toy.grid(toy.candles())
    plain = toy.timeline(grid, toy.settings, sessions=(4,))
    [bundle] = plain.bundles
    assert bundle.temperature == 1.0  # made before there was a temperature
    info = dataclasses.replace(bundle.info, validation={"loss": 1.0, "temperature": 2.5})
    warm = BundleTimeline((dataclasses.replace(bundle, info=info),))
    before, after = score_span("X", grid, plain), score_span("X", grid, warm)
    assert np.array_equal(before.score, after.score, equal_nan=True)
    assert np.array_equal(before.score_zero, after.score_zero, equal_nan=True)
    expected = tempered(before.p_buy, before.p_sell, 2.5)
    np.testing.assert_allclose(after.p_buy, expected[0])
    np.testing.assert_allclose(after.p_sell, expected[1])
    macro = MacroStream(warm)
    stream = ScoreStream(macro)
    columns = (grid.open, grid.high, grid.low, grid.close, grid.volume, grid.taker_buy_volume)
    for row in range(len(grid)):
        macro.push(int(grid.open_time[row]), np.array([column[row] for column in columns]))
        found = stream.update()
        wanted = (after.score[row], after.p_buy[row], after.p_sell[row], after.score_zero[row])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.isfinite(after.p_buy).sum() > 100
    assert {BUY, SELL} < {0, 1, 2}
