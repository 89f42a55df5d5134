"""The verdict, and metrics.json of a run that did nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation import metrics
from cppncripto_strategy.evaluation.account import Account, buy_and_hold
from cppncripto_strategy.evaluation.signals import Yardstick

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


def verdict_of(total_return, sure, net_low, trades=10, statistics=None):
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
    return metrics.verdict({"strategy": account, "signals": signals, "statistics": statistics})


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


def counted(trials, deflated, days=300):
    return {
        "days": days,
        "trials": trials,
        "effective_trials": 9,
        "deflated_sharpe": deflated,
        "deflated_sharpe_effective": 0.7,
        "minimum_backtest_days": 410.4,
    }


def test_verdict_counts_every_trial():
    """Dies here: the best of forty recipes sold as an edge, because it alone looks certain."""
    found = verdict_of(0.2, 0.99, 1.0, statistics=counted(40, 0.6))
    assert (found["edge"], found["headline"]) == (False, "Profit, but no proven edge after fees")
    assert (
        "more than the luck of the best of 40 trials has a probability of 60.0 %" in found["detail"]
    )
    assert "(70.0 % with about 9 independent ones)" in found["detail"]
    assert "records shorter than 410 days, and this one has 300" in found["detail"]
    long = verdict_of(0.2, 0.99, 1.0, statistics=counted(40, 0.96, days=500))
    assert long["edge"]
    assert "records shorter" not in long["detail"]
    alone = verdict_of(0.2, 0.99, 1.0, statistics=counted(1, 0.99))
    assert alone["edge"]
    assert "trials" not in alone["detail"]


def test_verdict_without_a_trade_says_so():
    """Dies here: "no edge" claimed of a strategy that was never tested."""
    assert verdict_of(0.0, None, -1.0, trades=0)["headline"] == "No trade was made"


def test_no_trade_counts_its_reasons():
    """Dies here: an account too small for its symbol, told only that nothing was traded."""
    import pandas as pd

    reasons = ["min_notional"] * 3 + ["gap"] + ["daily_loss"] * 2
    fills = pd.DataFrame({"reason": reasons, "status": "refused"})
    account = {"total_return": 0.0, "probabilistic_sharpe": None, "trades": 0, "orders_filled": 0}
    both = {"net_return_bps": {"low": None}}
    found = metrics.verdict({"strategy": account, "signals": {"both": both}}, fills)
    assert found["headline"] == "No trade was made"
    assert "of 6 decisions" in found["detail"]
    assert "(3 x min_notional, 2 x daily_loss, 1 x gap)" in found["detail"]


def test_run_metrics_of_empty_ledger_is_json_without_nan():
    """Dies here: NaN written to metrics.json by a run that never traded."""
    import json

    from cppncripto_strategy.results import empty_table, to_plain

    signals = planted_signals(6, 0.5, seed=1).assign(signal=0, drift=np.nan, score=np.nan)
    equity = equity_table([100.0] * 6)
    found = metrics.run_metrics(
        signals,
        Account(equity, empty_table("fills"), empty_table("trades")),
        buy_and_hold(signals, 100.0),
        Yardstick(3, 3_600_000, resamples=50),
    )
    json.dumps(to_plain(found), allow_nan=False)
    assert found["strategy"]["sharpe"] is None
    assert found["verdict"]["headline"] == "No trade was made"
    assert found["without_macro"] is None
