"""Retraining beside a session, in a process of its own.

At the recipe's retraining stamps the process decides and trains; what it makes becomes active at
the next 00:00 UTC after it is ready, and that moment is written down, so that a replay knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.candles import Candles, merge
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.feeds.live.journal import read_lines
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.market import (
    Market,
    closed_market,
    session_tables,
)
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.drift import Repair, RetrainDecision
from cppncripto_strategy.models.learning.retraining import carry_out, decide
from cppncripto_strategy.paper.beside import FAILED, Beside, Says
from cppncripto_strategy.paper.create import recipe_of
from cppncripto_strategy.paper.networks import SessionTimeline, todays_bundle
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import write_json

log = logging.getLogger(__name__)

NEXT_FILE = "next.json"
# As a repair's name in events: the calendar asked, and no drift was judged.
BY_CALENDAR = "retrain"


class Retrainer:
    """Retrains on the recipe's calendar in a process of its own, and makes the result active.

    Parameters
    ----------
    session : the session's folder.
    recipe, timeline : what it runs now.
    cache : folder of finished bundles, shared with backtests; None trains afresh.

    Attributes
    ----------
    timeline : which bundle is active, and from when.
    """

    def __init__(
        self, session: Path, recipe: Recipe, timeline: SessionTimeline, cache: Path | None
    ) -> None:
        self.session, self.recipe, self.timeline, self.cache = session, recipe, timeline, cache
        self._process: Beside | None = None
        self._strategy: Any = None
        self._note: Callable[..., None] = lambda _kind, **_facts: None

    def attach(self, paper: PaperSession) -> None:
        """Follow a session; its strategy is found once Cerebro has built it."""
        self._paper = paper
        self._note = paper.folder.event

    def before_round(self, moment: Round) -> None:
        """At the round that closes a day: activate what is ready, begin what is due."""
        if moment.close_ms % DAY_MS == 0 and not moment.catch_up:
            self._take_over(moment.close_ms)
            self._begin(moment.close_ms)

    def _take_over(self, session_ms: int) -> None:
        """Activate a bundle that is ready, from this session on."""
        if self._process is not None:
            if self._process.running:
                return
            for event in self._process.events():
                if event["kind"] == FAILED:
                    reason = event["reason"]
                    self._note("retraining failed", session_ms=session_ms, reason=reason)
                    log.error("retraining failed, the active bundle stays: %s", reason)
            self._process = None
        self._adopt(session_ms)

    def _adopt(self, session_ms: int) -> None:
        """What the training process left, if anything: judged, activated, taken away."""
        left = self.session / "bundles" / NEXT_FILE
        if not left.exists():
            return
        with reading(left, "word of a retraining", SessionError):
            outcome = read_object(left)
        self._note("retraining decided", session_ms=session_ms, **outcome)
        newest_ms = self.timeline.bundles[-1].info.trained_until_ms
        if outcome["bundle"] is not None:
            bundle = Bundle.load(self.session / "bundles" / outcome["bundle"])
            # Trained later than this session's midnight, it would know what it is to score.
            if newest_ms < bundle.info.trained_until_ms <= session_ms:
                self._activate(bundle, session_ms)
        left.unlink()

    def _activate(self, bundle: Bundle, session_ms: int) -> None:
        self.timeline = self.timeline.with_bundle(bundle, session_ms)
        self.timeline.save(self.session)  # on disk first: a restart replays this rollover
        for state in self._states():
            state.score.macro.follow(self.timeline)
            state.threshold.add_seed(session_ms, bundle.score_seed)
        self._note("bundle", session_ms=session_ms, bundle=bundle.model_hash)
        log.info("bundle %s is active from %s", bundle.model_hash, ms_to_utc(session_ms))

    def _states(self) -> list[Any]:
        return list(self._paper.cerebro.runningstrats[0].states)

    def _begin(self, session_ms: int) -> None:
        due = calendar(session_ms, session_ms, self.recipe.walkforward.retrain_days)[-1]
        newest_ms = self.timeline.bundles[-1].info.trained_until_ms
        if due != session_ms or due <= newest_ms or self._process is not None:
            return
        self._note("retraining", session_ms=session_ms)
        cache = None if self.cache is None else str(self.cache)
        self._process = Beside(_retrain_beside, str(self.session), session_ms, cache)

    def stop(self) -> None:
        """End a training that is under way; the next start begins it again at its next stamp."""
        if self._process is not None:
            self._process.stop()


def _retrain_beside(session: str, until_ms: int, cache: str | None, _says: Says) -> None:
    retrain(session, until_ms, cache)


def retrain(session: str, until_ms: int, cache: str | None) -> None:
    """Decide and do what a retraining stamp calls for; leave the outcome in the session's bundles.

    Raises
    ------
    CppnError
        When there is too little to learn from, or something cannot be read or written.
    """
    path = Path(session)
    recipe = recipe_of(path)
    market = closed_market(recipe, until_ms)
    recorded = Recording.read(path).candles()
    traded, beside = (
        {
            symbol: merge(candles, recorded.get(symbol, Candles.empty()).between(0, until_ms))
            for symbol, candles in part.items()
        }
        for part in (market.candles, market.beside)
    )
    joined = Market(traded, beside=beside)
    folder = None if cache is None else Path(cache)
    if recipe.walkforward.retrain == "drift":
        bundle, outcome = _by_drift(path, recipe, joined, until_ms, folder)
    else:
        bundle, outcome = _by_calendar(recipe, joined, until_ms, folder)
    if bundle is not None:
        bundle.save(path / "bundles" / bundle.model_hash)
    name = None if bundle is None else bundle.model_hash
    write_json(path / "bundles" / NEXT_FILE, {"bundle": name, **outcome})


def _by_calendar(
    recipe: Recipe, market: Market, until_ms: int, cache: Path | None
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle that a backtest would have active at this stamp, and why it was made."""
    bundle = todays_bundle(recipe, market, until_ms, cache, None).bundles[-1]
    return bundle, {"repair": BY_CALENDAR, "reason": bundle.info.reason, "drift": None}


def _by_drift(
    path: Path, recipe: Recipe, market: Market, until_ms: int, cache: Path | None
) -> tuple[Bundle | None, dict[str, Any]]:
    """The lowest-cost repair that the drift since the last check asks for; None keeps."""
    torch.set_num_threads(1)
    settings = recipe.learn_settings(recipe.macro.enabled)
    tables = session_tables(market, settings.session)
    previous = SessionTimeline.of_session(path).bundles[-1]
    decision = decide(tables, until_ms, settings, previous, _last_decision(path))
    outcome = {
        "repair": decision.repair.name.lower(),
        "reason": decision.reason,
        "drift": None if np.isnan(decision.drift) else decision.drift,
    }
    return carry_out(tables, decision, settings, recipe.seed, previous, cache), outcome


def _last_decision(path: Path) -> RetrainDecision | None:
    """What the check before this one decided."""
    decided = [e for e in read_lines(path / "events.jsonl") if e["kind"] == "retraining decided"]
    if not decided or decided[-1]["repair"] == BY_CALENDAR:
        return None
    last = decided[-1]
    drift = float("nan") if last["drift"] is None else last["drift"]
    repair = Repair[last["repair"].upper()]
    return RetrainDecision(last["session_ms"], drift, repair, last["reason"])
