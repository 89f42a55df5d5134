"""The leak checks pass what is honest and catch each leak that is planted here on purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import (
    DEFAULT_COLUMNS,
    FeatureTable,
    compute_features,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.scaling import apply_scaling, fit_scaler, fit_sessions
from cppncripto_strategy.models.judging.leaks import (
    LeakVerdict,
    check_all,
    check_embeddings,
    check_perturbation,
    check_prefix,
    check_start_invariance,
    hold_sessions,
    mid_session_cuts,
    perturb_from,
)

START_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
INTERVAL_MS = 300_000
SESSION = 288
NAMES = DEFAULT_COLUMNS
FEATURE_MEMORY = FeatureTable.of(NAMES).memory
MACRO_ROWS = 2 * SESSION
THRESHOLD_ROWS = 300


def market(days: int = 9, seed: int = 0, offset_rows: int = 0) -> CandleGrid:
    """A random walk with a volatility that changes from day to day, and a gap."""
    rng = np.random.default_rng(seed)
    size = days * SESSION
    deviation = np.repeat(rng.uniform(5e-4, 4e-3, days), SESSION)
    close = 100 * np.exp(np.cumsum(rng.normal(0, deviation)))
    opened = np.concatenate([[100.0], close[:-1]])
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * 1.0002,
        "low": np.minimum(opened, close) * 0.9998,
        "close": close,
        "volume": rng.lognormal(2, 1, size),
        "taker_buy_volume": np.full(size, np.nan),
    }
    present = np.ones(size, np.bool_)
    present[1000:1016] = False
    for values in columns.values():
        values[~present] = np.nan
    start_ms = START_MS + offset_rows * INTERVAL_MS
    return CandleGrid(start_ms=start_ms, interval_ms=INTERVAL_MS, present=present, **columns)


def session_ends(grid: CandleGrid) -> tuple[IntArray, IntArray]:
    """Each 00:00 inside the grid, and the row after the candle that closes at it."""
    first = -(-grid.start_ms // DAY_MS) * DAY_MS
    midnights = np.arange(first, grid.end_ms + 1, DAY_MS)
    return midnights, (midnights - grid.start_ms) // INTERVAL_MS


# --- honest outputs, and their leaky twins ------------------------------------------------------


def trailing_mean(grid: CandleGrid) -> FloatArray:
    windows = pd.Series(np.nan_to_num(grid.volume)).rolling(12)
    return windows.apply(np.sum, raw=True).to_numpy()


def centred_mean(grid: CandleGrid) -> FloatArray:
    """LEAK: the window is centred, so half of it has not closed yet."""
    windows = pd.Series(np.nan_to_num(grid.volume)).rolling(12, center=True)
    return windows.apply(np.sum, raw=True).to_numpy()


def backfilled_return(grid: CandleGrid) -> FloatArray:
    """LEAK: the warm-up is filled with the first value known."""
    returns = pd.Series(grid.close).diff(5)
    return returns.bfill().to_numpy()


def future_sign(grid: CandleGrid) -> FloatArray:
    """LEAK: the direction of the next candle."""
    ahead = np.sign(np.diff(grid.close, append=grid.close[-1:]))
    return np.where(np.isnan(ahead), 0.0, ahead)


def session_scaled(grid: CandleGrid) -> FloatArray:
    features = compute_features(grid)
    midnights, ends = session_ends(grid)
    center, scale, _ = fit_sessions(features, ends, MACRO_ROWS, NAMES)
    held = hold_sessions(grid, midnights, np.stack([center, scale], axis=1))
    scaled = apply_scaling(features, NAMES, held[:, 0], held[:, 1]).astype(np.float64)
    scaled[np.isnan(held[:, 0, 0])] = np.nan
    return scaled


def whole_span_scaled(grid: CandleGrid) -> FloatArray:
    """LEAK: one scaler fitted on the whole span."""
    features = compute_features(grid)
    scaler = fit_scaler(features, NAMES)
    assert scaler is not None
    return scaler.apply(features).astype(np.float64)


def own_day_scaled(grid: CandleGrid) -> FloatArray:
    """LEAK: each session's scaler is fitted on the window that ends with that session."""
    features = compute_features(grid)
    midnights, ends = session_ends(grid)
    ends = np.minimum(ends + SESSION, len(grid))
    center, scale, _ = fit_sessions(features, ends, MACRO_ROWS, NAMES)
    held = hold_sessions(grid, midnights, np.stack([center, scale], axis=1))
    return apply_scaling(features, NAMES, held[:, 0], held[:, 1]).astype(np.float64)


