"""From a recipe to a paper session: networks, account, results, retraining beside the session.

A new session trains (or finds in the cache) the bundle that a backtest would have in force today,
on candles that have closed by now. While it runs, a process of its own retrains on the recipe's
calendar; what it makes comes into force at the next 00:00 UTC after it is ready, and that moment is
written down, so that a replay knows it. Left out: fetching history (`cppn-bt fetch` does).
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cppncripto_strategy.errors import BundleError, SessionError
from cppncripto_strategy.evaluation.account import Account, Costs, buy_and_hold
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import RestClient
from cppncripto_strategy.feeds.candles import Candles, merge
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.live.rounds import Round, read_lines
from cppncripto_strategy.indicators.micro import MicroScore
from cppncripto_strategy.market import Market, learn_settings, load_market, session_tables
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.learning.drift import Repair, RetrainDecision
from cppncripto_strategy.models.learning.walkforward import (
    calendar,
    decide,
    learn_bundle,
    recalibrate,
    walk_forward,
)
from cppncripto_strategy.outcome import write_outputs
from cppncripto_strategy.paper.session import Recording, SessionFacts, SessionFolder
from cppncripto_strategy.paper.trader import PaperSession, first_candle_ms, made_by
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import RunResult, to_toml, write_json, write_text

log = logging.getLogger(__name__)

TIMELINE_FILE, NEXT_FILE, RECIPE_FILE = "timeline.json", "next.json", "recipe.toml"
# A week of 5-minute scores fills the default threshold window.
EARLIER_DAYS = 7


@dataclass(frozen=True, slots=True, eq=False)
class SessionTimeline(BundleTimeline):
    """Bundles of a session, each in force from the rollover at which it was ready.

    Parameters
    ----------
    valid_from_ms : ascending, one a bundle, never before its trained_until_ms.
    """

    valid_from_ms: tuple[int, ...] = ()

    def in_force(self, session_ms: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the bundle in force in each session, -1 where none may score it, int64 (D,)."""
        starts = np.array(self.valid_from_ms, dtype=np.int64)
        chosen = np.searchsorted(starts, np.asarray(session_ms), side="right") - 1
        return chosen.astype(np.int64)

    def seeds(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Where thresholds start afresh, and with which scores."""
        return [
            (start, bundle.score_seed)
            for start, bundle in zip(self.valid_from_ms, self.bundles, strict=True)
        ]

    def with_bundle(self, bundle: Bundle, valid_from_ms: int) -> SessionTimeline:
        """The timeline with one more bundle at its end."""
        return SessionTimeline((*self.bundles, bundle), False, (*self.valid_from_ms, valid_from_ms))

    def save(self, session: Path) -> None:
        """Write the bundles and, last, when each is in force."""
        rows = []
        for bundle, start in zip(self.bundles, self.valid_from_ms, strict=True):
            bundle.save(session / "bundles" / bundle.model_hash)
            rows.append({"bundle": bundle.model_hash, "valid_from_ms": start})
        write_json(session / "bundles" / TIMELINE_FILE, rows)

    @classmethod
    def of_session(cls, session: Path) -> SessionTimeline:
        """The timeline a session recorded.

        Raises
        ------
        SessionError
            When the session has none.
        """
        try:
            rows = json.loads((session / "bundles" / TIMELINE_FILE).read_text())
        except OSError as cause:
            raise SessionError(f"{session} has no networks: it was never started") from cause
        bundles = tuple(Bundle.load(session / "bundles" / row["bundle"]) for row in rows)
        return cls(bundles, False, tuple(row["valid_from_ms"] for row in rows))


def strategy_options(
    recipe: Recipe, timeline: SessionTimeline, embeddings: Path | None = None
) -> dict[str, Any]:
    """Options of MacroMicroStrategy: those of a backtest of the same recipe.

    `embeddings` is where a live session keeps them, so that a restart does not compute them again;
    parity is told none, and computes every one.
    """
    threshold = recipe.threshold
    return {
        "score_factory": lambda data: MicroScore(data, bundles=timeline, cache=embeddings),
        "window": threshold.window,
        "quantile": threshold.quantile,
        "threshold_mode": threshold.mode,
        "band": threshold.band,
        "seeds": timeline.seeds(),
        **recipe.strategy.model_dump(),
    }


def ask_exchange(sources: Sources, symbols: Sequence[str], retry: Retry) -> tuple[int, Any]:
    """The exchange's time (UTC ms) and its exchangeInfo of these symbols.

    Raises
    ------
    SourceError
        When it does not answer, or does not know a symbol.
    """

    async def ask() -> tuple[int, Any]:
        async with RestClient(sources, retry) as rest:
            return await rest.server_time_ms(), await rest.exchange_info(symbols)

    return asyncio.run(ask())


def closed_market(recipe: Recipe, now_ms: int) -> Market:
    """The recipe's candles that have closed by now: nothing later may teach anybody."""
    open_recipe = recipe.model_copy(update={"timerange": None})
    market = load_market(open_recipe)
    last_open = now_ms - recipe.interval_ms
    return Market(
        {symbol: held[held.open_time <= last_open] for symbol, held in market.candles.items()}
    )


def todays_bundle(
    recipe: Recipe, market: Market, now_ms: int, cache: Path | None, progress: Progress | None
) -> BundleTimeline:
    """The bundle that the recipe's calendar has in force today; trained when not in the cache.

    Raises
    ------
    TrainingError
        When the candles do not reach back, or up to today, far enough.
    """
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    settings = learn_settings(recipe, recipe.macro.enabled)
    tables = session_tables(market, settings.session)
    midnight_ms = now_ms // DAY_MS * DAY_MS
    return walk_forward(
        tables, midnight_ms, midnight_ms + 1, settings, recipe.seed, cache, progress
    )


def create_session(
    path: Path,
    recipe: Recipe,
    timeline: BundleTimeline,
    sources: Sources,
    retry: Retry,
) -> SessionFolder:
    """A new session of a recipe, starting today.

    Raises
    ------
    SourceError
        When the exchange does not answer, or does not know a symbol.
    BundleError
        When the bundle may not score today: it was trained on later candles.
    """
    now_ms, info = ask_exchange(sources, recipe.symbols, retry)
    midnight_ms = now_ms // DAY_MS * DAY_MS
    if timeline.first_session_ms > midnight_ms:
        raise BundleError(
            f"the bundle was trained until {ms_to_utc(timeline.first_session_ms)}; the exchange's"
            f" today is {ms_to_utc(midnight_ms)}: trading it would be in-sample"
        )
    earlier = min(EARLIER_DAYS, (midnight_ms - timeline.first_session_ms) // DAY_MS)
    facts = SessionFacts(
        symbols=recipe.symbols,
        interval=recipe.interval,
        first_ms=first_candle_ms(now_ms, recipe.interval_ms, timeline.session.warmup, earlier),
        created_ms=now_ms,
        broker={
            "cash": recipe.broker.cash,
            "fee_bps": recipe.broker.fee_bps,
            "slippage_bps": recipe.broker.slippage_bps,
            "allow_short": recipe.strategy.allow_short,
        },
        filters=info["symbols"],
        sources=asdict(sources),
        made_by=made_by(),
    )
    until = tuple(bundle.info.trained_until_ms for bundle in timeline.bundles)
    path.mkdir(parents=True, exist_ok=True)
    # A resumed session may be started from another folder.
    here = recipe.candles.model_copy(update={"folder": recipe.candles.folder.resolve()})
    settled = recipe.model_copy(update={"candles": here})
    write_text(path / RECIPE_FILE, to_toml(settled.to_plain()))
    SessionTimeline(timeline.bundles, False, until).save(path)
    return SessionFolder.create(path, facts)


def recipe_of(session: Path) -> Recipe:
    """The recipe a session runs.

    Raises
    ------
    SessionError
        When the session has none.
    """
    import tomllib

    try:
        values = tomllib.loads((session / RECIPE_FILE).read_text())
    except OSError as cause:
        raise SessionError(
            f"{session} holds no paper session ({RECIPE_FILE} is missing)"
        ) from cause
    return parse_recipe(values, str(session / RECIPE_FILE))


# Retraining beside the session ------------------------------------------------------------------


class Retrainer:
    """Retrains on the recipe's calendar in a process of its own, and puts the result in force.

    Parameters
    ----------
    session : the session's folder.
    recipe, timeline : what it runs now.
    cache : folder of finished bundles, shared with backtests; None trains afresh.

    Attributes
    ----------
    timeline : what is in force, and from when.
    """

    def __init__(
        self, session: Path, recipe: Recipe, timeline: SessionTimeline, cache: Path | None
    ) -> None:
        self.session, self.recipe, self.timeline, self.cache = session, recipe, timeline, cache
        self._process: Any = None
        self._strategy: Any = None
        self._note: Callable[..., None] = lambda _kind, **_facts: None

    def attach(self, paper: PaperSession) -> None:
        """Follow a session; its strategy is found once Cerebro has built it."""
        self._paper = paper
        self._note = paper.folder.event

    def before_round(self, one: Round) -> None:
        """At the round that closes a day: put in force what is ready, begin what is due."""
        if one.close_ms % DAY_MS == 0 and not one.catch_up:
            self._take_over(one.close_ms)
            self._begin(one.close_ms)

    def _take_over(self, session_ms: int) -> None:
        """Put a bundle that is ready in force from this session on."""
        if self._process is not None:
            if self._process.is_alive():
                return
            if self._process.exitcode != 0:
                self._note("retraining failed", session_ms=session_ms)
                log.error("retraining failed: the bundle in force stays")
            self._process = None
        self._adopt(session_ms)

    def _adopt(self, session_ms: int) -> None:
        """What the training process left, if anything: judged, put in force, taken away."""
        left = self.session / "bundles" / NEXT_FILE
        if not left.exists():
            return
        told = json.loads(left.read_text())
        self._note("retraining decided", session_ms=session_ms, **told)
        newest_ms = self.timeline.bundles[-1].info.trained_until_ms
        if told["bundle"] is not None:
            bundle = Bundle.load(self.session / "bundles" / told["bundle"])
            # Trained later than this session's midnight, it would know what it is to score.
            if newest_ms < bundle.info.trained_until_ms <= session_ms:
                self._put_in_force(bundle, session_ms)
        left.unlink()

    def _put_in_force(self, bundle: Bundle, session_ms: int) -> None:
        self.timeline = self.timeline.with_bundle(bundle, session_ms)
        self.timeline.save(self.session)  # on disk first: a restart replays this rollover
        for book in self._books():
            book.score.macro.timeline = book.score.macro.stream.timeline = self.timeline
            book.threshold.add_seed(session_ms, bundle.score_seed)
        self._note("bundle", session_ms=session_ms, bundle=bundle.model_hash)
        log.info("bundle %s is in force from %s", bundle.model_hash, ms_to_utc(session_ms))

    def _books(self) -> list[Any]:
        return list(self._paper.cerebro.runningstrats[0].books)

    def _begin(self, session_ms: int) -> None:
        due = calendar(session_ms, session_ms, self.recipe.walkforward.retrain_days)[-1]
        newest_ms = self.timeline.bundles[-1].info.trained_until_ms
        if due != session_ms or due <= newest_ms or self._process is not None:
            return
        self._note("retraining", session_ms=session_ms)
        context = multiprocessing.get_context("spawn")
        cache = None if self.cache is None else str(self.cache)
        self._process = context.Process(
            target=retrain, args=(str(self.session), session_ms, cache), daemon=True
        )
        self._process.start()

    def stop(self) -> None:
        """End a training that is under way; the next start begins it again at its next stamp."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(5)


def retrain(session: str, until_ms: int, cache: str | None) -> None:
    """Decide and do what a retraining stamp calls for; leave the outcome in the session's bundles.

    Runs in a process of its own, behind everything else: `os.nice(19)` and one thread.
    """
    os.nice(19)
    path = Path(session)
    recipe = recipe_of(path)
    market = closed_market(recipe, until_ms)
    recorded = Recording.read(path).candles()
    joined = Market(
        {
            symbol: merge(held, recorded.get(symbol, Candles.empty()).between(0, until_ms))
            for symbol, held in market.candles.items()
        }
    )
    if recipe.walkforward.retrain == "drift":
        bundle, told = _by_drift(path, recipe, joined, until_ms)
    else:
        folder = None if cache is None else Path(cache)
        bundle = todays_bundle(recipe, joined, until_ms, folder, None).bundles[-1]
        told = {"repair": "retrain", "reason": "calendar", "drift": None}
    if bundle is not None:
        bundle.save(path / "bundles" / bundle.model_hash)
    name = None if bundle is None else bundle.model_hash
    write_json(path / "bundles" / NEXT_FILE, {"bundle": name, **told})


def _by_drift(
    path: Path, recipe: Recipe, market: Market, until_ms: int
) -> tuple[Bundle | None, dict[str, Any]]:
    """The cheapest repair that the drift since the last check calls for; None keeps the bundle."""
    torch.set_num_threads(1)
    settings = learn_settings(recipe, recipe.macro.enabled)
    tables = session_tables(market, settings.session)
    previous = SessionTimeline.of_session(path).bundles[-1]
    decision = decide(tables, until_ms, settings, previous, _last_decision(path))
    told = {
        "repair": decision.repair.name.lower(),
        "reason": decision.reason,
        "drift": None if np.isnan(decision.drift) else decision.drift,
    }
    if decision.repair is Repair.KEEP:
        return None, told
    if decision.repair is Repair.RECALIBRATE:
        return recalibrate(tables, previous, until_ms, settings), told
    kept = None if decision.repair is Repair.RETRAIN_MACRO else previous
    return learn_bundle(tables, until_ms, settings, recipe.seed, kept), told


def _last_decision(path: Path) -> RetrainDecision | None:
    """What the check before this one decided."""
    decided = [e for e in read_lines(path / "events.jsonl") if e["kind"] == "retraining decided"]
    if not decided or decided[-1]["repair"] == "retrain":
        return None
    last = decided[-1]
    drift = float("nan") if last["drift"] is None else last["drift"]
    repair = Repair[last["repair"].upper()]
    return RetrainDecision(last["session_ms"], drift, repair, last["reason"])


# Results ------------------------------------------------------------------------------------------


def session_result(session: Path, recipe: Recipe, timeline: SessionTimeline) -> RunResult:
    """A session's results, in the form of a backtest's.

    Raises
    ------
    SessionError
        When nothing was traded or watched live yet.
    """
    recording = Recording.read(session)
    tables: dict[str, Any] = dict(recording.tables())
    if len(tables["equity"]) < 2:
        raise SessionError(f"{session}: fewer than two live candles so far, nothing to report")
    broker = recipe.broker
    costs = Costs(broker.fee_bps, broker.slippage_bps)
    benchmark = buy_and_hold(tables["signals"], broker.cash, costs)
    yardstick = Yardstick(
        horizon=recipe.label.horizon,
        interval_ms=recipe.interval_ms,
        round_trip_cost_bps=costs.round_trip_bps,
        label_threshold_bps=recipe.label.threshold_bps,
        seed=recipe.seed,
    )
    account = Account(tables["equity"], tables["fills"], tables["trades"])
    metrics = run_metrics(tables["signals"], account, benchmark, yardstick)
    metrics["session"] = {
        "missed_orders": len(recording.missed()),
        "downtime": recording.downtime(),
        "rounds": len(recording.past),
    }
    return RunResult(
        recipe=recipe.to_plain(),
        manifest={**recording.facts.made_by, "session": session.name, "seed": recipe.seed},
        metrics=metrics,
        **tables,
        benchmark_equity=benchmark,
        gaps=recording.gaps(),
        bundles=_bundle_rows(timeline),
        embeddings=_embeddings(recording),
    )


def _bundle_rows(timeline: SessionTimeline) -> list[dict[str, Any]]:
    return [
        {
            "hash": bundle.model_hash,
            "trained_from_ms": bundle.info.trained_from_ms,
            "trained_until_ms": bundle.info.trained_until_ms,
            "valid_from_ms": start,
            "validation_loss": bundle.info.validation["loss"],
            "reason": "first" if number == 0 else "calendar",
        }
        for number, (bundle, start) in enumerate(
            zip(timeline.bundles, timeline.valid_from_ms, strict=True)
        )
    ]


def _embeddings(recording: Recording) -> pd.DataFrame | None:
    since = recording.live_from_ms or 0
    rows = [
        {
            "symbol": row["symbol"],
            "valid_from_ms": row["session_ms"],
            "data_end_ms": row["valid_from_ms"],
            "model_hash": row["model_hash"],
            "drift": np.nan if row["drift"] is None else row["drift"],
            **{f"e{i}": value for i, value in enumerate(row["vector"])},
        }
        for row in recording.derived["embeddings"]
        if row["session_ms"] >= since // DAY_MS * DAY_MS
    ]
    return pd.DataFrame(rows) if rows else None


def write_session_results(session: Path, recipe: Recipe, timeline: SessionTimeline) -> RunResult:
    """Tables, metrics, report, tearsheet and picture into the session's own folder."""
    result = session_result(session, recipe, timeline)
    write_outputs(result, session)
    recording = Recording.read(session)
    store = CandleStore(session / "candles")
    for symbol, candles in recording.candles().items():
        store.write(symbol, recipe.interval, candles)
    missed = recording.missed()
    write_text(session / "missed.csv", missed.to_csv(index=False))
    return result


def day_report(session: Path, day_ms: int) -> dict[str, Any]:
    """One UTC day of a session: account, signals, orders, drift, what was missed, retraining.

    Parameters
    ----------
    day_ms : 00:00 UTC of the day.
    """
    recording = Recording.read(session)
    tables = recording.tables()

    def of_day(table: pd.DataFrame, column: str) -> pd.DataFrame:
        return table[(table[column] >= day_ms) & (table[column] < day_ms + DAY_MS)]

    equity = of_day(tables["equity"], "close_time_ms")["equity"].to_numpy()
    fills = of_day(tables["fills"], "executed_ms")
    signals = of_day(tables["signals"], "close_time_ms")
    missed = of_day(recording.missed(), "created_ms")
    peak = np.maximum.accumulate(equity) if len(equity) else equity
    return {
        "day": ms_to_utc(day_ms)[:10],
        "candles": len(signals),
        "equity": float(equity[-1]) if len(equity) else None,
        "return": float(equity[-1] / equity[0] - 1) if len(equity) else None,
        "drawdown": float((1 - equity / peak).max()) if len(equity) else None,
        "filled": int((fills["status"] == "filled").sum()),
        "fees": float(fills["fee"].sum()),
        "missed": len(missed),
        "signals": int((signals["signal"] != 0).sum()),
        "drift": {
            str(symbol): _last_finite(rows["drift"]) for symbol, rows in signals.groupby("symbol")
        },
        "retraining": [
            {key: value for key, value in event.items() if key != "at_ms"}
            for event in read_lines(session / "events.jsonl")
            if day_ms < event.get("session_ms", 0) <= day_ms + DAY_MS
        ],
    }


def _last_finite(values: pd.Series[float]) -> float | None:
    known = values.dropna()
    return float(known.iloc[-1]) if len(known) else None


def options_of(session: Path) -> Mapping[str, Any]:
    """The strategy options a session ran with, from its own folder."""
    return strategy_options(recipe_of(session), SessionTimeline.of_session(session))
