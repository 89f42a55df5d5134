"""The exact checks: an honest pipeline passes, and each planted leak is caught by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks import causality
from cppncripto_strategy.checks.plan import CheckPlan, brief_training
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs import sessions
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, compute_features
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable, build_sessions
from cppncripto_strategy.models.judging.leaks import LeakVerdict, perturb_from
from cppncripto_strategy.models.learning import learner
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.testing.grids import VALUES

DAY = 288


def causal_verdicts(
    grid: CandleGrid, timeline: BundleTimeline, threshold: ThresholdSettings
) -> dict[str, LeakVerdict]:
    """The four exact checks of the grid, begun in mid-session."""
    span = grid.rows(14 * DAY + 100, len(grid))
    found = causality.causal_verdicts("PLANTED", span, timeline, threshold, seed=1)
    return {verdict.name: verdict for verdict in found}


def test_an_honest_pipeline_passes_the_exact_checks(
    grid: CandleGrid, timeline: BundleTimeline, threshold: ThresholdSettings
) -> None:
    """Kills a false alarm from gaps, a change of bundles, rollovers, or rounding of batches."""
    verdicts = causal_verdicts(grid, timeline, threshold)
    assert set(verdicts) == {"prefix", "perturbation", "start-invariance", "embedding time-shift"}
    assert [v.detail for v in verdicts.values() if not v.passed] == []


def test_every_kind_of_output_is_defined_where_it_is_compared(
    grid: CandleGrid, timeline: BundleTimeline, threshold: ThresholdSettings
) -> None:
    """Kills a check that passes because scores or thresholds were NaN throughout."""
    names, tolerance = causality.pipeline_columns(timeline)
    outputs = causality.pipeline_outputs("PLANTED", grid, timeline, threshold)
    assert outputs.shape == (len(grid), len(names)) == (len(grid), len(tolerance))
    scored = np.isfinite(outputs[28 * DAY : 33 * DAY]).mean(axis=0)
    assert [names[i] for i in np.flatnonzero(scored < 0.9)] == []


def test_thresholds_begin_with_the_scores_that_the_bundle_brings(
    grid: CandleGrid, timeline: BundleTimeline, threshold: ThresholdSettings
) -> None:
    """Kills a check of thresholds that are not those of the strategy: seeded by each bundle."""
    outputs = causality.pipeline_outputs("PLANTED", grid, timeline, threshold)
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
    center, scale, ok = honest_fit(features, np.array([len(features)]), len(features), *rest)
    return (
        np.repeat(center, len(rows), axis=0),
        np.repeat(scale, len(rows), axis=0),
        np.repeat(ok, len(rows)) & (rows >= window),
    )


honest_fit = sessions.fit_sessions


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
    "threshold": (causality, "thresholds", whole_series_thresholds, "prefix", "upper"),
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
    threshold: ThresholdSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kills a check that would let this leak through the real pipeline."""
    monkeypatch.setattr(owner, name, leak)
    verdicts = causal_verdicts(grid, timeline, threshold)
    for caught in (check, "prefix", "perturbation"):
        assert not verdicts[caught].passed
        assert verdicts[caught].first_offending_time_ms is not None
        assert verdicts[caught].first_offending_value is not None
        assert f"PLANTED {culprit}" in verdicts[caught].detail


MARKET_SESSION = SessionSettings(
    long_window=2 * DAY,
    names=(*DEFAULT_COLUMNS, "sin_week", "cos_week", *MARKET_COLUMNS),
    market="MARKET",
    terms=("weekday",),
)


@pytest.fixture(scope="module")
def beside(grid: CandleGrid) -> CandleGrid:
    """The grid with a market symbol that has gaps of its own beside it."""
    candles = generate(PlantedSettings(days=34, seed=8)).candles
    kept = np.ones(len(candles), np.bool_)
    kept[28 * DAY + 40 : 28 * DAY + 75] = kept[30 * DAY + 7] = False
    return grid.with_market(candles[kept])


