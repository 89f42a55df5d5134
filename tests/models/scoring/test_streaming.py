"""Streaming scores: the same as the batch, candle by candle, whatever is missing."""

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.inputs.sessions import SessionSettings
from cppncripto_strategy.models.inputs.terms import TERMS
from cppncripto_strategy.models.scoring.batch import GRACE_SESSIONS, score_span
from cppncripto_strategy.models.scoring.macro_stream import MacroStream
from cppncripto_strategy.models.scoring.micro_stream import MicroStream
from cppncripto_strategy.models.scoring.ring import Ring
from cppncripto_strategy.models.scoring.round_scorer import ScoreStream

HOUR_MS = 3_600_000
LINES = ("score", "p_buy", "p_sell", "score_zero", "drift", "age_ms")
DAY = 24
# Close 00:00 of day D is the candle that opens at 23:00 the day before: row 24 D - 1.
SCENARIOS = {
    "nothing missing": [],
    "single candles": [430, 433, 470, 512],
    "longer than the short window": list(range(475, 500)),
    "a midnight candle": [20 * DAY - 1],
    "the candle before midnight": [20 * DAY - 2],
    "the candle after midnight": [20 * DAY],
    "from before a midnight to after it": list(range(20 * DAY - 3, 20 * DAY + 4)),
    "three whole days": list(range(20 * DAY - 5, 23 * DAY + 7)),
    "every other candle of a week": list(range(18 * DAY, 25 * DAY, 2)),
    "the first candles of a bundle": list(range(21 * DAY - 1, 21 * DAY + 5)),
}


def candle_of(grid, row):
    """One candle as the stream takes it."""
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    return np.array([getattr(grid, name)[row] for name in names])


def streamed(grid, timeline):
    """All lines of a grid, taken one candle at a time; NaN at rows without a candle."""
    macro = MacroStream(timeline)
    scores = ScoreStream(macro)
    lines = np.full((len(LINES), len(grid)), np.nan)
    for row in range(len(grid)):
        if grid.market is not None and grid.market.present[row]:
            assert macro.push_market(int(grid.open_time[row]), candle_of(grid.market, row))
        if not grid.present[row]:
            continue
        macro.push(int(grid.open_time[row]), candle_of(grid, row))
        drift = np.nan if macro.state is None else macro.state.drift
        lines[:, row] = (*scores.update(), drift, macro.age_ms())
    return lines


