"""From passes to results: metrics, manifest, trial, gaps, bundles, embeddings, planted facts.

Left out: the files of a results folder (`results`) and its pages (`reports`).
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.class_labels import class_table
from cppncripto_strategy.evaluation.metrics import verdict
from cppncripto_strategy.evaluation.returns import daily_returns
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, discounted_sharpe, fingerprint
from cppncripto_strategy.feeds import planted_hits
from cppncripto_strategy.feeds.candles import gaps
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.judgement import Tables, judge
from cppncripto_strategy.market import Market
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.scoring.micro_stream import MicroStream
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import Traded
from cppncripto_strategy.reports.picture import save_picture
from cppncripto_strategy.reports.report import write_report
from cppncripto_strategy.reports.tearsheet import write_tearsheet
from cppncripto_strategy.results import RunResult, write_results
from cppncripto_strategy.runlog import PhaseClock
from cppncripto_strategy.system import peak_memory_mb

VERSIONED = ("backtrader", "numpy", "pandas", "pyarrow", "quantstats", "safetensors", "torch")


def build_result(
    recipe: Recipe,
    market: Market,
    span: Span,
    arms: dict[str, BundleTimeline],
    passes: dict[str, Traded],
    clock: PhaseClock,
    folder: Path,
    other_rule: Traded | None = None,
) -> RunResult:
    """Judge the passes and gather what goes into the results folder.

    Parameters
    ----------
    other_rule : the first arm under the other rule of `strategy.evidence`, or None.
    """
    main, timeline = next(iter(passes)), next(iter(arms.values()))
    first = passes[main]
    traded = first.tables
    other = passes.get("without macro") if main != "without macro" else None
    bare = other.tables if other is not None else None
    beside = other_rule.tables if other_rule is not None else None
    # No name for the labels here: the judge lets go of them once it has read them.
    judged = judge(
        recipe, traded, bare, other_rule=beside, classes=class_table(recipe, market, span)
    )
    metrics = judged.metrics
    metrics["speed"] = _speed(timeline, first, clock)
    data_hash = timeline.bundles[-1].info.data_fingerprint
    metrics["statistics"] = _count_trial(recipe, traded["equity"], data_hash, folder)
    metrics["verdict"] = verdict(metrics, traded["fills"])  # once more, with all trials counted
    return RunResult(
        recipe=recipe.to_plain(),
        manifest=_manifest(recipe, arms, data_hash, metrics, clock),
        filters=[{"symbol": symbol, **known.to_plain()} for symbol, known in first.filters.items()],
        metrics=metrics,
        **traded,
        benchmark_equity=judged.benchmark,
        equity_without_macro=_curve(bare),
        equity_other_rule=_curve(beside),
        gaps=_gaps(market, span, timeline, recipe),
        bundles=bundle_rows(timeline.bundles, _valid_from(timeline, span), span.end_ms),
        embeddings=first.embeddings,
        planted=_planted_facts(recipe, market, span, passes),
    )


def _curve(tables: Tables | None) -> pd.DataFrame | None:
    return None if tables is None else tables["equity"][["close_time_ms", "equity"]]


def _speed(timeline: BundleTimeline, passed: Traded, clock: PhaseClock) -> dict[str, Any]:
    """Seconds and rates of the run."""
    rollovers = passed.rollover_s
    latency = micro_latency_s(timeline.bundles[-1])
    return {
        "bars_per_second": passed.bars / passed.seconds,
        "backtest_s": passed.seconds,
        "micronet_p50_us": 1e6 * float(np.median(latency)),
        "micronet_p99_us": 1e6 * float(np.quantile(latency, 0.99)),
        "macronet_s_a_day": float(np.mean(rollovers)) if rollovers else None,
        "training_s": sum(s for name, s in clock.seconds.items() if name.startswith("training")),
        "peak_memory_mb": peak_memory_mb(),
    }


def micro_latency_s(bundle: Bundle, rows: int = 500, symbols: int = 1) -> list[float]:
    """Seconds of MicroNet's streaming path for one candle, scaled row to scores, `rows` times.

    Where several symbols are scored together, each one's share.
    """
    stream, slots = MicroStream(bundle.micro, symbols), np.arange(symbols)
    noise = np.random.default_rng(0).normal(size=(rows, symbols, bundle.info.micro.n_features))
    seconds = []
    for number, row in enumerate(noise.astype(np.float32)):
        began = time.perf_counter()
        stream.scores(stream.advance(row, number, slots), slots)
        seconds.append((time.perf_counter() - began) / symbols)
    return seconds


def _count_trial(
    recipe: Recipe, equity: pd.DataFrame, data_hash: str, folder: Path
) -> dict[str, Any]:
    """Append the run to the ledger beside its folder and judge its Sharpe ratio by all trials."""
    daily = daily_returns(equity)
    ledger = TrialLedger(folder.parent)
    mark = fingerprint(recipe.to_plain(), recipe.seed, data_hash)
    trial = Trial.of(mark, "run", recipe.name, recipe.seed, daily, folder.name)
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
        "plugins": recipe.plugin_digests(),
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
    rows = []
    for symbol, candles in market.every.items():
        first = max(start, int(candles.open_time[0]))
        for gap in gaps(candles.open_time, recipe.interval_ms, Span(first, span.end_ms)):
            count = (gap.end_ms - gap.start_ms) // recipe.interval_ms
            rows.append(
                {
                    "symbol": symbol,
                    "start_ms": gap.start_ms,
                    "end_ms": gap.end_ms,
                    "candles": count,
                }
            )
    return rows


def _valid_from(timeline: BundleTimeline, span: Span) -> list[int]:
    """From when each bundle scored: from its retraining stamp, but not before the span."""
    return [max(bundle.info.trained_until_ms, span.start_ms) for bundle in timeline.bundles]


def bundle_rows(
    bundles: Sequence[Bundle], valid_from_ms: Sequence[int], end_ms: int | None
) -> list[dict[str, Any]]:
    """One row per bundle: what it was trained on, why, and when it was active.

    Parameters
    ----------
    valid_from_ms : from when each bundle scored, ascending, UTC ms.
    end_ms : until when the last one did; None where it is still active.
    """
    return [
        {
            "hash": bundle.model_hash,
            "trained_from_ms": bundle.info.trained_from_ms,
            "trained_until_ms": bundle.info.trained_until_ms,
            "valid_from_ms": start,
            "valid_until_ms": end,
            "validation_loss": bundle.info.validation["loss"],
            "reason": bundle.info.reason,
        }
        for bundle, start, end in zip(
            bundles, valid_from_ms, [*valid_from_ms[1:], end_ms], strict=True
        )
    ]


def _planted_facts(
    recipe: Recipe, market: Market, span: Span, passes: dict[str, Traded]
) -> dict[str, Any] | None:
    """What is planted, the ceiling, and what was reached; None for real candles."""
    if not market.planted:
        return None
    first = next(iter(market.planted.values())).settings
    days = recipe.macro.long_window * recipe.interval_ms // DAY_MS
    accuracy = planted_hits.marker_filter_accuracy(first, days)
    window = recipe.micro.short_window
    costs = recipe.broker.fee_bps, recipe.broker.slippage_bps
    facts: dict[str, Any] = {
        "what": (
            f"a hidden regime, {first.tau_days:g} days long on average; setups whose answer"
            f" follows its sign for {first.horizon} candles"
        ),
        "hit at setups, ceiling (regime known)": _percent(planted_hits.oracle_hit(first)),
        f"hit at setups, best from {days} days of markers": _percent(
            planted_hits.macro_hit(first, accuracy)
        ),
        f"hit at setups, best from {window} candles without a clock": _percent(
            planted_hits.micro_only_hit(first, window)
        ),
    }
    for arm, passed in passes.items():
        signals = passed.tables["signals"]
        facts[f"hit at setups, reached {arm}"] = _hit_text(recipe, market, span, signals)
    net = planted_hits.expected_trade_bps(first, 1.0, *costs)
    facts["net of an oracle's trade after fees"] = f"{net:.0f} bps"
    return facts


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _hit_text(recipe: Recipe, market: Market, span: Span, signals: pd.DataFrame) -> str:
    """Hit ratio at setups over all symbols; of their 95 % intervals, the average."""
    hits, count, low, high = 0.0, 0, 0.0, 0.0
    for symbol, truth in market.planted.items():
        rows = signals[signals["symbol"] == symbol]
        close = truth.candles.open_time + recipe.interval_ms
        scores = np.full(len(close), np.nan)
        index = np.searchsorted(close, rows["close_time_ms"].to_numpy())
        scores[index] = rows["score"].to_numpy()
        try:
            hit = planted_hits.hit_at_setups(truth, scores, span.start_ms, span.end_ms)
        except ValueError:  # a span so short that no setup was scored in it
            continue
        hits, count = hits + hit.hit * hit.count, count + hit.count
        low, high = low + hit.low * hit.count, high + hit.high * hit.count
    if not count:
        return "no setup was scored"
    return (
        f"{100 * hits / count:.1f} % ({100 * low / count:.1f} to {100 * high / count:.1f}),"
        f" {count} setups"
    )


def write_outputs(result: RunResult, folder: Path) -> None:
    """Tables, tearsheet, report and picture."""
    write_tearsheet(
        daily_returns(result.equity),
        daily_returns(result.benchmark_equity),
        folder / "tearsheet.html",
        title=f"{result.recipe['name']}: both networks",
    )
    write_report(result, folder / "report.html")
    save_picture(folder / "picture.png", result)
    write_results(result, folder)
