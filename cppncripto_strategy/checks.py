"""The seven leak checks of a recipe: does anything in this pipeline know the future?

On the recipe's own candles, with networks trained briefly for the purpose (a leak in the plumbing
does not need a good network to show):

1. prefix, 2. perturbation, 3. start-invariance of features, session scalers, embeddings, scores and
   thresholds, across a change of bundles; of what Backtrader trades on them (1 and 2); and of
   training itself: candles after `trained_until` must not move a single weight (2).
4. embedding time-shift: no embedding sees its own day; and on the planted market an embedding
   shifted by 60 days or more must lose what macro gained.
5. shuffled labels: a network that learned nonsense must not foretell that nonsense.

On planted markets, where the answer is known:

6. null market: nothing can be foretold, so nothing may be.
7. ceiling: no hit ratio above what a perfect observer reaches.

Checks 1 to 4 compare numbers and are exact up to rounding. Checks 5 to 7 are statistical: they fail
when a 99.9 % day-block interval (99 % for shifted embeddings) lies wholly above what is possible.
So an honest pipeline rarely fails, and a leak worth a point of hit ratio may pass.

Left out: whether the strategy earns; that is what the backtest reports.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.statistics import MIN_BOOTSTRAP_DAYS, bootstrap_days, day_totals
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_utc
from cppncripto_strategy.feeds.planted import (
    PlantedMarket,
    PlantedSettings,
    ceiling_hit,
    generate,
    oracle_hit,
)
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.judging.leaks import (
    PERTURBATION,
    PREFIX,
    START_INVARIANCE,
    TIME_SHIFT,
    LeakVerdict,
    check_embeddings,
    check_perturbation,
    check_prefix,
    check_start_invariance,
    hold_sessions,
    mid_session_cuts,
    perturb_from,
)
from cppncripto_strategy.models.labels import Labels
from cppncripto_strategy.models.learning.walkforward import (
    LabelSettings,
    LearnSettings,
    calendar,
    learn_bundle,
)
from cppncripto_strategy.models.scoring.batch import GRACE_SESSIONS, embed_sessions, score_sessions
from cppncripto_strategy.models.scoring.threshold import ScoreThreshold, ThresholdSettings
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe

SHUFFLED = "shuffled labels"
NULL = "null market"
CEILING = "ceiling"
CHECKS = (PREFIX, PERTURBATION, START_INVARIANCE, TIME_SHIFT, SHUFFLED, NULL, CEILING)

Trade = Callable[
    [Mapping[str, CandleGrid], BundleTimeline, Span], tuple[pd.DataFrame, pd.DataFrame]
]
"""Trades a span of candles under a timeline: the tables of signals and of fills."""
Report = Callable[[float, str], None]
"""Told the share of a check that is done, in [0, 1], and what is going on."""

HIT_CONFIDENCE = 0.999
SHIFT_CONFIDENCE = 0.99
# Batches of another shape round differently in single precision; a leak is far larger.
SCORE_TOLERANCE = 1e-5
EMBEDDING_TOLERANCE = 1e-4
SHIFT_DAYS = 60
_MIN_DECISIONS = 300
# Days scored by each of the two bundles that the causal checks cross between.
_BUNDLE_DAYS = 4
_SHUFFLE_SCORED_DAYS = 60
_PLANTED_SCORED_DAYS = 240


@dataclass(frozen=True, slots=True, eq=False)
class CheckPlan:
    """What is checked.

    Parameters
    ----------
    interval : of the candles, such as "5m".
    grids : symbol -> its candles, history for training included.
    learn : how the recipe learns.
    threshold : how its scores become signals.
    start_ms : where the recipe starts to trade, UTC milliseconds.
    seed : of training, perturbations, shuffles and planted markets.
    trade : trades candles as the recipe does; None leaves orders unchecked.
    """

    interval: str
    grids: Mapping[str, CandleGrid]
    learn: LearnSettings
    threshold: ThresholdSettings
    start_ms: int
    seed: int = 0
    trade: Trade | None = None


def plan_of(recipe: Recipe) -> CheckPlan:
    """The plan that checks a recipe: its candles, networks, thresholds and orders.

    Raises
    ------
    CppnError
        When the recipe's candles cannot be read, or leave nothing to trade after training.
    """
    from cppncripto_strategy.market import learn_settings, load_market, session_tables, traded_span
    from cppncripto_strategy.replay import replay

    market = load_market(recipe)
    learn = learn_settings(recipe, recipe.macro.enabled)

    def trade(
        grids: Mapping[str, CandleGrid], timeline: BundleTimeline, span: Span
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        candles = {name: candles_of(grid) for name, grid in grids.items()}
        strategy = replay(recipe, candles, timeline, span).strategy
        return strategy.signals, strategy.fills

    return CheckPlan(
        interval=recipe.interval,
        grids={table.symbol: table.grid for table in session_tables(market, learn.session)},
        learn=learn,
        threshold=ThresholdSettings(**recipe.threshold.model_dump()),
        start_ms=traded_span(recipe, market).start_ms,
        seed=recipe.seed,
        trade=trade,
    )


def candles_of(grid: CandleGrid) -> Candles:
    """The candles that a grid holds."""
    there = grid.present
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    columns = {name: getattr(grid, name)[there] for name in names}
    return Candles.from_columns(open_time=grid.open_time[there], **columns)


def _silent(share: float, text: str) -> None:
    """Report nothing."""


def run_checks(
    plan: CheckPlan, only: Iterable[str] = CHECKS, progress: Progress | None = None
) -> list[LeakVerdict]:
    """Run the checks, in the order of `CHECKS`; a check may give several verdicts.

    Parameters
    ----------
    only : names of the checks to run, of `CHECKS`.
    progress : called with (done, total, text).

    Raises
    ------
    RecipeError
        When a name is not that of a check.
    TrainingError
        When the candles are too few to train the networks that the checks need.
    """
    wanted = tuple(only)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        raise RecipeError(f"no such check: {unknown}; there are: {', '.join(CHECKS)}")
    steps = [step for step in _STEPS if set(step[0]) & set(wanted)]
    verdicts: list[LeakVerdict] = []
    for number, (_, text, check) in enumerate(steps):

        def report(share: float, detail: str, number: int = number, text: str = text) -> None:
            if progress is not None:
                done = round(1000 * (number + min(share, 1.0)))
                progress(done, 1000 * len(steps), f"{text}: {detail}")

        verdicts += check(plan, report)
    if progress is not None:
        progress(1000 * len(steps), 1000 * len(steps), "done")
    return sorted(
        (verdict for verdict in verdicts if verdict.name in wanted),
        key=lambda verdict: CHECKS.index(verdict.name),
    )


# --- 1 to 4: causality on the recipe's own candles ----------------------------------------------


def causal(plan: CheckPlan, report: Report = _silent) -> list[LeakVerdict]:
    """Prefix, perturbation, start-invariance and time-shift of every symbol, and of training."""
    parts = len(plan.grids) + 2
    learn = _brief(plan.learn)
    stamp = _stamp(plan, learn, 2 * _BUNDLE_DAYS)
    tables = [build_sessions(name, grid, learn.session) for name, grid in plan.grids.items()]
    first = learn_bundle(tables, stamp, learn, plan.seed, progress=_part(report, 0, parts))
    second = learn_bundle(tables, stamp + _BUNDLE_DAYS * DAY_MS, learn, plan.seed, first)
    timeline = BundleTimeline((first, second))
    report(1 / parts, "training again after another future")
    verdicts = [training_verdict(plan, learn, stamp, first.model_hash)]
    spans = {name: _causal_span(grid, learn, stamp) for name, grid in plan.grids.items()}
    for number, (symbol, span) in enumerate(spans.items()):
        report((2 + number) / parts, symbol)
        verdicts += causal_verdicts(symbol, span, timeline, plan.threshold, plan.seed)
    if plan.trade is not None:
        report(1.0, "orders")
        verdicts += order_verdicts(plan.trade, spans, timeline, plan.seed)
    return verdicts


def order_verdicts(
    trade: Trade, grids: Mapping[str, CandleGrid], timeline: BundleTimeline, seed: int = 0
) -> list[LeakVerdict]:
    """Prefix and perturbation of what Backtrader makes of the candles: decisions and fills.

    For each of two mid-session cuts the recipe is traded on the candles before it, and on those
    candles followed by another market. Scores and thresholds of bars that close by the cut, and the
    fills on them, must be those of a run over all candles; fills to the last digit.
    """
    first, start_ms = next(iter(grids.values())), timeline.first_session_ms
    end_ms = max(grid.end_ms for grid in grids.values())
    whole = trade(grids, timeline, Span(start_ms, end_ms))
    words: dict[str, _Difference | None] = {PREFIX: None, PERTURBATION: None}
    compared = 0
    for number, row in enumerate(mid_session_cuts(first, 2, first_row=first.row_of(start_ms) + 1)):
        cut_ms = first.start_ms + row * first.interval_ms
        known = _known_by(whole, cut_ms)
        compared += sum(len(table) for table in known)
        until_cut = {name: grid.rows(0, grid.row_of(cut_ms)) for name, grid in grids.items()}
        perturbed = {
            name: perturb_from(grid, grid.row_of(cut_ms), seed + number)
            for name, grid in grids.items()
        }
        for name, candles, until in (
            (PREFIX, until_cut, cut_ms),
            (PERTURBATION, perturbed, end_ms),
        ):
            again = _known_by(trade(candles, timeline, Span(start_ms, until)), cut_ms)
            words[name] = words[name] or _first_difference(known, again)
    return [_order_verdict(name, found, compared) for name, found in words.items()]


_Difference = tuple[str, int, float]
_DECISION = ["close_time_ms", "symbol", "score", "score_zero", "upper", "lower"]
_FILL = ["executed_ms", "symbol", "quantity", "price", "notional", "fee"]


def _known_by(
    tables: tuple[pd.DataFrame, pd.DataFrame], cut_ms: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scored decisions and filled orders by the cut, each in order of time and symbol."""
    signals, fills = tables
    scored = signals[signals["score"].notna() & (signals["close_time_ms"] <= cut_ms)][_DECISION]
    if len(fills) == 0:
        return scored.sort_values(_DECISION[:2]), pd.DataFrame(columns=_FILL)
    filled = fills[(fills["status"] == "filled") & (fills["executed_ms"] <= cut_ms)][_FILL]
    return scored.sort_values(_DECISION[:2]), filled.sort_values(_FILL[:2], kind="stable")


