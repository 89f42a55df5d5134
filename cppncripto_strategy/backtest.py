"""A backtest: a recipe and candles in, a results folder out.

Steps: read candles, lay out sessions, train bundles on the walk-forward calendar, replay the traded
span through Cerebro (once with macro and, for comparison, once with a MicroNet that never saw an
embedding), judge, write. Nothing here prints; progress goes to a callback.

Left out: choosing a recipe for you. Each run is one trial and is counted as one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import torch

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import CandleError, CppnError, RecipeError, TrainingError
from cppncripto_strategy.evaluation import metrics as measure
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, discounted_sharpe, fingerprint
from cppncripto_strategy.feeds import planted
from cppncripto_strategy.feeds.candles import Candles, gaps, validate
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_utc, utc_to_ms
from cppncripto_strategy.feeds.history.files import open_source
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.indicators import MicroScore
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.hyperneat.encoder import inline_champion
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable, build_sessions
from cppncripto_strategy.models.learning.training import TrainSettings
from cppncripto_strategy.models.learning.walkforward import (
    LabelSettings,
    LearnSettings,
    calendar,
    walk_forward,
)
from cppncripto_strategy.models.pretraining import PretrainSettings
from cppncripto_strategy.models.scoring.streaming import MicroStream
from cppncripto_strategy.progress import PhaseProgress, silent
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.reports.report import save_picture, write_report
from cppncripto_strategy.reports.tearsheet import write_tearsheet
from cppncripto_strategy.results import RunResult, write_results
from cppncripto_strategy.strategy import MacroMicroStrategy

log = logging.getLogger(__name__)

VERSIONED = ("backtrader", "numpy", "pandas", "pyarrow", "quantstats", "safetensors", "torch")


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Candles of a run.

    Parameters
    ----------
    candles : by symbol, in the recipe's order.
    planted : by symbol, the planted truth; empty for real candles.
    """

    candles: dict[str, Candles]
    planted: dict[str, planted.PlantedMarket] = field(default_factory=dict)


def load_market(recipe: Recipe) -> Market:
    """Read and validate the recipe's candles.

    Raises
    ------
    CppnError
        When a source, symbol or candle is not as it should be.
    """
    if recipe.candles.source == "planted":
        return _planted_market(recipe)
    source = open_source(recipe.candles.folder)
    span = recipe.span()
    found = {
        symbol: source.read(symbol, recipe.interval, None, span.end_ms if span else None)
        for symbol in recipe.symbols
    }
    for symbol, candles in found.items():
        if len(candles) == 0:
            raise CandleError(
                f"{recipe.candles.folder} holds no {symbol} {recipe.interval} candle before the end"
                f" of {recipe.timerange}"
            )
    return Market(found)


def _planted_market(recipe: Recipe) -> Market:
    """One planted market a symbol, each with a seed of its own."""
    values = recipe.candles.planted.model_dump()
    start, seed = utc_to_ms(values.pop("start")), values.pop("seed")
    markets = {
        symbol: planted.generate(
            planted.PlantedSettings(
                **values, seed=seed + place, interval=recipe.interval, start_ms=start
            )
        )
        for place, symbol in enumerate(recipe.symbols)
    }
    for market in markets.values():
        validate(market.candles, recipe.interval_ms, "planted market")
    return Market({symbol: market.candles for symbol, market in markets.items()}, markets)


