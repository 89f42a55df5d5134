"""Sessions of toy networks against a loopback exchange, and a recipe that trains in seconds."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cppncripto_strategy.evaluation.evidence import EvidenceSettings
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options
from cppncripto_strategy.paper.retraining import Retrainer
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe

PATIENCE_S = 60.0
# A clock stepped by hand stands still and jumps, which none of the exchange's does.
QUICK = dataclasses.replace(
    StreamSettings.for_speed(12_000, "1h"), settle_ms=0, clock_bound_ms=2**62, market_speed=1.0
)
RETRY = Retry(attempts=4, base_s=0.01, cap_s=0.05, timeout_s=1.0)
DAYS = 24
SMALL = """
name = "small"
symbols = ["PLANTED"]
seed = 3
[candles]
source = "planted"
[candles.planted]
days = 40
sigma = 0.004
[macro]
long_window = 288
epochs = 1
[macro.encoder_options]
channels = 8
[micro]
short_window = 24
channels = 8
initialisations = 1
epochs = 1
warm_epochs = 1
[label]
horizon = 6
[walkforward]
train_days = 14
validate_days = 4
retrain_days = 1
macro_retrain_days = 7
[threshold]
quantile = 0.2
[strategy]
hold_candles = 6
"""


def options(timeline: SessionTimeline) -> dict[str, Any]:
    """A strategy that trades often, on toy networks."""
    recipe = Recipe(symbols=("X",), interval="1h")
    return strategy_options(recipe, timeline) | {
        "window": 60,
        "quantile": 0.3,
        "hold_candles": 5,
        "evidence_settings": EvidenceSettings(sides="both"),
        "fraction": 0.5,
    }


class NoTraining(Retrainer):
    """Takes over what lies ready; starts no process."""

    def _begin(self, session_ms: int) -> None:
        pass


class Stepper(threading.Thread):
    """Lets the next candle close once the last one was shown; stops a session that is stuck."""

    def __init__(self, host: ExchangeThread, session: PaperSession, shown_ms: int) -> None:
        super().__init__(daemon=True)
        self.host, self.session, self.shown_ms = host, session, shown_ms
        self.over, self.stuck = threading.Event(), False

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.over.wait(0.001):
            now_ms = self.host.exchange.now_ms() // HOUR_MS * HOUR_MS
            if self.shown_ms >= now_ms and self.session.stream.connected:
                self.host.advance_to(now_ms + HOUR_MS)
                deadline = time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                self.stuck = True
                self.session.stop()
                return


def tell_shown(folder: SessionFolder, tell: Callable[[int], None]) -> None:
    """Call `tell` with each round's close, once it is written that the round was shown.

    A candle that closes before that would let a killed session's last round be too old to trade on.
    """
    opened = folder.opened

    def and_tell(moment: Any, allowed: frozenset[str], last: bool = True) -> None:
        opened(moment, allowed, last)
        tell(moment.close_ms)

    folder.opened = and_tell  # type: ignore[method-assign]


def trade(
    path: Path, candles: Any, start_ms: int, until_ms: int, after_round: Any = lambda *_: None
) -> None:
    """Run a session on toy candles until a close; each closes once the last was shown.

    `after_round` is called with the folder and the strategy.
    """
    timeline = SessionTimeline.of_session(path)
    retrainer = NoTraining(path, Recipe(symbols=("X",), interval="1h"), timeline, None)
    exchange = LoopbackExchange(
        {"X": candles}, clock=ManualClock(start_ms), settings=ExchangeSettings(interval="1h")
    )

    with ExchangeThread(exchange) as host, SessionFolder(path) as folder:
        shown_ms = folder.past[-1][0].close_ms if folder.past else 0
        tell_shown(folder, lambda close_ms: setattr(stepper, "shown_ms", close_ms))
        session = PaperSession(
            folder,
            options(timeline),
            Connection(Sources(host.archive_url, host.rest_url, host.stream_url), QUICK, RETRY),
            before_round=retrainer.before_round,
            after_round=lambda strategy: after_round(folder, strategy),
            until_ms=until_ms,
        )
        retrainer.attach(session)
        stepper = Stepper(host, session, shown_ms)
        stepper.start()
        try:
            session.run()
        finally:
            stepper.over.set()
            stepper.join()
        assert not stepper.stuck, session.stream.counters


@pytest.fixture(scope="session")
def papers() -> SimpleNamespace:
    """`trade`, `options`, the recipe text `small`, patience `retry`, `days` of toy candles."""
    return SimpleNamespace(trade=trade, options=options, small=SMALL, retry=RETRY, days=DAYS)


@pytest.fixture(scope="session")
def toy_session_of(toy: Any) -> Any:
    """Function of a folder: a new session in it, of two toy bundles; the second one lies ready."""

    def made(folder: Path) -> tuple[Path, Any, BundleTimeline, int]:
        candles = toy.candles(days=DAYS)
        timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(3, 5))
        path = folder / "toy"
        first_ms = int(candles.open_time[0])
        start_ms = timeline.first_session_ms + 7 * HOUR_MS
        facts = SessionFacts(
            symbols=("X",),
            interval="1h",
            first_ms=first_ms,
            created_ms=start_ms,
            broker={"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False},
        )
        SessionFolder.create(path, facts).close()
        until = (timeline.bundles[0].info.trained_until_ms,)
        SessionTimeline(timeline.bundles[:1], False, until).save(path)
        return path, candles, timeline, start_ms

    return made


@pytest.fixture
def toy_session(toy_session_of: Any, tmp_path: Path) -> tuple[Path, Any, BundleTimeline, int]:
    """A new session of two toy bundles, of which only the first is known yet."""
    made: tuple[Path, Any, BundleTimeline, int] = toy_session_of(tmp_path)
    return made