def _first_difference(
    known: tuple[pd.DataFrame, pd.DataFrame], again: tuple[pd.DataFrame, pd.DataFrame]
) -> _Difference | None:
    """Words, time and value of the first decision or fill that differs; None when none does."""
    for whole, other, tolerance in zip(known, again, (SCORE_TOLERANCE, 0.0), strict=True):
        for mine, theirs in zip_longest(_rows(whole), _rows(other)):
            place = _unlike(mine, theirs, tolerance)
            if place is not None:
                return _words(whole.columns[place], place, mine, theirs)
    return None


_Row = tuple[Any, ...]


def _rows(table: pd.DataFrame) -> Iterator[_Row]:
    return iter(table.itertuples(index=False, name=None))


def _words(column: str, place: int, mine: _Row | None, theirs: _Row | None) -> _Difference:
    """What differs, when, and the value of the run that knew the future (NaN for no row)."""
    when, symbol = (mine or theirs or (0, ""))[:2]
    texts = ["absent" if row is None else f"{row[place]:.9g}" for row in (mine, theirs)]
    words = f"{symbol} {column} at {ms_to_utc(int(when))} is {texts[0]} with the future"
    value = math.nan if mine is None else float(mine[place])
    return f"{words}, {texts[1]} without", int(when), value


def _unlike(mine: _Row | None, theirs: _Row | None, tolerance: float) -> int | None:
    """The column in which two rows differ (the first value's, for another bar or none)."""
    if mine is None or theirs is None or mine[:2] != theirs[:2]:
        return 2
    for place in range(2, len(mine)):
        a, b = mine[place], theirs[place]
        if not (a == b or abs(a - b) <= tolerance or (math.isnan(a) and math.isnan(b))):
            return place
    return None


