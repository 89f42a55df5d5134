"""A session is resumed with what it was made with, or the difference is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.binance.endpoints import Sources
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.live.rounds import rows_of
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.resume import (
    require_same_exchange,
    require_same_market,
    require_same_networks,
    require_same_recipe,
)
from cppncripto_strategy.paper.session import SessionFacts
from cppncripto_strategy.recipe import Recipe

SESSION = Path("paper/mine")
FACTS = SessionFacts(("X",), "1h", 0, 0, {}, sources={
    "archive_url": "https://data.binance.vision",
    "rest_url": "https://data-api.binance.vision",
    "stream_url": "wss://data-stream.binance.vision",
})  # fmt: skip


def facts_of(rest_url: str) -> SessionFacts:
    return replace(FACTS, sources={**FACTS.sources, "rest_url": rest_url})


def test_another_recipe_is_refused_with_the_keys_that_differ() -> None:
    """A changed fee that is silently not applied: the account is not what its owner reads."""
    made = Recipe(symbols=("BTCUSDT",), seed=3)
    other = Recipe(symbols=("BTCUSDT",), seed=4, broker={"fee_bps": 7.5})
    with pytest.raises(SessionError) as refused:
        require_same_recipe(SESSION, made, other)
    text = str(refused.value)
    assert "seed is 3 in the session, 4 was asked for" in text
    assert "broker.fee_bps is 10.0 in the session, 7.5 was asked for" in text
    assert "--name" in text


def test_many_differences_are_counted_not_listed() -> None:
    """A page of keys in which nobody finds the one that matters."""
    other = Recipe(
        seed=9, interval="15m", broker={"fee_bps": 1, "slippage_bps": 2, "cash": 3},
        macro={"epochs": 2}, micro={"epochs": 3},
    )  # fmt: skip
    with pytest.raises(SessionError, match=r"\(and 2 more\)"):
        require_same_recipe(SESSION, Recipe(), other)


def test_recipe_that_only_moved_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A session that nobody can resume from another folder."""
    made = Recipe(name="a", candles={"folder": "/one/candles", "source": "folder"})
    moved = Recipe(name="b", candles={"folder": "/two/candles", "source": "folder"})
    require_same_recipe(SESSION, made, moved)
    assert "reads candles from /one/candles" in caplog.text
    caplog.clear()
    require_same_recipe(SESSION, made, made.model_copy(update={"name": "c"}))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("recorded", "asked", "same"),
    [
        ("https://data-api.binance.vision", "https://api.binance.com", True),
        ("https://api.binance.com", "https://api3.binance.com:443/", True),
        ("http://127.0.0.1:8765", "http://localhost:9999", True),
        ("https://api.binance.com", "https://testnet.binance.vision", False),
        ("https://api.binance.com", "https://notbinance.com", False),
        ("https://api.binance.com", "https://api.binance.us", False),
        ("https://api.binance.com", "http://127.0.0.1:8765", False),
        ("http://127.0.0.1:8765", "https://api.binance.com", False),
        ("http://10.0.0.5:8765", "http://10.0.0.5:8766", False),
    ],
)
def test_another_exchange_is_refused_by_its_address(recorded: str, asked: str, same: bool) -> None:
    """A session of one exchange's prices that goes on with another's."""
    sources = Sources(rest_url=asked)
    if same:
        require_same_exchange(SESSION, facts_of(recorded), sources)
        return
    with pytest.raises(SessionError) as refused:
        require_same_exchange(SESSION, facts_of(recorded), sources)
    assert recorded in str(refused.value)
    assert asked in str(refused.value)


def test_another_stream_is_refused_as_well() -> None:
    """REST of one exchange, stream of another."""
    with pytest.raises(SessionError, match=r"wss://elsewhere\.example"):
        require_same_exchange(SESSION, FACTS, Sources(stream_url="wss://elsewhere.example"))


def test_another_market_on_this_machine_is_refused_by_its_candles(papers: Any, toy: Any) -> None:
    """`cppn-bt exchange` with another seed, on the port of yesterday."""
    candles = toy.candles(days=4)
    clock = ManualClock(int(candles.open_time[0]) + 2 * DAY_MS)
    exchange = LoopbackExchange({"X": candles}, clock=clock, settings=ExchangeSettings("1h"))
    row = rows_of(candles)[5]
    with ExchangeThread(exchange) as host:
        sources = Sources(host.archive_url, host.rest_url, host.stream_url)
        here = Connection(sources, retry=papers.retry)
        require_same_market(SESSION, FACTS, {"X": row}, here)
        require_same_market(SESSION, FACTS, {}, here)
        other = (*row[:4], row[4] * 1.001, *row[5:])
        with pytest.raises(SessionError, match=f"closed at {other[4]:g}.*says {row[4]:g}"):
            require_same_market(SESSION, FACTS, {"X": other}, here)
        gone = (row[0] - 30 * DAY_MS, *row[1:])
        with pytest.raises(SessionError, match="has no such candle"):
            require_same_market(SESSION, FACTS, {"X": gone}, here)
    assert np.isfinite(row[4])


def test_other_ready_networks_are_refused(toy: Any, tmp_path: Path) -> None:
    """--bundles that are silently not traded."""
    candles = toy.candles(days=24)
    both = toy.timeline(toy.grid(candles), toy.settings, sessions=(3, 5))
    until = tuple(bundle.info.trained_until_ms for bundle in both.bundles)
    known = SessionTimeline(both.bundles[:1], False, until[:1])
    both.save(tmp_path / "both")
    with pytest.raises(SessionError, match=both.bundles[1].model_hash):
        require_same_networks(SESSION, known, tmp_path / "both")
    require_same_networks(SESSION, SessionTimeline(both.bundles, False, until), tmp_path / "both")
    require_same_networks(SESSION, known, None)
