"""How good signals were, judged by the return over the next candles, and what macro added to them.

Intervals are 95 % stationary bootstraps of whole UTC days over all symbols together. A metric that
is undefined (no signal, no move) is None. Left out: what an account made of them (`account`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.account import BPS
from cppncripto_strategy.evaluation.statistics import (
    DEFAULT_RESAMPLES,
    Estimate,
    day_sums,
    diebold_mariano,
    paired_hit_difference,
    ratio_estimates,
    wilson_interval,
)
from cppncripto_strategy.evaluation.undefined import mean
from cppncripto_strategy.feeds.clock import DAY_MS


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What signals are measured against.

    Parameters
    ----------
    horizon : candles of the label.
    interval_ms : of the candles, milliseconds.
    round_trip_cost_bps : both fees and both slippages, basis points.
    label_threshold_bps : a move beyond it is what a signal should catch; None is the round trip's
        cost.
    seed, resamples : of the bootstrap over days; 0 resamples leave intervals undefined.
    """

    horizon: int
    interval_ms: int
    round_trip_cost_bps: float = 22.0
    label_threshold_bps: float | None = None
    seed: int = 0
    resamples: int = DEFAULT_RESAMPLES

    @property
    def threshold_bps(self) -> float:
        """The move that a signal should catch, basis points."""
        threshold = self.label_threshold_bps
        return self.round_trip_cost_bps if threshold is None else threshold


@dataclass(frozen=True)
class SideQuality:
    """How good one side's signals were at the label horizon.

    hit_ratio : share of signals whose forward return had the signal's sign (a zero return misses).
    precision : share of signals whose forward return passed the label threshold.
    recall : share of the candles that passed the threshold which carried the signal.
    break_even_hit_ratio : 1/2 + cost / (2 mean |forward return| at the signals); may exceed 1.
    net_return_bps : mean forward return in the signal's direction, less a round trip's cost.
    """

    signals: int
    judged: int
    hit_ratio: Estimate
    hit_ratio_wilson: tuple[float | None, float | None]
    precision: Estimate
    recall: Estimate
    mean_absolute_return_bps: float | None
    break_even_hit_ratio: float | None
    net_return_bps: Estimate


@dataclass(frozen=True)
class SignalQuality:
    """Signals judged by the return over the next `horizon` candles, from close to close."""

    horizon: int
    interval_ms: int
    label_threshold_bps: float
    round_trip_cost_bps: float
    candles: int
    judged_candles: int
    excluded_signals: int
    buy: SideQuality
    sell: SideQuality
    both: SideQuality


def forward_returns(signals: pd.DataFrame, horizon: int, interval_ms: int) -> FloatArray:
    """Return from each close to the close `horizon` candles later, float (rows,) in row order.

    NaN where the symbol's next `horizon` candles are not all there: a gap, or the end.
    """
    result = np.full(len(signals), np.nan)
    stamps = signals["close_time_ms"].to_numpy(np.int64)
    close = signals["close"].to_numpy(np.float64)
    codes, symbols = pd.factorize(signals["symbol"])
    for code in range(len(symbols)):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.argsort(stamps[rows], kind="stable")]
        here, there = rows[:-horizon], rows[horizon:]
        whole = stamps[there] - stamps[here] == horizon * interval_ms
        result[here[whole]] = close[there[whole]] / close[here[whole]] - 1.0
    return result


def signal_quality(signals: pd.DataFrame, yardstick: Yardstick) -> SignalQuality:
    """Hit ratio, precision, recall and net return of buy signals, sell signals and both.

    Signals without a forward return (a gap, or the end) are left out and counted.

    Parameters
    ----------
    signals : table with symbol, close_time_ms, close, signal (+1, -1, 0).
    """
    forward = forward_returns(signals, yardstick.horizon, yardstick.interval_ms)
    judged = ~np.isnan(forward)
    buy, sell, both = (
        _side_quality(signals, forward, side, yardstick) for side in ((1,), (-1,), (1, -1))
    )
    return SignalQuality(
        horizon=yardstick.horizon,
        interval_ms=yardstick.interval_ms,
        label_threshold_bps=yardstick.threshold_bps,
        round_trip_cost_bps=yardstick.round_trip_cost_bps,
        candles=len(signals),
        judged_candles=int(judged.sum()),
        excluded_signals=int(((signals["signal"].to_numpy() != 0) & ~judged).sum()),
        buy=buy,
        sell=sell,
        both=both,
    )


