"""The planted market: candles whose predictability is known in closed form.

A hidden regime s_d = +-1 persists for about a month and decides the sign in which the market
answers a *setup*: a big bar with a burst of volume, in a random direction d. After a setup, h
candles drift by s d. The regime itself shows only in the daily profile of the volume (the marker),
whose two states are 12 hours apart in phase: a short window without a clock cannot separate them,
days of candles can. So macro alone names no moment, micro alone only learns the regime from earlier
setups in its window, and both together approach the oracle. How far each gets is computed, not
measured (`planted_hits`).

Left out: jumps between candles (each opens at the close before it), outages, ticks and lots, and
any link between symbols (plant each with a seed of its own).

Source: a construction of this project; GARCH(1,1) after Bollerslev (1986); the high and low are
drawn from the marginal law of a Brownian bridge's maximum and minimum (Karatzas & Shreve 1991,
4.3.40).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, interval_to_ms

SignArray = NDArray[np.int8]

# 2023-01-01 00:00 UTC.
_DEFAULT_START_MS = 1_672_531_200_000
# Deviation of a setup bar's size around `setup_size`, in current volatilities.
SETUP_SIZE_DEVIATION = 0.5


@dataclass(frozen=True, slots=True)
class PlantedSettings:
    """What is planted.

    Parameters
    ----------
    days : UTC days of candles, at least 1.
    interval : candle interval, a divisor of a day. `setup_rate` and `horizon` count its candles.
    seed : of every draw. A longer market begins with the shorter one of the same seed.
    mu : drift of a whole response in its own standard deviations; 0 is the null market.
    setup_rate : q, probability of a setup at a candle outside responses, in (0, 1).
    horizon : h, candles a response lasts, at least 1.
    marker_fidelity : rho, probability that a day's marker shows its regime, in [0.5, 1].
    tau_days : mean stay of a regime in days, at least 1.
    sigma : volatility of one candle's log return (root mean square, setup bars left out).
    season : log-amplitude of the 12-hour season of volatility; two humps per day hide the phase.
    marker_amplitude : A, amplitude in log volume of the 24-hour profile whose sign is the marker.
    garch_alpha, garch_beta : GARCH(1,1) weights of the last squared shock and variance, sum < 1.
    volume_persistence, volume_noise : AR(1) coefficient and deviation of log-volume noise.
    setup_size : mean size of a setup bar, in current volatilities.
    setup_volume : log of the factor by which a setup bar's volume exceeds its neighbours'.
    start_ms : open time of the first candle, a UTC midnight.
    start_price : first open, quote per base. base_volume : median volume of a candle, base units.

    Raises
    ------
    RecipeError
        When a setting is out of its range.
    """

    days: int = 365
    interval: str = "5m"
    seed: int = 0
    mu: float = 0.4
    setup_rate: float = 1 / 30
    horizon: int = 6
    marker_fidelity: float = 0.9
    tau_days: float = 30.0
    sigma: float = 0.0015
    season: float = 0.3
    marker_amplitude: float = 0.5
    garch_alpha: float = 0.05
    garch_beta: float = 0.90
    volume_persistence: float = 0.8
    volume_noise: float = 0.3
    setup_size: float = 4.0
    setup_volume: float = 2.0
    start_ms: int = _DEFAULT_START_MS
    start_price: float = 100.0
    base_volume: float = 1_000.0

    def __post_init__(self) -> None:
        persistence = self.garch_alpha + self.garch_beta
        rules = {
            "days must be at least 1": self.days >= 1,
            "interval must divide a day": DAY_MS % interval_to_ms(self.interval) == 0,
            "seed must not be negative": self.seed >= 0,
            "mu must not be negative": self.mu >= 0,
            "setup_rate must lie in (0, 1)": 0 < self.setup_rate < 1,
            "horizon must be at least 1 candle": self.horizon >= 1,
            "marker_fidelity must lie in [0.5, 1]": 0.5 <= self.marker_fidelity <= 1,
            "tau_days must be at least 1": self.tau_days >= 1,
            "sigma must be positive": self.sigma > 0,
            "garch_alpha and garch_beta must not be negative": min(
                self.garch_alpha, self.garch_beta
            )
            >= 0,
            "garch_alpha + garch_beta must be below 1": persistence < 1,
            "volume_persistence must lie in [0, 1)": 0 <= self.volume_persistence < 1,
            "volume_noise must not be negative": self.volume_noise >= 0,
            "start_ms must be a UTC midnight": self.start_ms % DAY_MS == 0,
            "start_price and base_volume must be positive": min(self.start_price, self.base_volume)
            > 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise RecipeError(f"planted market: {'; '.join(broken)}; found {self}")

    @property
    def interval_ms(self) -> int:
        """Milliseconds of a candle."""
        return interval_to_ms(self.interval)

    @property
    def candles_per_day(self) -> int:
        """Candles in a UTC day."""
        return DAY_MS // self.interval_ms


@dataclass(frozen=True, slots=True, eq=False)
class PlantedMarket:
    """Candles and the truth behind them.

    Parameters
    ----------
    settings : what was asked for.
    candles : N = days * candles_per_day candles, valid, without gaps.
    regime, marker : int8 arrays (days,) of +-1, by the UTC day a candle opens in.
    setup : bool array (N,), the candle is a setup bar.
    direction : int8 array (N,), +-1 at setups, 0 elsewhere.
    response : bool array (N,), the candle drifts.
    drift_sign : int8 array (N,), sign of the drift in responses, 0 elsewhere.
    volatility : float64 array (N,), standard deviation of each candle's log return before drift and
        setups.
    """

    settings: PlantedSettings
    candles: Candles
    regime: SignArray
    marker: SignArray
    setup: BoolArray
    direction: SignArray
    response: BoolArray
    drift_sign: SignArray
    volatility: FloatArray

    def oracle_scores(self) -> FloatArray:
        """Score (N,) at each close of somebody who knows the regime: +-1 at setups, 0 elsewhere.

        A setup that closes at midnight answers to the regime of the day that begins there.
        """
        regime = _regime_at_close(self.regime, len(self.candles), self.settings)
        return (self.direction * regime).astype(np.float64)


def generate(settings: PlantedSettings) -> PlantedMarket:
    """Plant a market. The same settings give the same bytes."""
    size = settings.days * settings.candles_per_day
    # One stream per quantity, so that no setting of one moves the draws of another.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(7)]
    regime_rng, marker_rng, setup_rng, direction_rng, return_rng, volume_rng, range_rng = streams
    regime = markov_signs(regime_rng, (settings.days,), settings.tau_days)
    marker = noisy_signs(marker_rng, regime, settings.marker_fidelity)
    starts = _setup_rows(settings, size, setup_rng)
    setup = np.zeros(size, dtype=np.bool_)
    setup[starts] = True
    direction = np.zeros(size, dtype=np.int8)
    direction[starts] = direction_rng.integers(0, 2, len(starts)) * 2 - 1
    drift_sign = _drift_sign(settings, direction, starts, regime)
    shock = return_rng.standard_normal(size)
    volatility = _volatility(settings, shock)
    unit_return = shock + drift_sign * (settings.mu / math.sqrt(settings.horizon))
    bar = direction * settings.setup_size + SETUP_SIZE_DEVIATION * shock
    log_return = np.where(setup, bar, unit_return) * volatility
    log_volume = _log_volume(settings, marker, setup, volume_rng)
    return PlantedMarket(
        settings=settings,
        candles=_candles(settings, log_return, volatility, log_volume, range_rng),
        regime=regime,
        marker=marker,
        setup=setup,
        direction=direction,
        response=drift_sign != 0,
        drift_sign=drift_sign,
        volatility=volatility,
    )


def markov_signs(rng: np.random.Generator, shape: tuple[int, ...], tau_days: float) -> SignArray:
    """Stationary +-1 chains along the last axis that stay `tau_days` steps on average."""
    change = np.where(np.arange(shape[-1]) == 0, 0.5, 1 / tau_days)
    turns = np.cumsum(rng.random(shape) < change, axis=-1)
    return (1 - 2 * (turns % 2)).astype(np.int8)


def noisy_signs(rng: np.random.Generator, signs: SignArray, fidelity: float) -> SignArray:
    """The signs, each turned over with probability 1 - fidelity."""
    return np.where(rng.random(signs.shape) < fidelity, signs, -signs).astype(np.int8)


def _setup_rows(
    settings: PlantedSettings, size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of the setup bars: geometric waits, none while a response runs."""
    most = size // (settings.horizon + 1) + 1
    waits = rng.geometric(settings.setup_rate, most)
    rows = np.cumsum(waits + settings.horizon) - settings.horizon - 1
    return rows[rows < size]


