"""Account and signal metrics against hand-made numbers and brute force."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.evaluation import metrics

DAY = 86_400_000
CANDLE = 300_000
START = 1_704_067_200_000  # 2024-01-01 00:00 UTC


def equity_table(values, step_ms=DAY, start_ms=START):
    stamps = start_ms + step_ms * np.arange(len(values), dtype=np.int64)
    return pd.DataFrame({"close_time_ms": stamps, "equity": np.asarray(values, dtype=np.float64)})


def signal_table(close, signal, symbol="BTCUSDT", start_ms=START, step_ms=CANDLE):
    stamps = start_ms + step_ms * np.arange(len(close), dtype=np.int64)
    return pd.DataFrame(
        {"symbol": symbol, "close_time_ms": stamps, "close": close, "signal": signal}
    )


equities = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=60)


def test_sharpe_and_sortino_match_hand_computation():
    """Dies here: annualising with 252 or with the population deviation."""
    # Mean 0.01; squared deviations 1e-4 + 4e-4 + 9e-4 = 14e-4, over n - 1 = 2 -> 7e-4.
    returns = np.array([0.02, -0.01, 0.02])
    mean, variance = 0.01, (0.01**2 + 0.02**2 + 0.01**2) / 2
    assert metrics.sharpe_ratio(returns) == pytest.approx(
        mean / math.sqrt(variance) * math.sqrt(365)
    )
    downside = math.sqrt(0.01**2 / 3)
    assert metrics.sortino_ratio(returns) == pytest.approx(mean / downside * math.sqrt(365))


def test_ratios_without_spread_are_none_not_zero():
    """Dies here: a constant account that reports Sharpe 0, or infinity from rounding dust."""
    for values in ([], [0.01], [0.01, 0.01, 0.01], [0.1 + 0.2 - 0.3] * 3):
        assert metrics.sharpe_ratio(np.array(values)) is None
    assert metrics.sortino_ratio(np.array([0.01, 0.02])) is None


def test_daily_returns_are_cut_at_utc_midnight_and_carry_empty_days():
    """Dies here: days cut 24 hours after the first bar, or a day without bars left out."""
    noon = START + DAY // 2
    table = pd.DataFrame(
        {
            # noon of day 0, last bar before midnight, midnight itself, then nothing until day 3.
            "close_time_ms": [noon, START + DAY - CANDLE, START + DAY, START + 3 * DAY + CANDLE],
            "equity": [100.0, 105.0, 110.0, 121.0],
        }
    )
    returns = metrics.daily_returns(table)
    assert [str(day.date()) for day in returns.index] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
        "2024-01-04",
    ]
    assert returns.tolist() == pytest.approx([0.10, 0.0, 0.0, 0.10])


@given(equities, st.integers(1, 40), st.integers(0, 300))
def test_daily_returns_compound_to_the_total_return(values, hours, offset):
    """Dies here: a partial first or last day that is dropped from the daily returns."""
    table = equity_table(values, step_ms=hours * 3_600_000, start_ms=START + offset * CANDLE)
    compounded = float(np.prod(1 + metrics.daily_returns(table).to_numpy())) - 1
    assert compounded == pytest.approx(values[-1] / values[0] - 1, rel=1e-9, abs=1e-9)


@given(equities)
def test_max_drawdown_equals_brute_force_and_lies_in_unit_range(values):
    """Dies here: a drawdown measured from the first or the last peak instead of the highest."""
    brute = max(1 - b / max(values[: k + 1]) for k, b in enumerate(values))
    found = metrics.max_drawdown(equity_table(values))
    assert 0 <= found.depth < 1
    assert found.depth == pytest.approx(brute, abs=1e-12)
    if found.depth > 0:
        peak, trough = ((ms - START) // DAY for ms in (found.peak_ms, found.trough_ms))
        assert 1 - values[trough] / values[peak] == pytest.approx(found.depth)
        back = [k for k in range(trough, len(values)) if values[k] >= values[peak]]
        expected = START + back[0] * DAY if back else None
        assert found.recovered_ms == expected


@settings(max_examples=40, deadline=None)  # the first call imports scipy
@given(equities, st.floats(1e-3, 1e3))
def test_account_metrics_do_not_depend_on_the_size_of_the_account(values, scale):
    """Dies here: an absolute amount that slips into a ratio."""
    small = metrics.account_metrics(equity_table(values))
    large = metrics.account_metrics(equity_table(np.array(values) * scale))
    for name in ("total_return", "sharpe", "sortino", "max_drawdown", "calmar", "cagr"):
        a, b = getattr(small, name), getattr(large, name)
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_cagr_over_half_a_year_compounds_with_365_days():
    """Dies here: growth annualised linearly or with 252 days."""
    half = equity_table([100.0, 110.0], step_ms=365 * DAY // 2)
    account = metrics.account_metrics(half)
    assert account.cagr == pytest.approx(1.1**2 - 1)
    assert account.calmar is None  # there was no drawdown to divide by


def test_growth_of_a_good_afternoon_is_not_annualised():
    """Dies here: 1.8 % in six hours shown as a trillion percent a year."""
    account = metrics.account_metrics(equity_table([100.0, 99.0, 101.8], step_ms=DAY // 8))
    assert account.total_return == pytest.approx(0.018)
    assert (account.cagr, account.calmar) == (None, None)


def test_ledger_numbers_match_a_ledger_added_up_by_hand():
    """Dies here: slippage signed wrongly for sells, refused orders counted, or profit as a rate."""
    fills = pd.DataFrame(
        {
            "side": ["buy", "sell", "buy"],
            "quantity": [2.0, 2.0, 1.0],
            "price": [101.0, 119.0, 0.0],
            "notional": [202.0, 238.0, 0.0],
            "fee": [0.2, 0.24, 0.0],
            "reference_price": [100.0, 120.0, 50.0],
            "status": ["filled", "filled", "refused"],
        }
    )
    trades = pd.DataFrame({"pnl": [35.56, -10.0, 5.0]})
    equity = equity_table([1000.0, 1010.0, 1030.0])
    equity["exposure"] = [0.0, 0.2, 0.0]
    account = metrics.account_metrics(equity, fills, trades)
    assert account.fees_paid == pytest.approx(0.44)
    assert account.slippage_paid == pytest.approx(2 * 1.0 + 2 * 1.0)
    assert (account.orders_filled, account.orders_not_filled, account.trades) == (2, 1, 3)
    assert account.win_rate == pytest.approx(2 / 3)
    assert account.profit_factor == pytest.approx(40.56 / 10)
    mean_equity, years = 3040 / 3, 2 / 365
    assert account.turnover_per_year == pytest.approx(440 / mean_equity / years)
    assert account.time_in_market == pytest.approx(1 / 3)
    assert account.mean_exposure == pytest.approx(0.2 / 3)


def test_account_without_trades_has_undefined_rates():
    """Dies here: a win rate of 0 % or a profit factor of 0 for an account that never traded."""
    trades = pd.DataFrame({"pnl": pd.Series(dtype=np.float64)})
    account = metrics.account_metrics(equity_table([100.0, 100.0]), None, trades)
    assert (account.trades, account.win_rate, account.profit_factor) == (0, None, None)
    assert (account.sharpe, account.calmar, account.fees_paid) == (None, None, None)


def test_buy_and_hold_equals_two_hand_bought_positions():
    """Dies here: costs left out, or a late symbol bought at a price before its first candle."""
    btc = signal_table([100.0, 110.0, 120.0, 130.0], 0)
    eth = signal_table([50.0, 60.0], 0, "ETHUSDT", START + 2 * CANDLE)
    equity = metrics.buy_and_hold(pd.concat([btc, eth]), 1000.0, fee_bps=10, slippage_bps=1)
    cost = 1.001 * 1.0001
    btc_units, eth_units = 500 / (100 * cost), 500 / (50 * cost)
    assert equity["equity"].tolist() == pytest.approx(
        [1000.0, btc_units * 110 + 500, btc_units * 120 + 500, btc_units * 130 + eth_units * 60]
    )


def test_forward_return_across_a_gap_is_nan():
    """Dies here: a return that silently spans the candles that are not there."""
    table = signal_table(np.arange(1.0, 9.0), 0).drop(index=4)
    forward = metrics.forward_returns(table, 2, CANDLE)
    # Rows 0, 1, 2, 3, 5, 6, 7 remain: only those with both next candles have a return.
    expected = [3 / 1 - 1, 4 / 2 - 1, np.nan, np.nan, 8 / 6 - 1, np.nan, np.nan]
    np.testing.assert_allclose(forward, expected)


def test_forward_return_of_interleaved_symbols_stays_within_a_symbol():
    """Dies here: a shift over the whole table, which mixes the symbols' prices."""
    a, b = signal_table([1.0, 2.0, 4.0], 0, "A"), signal_table([10.0, 5.0, 1.0], 0, "B")
    mixed = pd.concat([b, a]).sort_values("close_time_ms", kind="stable").reset_index(drop=True)
    forward = metrics.forward_returns(mixed, 1, CANDLE)
    by_symbol = {s: forward[(mixed["symbol"] == s).to_numpy()] for s in "AB"}
    np.testing.assert_allclose(by_symbol["A"], [1.0, 1.0, np.nan])
    np.testing.assert_allclose(by_symbol["B"], [-0.5, -0.8, np.nan])