def _side_quality(
    signals: pd.DataFrame, forward: FloatArray, side: tuple[int, ...], yardstick: Yardstick
) -> SideQuality:
    signal, cost_bps = signals["signal"].to_numpy(np.float64), yardstick.round_trip_cost_bps
    threshold = yardstick.threshold_bps * BPS
    judged = ~np.isnan(forward)
    wanted = np.isin(signal, side)
    rows, move = wanted & judged, np.nan_to_num(forward)
    along = np.where(rows, move * signal, 0.0)
    caught = rows & (along > threshold)
    passed = np.zeros(len(move))  # candles that a signal of this side should catch
    for direction in side:
        passed += judged & (move * direction > threshold)
    gain_bps = np.where(rows, along / BPS - cost_bps, 0.0)
    columns = [rows, along > 0, caught, passed, gain_bps]
    totals = day_sums(signals["close_time_ms"].to_numpy(np.int64), columns)
    hit, precision, recall, net = ratio_estimates(
        totals, [(1, 0), (2, 0), (2, 3), (4, 0)], yardstick.seed, yardstick.resamples
    )
    mean_move = mean(np.abs(forward[rows]))
    return SideQuality(
        signals=int(wanted.sum()),
        judged=int(rows.sum()),
        hit_ratio=hit,
        hit_ratio_wilson=wilson_interval(int((along > 0).sum()), int(rows.sum())),
        precision=precision,
        recall=recall,
        mean_absolute_return_bps=None if mean_move is None else mean_move / BPS,
        break_even_hit_ratio=break_even_hit_ratio(cost_bps, mean_move),
        net_return_bps=net,
    )


def break_even_hit_ratio(
    round_trip_cost_bps: float, mean_absolute_return: float | None
) -> float | None:
    """Hit ratio at which the mean signal pays its costs: 1/2 + cost / (2 E|r|).

    `mean_absolute_return` is a fraction. Above 1 where no hit ratio pays; None where the mean is
    None, NaN or not positive.
    """
    if mean_absolute_return is None or not mean_absolute_return > 0:
        return None
    return 0.5 + round_trip_cost_bps * BPS / (2 * mean_absolute_return)


def macro_contribution(signals: pd.DataFrame, yardstick: Yardstick) -> dict[str, Any]:
    """What the embedding changed: score against the score under a zero embedding, same candles.

    The hit difference counts the candles at which either score leans (is not 0) and the forward
    return is known; Diebold-Mariano compares the squared errors of both scores as forecasts of the
    move's sign, averaged over the symbols of each stamp.
    """
    forward = forward_returns(signals, yardstick.horizon, yardstick.interval_ms)
    score = signals["score"].to_numpy(np.float64)
    zero = signals["score_zero"].to_numpy(np.float64)
    rows = ~np.isnan(forward) & ~np.isnan(score) & ~np.isnan(zero) & ((score != 0) | (zero != 0))
    stamps, sign = signals["close_time_ms"].to_numpy(np.int64)[rows], np.sign(forward[rows])
    with_hit, without_hit = (np.sign(s[rows]) * sign > 0 for s in (score, zero))
    losses = pd.DataFrame(
        {"at": stamps, "a": (score[rows] - sign) ** 2, "b": (zero[rows] - sign) ** 2}
    )
    by_stamp = losses.groupby("at").mean()
    test = diebold_mariano(by_stamp["a"].to_numpy(), by_stamp["b"].to_numpy(), yardstick.horizon)
    contribution = score - zero
    return {
        "candles": int(rows.sum()),
        "hit_ratio_with": mean(with_hit.astype(np.float64)),
        "hit_ratio_without": mean(without_hit.astype(np.float64)),
        "hit_difference": asdict(
            paired_hit_difference(
                with_hit, without_hit, stamps, yardstick.seed, yardstick.resamples
            )
        ),
        "diebold_mariano": None if test is None else asdict(test),
        "mean_absolute_contribution": mean(np.abs(contribution[~np.isnan(contribution)])),
    }


def drift_summary(signals: pd.DataFrame) -> dict[str, float | None]:
    """Mean, 95th percentile and maximum of the embedding drift over the days and symbols."""
    day = signals["close_time_ms"] // DAY_MS
    daily = signals["drift"].groupby([signals["symbol"], day]).last().to_numpy(np.float64)
    known = daily[~np.isnan(daily)]
    if len(known) == 0:
        return {"mean": None, "p95": None, "max": None}
    return {
        "mean": float(known.mean()),
        "p95": float(np.quantile(known, 0.95)),
        "max": float(known.max()),
    }