def _regime_at_close(regime: SignArray, size: int, settings: PlantedSettings) -> SignArray:
    """Regime (size,) of the UTC day each close belongs to; the very last repeats its day."""
    day = np.minimum(np.arange(1, size + 1) // settings.candles_per_day, settings.days - 1)
    return regime[day]


def _drift_sign(
    settings: PlantedSettings,
    direction: SignArray,
    starts: NDArray[np.int64],
    regime: SignArray,
) -> SignArray:
    """Sign of the drift (N,): regime at the setup's close times its direction, over h candles."""
    size = len(direction)
    answer = direction * _regime_at_close(regime, size, settings)
    rows = starts[:, None] + np.arange(1, settings.horizon + 1)  # (setups, h)
    sign = np.broadcast_to(answer[starts][:, None], rows.shape)
    drift = np.zeros(size, dtype=np.int8)
    drift[rows[rows < size]] = sign[rows < size]
    return drift


def _affine_scan(gain: FloatArray, offset: FloatArray) -> FloatArray:
    """x with x[0] = offset[0] and x[t] = gain[t] x[t-1] + offset[t], in log2(N) vector passes.

    Source: Hillis & Steele 1986, data parallel prefix sums, over affine maps.
    """
    gain, x = gain.copy(), offset.copy()
    step = 1
    while step < len(x):
        x[step:] = x[step:] + gain[step:] * x[:-step]
        gain[step:] = gain[step:] * gain[:-step]
        step *= 2
    return x


def season_factors(settings: PlantedSettings) -> FloatArray:
    """Volatility factor (candles_per_day,) with period 12 hours and mean square 1."""
    phase = np.arange(settings.candles_per_day) / settings.candles_per_day
    season = np.exp(settings.season * np.cos(4 * np.pi * phase))
    return np.asarray(season / np.sqrt(np.mean(season**2)))


def _volatility(settings: PlantedSettings, shock: FloatArray) -> FloatArray:
    """GARCH(1,1) volatility (N,) times the season; a setup bar's own size does not feed back."""
    alpha, beta = settings.garch_alpha, settings.garch_beta
    gain = np.concatenate([[0.0], alpha * shock[:-1] ** 2 + beta])
    offset = np.full(len(shock), 1 - alpha - beta)
    offset[0] = 1.0
    variance = _affine_scan(gain, offset)
    return settings.sigma * np.sqrt(variance) * np.tile(season_factors(settings), settings.days)


def _log_volume(
    settings: PlantedSettings, marker: SignArray, setup: BoolArray, rng: np.random.Generator
) -> FloatArray:
    """Log of volume over `base_volume` (N,): the marker's profile, AR(1) noise and bursts."""
    phase = 2 * np.pi * np.arange(settings.candles_per_day) / settings.candles_per_day
    profile = settings.marker_amplitude * np.outer(marker, np.sin(phase)).ravel()
    persistence = settings.volume_persistence
    noise = rng.standard_normal(len(setup)) * settings.volume_noise
    noise[1:] *= math.sqrt(1 - persistence**2)
    noise = _affine_scan(np.full(len(setup), persistence), noise)
    return np.asarray(profile + noise + settings.setup_volume * setup)


def _candles(
    settings: PlantedSettings,
    log_return: FloatArray,
    volatility: FloatArray,
    log_volume: FloatArray,
    rng: np.random.Generator,
) -> Candles:
    """OHLCV from returns; the taker's share follows the candle's own return, no later one."""
    size = len(log_return)
    price = settings.start_price * np.exp(np.concatenate([[0.0], np.cumsum(log_return)]))
    opened, closed = price[:-1], price[1:]
    draws = rng.random((size, 3))
    variance = volatility**2
    reach = np.sqrt(log_return**2 - 2 * variance * np.log1p(-draws[:, 0]))
    depth = np.sqrt(log_return**2 - 2 * variance * np.log1p(-draws[:, 1]))
    high = np.maximum(opened * np.exp((log_return + reach) / 2), np.maximum(opened, closed))
    low = np.minimum(opened * np.exp((log_return - depth) / 2), np.minimum(opened, closed))
    volume = settings.base_volume * np.exp(log_volume)
    share = 0.5 + 0.1 * np.tanh(log_return / (2 * volatility)) + 0.1 * (draws[:, 2] - 0.5)
    quote = volume * (opened + closed) / 2
    return Candles.from_columns(
        open_time=settings.start_ms + np.arange(size, dtype=np.int64) * settings.interval_ms,
        open=opened,
        high=high,
        low=low,
        close=closed,
        volume=volume,
        quote_volume=quote,
        trades=np.ceil(volume),
        taker_buy_volume=volume * share,
        taker_buy_quote_volume=quote * share,
    )