def test_signal_quality_counts_by_hand():
    """Dies here: precision and recall swapped, a zero move as a hit, NaN judged as a miss."""
    #          +2 %   -1 %  +0.1 %   0 %    -3 %   (end)
    close = np.array([100.0, 102.0, 100.98, 101.08098, 101.08098, 98.0485506])
    signal = np.array([1, 1, 1, 1, -1, -1])
    quality = metrics.signal_quality(signal_table(close, signal), 1, CANDLE, 22.0, 50.0)
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
    p = metrics.break_even_hit_ratio(cost_bps, move)
    assert p * move - (1 - p) * move - cost_bps / 1e4 == pytest.approx(0.0, abs=1e-15)
    assert metrics.break_even_hit_ratio(cost_bps, None) is None


def test_signal_quality_without_signals_is_undefined():
    """Dies here: a hit ratio of 0 % where nothing was said."""
    quality = metrics.signal_quality(signal_table(np.arange(1.0, 50.0), 0), 3, CANDLE, 22.0)
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
    """Dies here: a paired difference with its sign turned, or one that finds gains in nothing."""
    table = planted_signals(60, 0.65, seed=3)
    gain = metrics.macro_contribution(table, 1, 3_600_000, resamples=300)
    assert gain["hit_difference"]["low"] > 0.05
    assert gain["diebold_mariano"]["statistic"] < 0
    assert gain["diebold_mariano"]["p_value"] < 0.01
    same = table.assign(score_zero=table["score"])
    nothing = metrics.macro_contribution(same, 1, 3_600_000, resamples=300)
    assert nothing["hit_difference"]["value"] == 0
    assert nothing["diebold_mariano"] is None


