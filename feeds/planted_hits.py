"""How often anybody can be right on the planted market: in closed form, and as counted.

The ceilings follow from `planted.PlantedSettings` alone; `hit_at_setups` counts what scores reach.
A hit ratio is a share in [0, 1] of right signs.

Source: constructions of this project; the marker's filter is the forward recursion of a hidden
Markov chain (Rabiner 1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import (
    SETUP_SIZE_DEVIATION,
    PlantedMarket,
    PlantedSettings,
    SignArray,
    markov_signs,
    noisy_signs,
    season_factors,
)

# Marker sequences are enumerated up to this many days, sampled beyond.
_ENUMERATED_DAYS = 14
_FILTER_SAMPLES = 100_000
_BOOTSTRAPS = 2_000


@dataclass(frozen=True, slots=True)
class HitRatio:
    """Share of right signs with its 95 % interval, all in [0, 1], and the decisions counted."""

    hit: float
    low: float
    high: float
    count: int


def oracle_hit(settings: PlantedSettings) -> float:
    """Hit ratio at setups of somebody who knows the regime: Phi(mu).

    The sum of h candles drifts by mu of its own standard deviations. GARCH and season move the
    volatility within a response a little, which costs less than 0.1 point: Phi(mu) is the ceiling.
    """
    return _phi(settings.mu)


def micro_only_hit(settings: PlantedSettings, window: int) -> float:
    """Best hit ratio at setups of a window of `window` candles that ends with the setup bar.

    1/2 + (Phi(mu) - 1/2) E_N[2 Phi(mu sqrt N) - 1]: the answers to the N completed setups
    inside the window vote on the regime. The law of N is exact (a renewal process of period
    horizon + geometric wait); that the regime may change inside the window is neglected, which
    matters only when the window is not small against tau.
    """
    counts = completed_setups(settings, window)
    votes = [2 * _phi(settings.mu * math.sqrt(n)) - 1 for n in range(len(counts))]
    return 0.5 + (oracle_hit(settings) - 0.5) * float(np.dot(counts, votes))


def completed_setups(settings: PlantedSettings, window: int) -> FloatArray:
    """P(N = n) for n = 0, 1, ...: earlier setups whose bar and response lie in a setup's window.

    Parameters
    ----------
    window : candles, the present setup bar included.
    """
    reach = max(window, 1) - 1
    lags = np.arange(reach + 1)
    waits = lags - settings.horizon
    period = np.where(waits >= 1, settings.setup_rate * (1 - settings.setup_rate) ** (waits - 1), 0)
    at_lag = (lags == 0).astype(np.float64)  # law of the n-th earlier setup's lag, cut at `reach`
    at_least = [1.0]
    while at_least[-1] > 0 and len(at_least) <= reach // (settings.horizon + 1) + 1:
        at_lag = np.convolve(at_lag, period)[: reach + 1]
        at_least.append(float(at_lag.sum()))
    return -np.diff(np.array([*at_least, 0.0]))


def macro_hit(settings: PlantedSettings, accuracy: float) -> float:
    """Hit ratio at setups when the regime is identified with probability `accuracy`."""
    return 0.5 + (oracle_hit(settings) - 0.5) * (2 * accuracy - 1)


def marker_filter_accuracy(settings: PlantedSettings, days: int) -> float:
    """Accuracy of the Bayes filter of the last `days` markers on the regime of the next day.

    The embedding of a day sees only the days before it, so the filter predicts one day ahead. Exact
    (every marker sequence enumerated) up to 14 days; beyond, the mean over 100,000 sequences drawn
    with a fixed seed, whose standard error is below 0.0005.
    """
    if days < 1:
        return 0.5
    if days <= _ENUMERATED_DAYS:
        sequences = np.array(list(product((-1, 1), repeat=days)), dtype=np.int8)
        posterior, likelihood = _filter_regime(settings, sequences)
        return float(np.dot(likelihood, np.maximum(posterior, 1 - posterior)))
    rng = np.random.default_rng(0)
    regime = markov_signs(rng, (_FILTER_SAMPLES, days), settings.tau_days)
    posterior, _ = _filter_regime(settings, noisy_signs(rng, regime, settings.marker_fidelity))
    return float(np.maximum(posterior, 1 - posterior).mean())


def ceiling_hit(settings: PlantedSettings) -> float:
    """Highest hit ratio over ALL candles at the label horizon h: nothing causal can do better.

    Knowing the regime, a candle with j drifting candles ahead is called rightly with probability
    Phi(mu j / h) (less what a setup bar in the remaining h - j candles blurs), any other with 1/2.
    At setups alone the ceiling is `oracle_hit`.
    """
    h, period = settings.horizon, settings.horizon + 1 / settings.setup_rate
    gain = sum(_call(settings, drifting) - 0.5 for drifting in range(1, h + 1))
    return 0.5 + gain / period


def expected_trade_bps(
    settings: PlantedSettings, accuracy: float, fee_bps: float, slippage_bps: float
) -> float:
    """Expected net result in basis points of one round trip at a setup that is expected to rise.

    Bought at the open after the setup's close, sold when the response ends. Volatility enters by
    its mean over season and GARCH (the latter to second order).

    Parameters
    ----------
    accuracy : probability that the regime is identified, in [0, 1]; 1 is the oracle.
    fee_bps, slippage_bps : costs per side.
    """
    sigma = settings.sigma * _mean_volatility(settings)
    drift = settings.mu * sigma * math.sqrt(settings.horizon)
    convexity = settings.sigma**2 * settings.horizon / 2
    gross = accuracy * math.exp(drift) + (1 - accuracy) * math.exp(-drift)
    return (gross * math.exp(convexity) - 1) * 1e4 - 2 * (fee_bps + slippage_bps)


def hit_at_setups(
    market: PlantedMarket,
    scores_at_close: FloatArray,
    start_ms: int | None = None,
    end_ms: int | None = None,
    seed: int = 0,
) -> HitRatio:
    """How often sign(score) at a setup's close is the sign of the next h candles' return.

    Parameters
    ----------
    scores_at_close : float array (N,), the score at each candle's close. NaN and 0 are no decision
        and are not counted.
    start_ms, end_ms : count setups that close in [start_ms, end_ms); default all.
    seed : of the interval, a percentile bootstrap over UTC days (setups of a day stay together).

    Raises
    ------
    ValueError
        When the scores are not one per candle, or none of them decides at a setup.
    """
    close_ms = market.candles.open_time + market.settings.interval_ms
    scores = np.asarray(scores_at_close, dtype=np.float64)
    if scores.shape != close_ms.shape:
        raise ValueError(f"scores have shape {scores.shape}, candles {close_ms.shape}")
    ahead = _log_return_ahead(market)
    counted = market.setup & np.isfinite(scores) & (scores != 0) & np.isfinite(ahead)
    if start_ms is not None:
        counted &= close_ms >= start_ms
    if end_ms is not None:
        counted &= close_ms < end_ms
    if not counted.any():
        raise ValueError("no score decides at any setup of this span: all are NaN or 0")
    hits = (np.sign(scores) == np.sign(ahead))[counted]
    low, high = _day_bootstrap(hits, close_ms[counted] // DAY_MS, np.random.default_rng(seed))
    return HitRatio(hit=float(hits.mean()), low=low, high=high, count=len(hits))


def _phi(x: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def _mean_volatility(settings: PlantedSettings) -> float:
    """E[volatility] / sigma: the season exactly, GARCH to second order."""
    alpha, beta = settings.garch_alpha, settings.garch_beta
    fourth = 1 - (alpha + beta) ** 2 - 2 * alpha**2
    variance = 2 * alpha**2 / fourth if fourth > 0 else 1.0
    return float(season_factors(settings).mean()) * (1 - variance / 8)


def _filter_regime(settings: PlantedSettings, markers: SignArray) -> tuple[FloatArray, FloatArray]:
    """P(next day's regime is +1 | markers) and the likelihood of each row.

    markers : int8 array (sequences, days) of +-1; both results have shape (sequences,).
    """
    fidelity, change = settings.marker_fidelity, 1 / settings.tau_days
    up = np.full(len(markers), 0.5)
    likelihood = np.ones(len(markers))
    for today in markers.T:
        joint_up = up * np.where(today > 0, fidelity, 1 - fidelity)
        joint_down = (1 - up) * np.where(today > 0, 1 - fidelity, fidelity)
        evidence = joint_up + joint_down
        likelihood *= evidence
        # Evidence is 0 only for sequences of likelihood 0 (fidelity 1): their posterior is moot.
        up = np.divide(joint_up, evidence, out=np.full_like(up, 0.5), where=evidence > 0)
        up = up * (1 - change) + (1 - up) * change
    return up, likelihood


def _call(settings: PlantedSettings, drifting: int) -> float:
    """P(right sign over h candles) with `drifting` of them left in the response, the rest free."""
    h, q, step = settings.horizon, settings.setup_rate, settings.mu / math.sqrt(settings.horizon)
    drift, free = drifting * step, h - drifting
    right = (1 - q) ** free * _phi(drift / math.sqrt(h))
    for wait in range(1, free + 1):
        deviation = math.sqrt(h - 1 + SETUP_SIZE_DEVIATION**2)
        answered = (free - wait) * step
        for bar in (settings.setup_size, -settings.setup_size):
            for answer in (answered, -answered):
                chance = q * (1 - q) ** (wait - 1) / 4
                right += chance * _phi((drift + bar + answer) / deviation)
    return right


def _log_return_ahead(market: PlantedMarket) -> FloatArray:
    """Log return (N,) from each close over the next h candles; NaN where they are not all there."""
    log_close, h = np.log(market.candles.close), market.settings.horizon
    ahead = np.full(len(log_close), np.nan)
    ahead[:-h] = log_close[h:] - log_close[:-h]
    return ahead


def _day_bootstrap(
    hits: BoolArray, day: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the hit ratio when whole days are drawn with replacement."""
    _, block = np.unique(day, return_inverse=True)
    right, count = np.bincount(block, weights=hits), np.bincount(block)
    drawn = rng.multinomial(len(count), np.full(len(count), 1 / len(count)), size=_BOOTSTRAPS)
    low, high = np.quantile((drawn @ right) / (drawn @ count), [0.025, 0.975])
    return float(low), float(high)