def _order_verdict(name: str, found: _Difference | None, compared: int) -> LeakVerdict:
    if found is not None:
        return LeakVerdict(name, False, f"orders: {found[0]}", *found[1:], subject="orders")
    if compared == 0:
        detail = "orders: nothing was decided or filled before the cuts; give more candles"
        return LeakVerdict(name, False, detail, subject="orders")
    detail = f"orders: {compared:,} decisions and fills unchanged"
    return LeakVerdict(name, True, detail, subject="orders")


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

    def outputs(given: CandleGrid) -> FloatArray:
        return pipeline_outputs(symbol, given, timeline, threshold)

    def embeddings(given: CandleGrid) -> tuple[IntArray, NDArray[np.float32]]:
        table = build_sessions(symbol, given, settings)
        states = embed_sessions(table, timeline)
        kept = states.source >= 0
        return table.start_ms[kept], states.embedding[kept]

    return [
        check_prefix(symbol, outputs, grid, cuts, tolerance, names),
        check_perturbation(symbol, outputs, grid, cuts, seed, tolerance, names=names),
        check_start_invariance(
            symbol,
            lambda given: outputs(given)[:, :threshold_free],
            grid,
            memory,
            tolerance=tolerance[:threshold_free],
            names=names,
        ),
        check_embeddings(f"{symbol} embedding", embeddings, grid, 3, EMBEDDING_TOLERANCE),
    ]


