"""Finished bundles on disk: what is found again, and that it is what would have been made."""

import dataclasses

import pytest

from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.learning import cache as caching
from cppncripto_strategy.models.learning import macro
from cppncripto_strategy.models.learning.cache import MACRONETS, macro_key
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

DAY = 86_400_000


@pytest.fixture(scope="module")
def ground(toy):
    """Tables, a stamp, and settings that train in a second."""
    grid = toy.grid(toy.candles(days=80))
    table = build_sessions("X", grid, toy.settings)
    settings = LearnSettings(
        session=toy.settings,
        encoder_options={"channels": 6, "stride": 6, "dilations": [1, 2]},
        pretrain=PretrainSettings(epochs=1),
        train=TrainSettings(epochs=1, initialisations=1),
        short_window=8,
        micro_options={"channels": 4, "hidden": 4},
        train_days=20,
        validate_days=16,
        retrain_days=7,
        macro_retrain_days=364,
    )
    return [table], int(table.start_ms[-1]) - 10 * DAY, settings


def train(ground, cache, seed=0, **changes):
    tables, start, settings = ground
    changed = dataclasses.replace(settings, **changes)
    return walk_forward(tables, start, start + DAY, changed, seed, cache).bundles[-1]


def test_macronet_of_another_micronet_is_taken_and_changes_no_bit(ground, tmp_path, monkeypatch):
    """A search over MicroNet that pretrains MacroNet for each candidate, or gets another one."""
    wider = {"micro_options": {"channels": 6, "hidden": 4}}
    alone = train(ground, tmp_path / "alone", **wider)
    shared = tmp_path / "shared"
    first = train(ground, shared)
    assert len(list((shared / MACRONETS).glob("*.json"))) == 1
    monkeypatch.setattr(macro, "pretrain", _refuse)
    second = train(ground, shared, **wider)
    assert second.model_hash == alone.model_hash
    assert second.model_hash != first.model_hash


def _refuse(*_, **__):
    raise AssertionError("MacroNet was pretrained again")


def test_whatever_macronet_follows_from_makes_another_one(ground):
    """A MacroNet of another seed, window or objective under a candidate's MicroNet."""
    tables, start, settings = ground
    base = macro_key(tables, start, settings, 0)
    session = dataclasses.replace(settings.session, scaler="minmax")
    for change in (
        {"encoder": "gru", "encoder_options": {}},
        {"encoder_options": {**settings.encoder_options, "channels": 8}},
        {"objective": "masked"},
        {"pretrain": PretrainSettings(epochs=2)},
        {"train_days": 21},
        {"validate_days": 17},
        {"session": session},
        {"plugins": ("mine.py 12ab",)},
    ):
        assert macro_key(tables, start, dataclasses.replace(settings, **change), 0) != base
    assert macro_key(tables, start, settings, 1) != base
    assert macro_key(tables, start - 7 * DAY, settings, 0) != base
    alike = {"micro_options": {}, "train": TrainSettings(), "short_window": 12, "warm_epochs": 3}
    assert macro_key(tables, start, dataclasses.replace(settings, **alike), 0) == base


def test_a_damaged_note_costs_a_training_and_nothing_else(ground, tmp_path, caplog):
    """A search that ends because a note of the cache was cut off."""
    train(ground, tmp_path)
    (note,) = (tmp_path / caching.MACRONETS).glob("*.json")
    note.write_text("{")
    wider = {"micro_options": {"channels": 6, "hidden": 4}}
    assert train(ground, tmp_path, **wider).macro is not None
    assert "MacroNet is trained again" in caplog.text
