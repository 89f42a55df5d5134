"""Signal quality and macro's contribution against counts by hand and planted gains."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.signals import (
    Yardstick,
    break_even_hit_ratio,
    forward_returns,
    macro_contribution,
    signal_quality,
)

DAY = 86_400_000
CANDLE = 300_000
START = 1_704_067_200_000  # 2024-01-01 00:00 UTC


def signal_table(close, signal, symbol="BTCUSDT", start_ms=START, step_ms=CANDLE):
    stamps = start_ms + step_ms * np.arange(len(close), dtype=np.int64)
    return pd.DataFrame(
        {"symbol": symbol, "close_time_ms": stamps, "close": close, "signal": signal}
    )


def test_forward_return_across_a_gap_is_nan():
    """Dies here: a return that silently spans the candles that are not there."""
    table = signal_table(np.arange(1.0, 9.0), 0).drop(index=4)
    forward = forward_returns(table, 2, CANDLE)
    # Rows 0, 1, 2, 3, 5, 6, 7 remain: only those with both next candles have a return.
    expected = [3 / 1 - 1, 4 / 2 - 1, np.nan, np.nan, 8 / 6 - 1, np.nan, np.nan]
    np.testing.assert_allclose(forward, expected)


def test_forward_return_of_interleaved_symbols_stays_within_a_symbol():
    """Dies here: a shift over the whole table, which mixes the symbols' prices."""
    a, b = signal_table([1.0, 2.0, 4.0], 0, "A"), signal_table([10.0, 5.0, 1.0], 0, "B")
    mixed = pd.concat([b, a]).sort_values("close_time_ms", kind="stable").reset_index(drop=True)
    forward = forward_returns(mixed, 1, CANDLE)
    by_symbol = {s: forward[(mixed["symbol"] == s).to_numpy()] for s in "AB"}
    np.testing.assert_allclose(by_symbol["A"], [1.0, 1.0, np.nan])
    np.testing.assert_allclose(by_symbol["B"], [-0.5, -0.8, np.nan])


def test_signal_quality_counts_by_hand():
    """Dies here: precision and recall swapped, a zero move as a hit, NaN judged as a miss."""
    #          +2 %   -1 %  +0.1 %   0 %    -3 %   (end)
    close = np.array([100.0, 102.0, 100.98, 101.08098, 101.08098, 98.0485506])
    signal = np.array([1, 1, 1, 1, -1, -1])
    quality = signal_quality(signal_table(close, signal), Yardstick(1, CANDLE, 22.0, 50.0))
    assert quality.buy.signals == 4
    assert quality.buy.hit_ratio.value == pytest.approx(2 / 4)
    assert quality.buy.precision.value == pytest.approx(1 / 4)  # only +2 % passes 50 bps
    assert quality.buy.recall.value == pytest.approx(1 / 1)
    assert quality.sell.signals == 2
    assert quality.sell.judged == 1
    assert quality.sell.recall.value == pytest.approx(1 / 2)  # -1 % came under a buy signal
    assert quality.both.hit_ratio.value == pytest.approx(3 / 5)
    assert quality.excluded_signals == 1
    mean_move = (0.02 + 0.01 + 0.001 + 0.0) / 4
    assert quality.buy.break_even_hit_ratio == pytest.approx(0.5 + 0.0022 / (2 * mean_move))
    net = 1e4 * (0.02 - 0.01 + 0.001) / 4 - 22
    assert quality.buy.net_return_bps.value == pytest.approx(net, rel=1e-6)


def test_break_even_at_equal_moves_is_where_the_net_return_is_zero():
    """Dies here: a one-way cost where a round trip was meant."""
    move, cost_bps = 0.01, 20.0
    p = break_even_hit_ratio(cost_bps, move)
    assert p * move - (1 - p) * move - cost_bps / 1e4 == pytest.approx(0.0, abs=1e-15)
    assert break_even_hit_ratio(cost_bps, None) is None


@pytest.mark.parametrize(
    ("minutes", "expected"), [(30, 0.776), (60, 0.695), (240, 0.598), (1440, 0.540)]
)
def test_break_even_at_known_horizons(minutes, expected):
    """Dies here: a break-even of one side (60 % annual volatility, 20 bps per round trip)."""
    deviation = 0.6 * math.sqrt(minutes / (365 * 1440))
    mean_abs_return = deviation * math.sqrt(2 / math.pi)
    assert break_even_hit_ratio(20.0, mean_abs_return) == pytest.approx(expected, abs=6e-4)


def test_break_even_is_where_a_coin_of_that_bias_earns_nothing():
    """Dies here: a formula that agrees with the table but not with the account."""
    cost, size = 22e-4, 31e-4
    hit = break_even_hit_ratio(22.0, size)
    assert hit * (size - cost) + (1 - hit) * (-size - cost) == pytest.approx(0, abs=1e-15)
    assert break_even_hit_ratio(22.0, 0.0) is None
    assert break_even_hit_ratio(22.0, math.nan) is None


def test_signal_quality_without_signals_is_undefined():
    """Dies here: a hit ratio of 0 % where nothing was said."""
    quality = signal_quality(signal_table(np.arange(1.0, 50.0), 0), Yardstick(3, CANDLE, 22.0))
    for side in (quality.buy, quality.sell, quality.both):
        assert (side.signals, side.hit_ratio.value, side.break_even_hit_ratio) == (0, None, None)


def planted_signals(days, accuracy, seed, per_day=24):
    """Hourly closes whose next move follows the signal with probability `accuracy`."""
    rng = np.random.default_rng(seed)
    count = days * per_day + 1
    signal = rng.choice([-1, 1], count)
    right = np.where(rng.random(count) < accuracy, 1, -1)
    moves = 1 + 0.01 * (signal * right)[:-1]
    table = signal_table(100 * np.cumprod(np.r_[1.0, moves]), signal, step_ms=3_600_000)
    table["score"] = signal.astype(np.float64)
    table["score_zero"] = rng.choice([-1.0, 1.0], count)
    return table


def test_macro_contribution_sees_a_planted_gain_and_no_gain_in_itself():
    """Dies here: a paired difference with its sign flipped, or one that finds gains in nothing."""
    table = planted_signals(60, 0.65, seed=3)
    gain = macro_contribution(table, Yardstick(1, 3_600_000, resamples=300))
    assert gain["hit_difference"]["low"] > 0.05
    assert gain["diebold_mariano"]["statistic"] < 0
    assert gain["diebold_mariano"]["p_value"] < 0.01
    same = table.assign(score_zero=table["score"])
    nothing = macro_contribution(same, Yardstick(1, 3_600_000, resamples=300))
    assert nothing["hit_difference"]["value"] == 0
    assert nothing["diebold_mariano"] is None