def learn_settings(recipe: Recipe, use_macro: bool = True) -> LearnSettings:
    """The recipe's learning half, in the terms of `models`."""
    macro, micro, label = recipe.macro, recipe.micro, recipe.label
    return LearnSettings(
        session=SessionSettings(
            interval_ms=recipe.interval_ms,
            long_window=macro.long_window,
            scaler=recipe.features.scaler,
            taker=recipe.features.taker,
        ),
        use_macro=use_macro,
        encoder=macro.encoder,
        encoder_options=inline_champion(macro.encoder_options),
        objective=macro.objective,
        objective_options=dict(macro.objective_options),
        pretrain=PretrainSettings(
            epochs=macro.epochs,
            batch_size=macro.batch_size,
            learning_rate=macro.learning_rate,
            patience=macro.patience,
        ),
        train=TrainSettings(
            epochs=micro.epochs,
            patience=micro.patience,
            initialisations=micro.initialisations,
            batch_sessions=micro.batch_sessions,
            learning_rate=micro.learning_rate,
            weight_decay=micro.weight_decay,
            label_smoothing=micro.label_smoothing,
            confidence_penalty=micro.confidence_penalty,
            mirror=micro.mirror,
        ),
        label=LabelSettings(
            kind=label.kind,
            horizon=label.horizon,
            threshold_bps=label.threshold_bps,
            barrier_bps=label.barrier_bps,
            fee_bps=recipe.broker.fee_bps,
            slippage_bps=recipe.broker.slippage_bps,
        ),
        short_window=micro.short_window,
        micro_options={
            "channels": micro.channels,
            "hidden": micro.hidden,
            "components": micro.components,
            "head": micro.head,
            "clock": micro.clock,
        },
        train_days=recipe.walkforward.train_days,
        validate_days=recipe.walkforward.validate_days,
        retrain_days=recipe.walkforward.retrain_days,
        macro_retrain_days=recipe.walkforward.macro_retrain_days,
        retrain=recipe.walkforward.retrain,
        drift_limit=recipe.walkforward.drift_limit,
        warm_epochs=micro.warm_epochs,
    )


def session_tables(market: Market, settings: SessionSettings) -> list[SessionTable]:
    """Sessions of every symbol; refuses a taker feature the candles do not carry."""
    tables = []
    for symbol, candles in market.candles.items():
        if settings.taker and np.isnan(candles.taker_buy_volume).mean() > 0.5:
            raise RecipeError(
                f"features.taker = true, but the candles of {symbol} carry no taker volumes"
                " for most of the span: set it to false or fetch the full columns"
            )
        grid = CandleGrid.from_candles(candles, settings.interval_ms)
        tables.append(build_sessions(symbol, grid, settings))
    return tables