def pipeline_columns(timeline: BundleTimeline) -> tuple[list[str], FloatArray]:
    """Names and tolerances of the columns of `pipeline_outputs`."""
    settings = timeline.session
    scaled = settings.n_statistics // 2
    names = list(settings.names)
    names += [f"scaler center {i}" for i in range(scaled)]
    names += [f"scaler scale {i}" for i in range(scaled)]
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
    """All that the pipeline says at each candle's close, (T, K); see `pipeline_columns`."""
    table = build_sessions(symbol, grid, timeline.session)
    states = embed_sessions(table, timeline)
    scored = score_sessions(table, timeline, states)
    embedding = np.where((states.source >= 0)[:, None], states.embedding, np.nan)
    sessions = np.concatenate([table.center, table.scale, embedding], axis=1)  # (D, ...)
    lines = [
        scored.score,
        scored.p_buy,
        scored.p_sell,
        scored.score_zero,
        scored.drift,
        scored.age_ms,
        *_thresholds(scored.score, grid.close_time, timeline, threshold),
    ]
    return np.concatenate(
        [
            table.features[: len(grid)],
            hold_sessions(grid, table.start_ms, sessions),
            np.stack(lines, axis=1),
        ],
        axis=1,
    )


def _thresholds(
    score: FloatArray, close_time: IntArray, timeline: BundleTimeline, settings: ThresholdSettings
) -> FloatArray:
    """Upper and lower thresholds (2, T), seeded anew where a bundle comes into force."""
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


def _brief(learn: LearnSettings) -> LearnSettings:
    """The recipe's networks, trained for moments."""
    return dataclasses.replace(
        learn,
        train_days=min(learn.train_days, 40),
        validate_days=min(learn.validate_days, 10),
        pretrain=dataclasses.replace(learn.pretrain, epochs=min(learn.pretrain.epochs, 2)),
        train=dataclasses.replace(
            learn.train, epochs=min(learn.train.epochs, 2), initialisations=1
        ),
        warm_epochs=1,
    )