def day_embedding(grid: CandleGrid, own_day: bool = False) -> FloatArray:
    """Four summary numbers of the last two days, held for the session that follows.

    With `own_day` a LEAK: they are those of a window that ends with the session itself.
    """
    returns = compute_features(grid)[:, 0]
    midnights, ends = session_ends(grid)
    embeddings = np.full((len(ends), 4), np.nan)
    for d, end in enumerate(ends):
        last = min(end + SESSION, len(grid)) if own_day else end
        window = returns[max(0, last - MACRO_ROWS) : last]
        if len(window) == MACRO_ROWS:
            known = window[~np.isnan(window)]
            embeddings[d] = [known.mean(), known.std(), known.min(), known.max()]
    return hold_sessions(grid, midnights, embeddings)


def own_day_embedding(grid: CandleGrid) -> FloatArray:
    return day_embedding(grid, own_day=True)


def score(grid: CandleGrid) -> FloatArray:
    return np.tanh(trailing_mean(grid) / 1000)


def trailing_threshold(grid: CandleGrid) -> FloatArray:
    past = pd.Series(score(grid)).shift(1).rolling(THRESHOLD_ROWS)
    return past.apply(lambda scores: np.quantile(scores, 0.85), raw=True).to_numpy()


def whole_series_threshold(grid: CandleGrid) -> FloatArray:
    """LEAK: the quantile of every score there will ever be."""
    return np.full(len(grid), np.nanquantile(score(grid), 0.85))


HONEST = {
    "features": (compute_features, FEATURE_MEMORY),
    "trailing mean": (trailing_mean, 12),
    "session scaler": (session_scaled, MACRO_ROWS + SESSION + FEATURE_MEMORY),
    "embedding": (day_embedding, MACRO_ROWS + SESSION + 1),
    "trailing threshold": (trailing_threshold, THRESHOLD_ROWS + 12),
}


@pytest.mark.parametrize("offset_rows", [0, 100])
@pytest.mark.parametrize(("function", "memory"), HONEST.values(), ids=HONEST)
def test_honest_outputs_pass_every_check(function, memory, offset_rows) -> None:  # type: ignore[no-untyped-def]
    """Kills a check that cries wolf at gaps, warm-ups or rounding."""
    verdicts = check_all("output", function, market(offset_rows=offset_rows), memory)
    assert [verdict.name for verdict in verdicts] == [
        "prefix",
        "perturbation",
        "start-invariance",
    ]
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []
    assert all("outputs unchanged" in verdict.detail for verdict in verdicts)


LEAKY = {
    "centred feature": centred_mean,
    "whole-span scaler": whole_span_scaled,
    "own-day scaler": own_day_scaled,
    "own-day embedding": own_day_embedding,
    "whole-series threshold": whole_series_threshold,
    "future return": future_sign,
}


@pytest.mark.parametrize("function", LEAKY.values(), ids=LEAKY)
def test_prefix_catches_the_leak(function) -> None:  # type: ignore[no-untyped-def]
    """Kills a prefix check that would let this leak trade."""
    assert_caught(check_prefix("leak", function, market()), "prefix")


@pytest.mark.parametrize("function", LEAKY.values(), ids=LEAKY)
def test_perturbation_catches_the_leak(function) -> None:  # type: ignore[no-untyped-def]
    """Kills a perturbation check that would let this leak trade."""
    assert_caught(check_perturbation("leak", function, market()), "perturbation")


def test_start_invariance_catches_a_backfilled_warm_up() -> None:
    """Kills a warm-up filled from the candles after it, which only the first bars show."""
    assert_caught(check_start_invariance("leak", backfilled_return, market(), 3), "start")
    assert check_prefix("leak", backfilled_return, market()).passed


def test_start_invariance_catches_a_running_sum() -> None:
    """Kills a feature whose rounding depends on where it began."""

    def running(grid: CandleGrid) -> FloatArray:
        total = np.cumsum(np.nan_to_num(grid.volume))
        return (total - np.concatenate([np.zeros(12), total[:-12]])) / 12

    assert_caught(check_start_invariance("leak", running, market(), 12), "start")
    assert check_start_invariance("leak", running, market(), 12, tolerance=1e-6).passed