def traded_span(recipe: Recipe, market: Market) -> Span:
    """The recipe's timerange, or what the candles leave after the first training.

    Raises
    ------
    CandleError
        When the candles end before the timerange begins.
    TrainingError
        When nothing is left after training.
    """
    span = recipe.span()
    first = max(int(candles.open_time[0]) for candles in market.candles.values())
    last = max(int(candles.open_time[-1]) for candles in market.candles.values())
    end = last + recipe.interval_ms
    if span is not None:
        if end <= span.start_ms:
            raise CandleError(
                f"the candles end at {ms_to_utc(end)}, before timerange {recipe.timerange} begins:"
                " choose an earlier timerange or give later candles"
            )
        if span.end_ms > end:
            log.warning("candles end at %s: the timerange is cut there", ms_to_utc(end))
        return Span(span.start_ms, min(span.end_ms, end))
    walk, settings = recipe.walkforward, learn_settings(recipe).session
    warmup_days = -(-settings.warmup * settings.interval_ms // DAY_MS)
    days = walk.train_days + walk.validate_days + warmup_days + 1
    earliest = first // DAY_MS * DAY_MS + days * DAY_MS
    stamps = calendar(earliest, earliest + DAY_MS, walk.retrain_days)
    start = next(s for s in (*stamps, stamps[-1] + walk.retrain_days * DAY_MS) if s >= earliest)
    if start + DAY_MS > end:
        raise TrainingError(
            f"the candles reach from {ms_to_utc(first)} to {ms_to_utc(end)}: after {days} days of"
            " training nothing is left to trade. Lower walkforward.train_days or give more candles"
        )
    return Span(start, end)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a pass through Cerebro left: the strategy (with its tables) and its wall time."""

    strategy: MacroMicroStrategy
    seconds: float
    bars: int


def replay(
    recipe: Recipe,
    candles: dict[str, Candles],
    timeline: BundleTimeline,
    span: Span,
    strategy_class: type[MacroMicroStrategy] = MacroMicroStrategy,
) -> Replay:
    """Trade [start, end) through Cerebro with ready bundles.

    Feeds start one warm-up before the span, so that the first session that can be scored at all is
    the span's first day.

    Raises
    ------
    BundleError
        When a bundle was trained on candles of the span.
    """
    timeline.require_out_of_sample(span.start_ms)
    interval_ms, settings = recipe.interval_ms, timeline.session
    feed_from = span.start_ms - settings.warmup * interval_ms
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(
        cash=recipe.broker.cash,
        fee_bps=recipe.broker.fee_bps,
        slippage_bps=recipe.broker.slippage_bps,
        allow_short=recipe.strategy.allow_short,
    )
    bars = 0
    for symbol, every in candles.items():
        part = every.between(_feed_start(every, feed_from), span.end_ms)
        if len(part) == 0:
            raise CandleError(f"{symbol} has no candle in {span}")
        bars += len(part)
        cerebro.adddata(ReplayFeed(candles=part, interval_ms=interval_ms, name=symbol))
    threshold = recipe.threshold
    cerebro.addstrategy(
        strategy_class,
        score_factory=lambda data: MicroScore(data, bundles=timeline),
        window=threshold.window,
        quantile=threshold.quantile,
        threshold_mode=threshold.mode,
        band=threshold.band,
        **recipe.strategy.model_dump(),
    )
    began = time.perf_counter()
    strategy = cerebro.run()[0]
    return Replay(strategy, time.perf_counter() - began, bars)


def _feed_start(candles: Candles, wanted_ms: int) -> int:
    """Open time of the candle at or just before `wanted_ms`.

    A feed that began with the first candle after a gap would warm up too late, and lose the span's
    first day. After a gap of a day or more it does begin there: a candle further back would open a
    session before the span.
    """
    before = int(np.searchsorted(candles.open_time, wanted_ms, side="right")) - 1
    if before < 0:
        return wanted_ms
    found = int(candles.open_time[before])
    return found if wanted_ms - found < DAY_MS else wanted_ms


def run_backtest(
    recipe: Recipe, folder: Path, cache: Path | None = None, progress: PhaseProgress = silent
) -> RunResult:
    """Run a recipe and write its results into `folder`.

    Parameters
    ----------
    folder : the results folder; made if absent.
    cache : where finished bundles are kept between runs; None trains afresh.
    progress : see `progress.PhaseProgress`.

    Raises
    ------
    CppnError
        Saying what was found, what was expected, and what to do.
    """
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    clock = PhaseClock(progress)
    folder.mkdir(parents=True, exist_ok=True)
    with log_file(folder / "log.jsonl"):
        with clock.phase("candles"):
            market = load_market(recipe)
            span = traded_span(recipe, market)
        with clock.phase("features"):
            settings = learn_settings(recipe)
            tables = session_tables(market, settings.session)
        arms = _train_arms(recipe, tables, span, cache, clock)
        replays = {}
        for arm, timeline in arms.items():
            with clock.phase(f"backtest {arm}"):
                replays[arm] = replay(recipe, market.candles, timeline, span)
        with clock.phase("report"):
            result = _result(recipe, market, span, arms, replays, clock, folder)
            write_outputs(result, folder)
        log.info("run finished in %.1f s", clock.total())
    return result


def _train_arms(
    recipe: Recipe,
    tables: list[SessionTable],
    span: Span,
    cache: Path | None,
    clock: PhaseClock,
) -> dict[str, BundleTimeline]:
    """The timeline that trades and, where asked for, the one without macro."""
    arms = {"with macro" if recipe.macro.enabled else "without macro": recipe.macro.enabled}
    if recipe.macro.enabled and recipe.compare_without_macro:
        arms["without macro"] = False
    timelines = {}
    for arm, use_macro in arms.items():
        with clock.phase(f"training {arm}") as report:
            timelines[arm] = walk_forward(
                tables,
                span.start_ms,
                span.end_ms,
                learn_settings(recipe, use_macro),
                recipe.seed,
                cache,
                report,
            )
    return timelines


class PhaseClock:
    """Seconds of each phase, passed on to the progress callback. Lives for one run."""

    def __init__(self, progress: PhaseProgress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """Time a phase; yields a (done, total, text) callback for what happens inside."""
        began = time.perf_counter()
        self._progress(name, 0, 1, "")
        log.info("phase %s begins", name)
        yield lambda done, total, text: self._progress(name, done, total, text)
        self.seconds[name] = time.perf_counter() - began
        self._progress(name, 1, 1, "done")
        log.info("phase %s took %.2f s", name, self.seconds[name])

    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


def _result(
    recipe: Recipe,
    market: Market,
    span: Span,
    arms: dict[str, BundleTimeline],
    replays: dict[str, Replay],
    clock: PhaseClock,
    folder: Path,
) -> RunResult:
    """Judge the replays and gather what goes into the results folder."""
    main, timeline = next(iter(replays)), next(iter(arms.values()))
    traded = _tables(replays[main].strategy, span)
    other = replays.get("without macro") if main != "without macro" else None
    bare = _tables(other.strategy, span) if other is not None else {}
    benchmark = measure.buy_and_hold(
        traded["signals"][["symbol", "close_time_ms", "close"]],
        recipe.broker.cash,
        recipe.broker.fee_bps,
        recipe.broker.slippage_bps,
    )
    metrics = measure.run_metrics(
        traded["signals"],
        traded["fills"],
        traded["trades"],
        traded["equity"],
        benchmark,
        horizon=recipe.label.horizon,
        interval_ms=recipe.interval_ms,
        fee_bps=recipe.broker.fee_bps,
        slippage_bps=recipe.broker.slippage_bps,
        label_threshold_bps=recipe.label.threshold_bps,
        seed=recipe.seed,
        equity_without_macro=bare.get("equity"),
        fills_without_macro=bare.get("fills"),
        trades_without_macro=bare.get("trades"),
    )
    metrics["speed"] = _speed(timeline, replays[main], clock)
    data_hash = timeline.bundles[-1].info.data_fingerprint
    metrics["statistics"] = _count_trial(recipe, traded["equity"], data_hash, folder)
    return RunResult(
        recipe=recipe.to_plain(),
        manifest=_manifest(recipe, arms, data_hash, metrics, clock),
        metrics=metrics,
        **traded,
        benchmark_equity=benchmark,
        equity_without_macro=bare["equity"][["close_time_ms", "equity"]] if bare else None,
        gaps=_gaps(market, span, timeline, recipe),
        bundles=_bundle_rows(timeline, span),
        embeddings=_embeddings(replays[main].strategy, span),
        planted=_planted_facts(recipe, market, span, replays),
    )


def _tables(strategy: MacroMicroStrategy, span: Span) -> dict[str, pd.DataFrame]:
    """The strategy's tables inside the traded span (bars that close in it)."""

    def inside(table: pd.DataFrame, column: str) -> pd.DataFrame:
        kept = (table[column] >= span.start_ms) & (table[column] <= span.end_ms)
        return table[kept].reset_index(drop=True)

    return {
        "signals": inside(strategy.signals, "close_time_ms"),
        "fills": inside(strategy.fills, "executed_ms"),
        "trades": inside(strategy.trades, "entry_ms"),
        "equity": inside(strategy.equity, "close_time_ms"),
    }


def _speed(timeline: BundleTimeline, passed: Replay, clock: PhaseClock) -> dict[str, Any]:
    """Seconds and rates of the run."""
    rollovers = [s for book in passed.strategy.books for s in book.score.macro.rollover_s]
    latency = micro_latency_s(timeline.bundles[-1])
    return {
        "bars_per_second": passed.bars / passed.seconds,
        "backtest_s": passed.seconds,
        "micronet_p50_us": 1e6 * float(np.median(latency)),
        "micronet_p99_us": 1e6 * float(np.quantile(latency, 0.99)),
        "macronet_s_a_day": float(np.mean(rollovers)) if rollovers else None,
        "training_s": sum(s for name, s in clock.seconds.items() if name.startswith("training")),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def micro_latency_s(bundle: Bundle, rows: int = 500) -> list[float]:
    """Seconds of MicroNet's streaming path for one candle, scaled row to scores, `rows` times."""
    stream = MicroStream(bundle.micro)
    noise = np.random.default_rng(0).normal(size=(rows, bundle.info.micro.n_features))
    seconds = []
    for row in noise.astype(np.float32):
        began = time.perf_counter()
        stream.scores(stream.advance(row))
        seconds.append(time.perf_counter() - began)
    return seconds


def _count_trial(
    recipe: Recipe, equity: pd.DataFrame, data_hash: str, folder: Path
) -> dict[str, Any]:
    """Append the run to the ledger beside its folder and judge its Sharpe ratio by all trials."""
    from cppncripto_strategy.evaluation.trials import daily_sharpe

    daily = measure.daily_returns(equity)
    ledger = TrialLedger(folder.parent)
    trial = Trial(
        fingerprint=fingerprint(recipe.to_plain(), recipe.seed, data_hash),
        kind="run",
        name=recipe.name,
        seed=recipe.seed,
        daily_sharpe=daily_sharpe(daily),
        days=len(daily),
        folder=folder.name,
    )
    ledger.append(trial)
    return discounted_sharpe(daily, ledger)


def _manifest(
    recipe: Recipe,
    arms: dict[str, BundleTimeline],
    data_hash: str,
    metrics: dict[str, Any],
    clock: PhaseClock,
) -> dict[str, Any]:
    """What the run was made of."""
    plain = json.dumps(recipe.to_plain(), sort_keys=True).encode()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("cppncripto-strategy"),
        "commit": _commit(),
        "python": platform.python_version(),
        "seed": recipe.seed,
        "recipe_sha256": hashlib.sha256(plain).hexdigest(),
        "candles_sha256": data_hash,
        "trials": metrics["statistics"].get("trials"),
        "versions": {name: version(name) for name in VERSIONED},
        "bundle_hashes": {
            arm: [bundle.model_hash for bundle in timeline.bundles]
            for arm, timeline in arms.items()
        },
        "seconds": {name: round(value, 3) for name, value in clock.seconds.items()},
    }


def _commit() -> str | None:
    """Commit of the source tree, where it is one."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _gaps(
    market: Market, span: Span, timeline: BundleTimeline, recipe: Recipe
) -> list[dict[str, Any]]:
    """Gaps in everything trained on or traded."""
    start = min(bundle.info.trained_from_ms for bundle in timeline.bundles)
    found = []
    for symbol, candles in market.candles.items():
        first = max(start, int(candles.open_time[0]))
        for gap in gaps(candles.open_time, recipe.interval_ms, Span(first, span.end_ms)):
            count = (gap.end_ms - gap.start_ms) // recipe.interval_ms
            found.append(
                {
                    "symbol": symbol,
                    "start_ms": gap.start_ms,
                    "end_ms": gap.end_ms,
                    "candles": count,
                }
            )
    return found


def _bundle_rows(timeline: BundleTimeline, span: Span) -> list[dict[str, Any]]:
    """The timeline of bundles as rows."""
    until = [bundle.info.trained_until_ms for bundle in timeline.bundles]
    return [
        {
            "hash": bundle.model_hash,
            "trained_from_ms": bundle.info.trained_from_ms,
            "trained_until_ms": start,
            "valid_from_ms": max(start, span.start_ms),
            "valid_until_ms": end,
            "validation_loss": bundle.info.validation["loss"],
            "reason": bundle.info.reason,
        }
        for bundle, start, end in zip(
            timeline.bundles, until, [*until[1:], span.end_ms], strict=True
        )
    ]


def _embeddings(strategy: MacroMicroStrategy, span: Span) -> pd.DataFrame:
    """One row per symbol and day: when it is valid from, what it saw last, and the vector."""
    rows = []
    for book in strategy.books:
        for valid_from, data_end, digest, drift, vector in book.score.macro.embeddings():
            if span.start_ms <= valid_from <= span.end_ms:
                row = {
                    "symbol": book.data._name,
                    "valid_from_ms": valid_from,
                    "data_end_ms": data_end,
                    "model_hash": digest,
                    "drift": drift,
                }
                rows.append(row | {f"e{i}": float(v) for i, v in enumerate(vector)})
    columns = ["symbol", "valid_from_ms", "data_end_ms", "model_hash", "drift"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def _planted_facts(
    recipe: Recipe, market: Market, span: Span, replays: dict[str, Replay]
) -> dict[str, Any] | None:
    """What is planted, the ceiling, and what was reached; None for real candles."""
    if not market.planted:
        return None
    first = next(iter(market.planted.values())).settings
    days = recipe.macro.long_window * recipe.interval_ms // DAY_MS
    accuracy = planted.marker_filter_accuracy(first, days)
    window = recipe.micro.short_window
    costs = recipe.broker.fee_bps, recipe.broker.slippage_bps
    facts: dict[str, Any] = {
        "what": (
            f"a hidden regime, {first.tau_days:g} days long on average; setups whose answer"
            f" follows its sign for {first.horizon} candles"
        ),
        "hit at setups, ceiling (regime known)": _percent(planted.oracle_hit(first)),
        f"hit at setups, best from {days} days of markers": _percent(
            planted.macro_hit(first, accuracy)
        ),
        f"hit at setups, best from {window} candles without a clock": _percent(
            planted.micro_only_hit(first, window)
        ),
    }
    for arm, passed in replays.items():
        facts[f"hit at setups, reached {arm}"] = _hit_text(recipe, market, span, passed)
    net = planted.expected_trade_bps(first, 1.0, *costs)
    facts["net of an oracle's trade after fees"] = f"{net:.0f} bps"
    return facts


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _hit_text(recipe: Recipe, market: Market, span: Span, passed: Replay) -> str:
    """Hit ratio at setups over all symbols; of their 95 % intervals, the average."""
    hits, count, low, high = 0.0, 0, 0.0, 0.0
    for symbol, truth in market.planted.items():
        rows = passed.strategy.signals[passed.strategy.signals["symbol"] == symbol]
        close = truth.candles.open_time + recipe.interval_ms
        scores = np.full(len(close), np.nan)
        place = np.searchsorted(close, rows["close_time_ms"].to_numpy())
        scores[place] = rows["score"].to_numpy()
        try:
            one = planted.hit_at_setups(truth, scores, span.start_ms, span.end_ms)
        except ValueError:  # a span so short that no setup was scored in it
            continue
        hits, count = hits + one.hit * one.count, count + one.count
        low, high = low + one.low * one.count, high + one.high * one.count
    if not count:
        return "no setup was scored"
    return (
        f"{100 * hits / count:.1f} % ({100 * low / count:.1f} to {100 * high / count:.1f}),"
        f" {count} setups"
    )


def write_outputs(result: RunResult, folder: Path) -> None:
    """Tables, tearsheet, report and picture."""
    write_tearsheet(
        measure.daily_returns(result.equity),
        measure.daily_returns(result.benchmark_equity),
        folder / "tearsheet.html",
        title=f"{result.recipe['name']}: both networks",
    )
    write_report(result, folder / "report.html")
    save_picture(folder / "picture.png", result)
    write_results(result, folder)


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {
            "time": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(values)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Everything this package logs, into a JSON-lines file, while the run lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("cppncripto_strategy")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        name = "" if isinstance(error, CppnError) else f"{type(error).__name__}: "
        logger.error("run failed: %s%s", name, error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def results_folder(recipe_path: Path, shipped: bool, out: Path | None) -> Path:
    """`<runs>/<recipe>/<UTC stamp>`: beside the recipe, or under ./runs for a shipped one."""
    base = out or (Path("runs") if shipped else recipe_path.parent)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = base / recipe_path.stem / stamp
    number = 1
    while folder.exists():
        number += 1
        folder = base / recipe_path.stem / f"{stamp}-{number}"
    return folder
