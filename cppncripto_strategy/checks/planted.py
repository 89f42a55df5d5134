"""Checks 7 and 8, and half of 4, on planted markets, where the answer is known.

7. null market: nothing can be predicted, so nothing may be.
8. ceiling: no hit ratio above what a perfect observer reaches.
4. embedding time-shift: an embedding shifted by 60 days or more must lose what macro gained.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.checks.hits import MIN_DECISIONS, hit_verdict, ratio_intervals
from cppncripto_strategy.checks.plan import CheckPlan, Report, affordable_training, part_of, silent
from cppncripto_strategy.evaluation.statistics import day_totals
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.feeds.planted_hits import ceiling_hit, oracle_hit
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.judging.leaks import TIME_SHIFT, LeakVerdict
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
from cppncripto_strategy.models.settings import LearnSettings

NULL = "null market"
CEILING = "ceiling"
SHIFT_CONFIDENCE = 0.99
SHIFT_DAYS = 60
# Days scored after the training.
SCORED_DAYS = 240


def null_market(plan: CheckPlan, report: Report = silent) -> list[LeakVerdict]:
    """Train and score on a planted market without any drift."""
    study = plant_and_learn(plan, 0.0, report)
    lines = study.score, study.ahead, study.close_ms
    subject = "hit ratio on a market where nothing can be predicted"
    return [hit_verdict(NULL, subject, *lines, 0.5, plan.seed)]


def planted_market(plan: CheckPlan, report: Report = silent) -> list[LeakVerdict]:
    """Train and score on the planted market: nothing above its ceilings, no gain when shifted."""
    study = plant_and_learn(plan, PlantedSettings().mu, report)
    settings, setup = study.market.settings, study.market.setup
    at_setups = np.where(setup, study.score, np.nan)
    everywhere = hit_verdict(
        CEILING,
        "planted market, every candle",
        study.score,
        study.ahead,
        study.close_ms,
        ceiling_hit(settings),
        plan.seed,
    )
    verdicts = [shift_verdict(study, plan.seed), everywhere]
    if np.count_nonzero(~np.isnan(at_setups)) >= MIN_DECISIONS:
        verdicts.append(
            hit_verdict(
                CEILING,
                "planted market, at setups",
                at_setups,
                study.ahead,
                study.close_ms,
                oracle_hit(settings),
                plan.seed,
            )
        )
    return verdicts


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A planted market, a network trained on its past, and its scores of the rest.

    Parameters
    ----------
    market : the planted market of N candles.
    score, score_zero, ahead : float64 arrays (N,): score, score under a zero embedding, and log
        return over the planted horizon; NaN where undefined or before the scored span.
    shifted : float64 array (K, N), scores under embeddings shifted by `SHIFT_DAYS` or more.
    close_ms : int64 array (N,).
    """

    market: PlantedMarket
    score: FloatArray
    score_zero: FloatArray
    shifted: FloatArray
    ahead: FloatArray
    close_ms: IntArray


def shift_verdict(study: Study, seed: int) -> LeakVerdict:
    """Does an embedding of other days help as if it were this day's?

    At setups, the hit ratio under embeddings shifted by 60 days and more is compared with that
    under a zero embedding. It fails when the whole 99 % interval of the difference is above 0: what
    the embedding brings then is not knowledge of its days. Blocks are as long as a regime stays.
    """
    subject = "gain of shifted embeddings on the planted market"
    counted = study.market.setup & np.isfinite(study.ahead) & np.isfinite(study.score)
    counted &= np.isfinite(study.shifted).all(axis=0)
    truth = np.sign(study.ahead[counted])
    zero = np.sign(study.score_zero[counted]) == truth
    own = np.sign(study.score[counted]) == truth
    shifted = (np.sign(study.shifted[:, counted]) == truth).mean(axis=0)
    columns = np.stack([own - zero.astype(float), shifted - zero, np.ones(len(truth))], axis=1)
    totals = day_totals(study.close_ms[counted], columns)
    if len(truth) < MIN_DECISIONS:
        detail = f"{subject}: only {len(truth)} setups scored, too few to judge"
        return LeakVerdict(TIME_SHIFT, False, detail, subject=subject)
    tau = study.market.settings.tau_days
    gain, low, high = ratio_intervals(totals, seed, SHIFT_CONFIDENCE, tau)
    detail = (
        f"{subject}: {100 * gain[1]:+.1f} points of hit ratio at {len(truth):,} setups"
        f" (99 % interval {100 * low[1]:+.1f} to {100 * high[1]:+.1f}), at most 0 is honest;"
        f" with the right days {100 * gain[0]:+.1f}"
    )
    leaks = bool(low[1] > 0)
    when = int(study.close_ms[counted].min()) if leaks else None
    return LeakVerdict(
        TIME_SHIFT, not leaks, detail, when, float(gain[1]) if leaks else None, subject
    )


def plant_and_learn(plan: CheckPlan, mu: float, report: Report = silent) -> Study:
    """Plant a market whose responses last as long as the recipe's labels, train, and score."""
    learn = affordable_training(plan.learn)
    market = generate(planted_settings(plan, learn, mu))
    grid = CandleGrid.from_candles(market.candles, market.settings.interval_ms)
    if learn.session.reads_market:  # one that knows nothing of the planted answer
        beside = dataclasses.replace(market.settings, seed=market.settings.seed + 1, mu=0.0)
        grid = grid.with_market(generate(beside).candles)
    table = build_sessions("PLANTED", grid, learn.session)
    stamp = grid.end_ms // DAY_MS * DAY_MS - SCORED_DAYS * DAY_MS
    bundle = learn_bundle([table], stamp, learn, plan.seed, progress=part_of(report))
    timeline = BundleTimeline((bundle,))
    states = embed_sessions(table, timeline)
    scored = score_sessions(table, timeline, states)
    inside = np.flatnonzero(states.source >= 0)
    shifted = []
    for days in _shifts(len(inside)):
        embedding = states.embedding.copy()
        embedding[inside] = np.roll(states.embedding[inside], days, axis=0)
        other = dataclasses.replace(states, embedding=embedding)
        shifted.append(score_sessions(table, timeline, other).score)
    h, log_close = market.settings.horizon, np.log(grid.close)
    ahead = np.full(len(grid), np.nan)
    ahead[:-h] = log_close[h:] - log_close[:-h]
    return Study(market, scored.score, scored.score_zero, np.array(shifted), ahead, grid.close_time)


def _shifts(sessions: int) -> list[int]:
    """Up to four shifts in days that part every session from its own by `SHIFT_DAYS`, both ways."""
    farthest = max(SHIFT_DAYS, sessions - SHIFT_DAYS)
    return sorted({int(days) for days in np.linspace(SHIFT_DAYS, farthest, 4)})


def planted_settings(plan: CheckPlan, learn: LearnSettings, mu: float) -> PlantedSettings:
    """A market for this recipe: its interval, its horizon, and moves that its labels call moves."""
    label, session = learn.label, learn.session
    sigma = float(np.clip(1e-4 * label.make().move_bps() / math.sqrt(label.horizon), 5e-4, 1e-2))
    warmup_days = -(-session.warmup // session.day_candles) + 1
    days = warmup_days + learn.train_days + learn.validate_days + SCORED_DAYS
    return PlantedSettings(
        days=days,
        interval=plan.interval,
        seed=plan.seed,
        mu=mu,
        horizon=label.horizon,
        sigma=sigma,
    )
