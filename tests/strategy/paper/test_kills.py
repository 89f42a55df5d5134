"""SIGKILLs of a real process, spread over warm-up, trading, rollovers and a change of networks.

`CPPN_BT_KILLS` says how many (4 without it). Processes are forked from a server that has imported
everything, so that a kill costs a start of the session and not of Python.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.live.journal import read_lines
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import options_of
from cppncripto_strategy.paper.day_reports import DayReports
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.parity import compare
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.retraining import Retrainer
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_toml, write_json, write_text

KILLS = int(os.environ.get("CPPN_BT_KILLS", "4"))
SYMBOLS = ("X", "Y", "Z")
DAYS, LIVE_DAYS = 34, 14
PATIENCE_S = 300.0
# A clock stepped by hand stands still and jumps, which none of the exchange's does.
SETTINGS = dataclasses.replace(
    StreamSettings.for_speed(12_000, "1h"),
    stale_after_s=1e9,
    watchdog_s=20.0,  # nothing is sent while the clock stands still
    settle_ms=0,
    clock_bound_ms=2**62,
    market_speed=1.0,
)
RETRY = Retry(attempts=4, base_s=0.01, cap_s=0.05, timeout_s=1.0)
SPAWN = multiprocessing.get_context("forkserver")
NEXT = "next.json"


def recipe() -> Recipe:
    """Trades often, so that there is something to lose."""
    return parse_recipe(
        {
            "name": "killed",
            "symbols": list(SYMBOLS),
            "interval": "1h",
            "threshold": {"window": 60, "quantile": 0.35},
            "strategy": {"hold_candles": 3, "fraction": 0.3},
        }
    )


class TakesOver(Retrainer):
    """Takes over what lies ready; starts no training."""

    def _begin(self, session_ms: int) -> None:
        pass


def trade(path: str, urls: tuple[str, str, str], until_ms: int, pipe: Pipe) -> None:
    """The process: trade until a close, asking for the next candle once the last was shown."""
    session_path, now_ms = Path(path), 0
    timeline = SessionTimeline.of_session(session_path)
    retrainer = TakesOver(session_path, recipe(), timeline, None)
    days = DayReports(session_path, lambda _event: None)
    shown = {"ms": 0}
    over = threading.Event()

    def ask() -> None:
        nonlocal now_ms
        while not over.wait(0.001):
            if shown["ms"] >= now_ms and session.stream.connected:
                pipe.send(shown["ms"])
                now_ms = pipe.recv()

    with SessionFolder(session_path) as folder:
        shown["ms"] = folder.past[-1][0].close_ms if folder.past else 0
        opened = folder.opened

        def and_ask(moment: Any, allowed: frozenset[str], last: bool = True) -> None:
            """The next candle may close once it is written that this one was shown, not before."""
            opened(moment, allowed, last)
            shown["ms"] = moment.close_ms

        folder.opened = and_ask  # type: ignore[method-assign]
        session = PaperSession(
            folder,
            options_of(session_path),
            Connection(Sources(*urls), SETTINGS, RETRY),
            before_round=retrainer.before_round,
            after_round=days.after_round,
            until_ms=until_ms,
        )
        retrainer.attach(session)
        days.attach(session)
        threading.Thread(target=ask, daemon=True).start()
        session.run()
        over.set()
        days.stop()


def make_session(toy: Any, path: Path) -> tuple[dict[str, Any], Any, int, int]:
    """A new session; its candles, the bundle that is to take over, its start and end (UTC ms)."""
    candles = {s: toy.candles(days=DAYS, seed=n) for n, s in enumerate(SYMBOLS)}
    timeline = toy.timeline(toy.grid(candles["X"]), toy.settings, sessions=(3, 8))
    start_ms = timeline.first_session_ms + 7 * HOUR_MS
    facts = SessionFacts(
        symbols=SYMBOLS,
        interval="1h",
        first_ms=int(candles["X"].open_time[0]),
        created_ms=start_ms,
        broker={"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False},
    )
    SessionFolder.create(path, facts).close()
    write_text(path / "recipe.toml", to_toml(recipe().to_plain()))
    until = (timeline.bundles[0].info.trained_until_ms,)
    SessionTimeline(timeline.bundles[:1], False, until).save(path)
    bundle = timeline.bundles[1]
    bundle.save(path / "bundles" / bundle.model_hash)
    end_ms = min(start_ms // DAY_MS + LIVE_DAYS, int(candles["X"].open_time[-1]) // DAY_MS)
    return candles, bundle, start_ms, end_ms * DAY_MS


class Market:
    """The exchange, the session on it and the moments at which its process is killed."""

    def __init__(self, toy: Any, path: Path, kills: int, seed: int) -> None:
        self.path, self.rng = path, random.Random(seed)
        candles, self.bundle, start_ms, self.end_ms = make_session(toy, path)
        self.takes_over_ms = self.bundle.info.trained_until_ms
        self.exchange = LoopbackExchange(
            candles, clock=ManualClock(start_ms), settings=ExchangeSettings(interval="1h")
        )
        self.killed: Counter[str] = Counter()
        # A third in the first second of a process; of the others half around midnights.
        closes = list(range(start_ms // HOUR_MS + 1, self.end_ms // HOUR_MS - 1))
        nights = [hour for hour in closes if hour % 24 in (0, 1)]
        early, late = kills // 3, kills - kills // 3
        picked = [self.rng.choice(nights if n % 2 else closes) for n in range(late)]
        change = self.takes_over_ms // HOUR_MS
        picked[: late // 6] = [change - n % 2 for n in range(late // 6)]
        starting = [(self.rng.choice(closes), "starting") for _ in range(early)]
        self.plan = sorted([*((hour, "trading") for hour in picked), *starting])

    def run(self) -> None:
        """Processes one after the other until one ends by itself."""
        with ExchangeThread(self.exchange) as host:
            urls = (host.archive_url, host.rest_url, host.stream_url)
            while not self._one_process(host, urls):
                pass

    def _one_process(self, host: ExchangeThread, urls: tuple[str, str, str]) -> bool:
        """Whether it ended by itself."""
        pipe, theirs = SPAWN.Pipe()
        arguments = (str(self.path), urls, self.end_ms, theirs)
        process = SPAWN.Process(target=trade, args=arguments)
        process.start()
        theirs.close()
        deadline = time.monotonic() + PATIENCE_S
        while process.is_alive():
            assert time.monotonic() < deadline, "the session is stuck"
            hour = self.exchange.now_ms() // HOUR_MS
            if self.plan and self.plan[0][0] <= hour and self._kills_now(process):
                return False
            if pipe.poll(0.002):
                try:
                    shown_ms = pipe.recv()
                except EOFError:
                    break
                deadline = time.monotonic() + PATIENCE_S
                self._next_candle(host, shown_ms)
                pipe.send(self.exchange.now_ms() // HOUR_MS * HOUR_MS)
        process.join(PATIENCE_S)
        assert process.exitcode == 0
        return True

    def _next_candle(self, host: ExchangeThread, shown_ms: int) -> None:
        now_ms = self.exchange.now_ms() // HOUR_MS * HOUR_MS
        if shown_ms < now_ms:
            return
        if now_ms + HOUR_MS == self.takes_over_ms:
            told = {"repair": "retrain", "reason": "calendar", "drift": None}
            write_json(self.path / "bundles" / NEXT, {"bundle": self.bundle.model_hash, **told})
        host.advance_to(now_ms + HOUR_MS)

    def _kills_now(self, process: Any) -> bool:
        hour, kind = self.plan[0]
        if kind == "starting":
            time.sleep(self.rng.uniform(0.0, 0.5))
        else:
            time.sleep(self.rng.uniform(0.0, 0.03))
        self.plan.pop(0)
        if not process.is_alive():
            return False
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE_S)
        what = kind if kind == "starting" else "night" if hour % 24 in (0, 1) else "day"
        self.killed["change" if hour * HOUR_MS == self.takes_over_ms else what] += 1
        return True


@pytest.mark.posix
@pytest.mark.slow
def test_killed_processes_leave_the_ledger_of_an_undisturbed_one(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 at any moment: every candle, decision, fill and mark as if nothing had happened."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))  # the processes import this file
    SPAWN.set_forkserver_preload(["cppncripto_strategy.paper.day_reports"])
    whole = Market(toy, tmp_path / "whole", 0, 0)
    whole.run()
    killed = Market(toy, tmp_path / "killed", KILLS, 1)
    killed.run()
    assert sum(killed.killed.values()) >= KILLS * 0.9
    first, second = Recording.read(whole.path), Recording.read(killed.path)
    for one, other in zip(first.past, second.past, strict=True):
        assert one == other
    for name, records in first.derived.items():
        assert second.derived[name] == records, name
    fills = [row for row in first.derived["fills"] if row["status"] == "filled"]
    assert len({row["model_hash"] for row in first.derived["embeddings"]}) == 2
    report = compare(killed.path, options_of(killed.path))
    assert [str(one) for one in report.differences] == []
    events = read_lines(killed.path / "events.jsonl")
    kinds = Counter(event["kind"] for event in events)
    print([event for event in events if event["kind"] == "day process failed"])
    assert kinds["start"] >= sum(killed.killed.values()) - killed.killed["starting"]
    print(f"kills {dict(killed.killed)}, fills compared {len(fills)}, events {dict(kinds)}")
    assert len(fills) >= 200
