"""Scores of forecasts: by hand, against the losses' own minima, and by days that move together."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.evaluation.forecasts import (
    Forecasted,
    interval_coverage,
    qlike,
    score_forecasts,
)
from cppncripto_strategy.feeds.clock import DAY_MS


def forecasted(days: int = 200, symbols: int = 5, shared: float = 1.0) -> Forecasted:
    """Truth and two forecasts; errors of a day are the same for every symbol when shared is 1."""
    rng = np.random.default_rng(0)
    day = np.tile(np.arange(days), symbols)
    common = rng.normal(size=(2, days))[:, day]
    truth = rng.normal(size=len(day))
    own = rng.normal(size=(2, len(day)))
    errors = shared * common + np.sqrt(1 - shared**2) * own
    predicted = {"anchor": truth + errors[0], "other": truth + errors[1]}
    return Forecasted(
        day_ms=day * DAY_MS,
        symbol=np.repeat(np.arange(symbols), days),
        truth=truth,
        usual=np.zeros(len(day)),
        predicted=predicted,
        lift={name: np.zeros(len(day)) for name in predicted},
    )


def test_scores_are_worked_out_by_hand() -> None:
    """Kills a benchmark, a mean over symbols or a ratio that is off."""
    rows = Forecasted(
        day_ms=np.array([0, DAY_MS, 0, DAY_MS]),
        symbol=np.array([0, 0, 1, 1]),
        truth=np.array([1.0, 2.0, 1.0, 1.0]),
        usual=np.zeros(4),
        predicted={"anchor": np.array([1.0, 1.0, 0.0, 1.0]), "other": np.array([1.0, 2, 1, 0.0])},
        lift={"anchor": np.zeros(4), "other": np.full(4, np.log(2.0))},
    )
    anchor, other = score_forecasts(rows, "anchor", resamples=0)
    assert (anchor.symbol_days, anchor.days) == (4, 2)
    assert anchor.r2 == pytest.approx(1 - 2 / 7)
    assert anchor.r2_by_symbol == pytest.approx(np.mean([1 - 1 / 5, 1 - 1 / 2]))
    assert anchor.mse == pytest.approx(0.5)
    assert anchor.r2_gain.value is None
    assert other.r2_gain.value == pytest.approx(2 / 7 - 1 / 7)
    assert other.mse_ratio.value == pytest.approx(0.5)
    x = np.exp(rows.truth) / (2 * np.exp(rows.predicted["other"]))
    assert other.qlike == pytest.approx(np.mean(x - np.log(x) - 1))


def test_qlike_is_least_at_the_mean_of_the_variance() -> None:
    """Kills a forecast of the log variance that is judged as if it were the variance's mean."""
    log_variance = np.random.default_rng(0).normal(0, 0.7, 20_000)
    mean = np.log(np.exp(log_variance).mean())
    losses = [qlike(log_variance, np.full(20_000, mean + away)).mean() for away in (-0.1, 0, 0.1)]
    assert losses[1] < min(losses[0], losses[2])
    assert qlike(log_variance, log_variance).max() == 0.0


def test_symbols_of_one_day_are_not_counted_as_independent() -> None:
    """Kills intervals and tests that shrink when a symbol is listed five times."""
    one, five = forecasted(symbols=1), forecasted(symbols=5)
    alone = score_forecasts(one, "anchor")[1]
    together = score_forecasts(five, "anchor")[1]
    assert together.diebold_mariano is not None
    assert alone.diebold_mariano is not None
    assert together.diebold_mariano.count == 200
    assert together.diebold_mariano.statistic == pytest.approx(alone.diebold_mariano.statistic)
    width = together.mse_ratio.high - together.mse_ratio.low
    assert width == pytest.approx(alone.mse_ratio.high - alone.mse_ratio.low, rel=1e-6)
    assert together.mse_ratio.low < 1 < together.mse_ratio.high


def test_a_better_forecast_has_an_interval_that_excludes_nothing_gained() -> None:
    """Kills a sign turned around."""
    rows = forecasted(shared=0.5)
    better = {**rows.predicted, "other": rows.truth + 0.5 * (rows.predicted["other"] - rows.truth)}
    scores = score_forecasts(
        Forecasted(rows.day_ms, rows.symbol, rows.truth, rows.usual, better, rows.lift), "anchor"
    )
    assert scores[1].r2_gain.low > 0
    assert scores[1].mse_ratio.high < 1
    assert scores[1].diebold_mariano.statistic < 0


def test_coverage_counts_days_and_needs_some() -> None:
    """Kills a share over nothing."""
    day_ms = np.repeat(np.arange(10), 2) * DAY_MS
    inside = np.tile([True, False], 10)
    found = interval_coverage(day_ms, inside)
    assert (found.value, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 20)
    assert interval_coverage(day_ms[:0], inside[:0]).value is None
