"""How good forecasts of a day's variance are, and whether one is better than another.

R2 counts from the mean of the 30 days before; MSE is that of the log variance; QLIKE is the loss of
a variance forecast that stays right when realised variance is a noisy measure (Patton 2011, eq. 6).
Forecasts of the log variance are medians of the variance: QLIKE judges them lifted to means. The
symbols of one day move together, so every comparison averages them by day first: Diebold-Mariano on
the daily means, intervals by resampling whole days. What is left out: making forecasts (`models`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.evaluation.statistics import (
    DEFAULT_RESAMPLES,
    DieboldMariano,
    Estimate,
    day_totals,
    diebold_mariano,
    ratio_difference,
    ratio_estimates,
)


@dataclass(frozen=True, slots=True, eq=False)
class Forecasted:
    """Forecasts of symbol-days and what the days did (N rows), all finite.

    Parameters
    ----------
    day_ms : int64 (N,), 00:00 UTC. symbol : int64 (N,), number of the symbol.
    truth : float64 (N,), log variance of the day. usual : its mean over the 30 days before.
    predicted : float64 (N,) by name, forecasts of `truth`.
    lift : float64 (N,) by name, what lifts exp(predicted) from a median to a mean, as a logarithm.
    """

    day_ms: IntArray
    symbol: IntArray
    truth: FloatArray
    usual: FloatArray
    predicted: Mapping[str, FloatArray]
    lift: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class ForecastScore:
    """How good one forecast is, beside the anchor.

    Parameters
    ----------
    name : of the forecast. anchor : name of what it is compared with.
    symbol_days, days : rows, and days among them.
    r2 : share of the squared error of the 30-day mean that is left away, over all rows.
    r2_by_symbol : mean of the symbols' own.
    mse : mean squared error of the log variance. qlike : mean QLIKE loss of the variance.
    r2_gain : r2 less the anchor's, with the interval of resampled days; undefined for the anchor.
    mse_ratio : its MSE over the anchor's, with such an interval.
    diebold_mariano : on daily mean squared errors, negative where the anchor errs more; None for
        the anchor and where forecasts are equal.
    """

    name: str
    anchor: str
    symbol_days: int
    days: int
    r2: float
    r2_by_symbol: float
    mse: float
    qlike: float
    r2_gain: Estimate
    mse_ratio: Estimate
    diebold_mariano: DieboldMariano | None


def score_forecasts(
    rows: Forecasted, anchor: str, seed: int = 0, resamples: int = DEFAULT_RESAMPLES
) -> list[ForecastScore]:
    """Judge every forecast, and compare it with the anchor on the same symbol-days.

    Parameters
    ----------
    anchor : name of the forecast that the others are compared with.
    seed, resamples : of the intervals; 0 resamples leave them undefined.
    """
    squared = {name: (rows.truth - center) ** 2 for name, center in rows.predicted.items()}
    benchmark = (rows.truth - rows.usual) ** 2
    scores = []
    for name, losses in squared.items():
        gain, ratio, test = Estimate(None, None, None, 0), Estimate(None, None, None, 0), None
        if name != anchor:
            gain = _r2_gain(rows.day_ms, losses, squared[anchor], benchmark, seed, resamples)
            ratio = _ratio(rows.day_ms, losses, squared[anchor], seed, resamples)
            test = _by_day(rows.day_ms, losses, squared[anchor])
        scores.append(
            ForecastScore(
                name=name,
                anchor=anchor,
                symbol_days=len(losses),
                days=len(np.unique(rows.day_ms)),
                r2=float(1 - losses.sum() / benchmark.sum()),
                r2_by_symbol=_mean_r2(rows.symbol, losses, benchmark),
                mse=float(losses.mean()),
                qlike=float(qlike(rows.truth, rows.predicted[name] + rows.lift[name]).mean()),
                r2_gain=gain,
                mse_ratio=ratio,
                diebold_mariano=test,
            )
        )
    return scores


def qlike(log_variance: FloatArray, log_forecast: FloatArray) -> FloatArray:
    """QLIKE loss of variance forecasts, (N,); 0 for a perfect one (Patton 2011, eq. 6).

    x - ln x - 1, x being the variance over its forecast. Both are given as logarithms.
    """
    away = log_variance - log_forecast
    loss: FloatArray = np.exp(away) - away - 1
    return loss


def interval_coverage(
    day_ms: IntArray, inside: BoolArray, seed: int = 0, resamples: int = DEFAULT_RESAMPLES
) -> Estimate:
    """Share of symbol-days that lay inside their interval, whole days resampled."""
    if len(inside) == 0:
        return Estimate(None, None, None, 0)
    columns = np.stack([inside.astype(np.float64), np.ones(len(inside))], axis=1)
    return ratio_estimates(day_totals(day_ms, columns), [(0, 1)], seed, resamples)[0]


def _mean_r2(symbol: IntArray, losses: FloatArray, benchmark: FloatArray) -> float:
    top, bottom = np.bincount(symbol, losses), np.bincount(symbol, benchmark)
    return float(np.mean(1 - top[bottom > 0] / bottom[bottom > 0]))


def _r2_gain(
    day_ms: IntArray,
    losses: FloatArray,
    anchor: FloatArray,
    benchmark: FloatArray,
    seed: int,
    resamples: int,
) -> Estimate:
    totals = day_totals(day_ms, np.stack([-losses, benchmark, -anchor, benchmark], axis=1))
    return replace(ratio_difference(totals, seed, resamples), count=len(losses))


def _ratio(
    day_ms: IntArray, losses: FloatArray, anchor: FloatArray, seed: int, resamples: int
) -> Estimate:
    totals = day_totals(day_ms, np.stack([losses, anchor], axis=1))
    return replace(ratio_estimates(totals, [(0, 1)], seed, resamples)[0], count=len(losses))


def _by_day(day_ms: IntArray, losses: FloatArray, anchor: FloatArray) -> DieboldMariano | None:
    """Diebold-Mariano on the daily means over symbols: one step ahead."""
    totals = day_totals(day_ms, np.stack([losses, anchor, np.ones(len(losses))], axis=1))
    return diebold_mariano(totals[:, 0] / totals[:, 2], totals[:, 1] / totals[:, 2], horizon=1)
