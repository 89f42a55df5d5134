"""Arms trained side by side: the bytes of arms trained one after the other, and nothing twice."""

from __future__ import annotations

import errno
import hashlib
import logging
import weakref

import pytest

from cppncripto_strategy import timelines
from cppncripto_strategy.market import load_market, session_tables
from cppncripto_strategy.models.bundle import arm_folder
from cppncripto_strategy.models.learning.walkforward import is_cached
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.runlog import PhaseClock
from cppncripto_strategy.spreading.jobs import Job
from cppncripto_strategy.spreading.mapped import taken_up
from cppncripto_strategy.timelines import train_arms

TINY = {
    "symbols": ["PLANTED"],
    "interval": "1h",
    "candles": {"source": "planted", "planted": {"days": 90}},
    "macro": {"long_window": 288, "epochs": 1, "encoder_options": {"channels": 4}},
    "label": {"horizon": 6},
    "micro": {"short_window": 12, "epochs": 1, "initialisations": 1},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 7},
}


def world(**walkforward):
    """A recipe with its candles and its span."""
    recipe = parse_recipe({**TINY, "walkforward": {**TINY["walkforward"], **walkforward}})
    market = load_market(recipe)
    return recipe, market, checked_span(recipe, market)


def digests(arms, folder):
    """SHA-256 of every file of every bundle, as a run keeps them."""
    for timeline in arms.values():
        timeline.save(folder / arm_folder(timeline.bundles[0].macro is not None))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def train(world, cache, jobs, seen=None):
    """The arms of a recipe, trained."""
    recipe, market, span = world
    note = (lambda *said: seen.append(said)) if seen is not None else (lambda *_: None)
    return train_arms(recipe, market, span, cache, PhaseClock(note), jobs)


@pytest.mark.slow
@pytest.mark.parametrize("macro_days", [7, 364])
def test_processes_leave_the_bytes_of_one(tmp_path, macro_days):
    """A seed, a thread or a warm start that hangs on who trains; a stamp that nobody trained."""
    place, seen = world(macro_retrain_days=macro_days), []
    serial = digests(train(place, None, 1), tmp_path / "serial")
    beside = digests(train(place, None, 4, seen), tmp_path / "beside")
    assert len(serial) > 8
    assert beside == serial
    shown = {name for name, done, total, text in seen if text.startswith("bundle")}
    parts = 2 if macro_days == 7 else 1
    assert len(shown - {"training with macro", "training without macro"}) == 4 * (parts == 2)


def in_this_process(jobs, wanted, progress, bytes_each):
    """As `run_jobs`, without a process."""
    for job in jobs:
        job.target(*job.arguments, lambda done, total, text: None)
    return True


def test_cache_is_filled_by_parts_and_found_by_the_whole(tmp_path, monkeypatch):
    """Parts that train other bundles than the whole asks for: everything would be trained twice."""
    place, asked = world(macro_retrain_days=7), list[Job]()

    def run(jobs, *rest):
        asked.extend(jobs)
        return in_this_process(jobs, *rest)

    monkeypatch.setattr(timelines, "run_jobs", run)
    train(place, tmp_path, 4)
    assert [job.name for job in asked] == [
        f"training {arm} macro {part}/2" for arm in ("with", "without") for part in (1, 2)
    ]
    made = sorted(path.name for path in tmp_path.glob("*/*/bundle.json"))
    recipe, market, span = place
    tables = session_tables(market, recipe.learn_settings().session)
    for use_macro in (True, False):
        settings = recipe.learn_settings(use_macro)
        assert is_cached(tables, span.start_ms, span.end_ms, settings, recipe.seed, tmp_path)
        assert not is_cached(tables, span.start_ms, span.end_ms, settings, 99, tmp_path)
    asked.clear()
    train(place, tmp_path, 4)
    assert not asked
    assert sorted(path.name for path in tmp_path.glob("*/*/bundle.json")) == made


def test_processes_share_the_features_and_nobody_holds_a_second_copy(tmp_path, monkeypatch):
    """Features of all symbols once more in memory, for each process and for the one that waits."""
    features, held, made = [], [], []

    def lay_out(*given):
        tables = session_tables(*given)
        features.extend(weakref.ref(table.features) for table in tables)
        return tables

    def run(jobs, *rest):
        held.extend(array() for array in features)
        for job in jobs:
            *_, laid, path = job.arguments
            made.extend(table.features.flags.owndata for table in taken_up(laid, path))
        return True

    monkeypatch.setattr(timelines, "session_tables", lay_out)
    monkeypatch.setattr(timelines, "run_jobs", run)
    train(world(), tmp_path, 2)
    assert (held, made, len(features)) == ([None], [False, False], 1)


def test_without_room_for_shared_features_it_goes_on_alone(tmp_path, monkeypatch, caplog):
    """A full disk for temporary files that ends a run which did not need them."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(timelines, "lay_out", full)
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        arms = train(world(), tmp_path, 2)
    assert [len(timeline.bundles) > 1 for timeline in arms.values()] == [True, True]
    assert "features cannot be shared ([Errno" in caplog.text


def test_parts_that_fail_are_done_here(tmp_path, monkeypatch, caplog):
    """A run that ends because its helpers could not begin."""
    monkeypatch.setattr(timelines, "run_jobs", lambda *_: False)
    with caplog.at_level(logging.WARNING, logger="cppncripto_strategy"):
        arms = train(world(), tmp_path, 2)
    assert [len(timeline.bundles) > 1 for timeline in arms.values()] == [True, True]
