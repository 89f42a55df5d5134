"""A new session of a recipe: never on candles its networks learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.errors import BundleError, SourceError
from cppncripto_strategy.feeds.binance.endpoints import Sources
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.paper import create
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import create_session
from cppncripto_strategy.recipe import Recipe

NOW_MS = 1_704_067_200_000


def test_session_in_the_past_of_its_bundle_is_refused(
    papers: Any, toy: Any, tmp_path: Path
) -> None:
    """Paper trading candles that the networks learned from would be in-sample."""
    candles = toy.candles(days=papers.days)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(5,))
    clock = ManualClock(timeline.first_session_ms - HOUR_MS)
    exchange = LoopbackExchange(
        {"X": candles}, clock=clock, settings=ExchangeSettings(interval="1h")
    )
    recipe = Recipe(symbols=("X",), interval="1h")
    with ExchangeThread(exchange) as host:
        sources = Sources(host.archive_url, host.rest_url, host.stream_url)
        with pytest.raises(BundleError, match="in-sample"):
            create_session(
                tmp_path / "early", recipe, timeline, Connection(sources, retry=papers.retry)
            )
    assert not (tmp_path / "early" / "session.json").exists()


def test_symbol_that_the_exchange_leaves_out_is_refused_by_name(
    papers: Any, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symbol without rules, whose every order would be accepted."""
    exchange = LoopbackExchange(
        {"X": toy.candles(days=3), "Y": toy.candles(days=3)},
        clock=ManualClock(NOW_MS),
        settings=ExchangeSettings(interval="1h"),
    )
    entries = create.symbol_entries

    def without_y(info: Any) -> Any:
        return [entry for entry in entries(info) if entry["symbol"] != "Y"]

    monkeypatch.setattr(create, "symbol_entries", without_y)
    with ExchangeThread(exchange) as host:
        here = Connection(
            Sources(host.archive_url, host.rest_url, host.stream_url), retry=papers.retry
        )
        assert create.ask_exchange(here, ["X"])[0] == NOW_MS
        with pytest.raises(SourceError, match=r"does not list Y: .*recipe's symbols"):
            create.ask_exchange(here, ["X", "Y"])
