"""Real candles: an outage and a missing day are reported, and orders obey each symbol's rules."""

import os
from decimal import Decimal
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy import outcome
from cppncripto_strategy.backtest import run_backtest
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.market import load_market
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.results import TABLES, read_results
from cppncripto_strategy.strategy import MacroMicroStrategy

MARKET = os.environ.get("CPPN_BT_REAL_MARKET", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(MARKET) / "candles").is_dir(),
        reason="CPPN_BT_REAL_MARKET does not point at real candles",
    ),
]

CANDLE_MS = 300_000
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
# (traded range, first missing candle, first candle after, candles missing)
GAPS = {
    "outage": ("20230322-20230326", "2023-03-24 12:40", "2023-03-24 14:00", 16),
    "missing day": ("20231229-20240103", "2023-12-31 00:00", "2024-01-01 00:00", 288),
}


def recipe_of(timerange, symbols=SYMBOLS, folder="candles"):
    """Small networks, two weeks of training: what becomes of orders is what matters."""
    return parse_recipe(
        {
            "symbols": symbols,
            "timerange": timerange,
            "compare_without_macro": False,
            "candles": {"folder": str(Path(MARKET) / folder)},
            "macro": {
                "long_window": 288,
                "encoder_options": {"channels": 4, "dilations": [1, 2]},
                "epochs": 1,
            },
            "micro": {
                "short_window": 12,
                "channels": 4,
                "hidden": 4,
                "components": 2,
                "initialisations": 1,
                "epochs": 1,
            },
            "label": {"horizon": 12},
            "walkforward": {"train_days": 14, "validate_days": 4, "retrain_days": 7},
            # Nearly every candle signals and positions last one candle: orders meet every gap.
            "threshold": {"window": 300, "quantile": 0.45},
            "strategy": {"hold_candles": 1},
        }
    )


@pytest.mark.parametrize("name", GAPS)
def test_gap_is_reported_and_no_order_crosses_it(name, tmp_path, monkeypatch):
    """A decision before an outage filled at the first price after it; an outage nobody is told."""
    timerange, first, after, count = GAPS[name]
    first_ms, after_ms = utc_to_ms(first), utc_to_ms(after)
    monkeypatch.setattr(outcome, "save_picture", lambda *_: None)
    run_backtest(recipe_of(timerange), tmp_path / "run")
    result = read_results(tmp_path / "run")

    expected = {"start_ms": first_ms, "end_ms": after_ms, "candles": count}
    for symbol in SYMBOLS:
        assert {"symbol": symbol, **expected} in result.gaps
    assert first[:10] in (tmp_path / "run" / "report.html").read_text()

    filled = result.fills[result.fills["status"] == "filled"]
    assert len(filled) > 200
    assert (filled["executed_ms"] - filled["created_ms"] == CANDLE_MS).all()
    before_gap = filled["created_ms"] < first_ms
    after_gap = filled["created_ms"] > first_ms
    assert before_gap.any()
    assert after_gap.any()
    # The candle that closes as the gap begins is the last that may decide; its order has no open.
    at_gap = result.fills[result.fills["created_ms"] == first_ms]
    assert (at_gap["status"] != "filled").all()

    signals = result.signals
    inside = (signals["close_time_ms"] > first_ms) & (signals["close_time_ms"] <= after_ms)
    assert not inside.any()
    scored = signals[signals["close_time_ms"] > after_ms].dropna(subset=["score"])
    half_window = 12 // 2 * CANDLE_MS
    assert scored["close_time_ms"].min() >= after_ms + half_window
    assert np.isfinite(result.equity["equity"]).all()


@pytest.mark.parametrize("rules", [{"evidence": "wait"}, {"stop_pct": 1.0, "renew_hold": True}])
def test_both_loops_leave_the_same_on_real_candles(rules):
    """Half a year of two symbols with an outage, passed over or taken bar by bar."""
    every = load_market(recipe_of("20230105-20230701")).every
    span = utc_to_ms("2023-01-05"), utc_to_ms("2023-07-01")
    candles = {symbol: part.between(*span) for symbol, part in every.items()}
    left = []
    for plain in (False, True):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.broker = SpotBroker(cash=10_000.0, filters={})
        for symbol, part in candles.items():
            cerebro.adddata(ReplayFeed(candles=part, interval_ms=CANDLE_MS, name=symbol))
        cerebro.addstrategy(
            MacroMicroStrategy,
            score_factory=lambda data: bt.indicators.RateOfChange(data.close, period=12),
            quantile=0.02,
            hold_candles=48,
            plain_loop=plain,
            **rules,
        )
        left.append(cerebro.run()[0])
    fast, plain = left
    loop = fast._fast_loop
    assert loop.passed > loop.steps / 2
    assert len(fast.fills) > 200
    for name in TABLES:
        one, other = (getattr(strategy, name, None) for strategy in left)
        if one is not None:
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert fast.broker.ledger == plain.broker.ledger
    assert fast.broker.getvalue() == plain.broker.getvalue()


# What Binance asked of quantities in 2024; ticks do not show in market orders' fills.
STEPS = {"BTCUSDT": "0.00001", "ETHUSDT": "0.0001", "DOGEUSDT": "1", "XRPUSDT": "1"}
MIN_NOTIONAL = 5


def test_fills_obey_the_steps_of_their_own_symbol(tmp_path, monkeypatch):
    """0.00001 of a DOGE sold, on an exchange that trades whole ones; rules nobody is told."""
    monkeypatch.setattr(outcome, "save_picture", lambda *_: None)
    recipe = recipe_of("20240215-20240218", list(STEPS), "universe")
    run_backtest(recipe, tmp_path / "run")
    result = read_results(tmp_path / "run")
    filled = result.fills[result.fills["status"] == "filled"]
    for symbol, step in STEPS.items():
        mine = filled[filled["symbol"] == symbol]
        assert len(mine) > 50
        assert all(Decimal(repr(quantity)) % Decimal(step) == 0 for quantity in mine["quantity"])
        assert (mine["notional"] > MIN_NOTIONAL).all()
    assert {rules["symbol"]: rules["quantity_step"] for rules in result.filters} == STEPS
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Exchange rules" in page
    assert page.count("derived from 5,000 candles until 2024-02-14") == len(STEPS)