def test_start_invariance_catches_a_memory_that_is_longer_than_declared() -> None:
    """Kills a live ring that is shorter than what its features need."""
    assert_caught(check_start_invariance("leak", trailing_mean, market(), 11), "start")
    assert check_start_invariance("honest", trailing_mean, market(), 12).passed


def embed_days(grid: CandleGrid, own_day: bool) -> tuple[IntArray, FloatArray]:
    """Each midnight and its embedding, unrolled from the held form."""
    midnights, ends = session_ends(grid)
    held = day_embedding(grid, own_day)
    rows = ends - 1
    inside = (rows >= 0) & (rows < len(grid))
    return midnights[inside], held[rows[inside]]


@pytest.mark.parametrize("offset_rows", [0, 100])
def test_time_shift_passes_an_embedding_of_the_days_before(offset_rows: int) -> None:
    """Kills a time-shift check that is off by the candle that closes at midnight."""
    grid = market(offset_rows=offset_rows)
    verdict = check_embeddings("embedding", lambda given: embed_days(given, False), grid)
    assert verdict.passed, verdict.detail
    assert verdict.name == "embedding time-shift"


def test_time_shift_catches_an_embedding_that_sees_its_own_day() -> None:
    """Kills the day's embedding being made from the day it is used on."""
    verdict = check_embeddings("leak", lambda given: embed_days(given, True), market())
    assert_caught(verdict, "embedding time-shift")
    assert verdict.first_offending_time_ms is not None
    assert verdict.first_offending_time_ms % DAY_MS == 0


def test_time_shift_catches_an_embedding_one_candle_late() -> None:
    """Kills a data end of 00:05, which all but the cut at midnight would let pass."""

    def late(grid: CandleGrid) -> tuple[IntArray, FloatArray]:
        midnights, ends = session_ends(grid)
        inside = (ends >= 10) & (ends <= len(grid))
        last = np.minimum(ends[inside], len(grid) - 1)
        return midnights[inside], np.nan_to_num(grid.close)[last][:, None]

    assert_caught(check_embeddings("leak", late, market()), "embedding time-shift")


def test_time_shift_without_an_embedding_does_not_pass() -> None:
    """Kills the green tick of a check that found no session to try."""
    nothing = np.empty(0, np.int64), np.empty((0, 4))
    assert not check_embeddings("embedding", lambda given: nothing, market()).passed


def test_a_verdict_names_its_column_and_honours_the_tolerance_of_each() -> None:
    """Kills one tolerance for bits and for rounded scores alike."""
    grid = market()

    def two(given: CandleGrid) -> FloatArray:
        return np.stack([given.close, given.low + 1e-7 * len(given)], axis=1)

    loose = np.array([0.0, 1e-2])
    assert check_prefix("output", two, grid, tolerance=loose, names=("close", "low")).passed
    verdict = check_prefix("leak", two, grid, tolerance=0.0, names=("close", "low"))
    assert "leak low at the close of" in verdict.detail


def assert_caught(verdict: LeakVerdict, name: str) -> None:
    assert not verdict.passed
    assert verdict.name.startswith(name)
    assert verdict.first_offending_time_ms is not None
    assert verdict.first_offending_value is not None
    assert "leak" in verdict.detail


def test_a_cut_at_midnight_misses_what_a_cut_in_mid_session_sees() -> None:
    """Kills default cuts at session boundaries, where an own-day embedding looks honest."""
    grid = market()
    _, ends = session_ends(grid)

    def sees_its_day_only(grid: CandleGrid) -> FloatArray:
        """LEAK: the mean of the session's closes, known from its first candle on."""
        session = grid.close_time // DAY_MS
        return pd.Series(grid.close).groupby(session).transform("mean").to_numpy()

    at_midnight = [int(end) - 1 for end in ends[3:6]]
    assert check_prefix("leak", sees_its_day_only, grid, cuts=at_midnight).passed
    assert_caught(check_prefix("leak", sees_its_day_only, grid), "prefix")


@pytest.mark.parametrize("offset_rows", [0, 1, 100, 287])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_default_cuts_lie_inside_sessions(offset_rows: int, count: int) -> None:
    """Kills cuts that fall on 00:00 when the grid does not begin there."""
    grid = market(days=8, offset_rows=offset_rows)
    cuts = mid_session_cuts(grid, count, first_row=100)
    assert len(cuts) == count
    assert all(100 < cut < len(grid) for cut in cuts)
    # The first candle cut off closes in the middle of a day that earlier candles belong to.
    shares = [grid.close_time[cut] % DAY_MS / DAY_MS for cut in cuts]
    assert all(0.05 < share < 0.95 for share in shares)


