"""The recipe's checks: an honest pipeline passes all, and each planted leak is caught by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cppncripto_strategy import checks
from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks import CheckPlan, ShuffledLabels, Study, hit_verdict, shift_verdict
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs import sessions
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable, build_sessions
from cppncripto_strategy.models.judging.leaks import LeakVerdict
from cppncripto_strategy.models.learning import walkforward
from cppncripto_strategy.models.learning.training import TrainSettings
from cppncripto_strategy.models.learning.walkforward import (
    LabelSettings,
    LearnSettings,
    learn_bundle,
)
from cppncripto_strategy.models.pretraining import PretrainSettings
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings

DAY = 288
LEARN = LearnSettings(
    session=SessionSettings(long_window=2 * DAY),
    pretrain=PretrainSettings(epochs=1),
    train=TrainSettings(epochs=2, initialisations=1),
    short_window=24,
    train_days=14,
    validate_days=4,
)
THRESHOLD = ThresholdSettings(window=500, min_scores=50)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The same bits, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def grid() -> CandleGrid:
    """34 days of a planted market with an outage of 90 minutes among the scored ones."""
    market = generate(PlantedSettings(days=34, seed=3))
    candles = market.candles
    kept = np.ones(len(candles), np.bool_)
    kept[27 * DAY + 100 : 27 * DAY + 118] = False
    return CandleGrid.from_candles(candles[kept], market.settings.interval_ms)


@pytest.fixture(scope="module")
def plan(grid: CandleGrid) -> CheckPlan:
    return CheckPlan("5m", {"PLANTED": grid}, LEARN, THRESHOLD, grid.start_ms + 25 * DAY_MS, seed=1)


@pytest.fixture(scope="module")
def timeline(plan: CheckPlan, grid: CandleGrid) -> BundleTimeline:
    """Two bundles, the second four days after the first."""
    stamp = grid.start_ms + 25 * DAY_MS
    tables = [build_sessions("PLANTED", grid, LEARN.session)]
    learn = checks._brief(LEARN)
    first = learn_bundle(tables, stamp, learn, plan.seed)
    return BundleTimeline((first, learn_bundle(tables, stamp + 4 * DAY_MS, learn, 1, first)))


def causal_verdicts(grid: CandleGrid, timeline: BundleTimeline) -> dict[str, LeakVerdict]:
    """The four exact checks of the grid, begun in mid-session."""
    span = grid.rows(14 * DAY + 100, len(grid))
    found = checks.causal_verdicts("PLANTED", span, timeline, THRESHOLD, seed=1)
    return {verdict.name: verdict for verdict in found}


# --- the exact checks ---------------------------------------------------------------------------


def test_an_honest_pipeline_passes_the_exact_checks(
    grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills a false alarm from gaps, a change of bundles, rollovers, or rounding of batches."""
    verdicts = causal_verdicts(grid, timeline)
    assert set(verdicts) == {"prefix", "perturbation", "start-invariance", "embedding time-shift"}
    assert [v.detail for v in verdicts.values() if not v.passed] == []


