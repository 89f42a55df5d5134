"""What MicroNet reads of an embedding: the directions that predict the coming days, no others."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions
from cppncripto_strategy.models.learning import learner
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.learning.reading import (
    DAYS,
    MIN_DAYS,
    Profiles,
    day_profiles,
    predictive_reading,
)
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.settings import LearnSettings, MicroNetSettings
from cppncripto_strategy.models.settings import PretrainSettings as Pretrain
from cppncripto_strategy.models.settings import TrainSettings as Train
from cppncripto_strategy.testing.grids import changed_from, random_grid, with_hole

HOUR_MS = 3_600_000
SETTINGS = SessionSettings(interval_ms=HOUR_MS, long_window=48)


def days_of(count, symbols=1):
    """00:00 UTC of days, each once for every symbol."""
    return np.tile(np.arange(count) * DAY_MS, symbols)


def alike(profiles, seed=0):
    """Profiles of recent days and of coming ones that are the same but for noise of their own."""
    noise = np.random.default_rng(seed).normal(size=(2, *profiles.shape))
    return Profiles(*(profiles + noise))


def planted(days=360, noise=128, told=0.9, seed=0):
    """Embeddings that are noise but for one bit, profiles that follow the bit, and the bit."""
    rng = np.random.default_rng(seed)
    bit = np.where(rng.random(days) < 0.5, -1.0, 1.0)
    context = rng.normal(size=(days, noise))
    context[:, 7] = bit
    shape = np.sin(np.arange(24) / 4)
    came = np.where(rng.random(days) < told, bit, -bit)
    return context, alike(came[:, None] * shape, seed), bit


@pytest.mark.parametrize("seed", range(5))
def test_one_bit_among_noise_is_read(seed):
    """Directions of most variance: among equal columns a regime is lost with 127 others."""
    context, profiles, _ = planted(seed=seed)
    reading = predictive_reading(context, profiles, days_of(360), 4)
    fresh, _, told = planted(seed=seed + 100)  # days that it was not chosen on
    read = fresh @ reading
    assert (np.sign(read[:, 0]) == told).mean() > 0.75
    net = MicroNet(MicroNetSettings(n_features=3, n_context=128, components=4))
    net.fit_context(torch.from_numpy(context).float())
    by_variance = fresh @ net.whiten.numpy()
    assert max(abs(np.corrcoef(c, told)[0, 1]) for c in by_variance.T) < 0.5
    assert abs(np.corrcoef(read[:, 0], told)[0, 1]) > 0.75
    # What was only fitted is small beside what holds on days left out.
    spread = read.std(axis=0)
    assert spread[0] > 2 * spread[1:].max()


@pytest.mark.parametrize("seed", range(5))
def test_embedding_that_tells_nothing_is_turned_down(seed):
    """Noise at unit variance, for MicroNet to fit."""
    rng = np.random.default_rng(seed)
    context, profiles = rng.normal(size=(360, 128)), Profiles(*rng.normal(size=(2, 360, 24)))
    reading = predictive_reading(context, profiles, days_of(360), 4)
    assert (context @ reading).std(axis=0).max() < 0.35


def test_direction_of_little_variance_has_a_penalty_of_its_own():
    """One penalty for all: what little variance says is shrunk away with the noise of the rest."""
    rng, days = np.random.default_rng(2), 360
    latent = rng.normal(size=(days, 24))
    mix = np.linalg.qr(rng.normal(size=(40, 24)))[0]
    context = latent * 0.7 ** np.arange(24) @ mix.T  # the 13th has 1 % of the first one's spread
    shapes = np.linalg.qr(rng.normal(size=(24, 2)))[0]
    profiles = alike(latent[:, [0, 12]] * [3, 0.9] @ shapes.T)
    read = context @ predictive_reading(context, profiles, days_of(days), 2)
    assert abs(np.corrcoef(read[:, 0], latent[:, 0])[0, 1]) > 0.95
    assert abs(np.corrcoef(read[:, 1], latent[:, 12])[0, 1]) > 0.5


def test_zero_embedding_reads_as_zero_and_there_is_nothing_to_choose_by():
    """An offset: a network without macro would hear one. A ridge over no days."""
    context, profiles, _ = planted()
    reading = predictive_reading(context, profiles, days_of(360), 4)
    assert not (np.zeros(128) @ reading).any()
    assert predictive_reading(np.zeros((360, 128)), profiles, days_of(360), 4) is None
    few = MIN_DAYS - 1
    first = Profiles(profiles.recent[:few], profiles.coming[:few])
    assert predictive_reading(context[:few], first, days_of(few), 4) is None
    # As many rows as need be, but of too few days.
    assert predictive_reading(context, profiles, days_of(30, symbols=12), 4) is None
    profiles.coming[: 360 - few] = np.nan
    assert predictive_reading(context, profiles, days_of(360), 4) is None


def test_unknown_days_and_fewer_directions_than_asked():
    """A NaN in a ridge; a direction of nothing divided by its zero spread."""
    context, profiles, _ = planted()
    later = Profiles(profiles.recent[50:], profiles.coming[50:])
    before = predictive_reading(context[50:], later, days_of(310), 2)
    profiles.recent[:20, 3] = profiles.coming[20:50, 3] = np.nan
    # The folds are of whole days, so the days' own numbers do not matter.
    np.testing.assert_array_equal(
        before, predictive_reading(context, profiles, days_of(360) - 50 * DAY_MS, 2)
    )
    narrow = np.zeros_like(context)
    narrow[:, 7] = context[:, 7]
    profiles = Profiles(np.nan_to_num(profiles.recent), np.nan_to_num(profiles.coming))
    reading = predictive_reading(narrow, profiles, days_of(360), 4)
    assert np.isfinite(reading).all()
    assert (np.abs(reading).sum(axis=0) > 0).tolist() == [True, False, False, False]


def test_sign_does_not_hang_on_a_day_more():
    """A direction that turns over with one more candle: a warm start would read it upside down."""
    context, profiles, _ = planted(days=361)
    first = Profiles(profiles.recent[:-1], profiles.coming[:-1])
    once = predictive_reading(context[:-1], first, days_of(360), 1)
    again = predictive_reading(context, profiles, days_of(361), 1)
    assert np.corrcoef(once[:, 0], again[:, 0])[0, 1] > 0.9


def test_direction_that_only_remembers_is_turned_down():
    """What the encoder saw and what will come, weighed alike: a memory of yesterday is no news."""
    rng, days = np.random.default_rng(4), 360
    lasts, passes = rng.choice([-1.0, 1.0], size=(2, days))
    context = np.stack([lasts, passes], axis=1)
    shapes = np.linalg.qr(rng.normal(size=(24, 2)))[0].T * 4
    both = np.outer(lasts, shapes[0])
    profiles = alike(both)
    profiles.recent[:] += np.outer(passes, shapes[1])
    read = context @ predictive_reading(context, profiles, days_of(days), 2)
    found = np.abs(np.corrcoef(read.T, np.stack([lasts, passes]))[:2, 2:])
    of = found.argmax(axis=0)  # the component that reads each
    assert read[:, of[0]].std() > 0.8
    assert read[:, of[1]].std() < 0.35


def level_of(grid, rows):
    """Mean ln volume, and ln of the mean squared return, of the rows that have them."""
    volumes = [math.log(grid.volume[r]) for r in rows if grid.volume[r] > 0]
    moves = [math.log(grid.close[r] / grid.close[r - 1]) ** 2 for r in rows]
    known = [m for m in moves if not math.isnan(m)]
    mean = sum(known) / len(known) if known else 0.0
    volume = sum(volumes) / len(volumes) if volumes else math.nan
    return np.array([volume, math.log(mean) if mean > 0 else math.nan])


def test_profiles_are_those_of_the_days_around_midnight():
    """The days shifted by a candle, or measured against themselves."""
    grid = with_hole(random_grid(24 * 30, 3, missing=0.02, no_trades=0.03), 500, 506)
    grid = dataclasses.replace(grid, interval_ms=HOUR_MS, start_ms=0)
    table = build_sessions("X", grid, SETTINGS)
    sessions = SessionSet.between([table], 0, 2**62)
    found = day_profiles(sessions, 2**62)
    for place, (_, session) in enumerate(sessions.members):
        first = int(table.start_ms[session]) // HOUR_MS
        window = level_of(grid, range(first - 48, first))
        for side, start in ((found.recent, first - 24 * DAYS), (found.coming, first)):
            if start < 0 or start + 24 * DAYS > len(grid):
                assert np.isnan(side[place]).all()
                continue
            days = range(start, start + 24 * DAYS, 24)
            parts = [
                sum(level_of(grid, range(day + 2 * k, day + 2 * k + 2)) for day in days) / DAYS
                for k in range(12)
            ]
            expected = np.stack(parts, axis=1) - window[:, None]  # (2, 12)
            np.testing.assert_allclose(side[place], expected.ravel(), rtol=1e-9, atol=1e-12)
    assert found.known.any()


def test_profiles_see_no_candle_after_the_span():
    """The first validation day in what MicroNet is told to read."""
    grid = random_grid(24 * 30, 4)
    grid = dataclasses.replace(grid, interval_ms=HOUR_MS, start_ms=0)
    until = 24 * DAY_MS
    found = []
    for candles in (grid, changed_from(grid, until // HOUR_MS)):
        table = build_sessions("X", candles, SETTINGS)
        sessions = SessionSet.between([table], 0, until)
        found.append(day_profiles(sessions, until))
        known = sessions.start_ms() + DAYS * DAY_MS <= until
        assert np.isnan(found[-1].coming[~known]).all()
        assert np.isfinite(found[-1].coming[known]).any()
    np.testing.assert_array_equal(found[0].coming, found[1].coming)
    np.testing.assert_array_equal(found[0].recent, found[1].recent)


@pytest.fixture(scope="module")
def bundles(toy):
    """A bundle that reads what predicts, and one that reads what varies, of the same days."""
    grid = toy.grid(toy.candles(days=130))
    learn = LearnSettings(
        session=SETTINGS,
        encoder_options={"channels": 4, "stride": 6, "dilations": [1, 2]},
        pretrain=Pretrain(epochs=1, batch_size=16),
        train=Train(epochs=1, initialisations=2),
        short_window=12,
        micro_options={"channels": 4, "hidden": 4, "components": 2, "reading": "predictive"},
        train_days=90,
        validate_days=21,
    )
    table = build_sessions("X", grid, SETTINGS)
    until = int(table.start_ms[-1])
    other = dataclasses.replace(learn, micro_options={**learn.micro_options, "reading": "variance"})
    return {
        "predictive": learn_bundle([table], until, learn, seed=0),
        "variance": learn_bundle([table], until, other, seed=0),
        "days": learner.Days.before([table], until, learn),
    }


def test_bundle_reads_as_its_recipe_says(bundles):
    """A setting that reaches nothing."""
    days, bundle = bundles["days"], bundles["predictive"]
    bank = bundle.bank[: len(days.train)].astype(np.float64)
    profiles = day_profiles(days.train, days.split_ms)
    expected = predictive_reading(bank, profiles, days.train.start_ms(), 2)
    np.testing.assert_allclose(bundle.micro.whiten.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert not np.allclose(bundles["variance"].micro.whiten.numpy(), expected, atol=1e-3)
    assert bundle.info.micro.reading == "predictive"


def test_too_few_days_are_said(toy, caplog):
    """Silence about a setting that could not be followed."""
    table = build_sessions("X", toy.grid(toy.candles(days=60)), SETTINGS)
    learn = LearnSettings(
        session=SETTINGS,
        encoder_options={"channels": 4, "stride": 6, "dilations": [1, 2]},
        pretrain=Pretrain(epochs=1),
        train=Train(epochs=1, initialisations=1),
        short_window=12,
        micro_options={"channels": 4, "hidden": 4, "reading": "predictive"},
        train_days=30,
        validate_days=15,
    )
    with caplog.at_level("INFO"):
        learn_bundle([table], int(table.start_ms[-1]), learn, seed=0)
    assert "MicroNet reads its principal components" in caplog.text
