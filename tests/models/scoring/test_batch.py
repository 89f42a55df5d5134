"""Batch scoring: equal to its windowed definition, causal, and NaN where nothing may be said."""

import dataclasses

import numpy as np
import pytest
import torch

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.scaling import fit_scaler
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.scoring.batch import (
    GRACE_SESSIONS,
    embed_sessions,
    score_sessions,
    score_span,
)

HOUR_MS = 3_600_000
COLUMNS = ("open", "high", "low", "close", "volume")
LINES = ("score", "p_buy", "p_sell", "score_zero")


def windowed_score(grid, row, timeline):
    """The definition: one window of receptive_field candles by itself, its session's scaler and
    embedding made from the macro window alone. Returns (score, p_buy, p_sell, score_zero)."""
    settings = timeline.session
    close_ms = grid.start_ms + (row + 1) * settings.interval_ms
    midnight = close_ms // DAY_MS * DAY_MS
    bundle = [b for b in timeline.bundles if b.info.trained_until_ms <= midnight][-1]
    features = compute_features(grid)
    end = (midnight - grid.start_ms) // settings.interval_ms  # rows that close by midnight
    macro_rows = features[end - settings.long_window : end]
    scaler = fit_scaler(macro_rows, settings.names, settings.scaler)
    field = bundle.micro.receptive_field
    window = torch.from_numpy(scaler.apply(features[row - field + 1 : row + 1]))[None]
    with torch.no_grad():
        context = bundle.macro(
            torch.from_numpy(scaler.apply(macro_rows))[None],
            torch.from_numpy(scaler.statistics().astype(np.float32))[None],
        )
        lit = bundle.micro.probabilities(bundle.micro(window, context))
        dark = bundle.micro.probabilities(bundle.micro(window, torch.zeros_like(context)))
    assert lit.shape == (1, 1, 3)
    return [*lit[0, 0].tolist(), dark[0, 0, 0].item()]


def changed(grid, row, factor=1.7):
    """The grid with every value from `row` on multiplied, volumes and prices alike."""
    columns = {name: getattr(grid, name).copy() for name in COLUMNS}
    for values in columns.values():
        values[row:] *= factor * np.linspace(1, 1.3, len(values) - row)
    return dataclasses.replace(grid, **columns)


@pytest.mark.parametrize("head", ["classes", "regression"])
@pytest.mark.parametrize("scaler", ["robust", "minmax"])
def test_shared_convolutions_score_what_each_window_scores_by_itself(toy, head, scaler):
    """A row too many or too few at midnight, yesterday's scaler at 00:00, a wrong bundle."""
    settings = dataclasses.replace(toy.settings, scaler=scaler)
    grid = toy.grid(toy.candles(missing=[400, 401, 455]))
    timeline = toy.timeline(grid, settings, sessions=(4, 7), head=head)
    span = score_span("X", grid, timeline)
    midnight = (timeline.first_session_ms - grid.start_ms) // HOUR_MS - 1  # closes at 00:00
    assert np.isnan(span.score[midnight - 1])
    assert np.isfinite(span.score[midnight])
    scored = np.flatnonzero(np.isfinite(span.score))
    for row in scored[scored % 5 != 2]:
        found = [getattr(span, name)[row] for name in LINES]
        np.testing.assert_allclose(found, windowed_score(grid, row, timeline), atol=1e-5)
    assert len(scored) > 120
    assert not np.allclose(span.score[scored], span.score_zero[scored], atol=1e-3)


