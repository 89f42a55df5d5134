"""Runs a paper session of a recipe from its start, new or resumed, to its reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cppncripto_strategy.errors import BundleError, CppnError, NothingLiveError, SessionError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import SpeedClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.market import Market, closed_market, traded_span
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import ask_exchange, create_session, recipe_of
from cppncripto_strategy.paper.day_reports import DayReports
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options, todays_bundle
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.resume import (
    require_same_exchange,
    require_same_market,
    require_same_networks,
    require_same_recipe,
)
from cppncripto_strategy.paper.retraining import Retrainer
from cppncripto_strategy.paper.session import SESSION_FILE, SessionFolder, session_lock
from cppncripto_strategy.paper.session_report import write_session_results
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import RunResult
from cppncripto_strategy.runlog import log_file

log = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
# The demo's first day is some hours old when it starts, so that it has something to show at once.
DEMO_STARTS_AFTER_MS = 6 * HOUR_MS


class Listener(Protocol):
    """A screen: hears events, follows the session."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Hear an event."""

    def attach(self, session: PaperSession) -> None:
        """The session is about to run."""

    def close(self) -> None:
        """The session is over."""


@dataclass(frozen=True, slots=True)
class PaperPlan:
    """What `cppn-bt paper` was asked for.

    Parameters
    ----------
    path : the session's folder; resumed when a session stands there.
    recipe : what the session runs; a session that stands there must have been made with it.
    connection : the exchange and how patiently it is asked.
    bundles : ready networks, which a session that stands there must have; None trains what the
        recipe's calendar has active today.
    cache : folder of finished bundles, shared with backtests.
    stop_after : live candles after which to stop; None runs until stopped.
    retrain : follow the recipe's calendar while running.
    training : opens what shows the first training's progress, closed before the session runs.
    """

    path: Path
    recipe: Recipe
    connection: Connection = field(default_factory=Connection)
    bundles: Path | None = None
    cache: Path | None = None
    stop_after: int | None = None
    retrain: bool = True
    training: Callable[[], AbstractContextManager[Progress | None]] = nullcontext


def run_paper(plan: PaperPlan, screen: Listener) -> RunResult | None:
    """Run a session until it is stopped, then write its reports; None when nothing was live.

    Nothing in the session's folder is looked at or written before its lock is held.

    Raises
    ------
    CppnError
        Saying what was found, what was expected, and what to do.
    """
    with session_lock(plan.path), log_file(plan.path / LOG_FILE):
        return _run(plan, screen)


def run_demo(plan: PaperPlan, speed: float, screen: Listener) -> RunResult | None:
    """`run_paper` against a loopback exchange in this process, instead of the plan's connection.

    Parameters
    ----------
    speed : market seconds per wall second.
    """
    with (
        session_lock(plan.path),
        log_file(plan.path / LOG_FILE),
        ExchangeThread(demo_exchange(plan, speed)) as host,
    ):
        connection = Connection(
            Sources(host.archive_url, host.rest_url, host.stream_url),
            StreamSettings.for_speed(speed, plan.recipe.interval),
            Retry(attempts=6, base_s=0.05, cap_s=1.0, timeout_s=5.0),
        )
        return _run(replace(plan, connection=connection), screen)


def _run(plan: PaperPlan, screen: Listener) -> RunResult | None:
    folder, timeline, recipe = _open(plan, screen)
    retrainer = Retrainer(plan.path, recipe, timeline, plan.cache)
    with folder:
        hooks = [retrainer.before_round] if plan.retrain else []
        days = DayReports(plan.path, screen)
        left = plan.stop_after

        def before_round(moment: Round) -> None:
            nonlocal left
            for hook in hooks:
                hook(moment)
            if left is not None and session.queue.allowed:
                left -= 1
                if left <= 0:
                    session.stop()

        session = PaperSession(
            folder,
            strategy_options(recipe, timeline, plan.path / "embeddings"),
            plan.connection,
            seed=_local_candles(recipe, folder),
            on_event=screen,
            before_round=before_round,
            after_round=days.after_round,
        )
        days.attach(session)
        retrainer.attach(session)
        screen.attach(session)
        try:
            session.run()
        finally:
            days.stop()
            screen.close()
            retrainer.stop()
    return _results(plan.path, recipe)


