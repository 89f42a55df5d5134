"""An account's metrics and buy-and-hold against hand-made ledgers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.evaluation.account import Account, Costs, account_metrics, buy_and_hold

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


@settings(max_examples=40, deadline=None)  # the first call imports scipy
@given(equities, st.floats(1e-3, 1e3))
def test_account_metrics_do_not_depend_on_the_size_of_the_account(values, scale):
    """Dies here: an absolute amount that slips into a ratio."""
    small = account_metrics(Account(equity_table(values)))
    large = account_metrics(Account(equity_table(np.array(values) * scale)))
    for name in ("total_return", "sharpe", "sortino", "max_drawdown", "calmar", "cagr"):
        a, b = getattr(small, name), getattr(large, name)
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_cagr_over_half_a_year_compounds_with_365_days():
    """Dies here: growth annualised linearly or with 252 days."""
    half = equity_table([100.0, 110.0], step_ms=365 * DAY // 2)
    account = account_metrics(Account(half))
    assert account.cagr == pytest.approx(1.1**2 - 1)
    assert account.calmar is None  # there was no drawdown to divide by


def test_growth_of_a_good_afternoon_is_not_annualised():
    """Dies here: 1.8 % in six hours shown as a CAGR of a trillion percent."""
    account = account_metrics(Account(equity_table([100.0, 99.0, 101.8], step_ms=DAY // 8)))
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
    account = account_metrics(Account(equity, fills, trades))
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
    account = account_metrics(Account(equity_table([100.0, 100.0]), None, trades))
    assert (account.trades, account.win_rate, account.profit_factor) == (0, None, None)
    assert (account.sharpe, account.calmar, account.fees_paid) == (None, None, None)


def test_buy_and_hold_equals_two_hand_bought_positions():
    """Dies here: costs left out, or a late symbol bought at a price before its first candle."""
    btc = signal_table([100.0, 110.0, 120.0, 130.0], 0)
    eth = signal_table([50.0, 60.0], 0, "ETHUSDT", START + 2 * CANDLE)
    equity = buy_and_hold(pd.concat([btc, eth]), 1000.0, Costs(fee_bps=10, slippage_bps=1))
    cost = 1.001 * 1.0001
    btc_units, eth_units = 500 / (100 * cost), 500 / (50 * cost)
    assert equity["equity"].tolist() == pytest.approx(
        [1000.0, btc_units * 110 + 500, btc_units * 120 + 500, btc_units * 130 + eth_units * 60]
    )


def test_buy_and_hold_equals_pandas_pivot_over_random_holes():
    """Dies here: a close under the wrong symbol or stamp, and a last close not held."""
    rng = np.random.default_rng(5)
    grid = pd.MultiIndex.from_product(
        [["C", "A", "B"], START + CANDLE * np.arange(60)], names=["symbol", "close_time_ms"]
    )
    every = grid.to_frame(index=False).assign(close=rng.uniform(50.0, 150.0, len(grid)))
    prices = every[rng.random(len(every)) < 0.7].sample(frac=1.0, random_state=1)
    closes = prices.pivot(index="close_time_ms", columns="symbol", values="close").ffill()
    bought = closes.shift().notna()
    first = closes.bfill().iloc[0]
    value = (closes * (300.0 / first)).where(bought, 300.0).sum(axis=1)
    equity = buy_and_hold(prices, 900.0, Costs(0.0, 0.0))
    assert equity["close_time_ms"].tolist() == value.index.tolist()
    assert equity["equity"].to_numpy() == pytest.approx(value.to_numpy(), rel=1e-12)


def test_two_prices_of_one_symbol_at_one_stamp_are_refused():
    table = signal_table([100.0, 110.0], 0)
    with pytest.raises(ValueError, match="1 of 3 prices repeat"):
        buy_and_hold(pd.concat([table, table[:1]]), 1000.0)