@pytest.fixture(scope="module")
def beside_timeline(plan: CheckPlan, beside: CandleGrid) -> BundleTimeline:
    """A bundle that reads the market, and one more four days later."""
    learn = brief_training(dataclasses.replace(plan.learn, session=MARKET_SESSION))
    table, stamp = build_sessions("PLANTED", beside, MARKET_SESSION), plan.start_ms
    first = learn_bundle([table], stamp, learn, 1)
    return BundleTimeline((first, learn_bundle([table], stamp + 4 * DAY_MS, learn, 1, first)))


def test_a_pipeline_beside_a_market_symbol_passes_the_exact_checks(
    beside: CandleGrid, beside_timeline: BundleTimeline, threshold: ThresholdSettings
) -> None:
    """Kills a false alarm from the market's gaps, and a market that nothing depends on."""
    verdicts = causal_verdicts(beside, beside_timeline, threshold)
    assert [v.detail for v in verdicts.values() if not v.passed] == []
    other = dataclasses.replace(beside, market=perturb_from(beside.of_market(), 20 * DAY, 4))
    names, _ = causality.pipeline_columns(beside_timeline)
    outputs = [
        causality.pipeline_outputs("PLANTED", candles, beside_timeline, threshold)
        for candles in (beside, other)
    ]
    moved = ~np.isclose(*outputs, equal_nan=True).all(axis=0)
    assert {"market_log_return", "market_volume_z", "market_present", "score"} <= {
        names[i] for i in np.flatnonzero(moved)
    }
    assert "log_return" not in {names[i] for i in np.flatnonzero(moved)}


def late_alignment(self: CandleGrid) -> CandleGrid:
    """LEAK: each row holds the market's candle that closes one candle after it."""
    market = honest_market(self)
    columns = {name: np.append(getattr(market, name)[1:], np.nan) for name in VALUES}
    present = np.append(market.present[1:], False)
    return dataclasses.replace(market, present=present, **columns)


honest_market = CandleGrid.of_market


def test_a_market_that_is_aligned_one_candle_late_is_caught(
    beside: CandleGrid,
    beside_timeline: BundleTimeline,
    threshold: ThresholdSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kills checks that cut off the symbol's future and leave the market's to be seen."""
    monkeypatch.setattr(CandleGrid, "of_market", late_alignment)
    verdicts = causal_verdicts(beside, beside_timeline, threshold)
    for check in ("prefix", "perturbation"):
        assert not verdicts[check].passed
        assert "PLANTED market_" in verdicts[check].detail


def test_training_does_not_move_when_the_future_does(plan: CheckPlan) -> None:
    """Kills labels, scalers or early stopping that reach past `trained_until`."""
    learn, stamp = brief_training(plan.learn), plan.start_ms
    tables = [build_sessions("PLANTED", g, learn.session) for g in plan.grids.values()]
    model_hash = learn_bundle(tables, stamp, learn, plan.seed).model_hash
    assert causality.training_verdict(plan, learn, stamp, model_hash).passed


def test_a_label_that_is_not_purged_is_caught_in_training(
    plan: CheckPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a purge that forgets the label's horizon at the end of the span."""
    honest = learner.micro_data

    def unpurged(*args: Any, **options: Any) -> Any:
        """LEAK: labels may be known an hour after the boundary."""
        options["until_ms"] += 3_600_000
        return honest(*args, **options)

    monkeypatch.setattr(learner, "micro_data", unpurged)
    learn, stamp = brief_training(plan.learn), plan.start_ms
    tables = [build_sessions("PLANTED", g, learn.session) for g in plan.grids.values()]
    model_hash = learn_bundle(tables, stamp, learn, plan.seed).model_hash
    verdict = causality.training_verdict(plan, learn, stamp, model_hash)
    assert not verdict.passed
    assert (verdict.name, verdict.subject) == ("perturbation", "training")