def verdict_of(total_return, sure, net_low, trades=10):
    net = {"value": net_low + 1, "low": net_low, "high": net_low + 2}
    hit = {"value": 0.6, "low": 0.55, "high": 0.65}
    signals = {"both": {"net_return_bps": net, "hit_ratio": hit, "break_even_hit_ratio": 0.58}}
    account = {
        "total_return": total_return,
        "probabilistic_sharpe": sure,
        "trades": trades,
        "orders_filled": trades,
        "fees_paid": 12.0,
    }
    return metrics.verdict({"strategy": account, "signals": signals})


@pytest.mark.parametrize(
    ("total", "sure", "net_low", "edge", "words"),
    [
        (0.2, 0.99, 1.0, True, "An edge after fees"),
        (0.2, 0.90, 1.0, False, "Profit, but no proven edge after fees"),
        (0.2, 0.99, -1.0, False, "Profit, but no proven edge after fees"),
        (-0.1, 0.01, -5.0, False, "No edge after fees"),
    ],
)
def test_verdict_claims_an_edge_only_with_all_three_proofs(total, sure, net_low, edge, words):
    """Dies here: profit by luck sold as an edge."""
    found = verdict_of(total, sure, net_low)
    assert (found["edge"], found["headline"]) == (edge, words)
    assert "55.0 %" in found["detail"]
    assert "58.0 %" in found["detail"]


def test_verdict_without_a_trade_says_so():
    """Dies here: "no edge" claimed of a strategy that was never tested."""
    assert verdict_of(0.0, None, -1.0, trades=0)["headline"] == "No trade was made"


def test_run_metrics_of_empty_ledger_is_json_without_nan():
    """Dies here: NaN written to metrics.json by a run that never traded."""
    import json

    from cppncripto_strategy.results import empty_table, to_plain

    signals = planted_signals(6, 0.5, seed=1).assign(signal=0, drift=np.nan, score=np.nan)
    equity = equity_table([100.0] * 6)
    found = metrics.run_metrics(
        signals,
        empty_table("fills"),
        empty_table("trades"),
        equity,
        metrics.buy_and_hold(signals, 100.0),
        horizon=3,
        interval_ms=3_600_000,
        resamples=50,
    )
    json.dumps(to_plain(found), allow_nan=False)
    assert found["strategy"]["sharpe"] is None
    assert found["verdict"]["headline"] == "No trade was made"
    assert found["without_macro"] is None