@pytest.mark.parametrize("interval", ["5m", "15m"])
def test_windowed_definition_holds_at_other_intervals(toy, interval):
    """A day's length taken for 24 or 288 candles somewhere."""
    minutes = int(interval[:-1])
    day = 1440 // minutes
    settings = SessionSettings(interval_ms=minutes * 60_000, long_window=2 * day)
    warm_days = -(-settings.warmup // day)
    grid = toy.grid(toy.candles(days=warm_days + 5, interval=interval), settings.interval_ms)
    timeline = toy.timeline(grid, settings, sessions=(2,))
    span = score_span("X", grid, timeline)
    scored = np.flatnonzero(np.isfinite(span.score))
    assert len(scored) == len(grid) - (warm_days + 2) * day + 1
    midnights = scored[(grid.close_time[scored] % DAY_MS) == 0]
    for row in [*midnights, *(midnights + 1)[:-1], *(midnights - 1)[1:], *scored[::97]]:
        np.testing.assert_allclose(
            [getattr(span, name)[row] for name in LINES],
            windowed_score(grid, row, timeline),
            atol=1e-5,
        )


@pytest.mark.parametrize("hour", [0, 1, 11, 23])
def test_cutting_or_changing_the_future_changes_no_score_before_it(toy, hour):
    """Look-ahead in features, scalers, embeddings or convolutions; cut mid-session too."""
    grid = toy.grid(toy.candles(missing=[430]))
    timeline = toy.timeline(grid, toy.settings, sessions=(3, 5))
    whole = score_span("X", grid, timeline)
    cut = 20 * 24 + hour
    past = score_span("X", grid.rows(0, cut), timeline)
    other = score_span("X", changed(grid, cut), timeline)
    assert np.isfinite(whole.score[:cut]).sum() > 20
    for name in (*LINES, "drift", "age_ms"):
        expected = getattr(whole, name)[:cut]
        np.testing.assert_allclose(getattr(past, name), expected, atol=1e-6)
        np.testing.assert_allclose(getattr(other, name)[:cut], expected, atol=1e-6)
    later = slice(cut, cut + 10)
    assert not np.allclose(whole.score[later], other.score[later], equal_nan=True)


def test_a_later_start_changes_nothing_after_its_warm_up(toy):
    """Anything accumulated from the first candle on: running sums, back-filled warm-up."""
    grid = toy.grid(toy.candles(days=24))
    timeline = toy.timeline(grid, toy.settings, sessions=(4, 6))
    whole = score_span("X", grid, timeline)
    for start in (24, 31, 48):
        late = score_span("X", grid.rows(start, len(grid)), timeline)
        known = np.isfinite(late.score)
        assert known.sum() > 90
        np.testing.assert_array_equal(late.score[known], whole.score[start:][known])
        np.testing.assert_array_equal(late.drift[known], whole.drift[start:][known])


def test_scores_before_the_first_bundle_are_nan_unless_asked_for(toy):
    """A bundle scores the candles it was trained on without anybody having asked."""
    grid = toy.grid(toy.candles())
    timeline = toy.timeline(grid, toy.settings, sessions=(3,))
    span = score_span("X", grid, timeline)
    first = np.flatnonzero(np.isfinite(span.score))[0]
    assert grid.close_time[first] == timeline.first_session_ms
    peeking = score_span("X", grid, BundleTimeline(timeline.bundles, in_sample=True))
    table = build_sessions("X", grid, toy.settings)
    first = np.flatnonzero(np.isfinite(peeking.score))[0]
    assert grid.close_time[first] == table.start_ms[0]


def test_score_is_nan_where_candle_or_half_of_the_window_is_missing(toy):
    """A score of 0 or of a stale window at a gap, which would be traded."""
    short = 20
    gap = np.arange(440, 440 + 15)
    grid = toy.grid(toy.candles(missing=gap))
    timeline = toy.timeline(grid, toy.settings, sessions=(2,), short_window=short)
    span = score_span("X", grid, timeline)
    assert np.isnan(span.score[gap]).all()
    back = np.arange(455, 480)
    window_share = [grid.present[row - short + 1 : row + 1].mean() for row in back]
    np.testing.assert_array_equal(np.isfinite(span.score[back]), np.array(window_share) >= 0.5)
    assert 0 < np.isnan(span.score[back]).sum() < 15


def failing_rollovers(days):
    """Rows whose absence leaves every other candle of these days: no return, so no scaler."""
    return [row for day in days for row in range(24 * day, 24 * day + 24, 2)]


def test_failed_rollover_keeps_the_last_state_for_its_grace_then_falls_silent(toy):
    """Scores made with no scaler at all, or an embedding kept for ever without a word."""
    grid = toy.grid(toy.candles(days=27, missing=failing_rollovers(range(19, 26))))
    timeline = toy.timeline(grid, toy.settings, sessions=(2,))
    table = build_sessions("X", grid, toy.settings)
    assert table.ok.tolist() == [True] * 7 + [False] * (len(table) - 7)
    states = embed_sessions(table, timeline)
    last = 6
    kept = [last] * GRACE_SESSIONS
    assert states.source.tolist() == [
        -1,
        -1,
        *range(2, last),
        last,
        *kept,
        *[-1] * (len(table) - 7 - len(kept)),
    ]
    for session in range(last + 1, last + 1 + GRACE_SESSIONS):
        np.testing.assert_array_equal(states.embedding[session], states.embedding[last])
    span = score_sessions(table, timeline, states)
    row = table.session_rows(last + GRACE_SESSIONS)
    age = span.age_ms[row]
    np.testing.assert_array_equal(age, GRACE_SESSIONS * DAY_MS + np.arange(24) * HOUR_MS)
    assert np.isnan(span.score[table.session_rows(last + GRACE_SESSIONS + 1)]).all()


def test_no_session_at_all_gives_no_score_and_no_error(toy):
    """A market younger than the warm-up."""
    long = toy.grid(toy.candles())
    timeline = toy.timeline(long, toy.settings)
    span = score_span("X", long.rows(0, 100), timeline)
    assert len(span.score) == 100
    assert np.isnan(span.score).all()


def test_without_macro_the_score_is_the_score_under_a_zero_embedding(toy):
    """The arm without macro getting some embedding by the back door."""
    grid = toy.grid(toy.candles())
    timeline = toy.timeline(grid, toy.settings, macro=False)
    span = score_span("X", grid, timeline)
    known = np.isfinite(span.score)
    np.testing.assert_array_equal(span.score[known], span.score_zero[known])
    assert not span.states.embedding.any()
    assert np.isnan(span.drift).all()


def test_the_perturbation_of_these_tests_changes_every_column():
    """`changed` forgetting a column would make the look-ahead test blind to it."""
    # A market symbol's own candles have tests of theirs in the testing kit.
    fields = {f.name for f in dataclasses.fields(CandleGrid)} - {"market"}
    assert fields == {"start_ms", "interval_ms", "present", "taker_buy_volume", *COLUMNS}
