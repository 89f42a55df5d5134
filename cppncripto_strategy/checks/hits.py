"""Is a hit ratio higher than an honest one can be? Day-block intervals of few blocks.

Left out: whose hits they are; see `shuffled` and `planted`.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.statistics import MIN_BOOTSTRAP_DAYS, bootstrap_days, day_totals
from cppncripto_strategy.models.judging.leaks import LeakVerdict

HIT_CONFIDENCE = 0.999
MIN_DECISIONS = 300


def hit_verdict(
    name: str,
    subject: str,
    score: FloatArray,
    ahead: FloatArray,
    close_ms: IntArray,
    possible: float,
    seed: int,
) -> LeakVerdict:
    """Is the hit ratio of scores higher than possible?

    Parameters
    ----------
    score : float array (N,), NaN for no decision. Its median is taken off first, so that a drift
        of the market and a bias of the network do not meet.
    ahead : float array (N,), what the scores predict; NaN and 0 are not counted.
    close_ms : int64 array (N,), UTC milliseconds of each candle's close.
    possible : the highest hit ratio an honest score can have.

    Returns
    -------
    LeakVerdict, failed when the whole 99.9 % day-block interval lies above `possible`, or when
    there are too few decisions to say anything.
    """
    counted = np.isfinite(score) & np.isfinite(ahead) & (ahead != 0)
    side = np.sign(score - (np.median(score[counted]) if counted.any() else 0.0))
    counted &= side != 0
    hits = (side == np.sign(ahead))[counted].astype(np.float64)
    totals = day_totals(close_ms[counted], np.stack([hits, np.ones_like(hits)], 1))
    if len(hits) < MIN_DECISIONS or len(totals) < MIN_BOOTSTRAP_DAYS:
        detail = f"{subject}: only {len(hits)} decisions on {len(totals)} days, too few to judge"
        return LeakVerdict(name, False, detail, subject=subject)
    (hit,), (low,), (high,) = ratio_intervals(totals, seed, HIT_CONFIDENCE, len(totals) ** (1 / 3))
    detail = (
        f"{subject}: {hit:.2%} of {len(hits):,} (99.9 % interval {low:.2%} to {high:.2%});"
        f" at most {possible:.2%} is possible"
    )
    leaks = bool(low > possible)
    when = int(close_ms[counted].min()) if leaks else None
    return LeakVerdict(name, not leaks, detail, when, float(hit) if leaks else None, subject)


def ratio_intervals(
    totals: FloatArray, seed: int, confidence: float, block_days: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values and interval ends (K,) of the first K columns over the last, whole days resampled.

    The interval is the value +- t times the bootstrap's deviation, with a Student t of as many
    degrees of freedom as there are blocks less one: percentiles of a few blocks are too narrow.
    """
    values = totals[:, :-1].sum(axis=0) / totals[:, -1].sum()
    drawn = bootstrap_days(totals, lambda sums: sums[:-1] / sums[-1], seed, block_days=block_days)
    margin = student_quantile(confidence, len(totals) / block_days - 1) * drawn.std(axis=0, ddof=1)
    return values, values - margin, values + margin


def student_quantile(confidence: float, degrees: float) -> float:
    """Two-sided Student t quantile, by Abramowitz & Stegun 26.7.5 to second order."""
    z, v = NormalDist().inv_cdf(0.5 + confidence / 2), max(degrees, 1.0)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)