def _stamp(plan: CheckPlan, learn: LearnSettings, days_after: int) -> int:
    """A midnight to train until: the recipe's first, or earlier where too few candles follow it."""
    end_ms = min(grid.end_ms for grid in plan.grids.values())
    first = calendar(plan.start_ms, plan.start_ms + 1, learn.retrain_days)[0]
    return min(first, (end_ms - days_after * DAY_MS) // DAY_MS * DAY_MS)


def _causal_span(grid: CandleGrid, learn: LearnSettings, stamp: int) -> CandleGrid:
    """Rows around the bundles' sessions, beginning in the middle of a day."""
    session = learn.session
    # Four days before what is needed, for late starts to compare; 0.7 to begin in mid-session.
    before = session.warmup + int(4.7 * session.day_candles)
    row = grid.row_of(stamp)
    return grid.rows(max(0, row - before), row + 2 * _BUNDLE_DAYS * session.day_candles)


# --- 5 to 7: statistics -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShuffledLabels(LabelSettings):
    """Labels laid on the wrong candles: blocks of four horizons in random order.

    Blocks keep labels that overlap together, so that a purge that is too short still shows; their
    order destroys everything that could be learned, the time of day included.
    """

    shuffle_seed: int = 0

    def compute(self, grid: CandleGrid) -> Labels:
        """Shuffled labels of every row of a grid."""
        labels = LabelSettings.compute(self, grid)
        order = _block_order(len(grid), 4 * self.horizon, self.shuffle_seed)
        return Labels(
            labels.target[order], labels.forward_return[order], labels.valid[order], labels.horizon
        )


def _block_order(size: int, block: int, seed: int) -> IntArray:
    """Row numbers (size,) with whole blocks in random order; an odd end stays in place."""
    blocks = size // block
    rows = np.arange(blocks * block).reshape(blocks, block)
    shuffled = rows[np.random.default_rng(seed).permutation(blocks)].ravel()
    return np.concatenate([shuffled, np.arange(blocks * block, size)])


def shuffled_labels(plan: CheckPlan, report: Report = _silent) -> list[LeakVerdict]:
    """Train on shuffled labels, and ask the network for the shuffled labels of later candles."""
    label = ShuffledLabels(**dataclasses.asdict(plan.learn.label), shuffle_seed=plan.seed + 1)
    learn = dataclasses.replace(_study(plan.learn), label=label)
    stamp = _stamp(plan, learn, _SHUFFLE_SCORED_DAYS)
    tables = [build_sessions(name, grid, learn.session) for name, grid in plan.grids.items()]
    bundle = learn_bundle(tables, stamp, learn, plan.seed, progress=_part(report))
    timeline = BundleTimeline((bundle,))
    scores, ahead, close_ms = [], [], []
    for table in tables:
        scored = score_sessions(table, timeline, embed_sessions(table, timeline))
        scores.append(scored.score)
        ahead.append(label.compute(table.grid).forward_return)
        close_ms.append(table.grid.close_time)
    lines = np.concatenate(scores), np.concatenate(ahead), np.concatenate(close_ms)
    return [hit_verdict(SHUFFLED, "hit ratio on shuffled labels", *lines, 0.5, plan.seed)]


def null_market(plan: CheckPlan, report: Report = _silent) -> list[LeakVerdict]:
    """Train and score on a planted market without any drift."""
    study = _plant_and_learn(plan, 0.0, report)
    lines = study.score, study.ahead, study.close_ms
    subject = "hit ratio on a market where nothing can be foretold"
    return [hit_verdict(NULL, subject, *lines, 0.5, plan.seed)]


def planted_market(plan: CheckPlan, report: Report = _silent) -> list[LeakVerdict]:
    """Train and score on the planted market: nothing above its ceilings, no gain when shifted."""
    study = _plant_and_learn(plan, PlantedSettings().mu, report)
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
    if np.count_nonzero(~np.isnan(at_setups)) >= _MIN_DECISIONS:
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


def hit_verdict(
    name: str,
    subject: str,
    score: FloatArray,
    ahead: FloatArray,
    close_ms: IntArray,
    possible: float,
    seed: int,
) -> LeakVerdict:
    """Is the hit ratio of scores higher than possible?

    Parameters
    ----------
    score : float array (N,), NaN for no decision. Its median is taken off first, so that a drift
        of the market and a bias of the network do not meet.
    ahead : float array (N,), what the scores foretell; NaN and 0 are not counted.
    close_ms : int64 array (N,), UTC milliseconds of each candle's close.
    possible : the highest hit ratio an honest score can have.

    Returns
    -------
    LeakVerdict, failed when the whole 99.9 % day-block interval lies above `possible`, or when
    there are too few decisions to say anything.
    """
    counted = np.isfinite(score) & np.isfinite(ahead) & (ahead != 0)
    side = np.sign(score - (np.median(score[counted]) if counted.any() else 0.0))
    counted &= side != 0
    hits = (side == np.sign(ahead))[counted].astype(np.float64)
    totals = day_totals(close_ms[counted], np.stack([hits, np.ones_like(hits)], 1))
    if len(hits) < _MIN_DECISIONS or len(totals) < MIN_BOOTSTRAP_DAYS:
        detail = f"{subject}: only {len(hits)} decisions on {len(totals)} days, too few to judge"
        return LeakVerdict(name, False, detail, subject=subject)
    (hit,), (low,), (high,) = _ratios(totals, seed, HIT_CONFIDENCE, len(totals) ** (1 / 3))
    detail = (
        f"{subject}: {hit:.2%} of {len(hits):,} (99.9 % interval {low:.2%} to {high:.2%});"
        f" at most {possible:.2%} is possible"
    )
    leaks = bool(low > possible)
    when = int(close_ms[counted].min()) if leaks else None
    return LeakVerdict(name, not leaks, detail, when, float(hit) if leaks else None, subject)


def _ratios(
    totals: FloatArray, seed: int, confidence: float, block_days: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values and interval ends (K,) of the first K columns over the last, whole days resampled.

    The interval is the value +- t times the bootstrap's deviation, with a Student t of as many
    degrees of freedom as there are blocks less one: percentiles of a few blocks are too narrow.
    """
    values = totals[:, :-1].sum(axis=0) / totals[:, -1].sum()
    drawn = bootstrap_days(totals, lambda sums: sums[:-1] / sums[-1], seed, block_days=block_days)
    margin = _student(confidence, len(totals) / block_days - 1) * drawn.std(axis=0, ddof=1)
    return values, values - margin, values + margin


def _student(confidence: float, degrees: float) -> float:
    """Two-sided Student t quantile, by Abramowitz & Stegun 26.7.5 to second order."""
    z, v = NormalDist().inv_cdf(0.5 + confidence / 2), max(degrees, 1.0)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A planted market, a network trained on its past, and what it said about the rest.

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
    if len(truth) < _MIN_DECISIONS:
        detail = f"{subject}: only {len(truth)} setups scored, too few to judge"
        return LeakVerdict(TIME_SHIFT, False, detail, subject=subject)
    tau = study.market.settings.tau_days
    gain, low, high = _ratios(totals, seed, SHIFT_CONFIDENCE, tau)
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


def _study(learn: LearnSettings) -> LearnSettings:
    """The recipe's networks, on spans that a check can afford."""
    return dataclasses.replace(
        learn,
        train_days=min(learn.train_days, 240),
        validate_days=min(learn.validate_days, 30),
    )


def _plant_and_learn(plan: CheckPlan, mu: float, report: Report = _silent) -> Study:
    """Plant a market whose responses last as long as the recipe's labels, train, and score."""
    learn = _study(plan.learn)
    market = generate(_planted_settings(plan, learn, mu))
    grid = CandleGrid.from_candles(market.candles, market.settings.interval_ms)
    table = build_sessions("PLANTED", grid, learn.session)
    stamp = grid.end_ms // DAY_MS * DAY_MS - _PLANTED_SCORED_DAYS * DAY_MS
    bundle = learn_bundle([table], stamp, learn, plan.seed, progress=_part(report))
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


def _planted_settings(plan: CheckPlan, learn: LearnSettings, mu: float) -> PlantedSettings:
    """A market for this recipe: its interval, its horizon, and moves that its labels call moves."""
    label, session = learn.label, learn.session
    move_bps = {
        "fixed": 2 * label.threshold_bps,
        "barrier": label.barrier_bps,
        "trade": 4 * (label.fee_bps + label.slippage_bps),
    }[label.kind]
    sigma = float(np.clip(1e-4 * move_bps / math.sqrt(label.horizon), 5e-4, 1e-2))
    warmup_days = -(-session.warmup // session.day_candles) + 1
    days = warmup_days + learn.train_days + learn.validate_days + _PLANTED_SCORED_DAYS
    return PlantedSettings(
        days=days,
        interval=plan.interval,
        seed=plan.seed,
        mu=mu,
        horizon=label.horizon,
        sigma=sigma,
    )


def _part(report: Report, number: int = 0, parts: int = 1) -> Progress:
    """Training progress as one of `parts` equal parts of a check."""

    def progress(done: int, total: int, text: str) -> None:
        report((number + done / max(total, 1)) / parts, text)

    return progress


_STEPS: tuple[tuple[tuple[str, ...], str, Callable[[CheckPlan, Report], list[LeakVerdict]]], ...]
_STEPS = (
    ((PREFIX, PERTURBATION, START_INVARIANCE, TIME_SHIFT), "causality", causal),
    ((SHUFFLED,), "shuffled labels", shuffled_labels),
    ((NULL,), "null market", null_market),
    ((TIME_SHIFT, CEILING), "planted market", planted_market),
)


def summary(verdicts: Sequence[LeakVerdict]) -> str:
    """One line for a person."""
    failed = sorted({v.name for v in verdicts if not v.passed}, key=CHECKS.index)
    ran = len({v.name for v in verdicts})
    if failed:
        return f"{len(failed)} of {ran} checks failed: {', '.join(failed)}"
    return f"all {ran} checks passed"
