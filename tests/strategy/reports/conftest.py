"""Made-up runs, and what every page is held against: no request, no live tag, no warning."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.account import Account, buy_and_hold
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.results import RunResult, empty_table, to_plain

DAY = 86_400_000
CANDLE = 3_600_000
START = 1_704_067_200_000  # 2024-01-01 00:00 UTC


def signals_of(symbol, days, seed):
    rng = np.random.default_rng(seed)
    count = days * 24
    stamps = START + CANDLE * np.arange(count, dtype=np.int64)
    score = np.tanh(rng.normal(0, 0.4, count))
    p_buy = (1 + score) / 3
    return pd.DataFrame(
        {
            "symbol": symbol,
            "close_time_ms": stamps,
            "close": 100 * np.exp(np.cumsum(rng.normal(0, 0.005, count))),
            "score": score,
            "p_buy": p_buy,
            "p_sell": np.clip(p_buy - score, 0, 1),
            "score_zero": np.tanh(rng.normal(0, 0.4, count)),
            "upper": 0.4,
            "lower": -0.4,
            "signal": np.where(score > 0.4, 1, np.where(score < -0.4, -1, 0)).astype(np.int64),
            "drift": np.repeat(rng.random(days), 24),
            "age_ms": stamps % DAY,
        }
    )


def fills_of(signals):
    some = signals[signals["signal"] != 0].head(40)
    count = len(some)
    table = pd.DataFrame(
        {
            "symbol": some["symbol"],
            "created_ms": some["close_time_ms"],
            "executed_ms": some["close_time_ms"] + CANDLE,
            "side": np.where(some["signal"] > 0, "buy", "sell"),
            "quantity": 1.0,
            "price": some["close"],
            "notional": some["close"],
            "fee": 0.1,
            "reference_price": some["close"] * 0.9999,
            "reason": "signal",
            "status": "filled",
            "detail": "",
        }
    ).reset_index(drop=True)
    table.loc[count - 1, ["status", "detail"]] = ["refused", "notional below <b>the minimum</b>"]
    return table


def probabilities_of(without_macro):
    """What `class_scores` says of a run: better than without macro, worse than the constant."""
    better = {"value": -0.0123, "low": -0.02, "high": -0.004, "count": 900}
    worse = {"value": 0.0234, "low": 0.01, "high": 0.03, "count": 900}
    scores = {"traded": 0.91, "without_macro": 0.9223, "constant": 0.8866}
    gaps = {"over_without": better, "over_constant": worse, "without_over_constant": worse}
    if not without_macro:
        absent = dict.fromkeys(("without_macro", "over_without", "without_over_constant"))
        scores, gaps = scores | {"without_macro": None}, gaps | absent
    return {"candles": 900, "log_loss": {**scores, **gaps}, "brier": {**scores, **gaps}}


def made_run(days=20, symbols=("BTCUSDT", "ETHUSDT"), without_macro=True):
    signals = pd.concat([signals_of(s, days, k) for k, s in enumerate(symbols)], ignore_index=True)
    stamps = np.unique(signals["close_time_ms"].to_numpy())
    rng = np.random.default_rng(9)
    equity = pd.DataFrame(
        {
            "close_time_ms": stamps,
            "equity": 10_000 * np.exp(np.cumsum(rng.normal(-1e-4, 0.002, len(stamps)))),
            "cash": 5_000.0,
            "exposure": 0.5,
        }
    )
    other = equity.assign(equity=equity["equity"].to_numpy()[::-1]) if without_macro else None
    fills, trades = fills_of(signals), empty_table("trades")
    benchmark = buy_and_hold(signals, 10_000.0)
    found = run_metrics(
        signals,
        Account(equity, fills, trades),
        benchmark,
        Yardstick(6, CANDLE, resamples=60),
        None if other is None else Account(other),
    )
    found["probabilities"] = probabilities_of(without_macro)
    found["statistics"] = {
        "days": days,
        "trials": 17,
        "effective_trials": 9,
        "probabilistic_sharpe": 0.91,
        "deflated_sharpe": 0.42,
        "deflated_sharpe_effective": 0.47,
        "minimum_backtest_days": 800.4,
    }
    return RunResult(
        recipe={"name": "made", "micro": {"window": 60}},
        manifest={"commit": "abc123", "seed": 7, "versions": {"torch": "2.9"}, "trials": 4},
        metrics=to_plain(found),
        signals=signals,
        fills=fills,
        trades=trades,
        equity=equity,
        benchmark_equity=benchmark,
        equity_without_macro=other,
        gaps=[
            {
                "symbol": "BTCUSDT",
                "start_ms": START + 2 * DAY,
                "end_ms": START + 2 * DAY + 16 * 300_000,
                "candles": 16,
            }
        ],
        bundles=[
            {
                "hash": "b0" * 10,
                "trained_until_ms": START,
                "valid_from_ms": START,
                "validation_loss": 1.0123,
            }
        ],
        planted={"ceiling_hit_ratio": 0.655, "setups": 2900},
    )


class Requests(HTMLParser):
    """Collects whatever a browser would fetch while opening a page."""

    FETCHING = ("src", "srcset", "data", "poster", "background")

    def __init__(self):
        super().__init__()
        self.found = []
        self.style = False

    def handle_starttag(self, tag, attrs):
        self.style = tag == "style"
        for name, value in attrs:
            fetches = name in self.FETCHING or (tag == "link" and name == "href")
            if fetches and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"{tag} {name}={value}")
            if name == "style":
                self.check_style(value or "")

    def handle_data(self, data):
        if self.style:
            self.check_style(data)

    def check_style(self, text):
        self.found += re.findall(r"@import[^;]*|url\(\s*['\"]?(?:https?:)?//[^)]*\)", text)


def requests_of(path):
    parser = Requests()
    parser.feed(path.read_text("utf-8"))
    return parser.found


@pytest.fixture(name="made_run", scope="session")
def _made_run():
    return made_run


@pytest.fixture(name="requests_of", scope="session")
def _requests_of():
    return requests_of


@pytest.fixture(scope="module")
def run():
    return made_run()


@pytest.fixture
def no_warnings(capfd, caplog):
    """Fails when a warning is raised, logged or printed meanwhile."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    assert [str(item.message) for item in raised] == []
    logged = caplog.get_records("call")
    assert [record.getMessage() for record in logged if record.levelno >= 30] == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


class LiveTags(HTMLParser):
    """Collects what a browser would run or load of the hostile text."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.in_script = False

    def handle_starttag(self, tag, attrs):
        self.in_script = tag == "script"
        if tag in ("img", "iframe", "object"):
            self.found.append(tag)
        self.found += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag):
        self.in_script = False

    def handle_data(self, data):
        # Inside plotly's JSON the text may stand, as a string whose < and > are escaped.
        if self.in_script and ("<script>alert" in data or data.startswith("alert(")):
            self.found.append(data[:60])


def live_tags_of(path):
    parser = LiveTags()
    parser.feed(path.read_text("utf-8"))
    return parser.found


@pytest.fixture(name="live_tags_of", scope="session")
def _live_tags_of():
    return live_tags_of


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE
