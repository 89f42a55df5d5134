"""Sessions: which candles belong to a day, and what its scaler may see."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.scaling import fit_scaler
from cppncripto_strategy.models.inputs.sessions import (
    SessionSet,
    SessionSettings,
    build_sessions,
    pool_rows,
    present_share,
)

HOUR_MS = 3_600_000


def test_session_holds_the_candles_that_close_in_its_day(toy):
    """A session shifted by one candle: the 00:00 close given to yesterday."""
    grid = toy.grid(toy.candles(days=17))
    table = build_sessions("X", grid, toy.settings)
    for number, start_ms in enumerate(table.start_ms):
        rows = np.arange(len(grid))[table.session_rows(number)]
        closes = grid.close_time[rows]
        expected = [t for t in grid.close_time if start_ms <= t < start_ms + DAY_MS]
        assert closes.tolist() == expected
    assert table.start_ms[-1] == grid.end_ms  # the day that the last close begins
    assert (np.diff(table.start_ms) == DAY_MS).all()


def test_first_session_has_its_whole_warm_up_before_it(toy):
    """A first day whose macro window reaches into undefined features."""
    whole = toy.grid(toy.candles(days=18))
    for start in (0, 1, 23, 24, 30):
        grid = whole.rows(start, len(whole))
        table = build_sessions("X", grid, toy.settings)
        first = grid.row_of(int(table.start_ms[0]))
        assert first >= toy.settings.warmup > first - 24
        window = table.features[first - toy.settings.long_window : first]
        assert np.isfinite(window).all()


def test_macro_window_and_scaler_see_what_closed_by_midnight(toy):
    """The scaler or the embedding of a day made from that day's own candles."""
    grid = toy.grid(toy.candles(days=19, missing=[371, 402]))
    table = build_sessions("X", grid, toy.settings)
    features = compute_features(grid)
    for number, start_ms in enumerate(table.start_ms):
        seen = np.flatnonzero(grid.close_time <= start_ms)[-toy.settings.long_window :]
        scaler = fit_scaler(features[seen], toy.settings.names)
        np.testing.assert_array_equal(
            table.macro_windows(np.array([number]))[0].numpy(), scaler.apply(features[seen])
        )
        np.testing.assert_array_equal(table.statistics[number], scaler.statistics())
        field = 7
        first_close = np.flatnonzero(grid.close_time == start_ms)
        if len(first_close):
            rows = features[first_close[0] - field + 1 :][: field - 1 + 24]
            found = table.micro_inputs(np.array([number]), field)[0].numpy()[: len(rows)]
            np.testing.assert_array_equal(found, scaler.apply(rows))


def test_pooled_windows_are_the_means_of_their_candles(toy):
    """Groups out of step with midnight, a gap that counts as 0, or a scaler of pooled rows."""
    grid = toy.grid(toy.candles(days=19, missing=[371, *range(398, 404)])).rows(7, 19 * 24)
    plain, pooled = (
        build_sessions("X", grid, dataclasses.replace(toy.settings, pool=pool)) for pool in (1, 4)
    )
    np.testing.assert_array_equal(plain.center, pooled.center)
    assert pooled.settings.macro_day_rows == 6
    for number in range(len(plain)):
        row = int(plain.row[number])
        window = plain.features[row - toy.settings.long_window : row].reshape(12, 4, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # groups without a candle
            means = np.nanmean(window, axis=1)
        scaler = fit_scaler(window.reshape(48, -1), toy.settings.names)
        found = pooled.macro_windows(np.array([number]))[0].numpy()
        np.testing.assert_allclose(found, scaler.apply(means), atol=1e-5)


def test_settings_without_what_came_later_are_written_as_before() -> None:
    """Stored bundles and embeddings renamed by a key that they do not use."""
    plain = SessionSettings()
    assert set(plain.to_json()) == {
        "interval_ms",
        "long_window",
        "scaler",
        "names",
        "feature_digests",
    }
    names = ("log_return", "present", "market_present")
    full = SessionSettings(names=names, market="M", terms=("weekday",), pool=12)
    for settings in (plain, full):
        assert SessionSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_last_session_is_filled_up_with_missing_candles(toy):
    """A half day dropped, or invented prices after the last candle."""
    grid = toy.grid(toy.candles(days=17)).rows(0, 16 * 24 + 5)
    table = build_sessions("X", grid, toy.settings)
    inputs = table.micro_inputs(np.array([len(table) - 1]), 5)[0].numpy()
    assert inputs.shape == (4 + 24, len(toy.settings.names))
    present = inputs[:, toy.settings.names.index("present")]
    exists = 4 + 6  # before the session, and the closes 00:00 to 05:00
    assert present.tolist() == [1.0] * exists + [0.0] * (len(inputs) - exists)


def test_set_gathers_each_symbol_from_its_own_table(toy):
    """Rows of one symbol under the other's name when a batch mixes them."""
    grids = [toy.grid(toy.candles(days=20, seed=seed)) for seed in (0, 1)]
    tables = [build_sessions(name, g, toy.settings) for name, g in zip("AB", grids, strict=True)]
    both = SessionSet.between(tables, 0, 2**62)
    assert len(both) == sum(len(table) for table in tables)
    order = np.random.default_rng(0).permutation(len(both))
    gathered, inputs = both.gather(order).numpy(), both.micro_inputs(order, 9).numpy()
    statistics = both.statistics().numpy()
    for place, member in enumerate(order):
        number, session = both.members[member]
        one = np.array([session])
        np.testing.assert_array_equal(gathered[place], tables[number].macro_windows(one)[0])
        np.testing.assert_array_equal(inputs[place], tables[number].micro_inputs(one, 9)[0])
        expected = tables[number].statistics[session].astype(np.float32)
        np.testing.assert_array_equal(statistics[member], expected)
        assert both.start_ms()[member] == tables[number].start_ms[session]


def test_set_takes_half_open_spans_and_usable_sessions_alone(toy):
    """The first day of the future among the training days; a day without a scaler."""
    holes = [row for row in range(15 * 24, 17 * 24 + 6) if row % 2]
    grid = toy.grid(toy.candles(days=22, missing=holes))
    table = build_sessions("X", grid, toy.settings)
    assert not table.ok.all()
    start, end = int(table.start_ms[1]), int(table.start_ms[-2])
    chosen = SessionSet.between([table], start, end).start_ms()
    expected = table.start_ms[table.ok & (table.start_ms >= start) & (table.start_ms < end)]
    np.testing.assert_array_equal(chosen, expected)
    assert len(SessionSet.between([], 0, 1)) == 0


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_settings_count_in_candles_of_their_interval(minutes):
    """288 candles a day assumed of another interval."""
    settings = SessionSettings(interval_ms=minutes * 60_000, long_window=100)
    assert settings.day_candles == 1440 // minutes
    assert settings.warmup == 100 + 288
    assert settings.n_statistics == 12
    names = (*settings.names, "taker_imbalance")
    assert dataclasses.replace(settings, names=names).n_statistics == 14


def test_present_share_counts_rows_before_the_first_as_missing(toy):
    """A first window of one candle that counts as full."""
    grid = toy.grid(toy.candles(days=2, missing=[5, 6, 30]))
    share = present_share(grid, 4)
    padded = np.concatenate([np.zeros(3), grid.present])
    expected = [padded[i : i + 4].mean() for i in range(len(grid))]
    np.testing.assert_allclose(share, expected)


def test_means_over_groups_do_not_depend_on_how_features_lie_in_memory():
    """A backtest's columns, each by itself in memory, pooled to other bits than a live ring's."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24 * 40, 5)) * 10.0 ** rng.integers(-6, 6, (24 * 40, 5))
    features[rng.random(features.shape) < 0.05] = np.nan
    together = pool_rows(np.asfortranarray(features), 24)
    np.testing.assert_array_equal(together, pool_rows(np.ascontiguousarray(features), 24))
    each = [pool_rows(features[i : i + 24], 24)[0] for i in range(0, len(features), 24)]
    np.testing.assert_array_equal(together, each)
