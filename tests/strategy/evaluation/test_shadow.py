"""Shadow signals: judged once their outcome is known, on its day, at the account's costs."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.evaluation.shadow import (
    DayResults,
    Measure,
    ShadowSignals,
    daily_means,
    daily_results,
)
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS

MIDNIGHT_MS = 1_704_067_200_000
COST_BPS = 22.0
MEASURE = Measure(3, HOUR_MS, COST_BPS)


def table(hours, seed=0, symbol="X"):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "symbol": symbol,
            "close_time_ms": MIDNIGHT_MS + HOUR_MS * np.array(sorted(hours), dtype=np.int64),
            "close": 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(hours)))),
            "signal": rng.integers(-1, 2, len(hours)),
        }
    )


def streamed(signals, measure=MEASURE, restart_at=None):
    """The days of one symbol as a strategy sees them, bar by bar."""
    shadow, days, session_ms = ShadowSignals(measure), {}, None
    for bar, row in enumerate(signals.itertuples()):
        day_ms = row.close_time_ms // DAY_MS * DAY_MS
        if day_ms != session_ms:
            if session_ms is not None:
                days[session_ms] = shadow.end_day()
            session_ms = day_ms
        if bar == restart_at:
            plain = json.loads(json.dumps(shadow.snapshot(bar)))
            shadow = ShadowSignals(measure)
            shadow.restore(plain, bar)
        if row.signal or row.close_time_ms >= shadow.due_ms:
            shadow.see(bar, row.close_time_ms, row.close, int(row.signal), session_ms)
    return {day: results for day, results in days.items() if results}


def by_hand(signals, horizon, sells):
    """(results, crossed, incomplete) per day by looking each outcome up by its time."""
    close = dict(zip(signals["close_time_ms"], signals["close"], strict=True))
    last_day = max(close, default=0) // DAY_MS
    days: dict[int, DayResults] = {}
    for at, price, side in signals[["close_time_ms", "close", "signal"]].itertuples(index=False):
        if not side or (side < 0 and not sells) or at // DAY_MS >= last_day:
            continue
        day = days.setdefault(at // DAY_MS * DAY_MS, DayResults())
        path = [at + k * HOUR_MS for k in range(1, horizon + 1)]
        if path[-1] // DAY_MS != at // DAY_MS:
            day.crossed += 1
        elif all(t in close for t in path):
            day.net_bps.append(1e4 * side * (close[path[-1]] / price - 1) - COST_BPS)
        else:
            day.incomplete += 1
    return days


HOURS = st.lists(st.integers(0, 100), min_size=1, max_size=101, unique=True)


@settings(max_examples=40)
@given(HOURS, st.integers(1, 30), st.booleans(), st.integers(0, 9))
def test_days_are_what_they_are_by_hand(hours, horizon, sells, seed):
    """An outcome on the wrong day, across a gap or beyond midnight; a cost forgotten."""
    signals = table(hours, seed)
    expected = by_hand(signals, horizon, sells)
    found = daily_results(signals, {"X": Measure(horizon, HOUR_MS, COST_BPS, sells)})
    assert list(found) == sorted(expected)
    for day, results in found.items():
        assert results.net_bps == pytest.approx(expected[day].net_bps, abs=1e-8)
        assert (results.crossed, results.incomplete) == (
            expected[day].crossed,
            expected[day].incomplete,
        )


@settings(max_examples=40)
@given(HOURS, st.integers(1, 30), st.booleans(), st.integers(0, 9))
def test_bar_by_bar_is_all_at_once(hours, horizon, sells, seed):
    """A live session whose day is not the backtest's, in its last bit."""
    signals = table(hours, seed)
    measure = Measure(horizon, HOUR_MS, COST_BPS, sells)
    whole, stream = daily_results(signals, {"X": measure}), streamed(signals, measure)
    assert list(stream) == list(whole)
    for day, results in stream.items():
        assert results.mean_bps == whole[day].mean_bps or math.isnan(results.mean_bps)
        assert sorted(results.net_bps) == sorted(whole[day].net_bps)
        assert (results.crossed, results.incomplete) == (
            whole[day].crossed,
            whole[day].incomplete,
        )


@settings(max_examples=40)
@given(HOURS, st.integers(0, 100))
def test_a_restart_forgets_no_signal(hours, bar):
    """Signals that waited for their outcome when the process ended."""
    signals = table(hours)
    assert streamed(signals) == streamed(signals, restart_at=bar)


def test_symbols_share_a_day():
    """A mean of means, in which a symbol with one signal weighs as much as one with twenty."""
    both = pd.concat([table(range(49), 1, "A"), table(range(49), 2, "B")])
    alone = [daily_results(both, {name: MEASURE}) for name in "AB"]
    days = daily_results(both, {"A": MEASURE, "B": MEASURE})
    for day, results in days.items():
        every = alone[0][day].net_bps + alone[1][day].net_bps
        assert results.mean_bps == pytest.approx(np.mean(every))
    assert daily_means(list(days.values())).shape == (2,)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan])
def test_a_price_that_is_none_leaves_the_signal_out(price):
    """NaN or infinity in a mean, and with it in the wealth, for good."""
    signals = table(range(49))
    signals.loc[[5, 9], "signal"] = 1
    signals.loc[5, "close"] = price
    whole, stream = daily_results(signals, {"X": MEASURE}), streamed(signals)
    for days in (whole, stream):
        assert all(math.isfinite(value) for day in days.values() for value in day.net_bps)
        assert days[MIDNIGHT_MS].incomplete >= 1
    assert whole[MIDNIGHT_MS].mean_bps == stream[MIDNIGHT_MS].mean_bps


def test_a_candle_that_comes_after_its_day_is_left_out():
    """A symbol that lags behind, and changes a day that was already weighed."""
    shadow = ShadowSignals(MEASURE)
    shadow.see(0, MIDNIGHT_MS - HOUR_MS, 100.0, 1, session_ms=MIDNIGHT_MS)
    day = shadow.end_day()
    assert (day.net_bps, day.crossed, day.incomplete) == ([], 0, 1)