def test_a_short_grid_has_fewer_cuts_but_never_one_outside() -> None:
    """Kills an index error on the first day of data."""
    for size in (0, 1, 2, 50, 289):
        assert all(0 < cut < size for cut in mid_session_cuts(market().rows(0, size)))


def test_the_verdict_names_the_first_candle_and_both_values() -> None:
    """Kills a verdict that sends its reader to the wrong candle."""
    grid = market()

    def peeks(grid: CandleGrid) -> FloatArray:
        """LEAK: at row 700 it says the last close there is; elsewhere its own."""
        output = np.stack([grid.low, grid.close], axis=1)
        if len(grid) > 700:
            output[700, 1] = grid.close[-1]
        return output

    verdict = check_prefix("closes", peeks, grid, cuts=[650, 900])
    close_time_ms = START_MS + 701 * INTERVAL_MS
    assert verdict.first_offending_time_ms == close_time_ms
    assert verdict.first_offending_value == grid.close[-1]
    assert "column 1" in verdict.detail
    assert "2024-01-03 10:25" in verdict.detail
    assert f"{grid.close[899]:.9g}" in verdict.detail
    assert check_prefix("closes", peeks, grid, cuts=[650]).passed


def test_an_output_that_vanishes_is_an_offence_too() -> None:
    """Kills a comparison in which NaN equals everything."""

    def vanishes(grid: CandleGrid) -> FloatArray:
        return grid.close if len(grid) == len(market()) else np.full(len(grid), np.nan)

    assert not check_prefix("output", vanishes, market()).passed


def test_a_check_that_saw_nothing_does_not_pass() -> None:
    """Kills the green tick of a check that compared NaN with NaN."""

    def undefined(grid: CandleGrid) -> FloatArray:
        return np.full(len(grid), np.nan)

    grid = market()
    assert not check_prefix("output", undefined, grid).passed
    assert not check_prefix("output", trailing_mean, grid, cuts=[]).passed
    assert not check_start_invariance("output", trailing_mean, grid, len(grid) + 5).passed


def test_an_output_that_ignores_its_candles_does_not_pass_perturbation() -> None:
    """Kills a cached output that no change of the candles can reach."""
    grid = market()
    cached = trailing_mean(grid)
    verdict = check_perturbation("cached", lambda given: cached[: len(given)], grid)
    assert not verdict.passed
    assert "does not read the candles" in verdict.detail

    def clock(given: CandleGrid) -> FloatArray:
        return compute_features(given)[:, 6:8]

    assert check_perturbation("clock", clock, grid, responds=False).passed


def test_the_other_market_keeps_the_past_and_its_candles_are_valid() -> None:
    """Kills a perturbation that touches the past, or that features would refuse."""
    grid = market()
    other = perturb_from(grid, 1234, seed=5)
    for name in ("open", "high", "low", "close", "volume", "present"):
        mine, theirs = getattr(grid, name), getattr(other, name)
        assert mine[:1234].tobytes() == theirs[:1234].tobytes()
        assert not np.array_equal(mine[1234:], theirs[1234:], equal_nan=True)
    known = other.present
    assert (other.high[known] >= np.maximum(other.open, other.close)[known]).all()
    assert (other.low[known] <= np.minimum(other.open, other.close)[known]).all()
    assert np.isnan(other.close[~known]).all()
    assert np.array_equal(perturb_from(grid, 1234, seed=5).close, other.close, equal_nan=True)


def test_sessions_are_held_from_the_candle_that_closes_at_midnight() -> None:
    """Kills an embedding that comes into force a candle late or early."""
    grid = market(days=3)
    midnights = START_MS + DAY_MS * np.array([1, 2])
    held = hold_sessions(grid, midnights, np.array([[1.0], [2.0]]))
    assert held.shape == (len(grid), 1)
    assert np.isnan(held[: SESSION - 1]).all()
    assert (held[SESSION - 1 : 2 * SESSION - 1] == 1.0).all()
    assert (held[2 * SESSION - 1 :] == 2.0).all()


def test_an_output_of_another_length_is_refused() -> None:
    """Kills a comparison of rows that belong to different candles."""
    with pytest.raises(ValueError, match="one row for each"):
        check_prefix("output", lambda grid: grid.close[1:], market())