def _results(path: Path, recipe: Recipe) -> RunResult | None:
    """The reports of a session that is over; None when nothing was live."""
    try:
        return write_session_results(path, recipe, SessionTimeline.of_session(path))
    except NothingLiveError as error:
        log.info("%s", error)
        return None
    except OSError as cause:
        raise SessionError(
            f"the reports could not be written ({cause.filename or path}: {cause.strerror}). The"
            " session itself is kept: make room, then ask for them with --report"
        ) from cause


def _open(plan: PaperPlan, screen: Listener) -> tuple[SessionFolder, SessionTimeline, Recipe]:
    """The session's folder, networks and recipe; made when there is none."""
    if (plan.path / SESSION_FILE).exists():
        return _resume(plan)
    screen({"kind": "preparing", "recipe": plan.recipe.name})
    if plan.bundles is not None:
        trained = BundleTimeline.load(plan.bundles)
        _require_interval(trained, plan)
    else:
        now_ms, _ = ask_exchange(plan.connection, plan.recipe.subscribed)
        market = closed_market(plan.recipe, now_ms)
        with plan.training() as progress:
            trained = todays_bundle(plan.recipe, market, now_ms, plan.cache, progress)
    folder = create_session(plan.path, plan.recipe, trained, plan.connection, locked=True)
    return folder, SessionTimeline.of_session(plan.path), recipe_of(plan.path)


def _resume(plan: PaperPlan) -> tuple[SessionFolder, SessionTimeline, Recipe]:
    """The session that stands there, when it is what the plan asks for."""
    recipe = recipe_of(plan.path)  # first: the networks may need its plugins
    require_same_recipe(plan.path, recipe, plan.recipe)
    timeline = SessionTimeline.of_session(plan.path)
    require_same_networks(plan.path, timeline, plan.bundles)
    folder = SessionFolder(plan.path, locked=True)
    try:
        require_same_exchange(plan.path, folder.facts, plan.connection.sources)
        first = next((shown.candles for shown, _ in folder.past if shown.candles), {})
        require_same_market(plan.path, folder.facts, first, plan.connection)
    except BaseException:
        folder.close()
        raise
    return folder, timeline, recipe


def _require_interval(trained: BundleTimeline, plan: PaperPlan) -> None:
    """Refuse networks of other candles than the session's. Raises BundleError."""
    if trained.session.interval_ms != plan.recipe.interval_ms:
        seconds = [ms // 1000 for ms in (trained.session.interval_ms, plan.recipe.interval_ms)]
        raise BundleError(
            f"{plan.bundles} reads candles of {seconds[0]} s, and the recipe's interval is"
            f" {plan.recipe.interval} ({seconds[1]} s): name bundles of that interval"
        )


def _local_candles(recipe: Recipe, folder: SessionFolder) -> dict[str, Candles]:
    """Closed candles of the local store, so that they need not be downloaded.

    Planted candles are left to the exchange that serves them: it rounds, as a real one does.
    """
    if recipe.candles.source == "planted" or folder.resumed:
        return {}
    try:
        return closed_market(recipe, folder.facts.created_ms).every
    except CppnError as error:
        log.info("no local candles: %s", error)
        return {}


def demo_exchange(plan: PaperPlan, speed: float) -> LoopbackExchange:
    """A loopback exchange over the recipe's market, its clock where the session is.

    A new session starts some hours into the first day that may be traded; a resumed one where it
    stopped. The clock waits for the first subscriber.
    """
    resumed = (plan.path / SESSION_FILE).exists()
    recipe = recipe_of(plan.path) if resumed else plan.recipe
    require_same_recipe(plan.path, recipe, plan.recipe)
    market = closed_market(recipe, 2**62)
    start_ms = traded_span(recipe, Market(market.candles)).start_ms + DEMO_STARTS_AFTER_MS
    if resumed:
        start_ms = max(
            [start_ms, *(moment.close_ms for moment, _ in Recording.read(plan.path).past)]
        )
    settings = ExchangeSettings(
        interval=recipe.interval,
        updates_per_candle=max(1, min(9, int(recipe.interval_ms / 1000 / speed * 10))),
        wait_for_subscriber=True,
    )
    return LoopbackExchange(market.every, clock=SpeedClock(start_ms, speed), settings=settings)