def assert_twins(grid, timeline):
    """Both paths agree at every candle; returns the streamed score."""
    batch, stream = score_span("X", grid, timeline), streamed(grid, timeline)
    for name, line in zip(LINES, stream, strict=True):
        expected = np.where(grid.present, getattr(batch, name), np.nan)
        np.testing.assert_allclose(line, expected, atol=1e-5, err_msg=name)
    return stream[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("warm", [False, True], ids=["new MacroNet", "warm start"])
def test_stream_equals_batch(toy, scenario, warm):
    """A ring, a rollover or a re-warming that forgets or repeats a candle; the wrong bundle."""
    grid = toy.grid(toy.candles(days=27, missing=SCENARIOS[scenario]))
    timeline = toy.timeline(grid, toy.settings, sessions=(4, 7), warm=warm)
    assert timeline.bundles[1].info.trained_until_ms == grid.start_ms + 21 * DAY_MS
    score = assert_twins(grid, timeline)
    assert np.isfinite(score).sum() > 60


@pytest.mark.parametrize("scaler", ["robust", "minmax"])
@pytest.mark.parametrize("head", ["classes", "regression"])
@pytest.mark.parametrize("short_window", [7, 20, 33])
@pytest.mark.parametrize("clock", [True, False], ids=["clock", "no clock"])
def test_stream_equals_batch_for_every_shape(toy, scaler, head, short_window, clock):
    """A head, a dilation or a hidden column that only one of the two paths knows."""
    settings = dataclasses.replace(toy.settings, scaler=scaler)
    grid = toy.grid(toy.candles(missing=[480, 481]))
    unseen = () if clock else settings.table.clock
    shape = {"head": head, "short_window": short_window, "unseen": unseen}
    score = assert_twins(grid, toy.timeline(grid, settings, sessions=(4, 6), **shape))
    assert len(np.unique(score[np.isfinite(score)])) > 50


def test_bundles_of_different_windows_follow_one_another(toy):
    """One bundle's ring buffers used for the next bundle's network."""
    grid = toy.grid(toy.candles(days=26))
    narrow = toy.timeline(grid, toy.settings, sessions=(4,), short_window=8).bundles
    wide = toy.timeline(grid, toy.settings, sessions=(6,), short_window=30, channels=5).bundles
    timeline = type(toy.timeline(grid, toy.settings))((*narrow, *wide))
    assert timeline.receptive_field == wide[0].micro.receptive_field
    assert_twins(grid, timeline)


def test_stream_equals_batch_at_fifteen_minutes_with_taker_volume(toy):
    """Interval or feature columns fixed to those of the default recipe."""
    settings = SessionSettings(
        interval_ms=900_000, long_window=96, names=(*DEFAULT_COLUMNS, "taker_imbalance")
    )
    candles = toy.candles(days=9, interval="15m", missing=[671, 700, 701])
    half = dataclasses.replace(candles, taker_buy_volume=candles.volume * 0.3)
    wave = 0.5 + 0.3 * np.sin(np.arange(len(half.volume)) / 7)
    grid = toy.grid(
        dataclasses.replace(half, taker_buy_volume=half.volume * wave), settings.interval_ms
    )
    assert_twins(grid, toy.timeline(grid, settings, sessions=(2,)))


MARKET_NAMES = (*DEFAULT_COLUMNS, "sin_week", "cos_week", *MARKET_COLUMNS)
MARKET_GAPS = {
    "none": [],
    "single candles": [430, 433, 512],
    "a midnight candle": [20 * DAY - 1],
    "longer than the short window": list(range(475, 500)),
    "where the symbol's are missing": [480, 481, 482, 700, 701],
    "its first weeks": list(range(5 * DAY)),
}


@pytest.mark.parametrize("gaps", MARKET_GAPS)
def test_stream_equals_batch_beside_a_market_symbol(toy, gaps):
    """A market's candle one row early or late, filled across its gap, or lost in the symbol's."""
    settings = dataclasses.replace(toy.settings, names=MARKET_NAMES, market="M")
    market = toy.candles(days=30, seed=9, missing=MARKET_GAPS[gaps])
    candles = toy.candles(days=30, missing=[455, *range(480, 483), 20 * DAY - 1])
    grid = toy.grid(candles).with_market(market)
    timeline = toy.timeline(grid, settings, sessions=(4, 7))
    score = assert_twins(grid, timeline)
    assert np.isfinite(score).sum() > 60
    alone = score_span("X", dataclasses.replace(grid, market=toy.grid(candles)), timeline).score
    assert (np.abs(alone - score) > 1e-3).sum() > 60


def test_stream_equals_batch_with_every_term(toy):
    """Terms of a shorter history live than in batch: the warm-up, the ring, the market's days."""
    settings = dataclasses.replace(toy.settings, names=MARKET_NAMES, market="M", terms=tuple(TERMS))
    market = toy.candles(days=42, seed=9, missing=[900, 901])
    grid = toy.grid(toy.candles(days=42, missing=[850, 34 * DAY - 1])).with_market(market)
    score = assert_twins(grid, toy.timeline(grid, settings, sessions=(4, 7)))
    assert np.isfinite(score).sum() > 60


def test_stream_equals_batch_where_the_window_is_pooled(toy):
    """Live groups that begin at another candle than the batch's, a gap counted as a zero."""
    settings = dataclasses.replace(toy.settings, pool=6)
    missing = [*range(425, 436), 470, 20 * DAY - 1]
    grid = toy.grid(toy.candles(days=27, missing=missing)).rows(5, 27 * DAY)
    timeline = toy.timeline(grid, settings, sessions=(4, 7))
    assert_twins(grid, timeline)
    plain = score_span("X", grid, toy.timeline(grid, toy.settings, sessions=(4, 7))).score
    pooled = score_span("X", grid, timeline).score
    assert (np.abs(plain - pooled) > 1e-4).sum() > 60


def test_the_market_may_be_the_symbol_itself(toy):
    """BTCUSDT among the traded ones: its own candles are the market's, at once."""
    settings = dataclasses.replace(toy.settings, names=MARKET_NAMES, market="X")
    candles = toy.candles(days=26, missing=[455])
    grid = toy.grid(candles).with_market(candles)
    assert_twins(grid, toy.timeline(grid, settings, sessions=(4,)))
    names = dict(zip(MARKET_NAMES, settings.table.compute(grid).T, strict=True))
    np.testing.assert_array_equal(names["market_log_return"], names["log_return"])


def test_a_market_candle_that_comes_too_late_changes_nothing(toy):
    """A decision that was made without it, made again with it."""
    settings = dataclasses.replace(toy.settings, names=MARKET_NAMES, market="M")
    grid = toy.grid(toy.candles(days=26))
    stream = MacroStream(toy.timeline(grid.with_market(toy.candles(days=26)), settings))
    candle = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    assert stream.push_market(grid.start_ms, candle)
    stream.push(grid.start_ms, candle)
    assert not stream.push_market(grid.start_ms, candle)
    assert stream.push_market(grid.start_ms + HOUR_MS, candle)
    assert not MacroStream(toy.timeline(grid, toy.settings)).push_market(grid.start_ms, candle)


def test_stream_without_macro_equals_batch(toy):
    """The comparison arm scored under the last arm's embedding."""
    grid = toy.grid(toy.candles(missing=[455]))
    assert_twins(grid, toy.timeline(grid, toy.settings, sessions=(3, 6), macro=False))


def test_grace_period_ends_and_a_good_day_brings_the_scores_back(toy):
    """A failed rollover that silences for good, or never."""
    missing = list(range(17 * DAY, 23 * DAY, 2))
    grid = toy.grid(toy.candles(days=28, missing=missing))
    score = assert_twins(grid, toy.timeline(grid, toy.settings, sessions=(2,)))
    age = streamed(grid, toy.timeline(grid, toy.settings, sessions=(2,)))[5]
    last_close = 2 * HOUR_MS  # before midnight: the candles that close on even hours exist
    assert np.nanmax(age) == (GRACE_SESSIONS + 1) * DAY_MS - last_close
    silent = slice(22 * DAY, 24 * DAY)
    assert np.isnan(score[silent]).all()
    assert np.isfinite(score[26 * DAY :]).all()


@pytest.mark.parametrize("start", [-HOUR_MS, 0, HOUR_MS // 2], ids=["past", "again", "off grid"])
def test_candle_that_does_not_follow_is_refused(toy, start):
    """A repeated or late candle silently moving every buffer by one."""
    grid = toy.grid(toy.candles(days=2))
    stream = MacroStream(toy.timeline(toy.grid(toy.candles()), toy.settings))
    candle = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    stream.push(grid.start_ms, candle)
    with pytest.raises(ValueError, match=f"expected {grid.start_ms + HOUR_MS}"):
        stream.push(grid.start_ms + start, candle)
    stream.push(grid.start_ms + HOUR_MS, candle)
    assert stream.rows == 2


def untraded(candles, rows):
    """The same candles, those rows without a trade."""
    volume, taker = candles.volume.copy(), candles.taker_buy_volume.copy()
    volume[rows], taker[rows] = 0.0, 0.0
    return dataclasses.replace(candles, volume=volume, taker_buy_volume=taker)


WARM_UPS = {
    "whole": ([], [], 0),
    "gaps": ([3, 4, *range(300, 320), 500, 511, 512, 513], [], 0),
    "a gap as long as a day of windows": (list(range(320, 640)), [], 0),
    "without trades": ([], [0, 1, 290, 291, 400, *range(500, 530)], 0),
    "listed late, with both": ([400, 401, 650], [380, 402, 403], 371),
}


@pytest.mark.parametrize("market", [False, True], ids=["alone", "beside a market"])
@pytest.mark.parametrize("warm_up", WARM_UPS)
def test_candles_that_wait_for_their_features_get_the_same_bits(toy, warm_up, market):
    """A warm-up computed in batch that differs in a last bit from the session it warms up."""
    missing, quiet, first = WARM_UPS[warm_up]
    names = MARKET_NAMES if market else (*DEFAULT_COLUMNS, "taker_imbalance")
    settings = dataclasses.replace(toy.settings, names=names, market="M" if market else "")
    candles = toy.candles(days=60, missing=missing)
    wave = 0.5 + 0.3 * np.sin(np.arange(len(candles)) / 7)
    candles = dataclasses.replace(candles, taker_buy_volume=candles.volume * wave)
    grid = toy.grid(untraded(candles, quiet))
    if market:
        grid = grid.with_market(toy.candles(days=60, seed=9, missing=[430, *range(600, 700)]))
    grid = grid.rows(first, len(grid))
    timeline, rng = toy.timeline(grid, settings, sessions=(40,)), np.random.default_rng(1)
    asked, waited = MacroStream(timeline), MacroStream(timeline)
    whole = settings.table.compute(grid)
    for row in range(len(grid)):
        for stream in (asked, waited):
            if market and grid.market.present[row]:
                stream.push_market(int(grid.open_time[row]), candle_of(grid.market, row))
            if grid.present[row]:
                stream.push(int(grid.open_time[row]), candle_of(grid, row))
        if not grid.present[row]:
            continue
        asked.present_share(1)
        if rng.random() < 0.01:
            shares = [stream.present_share(48) for stream in (asked, waited)]
            assert shares[0] == shares[1]
            kept, other = (stream.snapshot() for stream in (asked, waited))
            assert kept["features"]["end"] == other["features"]["end"]
            rows = kept["features"]["rows"]
            np.testing.assert_array_equal(rows, other["features"]["rows"], strict=True)
            np.testing.assert_array_equal(rows, whole[row + 1 - len(rows) : row + 1])


@pytest.mark.parametrize("size", [1, 3, 5])
def test_rows_put_into_a_ring_together_lie_where_each_alone_would(size):
    """A checkpoint that differs from its replay because the ring was filled in another rhythm."""
    rng = np.random.default_rng(size)
    one, many = Ring(size, 2), Ring(size, 2)
    for count in rng.integers(0, 6 * size, 50):
        rows = rng.random((count, 2))
        many.extend(rows)
        for row in rows:
            one.append(row)
        assert one.end == many.end
        np.testing.assert_array_equal(one.last(size), many.last(size))


def test_ring_keeps_the_last_rows_through_many_turns():
    """Rows lost or doubled when the ring is compacted."""
    ring, size = Ring(5, 2), 5
    for count in range(1, 60):
        ring.append(np.array([count, -count], dtype=np.float64))
        for wanted in range(1, size + 1):
            for before in range(size - wanted + 1):
                last = count - before
                expected = np.arange(max(1, last - wanted + 1), last + 1)
                np.testing.assert_array_equal(ring.last(wanted, before)[:, 0], expected)


def test_rewarmed_stream_forgets_everything_before(toy):
    """A rollover after which the scores still depend on rows under the old scaler."""
    grid = toy.grid(toy.candles())
    net = toy.timeline(grid, toy.settings).bundles[0].micro
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(net.receptive_field, len(toy.settings.names))).astype(np.float32)
    context = rng.normal(size=toy.embedding_size).astype(np.float32)
    used, new, slots, first = MicroStream(net), MicroStream(net), np.array([0]), 57
    for number, row in enumerate(rng.normal(size=(first, 1, rows.shape[1])).astype(np.float32)):
        used.advance(row, number, slots)
    scores = []
    for stream in (used, new):
        stream.set_context(0, context)
        stream.rewarm(slots, rows[None, :-1], first)
        z = stream.advance(rows[-1:], first + len(rows) - 1, slots)
        scores.append(stream.scores(z, slots).tolist())
    assert scores[0] == scores[1]
