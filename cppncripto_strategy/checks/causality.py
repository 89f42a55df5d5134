"""Checks 1 to 4 of the models: cutting off or changing the future changes nothing in the past.

Features, session scalers, embeddings, scores and thresholds are compared candle by candle, across a
change of bundles; training must not move by a single weight when other candles follow its last one.
What Backtrader trades on them is compared in `orders`, its evidence in `evidence`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.checks.evidence import evidence_verdicts
from cppncripto_strategy.checks.orders import SCORE_TOLERANCE, order_verdicts
from cppncripto_strategy.checks.plan import (
    CheckPlan,
    Report,
    brief_training,
    part_of,
    silent,
    training_stamp,
)
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.judging.leaks import (
    PERTURBATION,
    LeakVerdict,
    check_embeddings,
    check_perturbation,
    check_prefix,
    check_start_invariance,
    hold_sessions,
    mid_session_cuts,
    perturb_from,
)
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import GRACE_SESSIONS, embed_sessions, score_sessions
from cppncripto_strategy.models.scoring.threshold import ScoreThreshold, ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings

EMBEDDING_TOLERANCE = 1e-4
# Days scored by each of the two bundles that the causal checks cross between.
_BUNDLE_DAYS = 4


def causal(plan: CheckPlan, report: Report = silent) -> list[LeakVerdict]:
    """Prefix, perturbation, start-invariance and time-shift of every symbol, and of training; and
    whether evidence peeks."""
    parts = len(plan.grids) + 2
    learn = brief_training(plan.learn)
    stamp = training_stamp(plan, learn, 2 * _BUNDLE_DAYS)
    tables = [build_sessions(name, grid, learn.session) for name, grid in plan.grids.items()]
    first = learn_bundle(tables, stamp, learn, plan.seed, progress=part_of(report, 0, parts))
    second = learn_bundle(tables, stamp + _BUNDLE_DAYS * DAY_MS, learn, plan.seed, first)
    timeline = BundleTimeline((first, second))
    report(1 / parts, "training again after another future")
    verdicts = [training_verdict(plan, learn, stamp, first.model_hash)]
    spans = {name: causal_span(grid, learn, stamp) for name, grid in plan.grids.items()}
    for number, (symbol, span) in enumerate(spans.items()):
        report((2 + number) / parts, symbol)
        verdicts += causal_verdicts(symbol, span, timeline, plan.threshold, plan.seed)
    if plan.trade is not None:
        report(1.0, "orders")
        verdicts += order_verdicts(plan.trade, spans, timeline, plan.seed)
    if plan.weigh is not None:
        report(1.0, "evidence")
        verdicts += evidence_verdicts(plan.weigh, spans, timeline, plan.seed)
    return verdicts


def causal_verdicts(
    symbol: str,
    grid: CandleGrid,
    timeline: BundleTimeline,
    threshold: ThresholdSettings,
    seed: int = 0,
) -> list[LeakVerdict]:
    """The four exact checks of one symbol's pipeline under a timeline of bundles.

    `grid` should begin in mid-session at least `warmup` rows before the first scored session, and
    hold some scored sessions. Thresholds are left out of start-invariance: their history and their
    controller are meant to be long.
    """
    settings = timeline.session
    names, tolerance = pipeline_columns(timeline)
    scored_from = max(0, grid.row_of(timeline.first_session_ms))
    cuts = mid_session_cuts(grid, 4, first_row=scored_from)
    threshold_free = len(names) - 2
    memory = settings.warmup + (1 + GRACE_SESSIONS) * settings.day_candles

    def outputs(candles: CandleGrid) -> FloatArray:
        return pipeline_outputs(symbol, candles, timeline, threshold)

    def embeddings(candles: CandleGrid) -> tuple[IntArray, NDArray[np.float32]]:
        table = build_sessions(symbol, candles, settings)
        states = embed_sessions(table, timeline)
        kept = states.source >= 0
        return table.start_ms[kept], states.embedding[kept]

    return [
        check_prefix(symbol, outputs, grid, cuts, tolerance, names),
        check_perturbation(symbol, outputs, grid, cuts, seed, tolerance, names=names),
        check_start_invariance(
            symbol,
            lambda candles: outputs(candles)[:, :threshold_free],
            grid,
            memory,
            tolerance=tolerance[:threshold_free],
            names=names,
        ),
        check_embeddings(f"{symbol} embedding", embeddings, grid, 3, EMBEDDING_TOLERANCE),
    ]


def pipeline_columns(timeline: BundleTimeline) -> tuple[list[str], FloatArray]:
    """Names (K) and absolute tolerances, float64 (K,), of the columns of `pipeline_outputs`."""
    settings = timeline.session
    scaled = len(settings.table.scaled)
    names = list(settings.names)
    names += [f"scaler center {i}" for i in range(scaled)]
    names += [f"scaler scale {i}" for i in range(scaled)]
    names += [f"term {i} of {', '.join(settings.terms)}" for i in range(len(settings.term_signs))]
    exact = len(names)
    size = timeline.bundles[0].micro.settings.n_context
    names += [f"embedding {i}" for i in range(size)]
    names += ["score", "p_buy", "p_sell", "score_zero", "drift", "age_ms", "upper", "lower"]
    tolerance = np.full(len(names), SCORE_TOLERANCE)
    tolerance[:exact] = 0.0
    tolerance[exact : exact + size] = EMBEDDING_TOLERANCE
    tolerance[names.index("drift")] = EMBEDDING_TOLERANCE
    return names, tolerance


def pipeline_outputs(
    symbol: str, grid: CandleGrid, timeline: BundleTimeline, threshold: ThresholdSettings
) -> FloatArray:
    """What the pipeline produces at each candle's close, float64 (T, K); see `pipeline_columns`.

    NaN where it produces nothing: before the warm-up, at missing candles, without a bundle.
    """
    table = build_sessions(symbol, grid, timeline.session)
    states = embed_sessions(table, timeline)
    scored = score_sessions(table, timeline, states)
    embedding = np.where((states.source >= 0)[:, None], states.embedding, np.nan)
    held = [table.center, table.scale, table.terms, embedding]
    sessions = np.concatenate(held, axis=1)  # (D, ...)
    lines = [
        scored.score,
        scored.p_buy,
        scored.p_sell,
        scored.score_zero,
        scored.drift,
        scored.age_ms,
        *thresholds(scored.score, grid.close_time, timeline, threshold),
    ]
    return np.concatenate(
        [
            table.features[: len(grid)],
            hold_sessions(grid, table.start_ms, sessions),
            np.stack(lines, axis=1),
        ],
        axis=1,
    )


def thresholds(
    score: FloatArray, close_time: IntArray, timeline: BundleTimeline, settings: ThresholdSettings
) -> FloatArray:
    """Upper and lower thresholds (2, T), seeded anew where a bundle becomes active."""
    state, seeds = ScoreThreshold(settings), list(timeline.bundles)
    pairs = np.full((len(score), 2), np.nan)
    for row, (value, close_ms) in enumerate(zip(score.tolist(), close_time.tolist(), strict=True)):
        while seeds and close_ms >= seeds[0].info.trained_until_ms:
            state.seed(seeds.pop(0).score_seed)
        pairs[row] = state.update(value, close_ms)
    return pairs.T


def training_verdict(
    plan: CheckPlan, learn: LearnSettings, stamp: int, model_hash: str
) -> LeakVerdict:
    """Train again with another market from the stamp on: the weights must be the same."""
    other = {
        name: perturb_from(grid, grid.row_of(stamp), plan.seed + 1)
        for name, grid in plan.grids.items()
    }
    tables = [build_sessions(name, grid, learn.session) for name, grid in other.items()]
    again = learn_bundle(tables, stamp, learn, plan.seed).model_hash
    if again == model_hash:
        words = f"training: the same bundle {again} when other candles follow its last one"
        return LeakVerdict(PERTURBATION, True, words, subject="training")
    words = f"training: bundle {model_hash} becomes {again} when other candles follow its last one"
    return LeakVerdict(PERTURBATION, False, words, stamp, subject="training")


def causal_span(grid: CandleGrid, learn: LearnSettings, stamp: int) -> CandleGrid:
    """Rows around the bundles' sessions, beginning in the middle of a day."""
    session = learn.session
    # Four days before what is needed, for late starts to compare; 0.7 to begin in mid-session.
    before = session.warmup + int(4.7 * session.day_candles)
    row = grid.row_of(stamp)
    return grid.rows(max(0, row - before), row + 2 * _BUNDLE_DAYS * session.day_candles)