def test_every_kind_of_output_is_defined_where_it_is_compared(
    grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills a check that passes because scores or thresholds were NaN throughout."""
    names, tolerance = checks.pipeline_columns(timeline)
    outputs = checks.pipeline_outputs("PLANTED", grid, timeline, THRESHOLD)
    assert outputs.shape == (len(grid), len(names)) == (len(grid), len(tolerance))
    scored = np.isfinite(outputs[28 * DAY : 33 * DAY]).mean(axis=0)
    assert [names[i] for i in np.flatnonzero(scored < 0.9)] == []


def test_thresholds_begin_with_the_scores_that_the_bundle_brings(
    grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills a check of thresholds that are not those of the strategy: seeded by each bundle."""
    outputs = checks.pipeline_outputs("PLANTED", grid, timeline, THRESHOLD)
    score, upper, lower = (outputs[:, i] for i in (-8, -2, -1))
    for bundle in timeline.bundles:
        row = grid.row_of(bundle.info.trained_until_ms) - 1  # the candle that closes then
        assert np.isfinite(score[row])
        expected = np.quantile(bundle.score_seed, [0.85, 0.15])
        np.testing.assert_allclose([upper[row], lower[row]], expected, rtol=1e-12)


def centred_return(grid: CandleGrid, names: tuple[str, ...]) -> FloatArray:
    """LEAK: log_return is the mean of this candle's and the next one's."""
    features = compute_features(grid, names)
    column = features[:, names.index("log_return")]
    column[:-1] = (column[:-1] + column[1:]) / 2
    return features


def whole_span_scaler(features: FloatArray, rows: Any, window: int, *rest: Any) -> Any:
    """LEAK: every session's scaler is fitted on the whole span."""
    center, scale, ok = checks_fit(features, np.array([len(features)]), len(features), *rest)
    return (
        np.repeat(center, len(rows), axis=0),
        np.repeat(scale, len(rows), axis=0),
        np.repeat(ok, len(rows)) & (rows >= window),
    )


checks_fit = sessions.fit_sessions


def own_day_windows(self: SessionTable, index: Any) -> Any:
    """LEAK: the macro window ends with the session that its embedding is used in."""
    length = self.settings.long_window
    return self._scaled(self.row[index] - length + DAY - 1, length, index)


def whole_series_thresholds(score: FloatArray, *_: Any) -> FloatArray:
    """LEAK: quantiles of every score there will ever be."""
    return np.tile(np.nanquantile(score, [0.85, 0.15])[:, None], (1, len(score)))


LEAKS: dict[str, tuple[Any, str, Callable[..., Any], str, str]] = {
    "feature": (sessions, "compute_features", centred_return, "prefix", "log_return"),
    "scaler": (sessions, "fit_sessions", whole_span_scaler, "perturbation", "scaler"),
    "embedding": (
        SessionTable,
        "macro_windows",
        own_day_windows,
        "embedding time-shift",
        "embedding",
    ),
    "threshold": (checks, "_thresholds", whole_series_thresholds, "prefix", "upper"),
}


@pytest.mark.parametrize(("owner", "name", "leak", "check", "culprit"), LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_is_caught_by_the_check_named_for_it(
    owner: Any,
    name: str,
    leak: Callable[..., Any],
    check: str,
    culprit: str,
    grid: CandleGrid,
    timeline: BundleTimeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kills a check that would let this leak through the real pipeline."""
    monkeypatch.setattr(owner, name, leak)
    verdicts = causal_verdicts(grid, timeline)
    for caught in (check, "prefix", "perturbation"):
        assert not verdicts[caught].passed
        assert verdicts[caught].first_offending_time_ms is not None
        assert verdicts[caught].first_offending_value is not None
        assert f"PLANTED {culprit}" in verdicts[caught].detail


def test_training_does_not_move_when_the_future_does(plan: CheckPlan) -> None:
    """Kills labels, scalers or early stopping that reach past `trained_until`."""
    learn, stamp = checks._brief(LEARN), plan.start_ms
    tables = [build_sessions("PLANTED", g, learn.session) for g in plan.grids.values()]
    model_hash = learn_bundle(tables, stamp, learn, plan.seed).model_hash
    assert checks.training_verdict(plan, learn, stamp, model_hash).passed


def test_a_label_that_is_not_purged_is_caught_in_training(
    plan: CheckPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a purge that forgets the label's horizon at the end of the span."""
    honest = walkforward.micro_data

    def unpurged(*args: Any, **options: Any) -> Any:
        """LEAK: labels may be known an hour after the boundary."""
        options["until_ms"] += 3_600_000
        return honest(*args, **options)

    monkeypatch.setattr(walkforward, "micro_data", unpurged)
    learn, stamp = checks._brief(LEARN), plan.start_ms
    tables = [build_sessions("PLANTED", g, learn.session) for g in plan.grids.values()]
    model_hash = learn_bundle(tables, stamp, learn, plan.seed).model_hash
    verdict = checks.training_verdict(plan, learn, stamp, model_hash)
    assert not verdict.passed
    assert (verdict.name, verdict.subject) == ("perturbation", "training")


# --- orders -------------------------------------------------------------------------------------


def tables_of(
    grids: Mapping[str, CandleGrid], timeline: BundleTimeline, span: Span, ahead: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A toy strategy: the score is the close's return, a rise is bought at the next open.

    With `ahead` a LEAK: it knows the close of so many candles later.
    """
    signals, fills = [], []
    for symbol, grid in grids.items():
        later = np.minimum(np.arange(len(grid)) + ahead, len(grid) - 1)
        score = grid.close[later] / grid.open - 1
        stamp = {"symbol": symbol, "close_time_ms": grid.close_time, "score": score}
        frame = pd.DataFrame({**stamp, "score_zero": 0.0, "upper": np.nan, "lower": np.nan})
        inside = (frame["close_time_ms"] > span.start_ms) & (frame["close_time_ms"] <= span.end_ms)
        signals.append(frame[inside])
        bought = np.flatnonzero((score > 0)[:-1] & np.isfinite(grid.open[1:])) + 1
        rows = {"symbol": symbol, "executed_ms": grid.close_time[bought], "status": "filled"}
        price = {"price": grid.open[bought], "quantity": 1.0, "notional": 1.0, "fee": 0.0}
        fills.append(pd.DataFrame({**rows, **price}))
    return pd.concat(signals), pd.concat(fills)


def two_symbols(grid: CandleGrid) -> dict[str, CandleGrid]:
    """The grid under two names, the second one begun an hour later."""
    return {"ONE": grid.rows(20 * DAY, len(grid)), "TWO": grid.rows(20 * DAY + 12, len(grid))}


def test_honest_orders_pass(grid: CandleGrid, timeline: BundleTimeline) -> None:
    """Kills a comparison that counts the bar after the cut, or mixes up symbols."""
    verdicts = checks.order_verdicts(tables_of, two_symbols(grid), timeline)
    assert [verdict.name for verdict in verdicts] == ["prefix", "perturbation"]
    assert all(verdict.passed for verdict in verdicts), verdicts
    assert all("decisions and fills unchanged" in verdict.detail for verdict in verdicts)


@pytest.mark.parametrize("ahead", [1, 5])
def test_orders_that_know_a_later_close_are_caught(
    ahead: int, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills a strategy that decides on a candle which has not closed."""

    def leaky(*given: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        return tables_of(*given, ahead=ahead)

    for verdict in checks.order_verdicts(leaky, two_symbols(grid), timeline):
        assert not verdict.passed
        assert verdict.first_offending_time_ms is not None
        assert verdict.first_offending_time_ms > timeline.first_session_ms
        assert "ONE score at" in verdict.detail


@pytest.mark.parametrize("column", ["price", "quantity", "fee"])
def test_a_fill_that_changes_with_the_future_is_caught(
    column: str, grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills fills that read the day's low, or a size that reads the final equity."""

    def leaky(grids: Any, *given: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        signals, fills = tables_of(grids, *given)
        fills[column] += 1e-9 * np.nanmean(grids["ONE"].close)
        return signals, fills

    for verdict in checks.order_verdicts(leaky, two_symbols(grid), timeline):
        assert not verdict.passed
        assert column in verdict.detail


def test_a_fill_that_vanishes_is_caught(grid: CandleGrid, timeline: BundleTimeline) -> None:
    """Kills a comparison of as many rows as both runs have."""

    def leaky(grids: Any, *given: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        signals, fills = tables_of(grids, *given)
        return signals, fills.iloc[: len(fills) if len(grids["ONE"]) == 14 * DAY else 0]

    prefix, _ = checks.order_verdicts(leaky, two_symbols(grid), timeline)
    assert not prefix.passed
    assert "absent without" in prefix.detail


def test_orders_of_a_strategy_that_never_scores_do_not_pass(
    grid: CandleGrid, timeline: BundleTimeline
) -> None:
    """Kills the green tick of a comparison of nothing."""

    def idle(*given: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        return tables_of(*given)[0].assign(score=np.nan), pd.DataFrame()

    assert not any(v.passed for v in checks.order_verdicts(idle, two_symbols(grid), timeline))


# --- the statistical checks ---------------------------------------------------------------------


def scored_days(days: int = 60, seed: int = 0) -> tuple[FloatArray, FloatArray, Any]:
    """Random scores, independent returns that drift upwards, and close times."""
    rng = np.random.default_rng(seed)
    size = days * DAY
    close_ms = DAY_MS * 19_000 + 300_000 * np.arange(size)
    return rng.normal(0, 1, size), rng.normal(0.3, 1, size), close_ms


@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_scores_that_know_nothing_pass_even_when_both_lean_one_way(bias: float) -> None:
    """Kills a false alarm from a market that rises and a network that likes to buy."""
    score, ahead, close_ms = scored_days()
    assert np.mean(np.sign(score + 1.5) == np.sign(ahead)) > 0.55
    verdict = hit_verdict("null market", "hit", score + bias, ahead, close_ms, 0.5, seed=0)
    assert verdict.passed, verdict.detail


def test_scores_that_know_the_future_are_caught() -> None:
    """Kills a hit ratio above the ceiling that goes unnoticed."""
    score, ahead, close_ms = scored_days()
    leaky = score + 0.3 * ahead
    verdict = hit_verdict("ceiling", "hit", leaky, ahead, close_ms, 0.52, seed=0)
    assert not verdict.passed
    assert verdict.first_offending_value is not None
    assert verdict.first_offending_value > 0.55
    assert verdict.first_offending_time_ms == close_ms[0]
    assert hit_verdict("ceiling", "hit", leaky, ahead, close_ms, 0.65, seed=0).passed


def test_luck_inside_the_interval_passes() -> None:
    """Kills a verdict that fails every second honest pipeline by comparing the bare hit ratio."""
    score, ahead, close_ms = scored_days()
    hit = float(np.mean(np.sign(score - np.median(score)) == np.sign(ahead)))
    assert hit_verdict("ceiling", "hit", score, ahead, close_ms, hit - 2e-3, seed=0).passed
    assert not hit_verdict("ceiling", "hit", score, ahead, close_ms, hit - 2e-2, seed=0).passed


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [(0.99, 7, 3.499), (0.99, 30, 2.750), (0.999, 27, 3.690), (0.999, 1e9, 3.291)],
)
def test_intervals_of_few_blocks_are_students(
    confidence: float, degrees: float, expected: float
) -> None:
    """Kills an interval that is too narrow because a month of regime is one observation."""
    assert checks._student(confidence, degrees) == pytest.approx(expected, rel=0.015)


def test_too_few_decisions_do_not_pass() -> None:
    """Kills the green tick of a market on which nothing was scored."""
    score, ahead, close_ms = scored_days()
    nothing = np.full_like(score, np.nan)
    for few in (nothing, np.where(np.arange(len(score)) < 200, score, np.nan), np.ones_like(score)):
        verdict = hit_verdict("null market", "hit", few, ahead, close_ms, 0.5, seed=0)
        assert not verdict.passed
        assert "too few" in verdict.detail


@pytest.fixture(scope="module")
def planted() -> PlantedMarket:
    return generate(PlantedSettings(days=300, seed=8))


def study_of(planted: PlantedMarket, own: FloatArray, shifted: FloatArray) -> Study:
    """A study whose network sees the setups' direction, times a guess of the regime."""
    rng = np.random.default_rng(0)
    h, log_close = planted.settings.horizon, np.log(planted.candles.close)
    ahead = np.full(len(log_close), np.nan)
    ahead[:-h] = log_close[h:] - log_close[:-h]
    return Study(
        market=planted,
        score=planted.direction * own,
        score_zero=planted.direction * rng.choice([-1.0, 1.0], len(own)),
        shifted=planted.direction * shifted[None],
        ahead=ahead,
        close_ms=planted.candles.open_time + planted.settings.interval_ms,
    )


def test_an_embedding_that_loses_its_gain_when_shifted_passes(planted: PlantedMarket) -> None:
    """Kills a false alarm from what macro honestly knows about its own days."""
    regime = np.repeat(planted.regime, DAY).astype(float)
    study = study_of(planted, own=regime, shifted=np.roll(regime, 60 * DAY))
    verdict = shift_verdict(study, seed=0)
    assert verdict.passed, verdict.detail
    assert verdict.name == "embedding time-shift"
    gain = float(verdict.detail.rsplit("right days ", 1)[1])
    assert gain > 10


def test_an_embedding_that_helps_on_other_days_too_is_caught(planted: PlantedMarket) -> None:
    """Kills a gain that does not come from the embedding's own days."""
    regime = np.repeat(planted.regime, DAY).astype(float)
    verdict = shift_verdict(study_of(planted, own=regime, shifted=regime), seed=0)
    assert not verdict.passed
    assert verdict.first_offending_value is not None
    assert verdict.first_offending_value > 0.1


def test_a_shift_without_setups_does_not_pass(planted: PlantedMarket) -> None:
    """Kills the green tick of a study that scored nothing."""
    nothing = np.full(len(planted.candles), np.nan)
    verdict = shift_verdict(study_of(planted, own=nothing, shifted=nothing), seed=0)
    assert not verdict.passed
    assert "too few" in verdict.detail


def test_a_study_really_shifts_its_embeddings_by_sixty_days_or_more(
    plan: CheckPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a shift that moves nothing, after which every gain looks honest."""
    monkeypatch.setattr(checks, "_PLANTED_SCORED_DAYS", 130)
    honest = checks.score_sessions

    def embedding_as_score(table: SessionTable, line: Any, states: Any) -> Any:
        score = checks.hold_sessions(table.grid, table.start_ms, states.embedding[:, 0])
        return dataclasses.replace(honest(table, line, states), score=score)

    monkeypatch.setattr(checks, "score_sessions", embedding_as_score)
    study = checks._plant_and_learn(plan, mu=0.4)
    shifts = (60, 63, 67, 71)
    assert len(study.shifted) == len(shifts)
    scored = 130 * DAY  # the last candle closes at 00:00, so one session more is in force
    for days, shifted in zip(shifts, study.shifted, strict=True):
        moved = shifted[len(shifted) - scored + days * DAY :]
        own = study.score[len(shifted) - scored : -days * DAY]
        np.testing.assert_array_equal(moved, own)
        assert len(np.unique(own)) > 20


def test_shuffled_labels_are_the_same_labels_on_other_candles(grid: CandleGrid) -> None:
    """Kills a shuffle that invents labels, or leaves most of them where they were."""
    label = LabelSettings(horizon=6, threshold_bps=10.0)
    honest = label.compute(grid)
    shuffled = ShuffledLabels(**dataclasses.asdict(label), shuffle_seed=5).compute(grid)
    for name in ("target", "forward_return", "valid"):
        mine, theirs = getattr(honest, name), getattr(shuffled, name)
        np.testing.assert_array_equal(np.sort(mine), np.sort(theirs))
    same = honest.forward_return == shuffled.forward_return
    assert same.mean() < 0.05
    both = honest.valid & shuffled.valid
    pair = np.corrcoef(honest.forward_return[both], shuffled.forward_return[both])
    assert abs(pair[0, 1]) < 0.1
    again = ShuffledLabels(**dataclasses.asdict(label), shuffle_seed=5).compute(grid)
    np.testing.assert_array_equal(again.target, shuffled.target)


def test_shuffled_labels_keep_overlapping_labels_together(grid: CandleGrid) -> None:
    """Kills a shuffle of single candles, under which a short purge could not show."""
    label = ShuffledLabels(horizon=6, shuffle_seed=1)
    values = label.compute(grid).forward_return
    known = np.isfinite(values[1:]) & np.isfinite(values[:-1])
    neighbours = np.corrcoef(values[1:][known], values[:-1][known])[0, 1]
    # Neighbours share 5 of 6 candles, except across the edges of blocks of 24.
    assert neighbours == pytest.approx(5 / 6 * 23 / 24, abs=0.05)


def test_an_unknown_check_is_refused(plan: CheckPlan) -> None:
    """Kills a typo that runs nothing and passes."""
    with pytest.raises(RecipeError, match="prefixx"):
        checks.run_checks(plan, only=["prefixx"])


@pytest.fixture
def short_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer scored days and looser needs, so that a study takes seconds."""
    monkeypatch.setattr(checks, "_PLANTED_SCORED_DAYS", 75)
    monkeypatch.setattr(checks, "_SHUFFLE_SCORED_DAYS", 8)


def test_all_seven_checks_run_in_order_and_an_honest_plan_passes(
    plan: CheckPlan, short_studies: None
) -> None:
    """Kills a check that is defined but never run, and an honest recipe that is refused."""
    told: list[tuple[int, int, str]] = []
    verdicts = checks.run_checks(plan, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(verdict.name for verdict in verdicts)) == list(checks.CHECKS)
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []
    assert checks.summary(verdicts) == "all 7 checks passed"
    shares = [done / total for done, total, _ in told]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert told[-1] == (4000, 4000, "done")


def test_only_the_checks_asked_for_are_run(plan: CheckPlan, short_studies: None) -> None:
    """Kills a filter that only hides what was run."""
    told: list[str] = []
    verdicts = checks.run_checks(
        plan, only=["shuffled labels"], progress=lambda _, __, text: told.append(text)
    )
    assert [verdict.name for verdict in verdicts] == ["shuffled labels"]
    assert {text.split(":")[0] for text in told} == {"shuffled labels", "done"}


def next_return(grid: CandleGrid, names: tuple[str, ...]) -> FloatArray:
    """LEAK: log_return is that of the next candle."""
    features = compute_features(grid, names)
    column = features[:, names.index("log_return")]
    column[:-1] = column[1:].copy()
    return features


@pytest.mark.parametrize("name", ["null market", "ceiling"])
def test_a_leak_that_earns_is_caught_by_what_it_earns(
    name: str, plan: CheckPlan, short_studies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a statistical check that training on the future would pass."""
    monkeypatch.setattr(sessions, "compute_features", next_return)
    longer = dataclasses.replace(LEARN, train=TrainSettings(epochs=6, initialisations=1))
    verdicts = checks.run_checks(dataclasses.replace(plan, learn=longer), only=[name])
    failed = [verdict for verdict in verdicts if not verdict.passed]
    assert name in {verdict.name for verdict in failed}
    assert max(verdict.first_offending_value or 0 for verdict in failed) > 0.53
    assert checks.summary(verdicts) == f"1 of 1 checks failed: {name}"


def test_a_score_that_knows_the_shuffled_label_is_caught(
    plan: CheckPlan, short_studies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a shuffled-label check that reads the honest labels instead."""
    honest = checks.score_sessions

    def peeking(table: SessionTable, *rest: Any) -> Any:
        """LEAK: a little of the shuffled label is in the score."""
        scored = honest(table, *rest)
        label = ShuffledLabels(**dataclasses.asdict(LEARN.label), shuffle_seed=plan.seed + 1)
        peek = np.nan_to_num(label.compute(table.grid).forward_return)
        return dataclasses.replace(scored, score=scored.score + 100 * peek)

    monkeypatch.setattr(checks, "score_sessions", peeking)
    (verdict,) = checks.run_checks(plan, only=["shuffled labels"])
    assert not verdict.passed


@pytest.mark.parametrize(
    ("label", "interval_ms"),
    [
        (LabelSettings("fixed", 48, 60.0), 300_000),
        (LabelSettings("barrier", 24, barrier_bps=150.0), 300_000),
        (LabelSettings("trade", 12), 900_000),
    ],
)
def test_the_planted_market_fits_the_recipe(label: LabelSettings, interval_ms: int) -> None:
    """Kills a planted market whose moves the recipe's labels would all call nothing."""
    session = SessionSettings(interval_ms=interval_ms, long_window=1440)
    learn = dataclasses.replace(LEARN, session=session, label=label)
    interval = f"{interval_ms // 60_000}m"
    plan = CheckPlan(interval, {}, learn, THRESHOLD, 0)
    settings = checks._planted_settings(plan, learn, mu=0.4)
    assert (settings.interval, settings.horizon) == (interval, label.horizon)
    market = generate(settings)
    target = label.compute(CandleGrid.from_candles(market.candles, interval_ms)).target
    assert 0.15 < np.mean(target != 0) < 0.9
    warmup_ms = session.warmup * interval_ms
    needed = (learn.train_days + learn.validate_days + checks._PLANTED_SCORED_DAYS) * DAY_MS
    assert settings.days * DAY_MS >= warmup_ms + needed


def test_the_example_in_the_documentation_runs(
    grid: CandleGrid, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills an example that nobody ran."""
    text = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(example, "docs/checks.md", "exec"), {"grid": grid})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["prefix", "True"],
        ["perturbation", "True"],
        ["start-invariance", "True"],
    ]
