"""Bundles: what is written is what is read, and nothing scores its own past."""

import dataclasses
import hashlib
import json
import pickletools

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import (
    INFO_FILE,
    WEIGHTS_FILE,
    Bundle,
    BundleTimeline,
    arm_folder,
)
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.models.scoring.batch import score_span


@pytest.fixture(scope="module")
def grid(toy):
    return toy.grid(toy.candles())


@pytest.fixture(scope="module")
def timeline(toy, grid):
    return toy.timeline(grid, toy.settings, sessions=(4, 6))


def rewrite(folder, **changes):
    """Change keys of bundle.json, and its seal along, as another version might have written it."""
    path = folder / INFO_FILE
    values = {**json.loads(path.read_text()), **changes}
    del values["sha256"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**values, "sha256": digest}))


@pytest.mark.parametrize("macro", [True, False])
def test_saved_bundle_comes_back_with_the_same_scores_and_bytes(toy, grid, tmp_path, macro):
    """A buffer, an option or a quantile left out of the file."""
    timeline = toy.timeline(grid, toy.settings, macro=macro, head="regression", short_window=15)
    bundle = timeline.bundles[0]
    loaded = Bundle.load(bundle.save(tmp_path / "one"))
    assert loaded.info == bundle.info
    assert loaded.model_hash == bundle.model_hash
    assert loaded.to_bytes() == bundle.to_bytes()
    for name in ("score_seed", "bank", "bank_ms"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bundle, name))
    before = score_span("X", grid, timeline)
    after = score_span("X", grid, BundleTimeline((loaded,)))
    np.testing.assert_array_equal(after.score, before.score)
    np.testing.assert_array_equal(after.drift, before.drift)


def test_folder_holds_json_and_safetensors_and_no_pickle(timeline, tmp_path):
    """A pickle, by whatever name: loading it would run code."""
    folder = timeline.bundles[0].save(tmp_path / "one")
    assert sorted(path.name for path in folder.iterdir()) == [INFO_FILE, WEIGHTS_FILE]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]  # nothing temporary left
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
        with pytest.raises(ValueError, match=r"."):
            list(pickletools.genops(content))
    header = (folder / WEIGHTS_FILE).read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_hash_follows_weights_and_settings(timeline):
    """Two different networks under one name in the tables."""
    bundle = timeline.bundles[0]
    net = type(bundle.micro)(bundle.micro.settings)
    net.load_state_dict(bundle.micro.state_dict())
    with torch.no_grad():
        net.output.bias[0] += 1e-6
    other = dataclasses.replace(bundle, micro=net)
    info = dataclasses.replace(bundle.info, seed=bundle.info.seed + 1)
    hashes = {b.model_hash for b in (bundle, other, dataclasses.replace(bundle, info=info))}
    assert len(hashes) == 3


def test_saving_again_is_idle_and_another_bundle_is_refused(timeline, tmp_path):
    """A finished bundle overwritten by another, or a damaged one taken for finished."""
    first, second = timeline.bundles
    folder = first.save(tmp_path / "one")
    stamp = (folder / INFO_FILE).stat().st_mtime_ns
    first.save(folder)
    assert (folder / INFO_FILE).stat().st_mtime_ns == stamp
    with pytest.raises(BundleError, match="already holds another bundle"):
        second.save(folder)
    (folder / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(BundleError, match="already holds another bundle"):
        first.save(folder)


def test_interrupted_save_leaves_nothing_that_looks_like_a_bundle(timeline, tmp_path, monkeypatch):
    """Half a bundle under its final name after a crash."""
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full") as refused:
        timeline.bundles[0].save(tmp_path / "one")
    assert refused.value.filename == str(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_tampered_weights_are_refused(timeline, tmp_path, place):
    """A flipped bit that trades."""
    folder = timeline.bundles[0].save(tmp_path / "one")
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[place]] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="damaged: its SHA-256"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("trained_until_ms", 0), ("seed", 5), ("weights_sha256", "0" * 64)]
)
def test_bundle_json_moved_by_hand_is_refused(timeline, tmp_path, key, value):
    """trained_until moved back by hand: a bundle that trades its own training days."""
    folder = timeline.bundles[0].save(tmp_path / "one")
    values = json.loads((folder / INFO_FILE).read_text())
    (folder / INFO_FILE).write_text(json.dumps({**values, key: value}))
    with pytest.raises(BundleError, match=r"bundle\.json .*changed after it was written"):
        Bundle.load(folder)
    del values["sha256"]
    (folder / INFO_FILE).write_text(json.dumps({**values, key: value}))
    with pytest.raises(BundleError, match="carries no sha256"):
        Bundle.load(folder)


def test_other_format_is_refused_by_number(timeline, tmp_path):
    """A future bundle read as if nothing had changed."""
    folder = timeline.bundles[0].save(tmp_path / "one")
    rewrite(folder, format=99)
    with pytest.raises(BundleError, match="format is 99, this version reads 4"):
        Bundle.load(folder)


def test_unknown_option_in_a_bundle_is_named(timeline, tmp_path):
    """A bundle of another version that is read as if nothing were different."""
    folder = timeline.bundles[0].save(tmp_path / "one")
    options = json.loads((folder / INFO_FILE).read_text())["encoder_options"]
    rewrite(folder, encoder_options={**options, "chanels": 3})
    with pytest.raises(BundleError, match=r"unknown option 'chanels' of encoder 'tcn'.*'channels'"):
        Bundle.load(folder)


def test_files_that_are_no_bundle_say_which_and_why(timeline, tmp_path):
    """A KeyError or a JSON traceback where a sentence belongs."""
    with pytest.raises(BundleError, match="not a readable bundle"):
        Bundle.load(tmp_path / "nothing")
    folder = timeline.bundles[0].save(tmp_path / "one")
    whole = (folder / INFO_FILE).read_text()
    (folder / INFO_FILE).write_text(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="not a readable bundle"):
        Bundle.load(folder)
    (folder / INFO_FILE).write_text(whole)
    rewrite(folder, symbolz=["X"])
    with pytest.raises(BundleError, match="symbolz"):
        Bundle.load(folder)
    (folder / INFO_FILE).write_text(whole)
    values = json.loads(whole)
    values["micro"]["channels"] += 1
    rewrite(folder, micro=values["micro"])
    with pytest.raises(BundleError, match="does not hold the networks it describes"):
        Bundle.load(folder)


def test_scoring_the_own_past_is_refused_and_named(timeline):
    """In-sample results that look like results."""
    start = timeline.first_session_ms
    timeline.require_out_of_sample(start)
    with pytest.raises(BundleError, match=r"trained until 2023-01-19 00:00.*in_sample=True"):
        timeline.require_out_of_sample(start - 1)
    assert start == np.datetime64("2023-01-19", "ms").astype(np.int64)
    BundleTimeline(timeline.bundles, in_sample=True).require_out_of_sample(start - DAY_MS)


def test_bundle_in_force_is_the_last_that_was_trained_before(timeline):
    """A bundle in force a day early scores a day it has learned from."""
    first, second = (bundle.info.trained_until_ms for bundle in timeline.bundles)
    asked = [first - 1, first, first + DAY_MS, second - 1, second, second + 9 * DAY_MS]
    assert timeline.active_in(asked).tolist() == [-1, 0, 0, 0, 1, 1]
    peeking = BundleTimeline(timeline.bundles, in_sample=True)
    assert peeking.active_in(asked).tolist() == [0, 0, 0, 0, 1, 1]


def test_timeline_refuses_disorder_repeats_mixtures_and_nothing(toy, grid, timeline):
    """An older bundle put in force after a newer one; inputs made two ways."""
    first, second = timeline.bundles
    for wrong in ((second, first), (first, first)):
        with pytest.raises(BundleError, match="ordered by trained_until"):
            BundleTimeline(wrong)
    with pytest.raises(BundleError, match="at least one bundle"):
        BundleTimeline(())
    session = dataclasses.replace(second.info.session, scaler="minmax")
    other = dataclasses.replace(second, info=dataclasses.replace(second.info, session=session))
    with pytest.raises(BundleError, match="must share interval"):
        BundleTimeline((first, other))


def test_bundles_of_two_runs_are_not_mixed(toy, grid, timeline, tmp_path):
    """Two runs' networks taking turns as if they were one's."""
    first = timeline.bundles[0]
    first.save(tmp_path / "bundles" / "with-macro" / "a")
    other = toy.bundle(build_sessions("X", grid, toy.settings), first.info.trained_until_ms, 9)
    other.save(tmp_path / "bundles" / "with-macro" / "b")
    with pytest.raises(BundleError, match=r"bundles of more than one run.*name the folder of one"):
        BundleTimeline.load(tmp_path)


def test_timeline_saved_by_arm_is_read_from_the_folder_above(toy, grid, timeline, tmp_path):
    """An arm without macro taken where both are there, or refused where it stands alone."""
    bare = toy.timeline(grid, toy.settings, sessions=(4, 6), macro=False)
    bare.save(tmp_path / "bundles" / arm_folder(False))
    assert BundleTimeline.load(tmp_path).bundles[0].macro is None
    timeline.save(tmp_path / "bundles" / arm_folder(True))
    wanted = [bundle.model_hash for bundle in timeline.bundles]
    for folder in (tmp_path, tmp_path / "bundles", str(tmp_path)):
        assert [b.model_hash for b in BundleTimeline.load(folder).bundles] == wanted


def test_folder_of_bundles_loads_in_order_of_training(timeline, tmp_path):
    """Alphabetical order taken for order in time; a set-aside folder taken for a bundle."""
    first, second = timeline.bundles
    second.save(tmp_path / "a")
    first.save(tmp_path / "b")
    first.save(tmp_path / ".damaged-c")
    loaded = BundleTimeline.load(tmp_path)
    assert [b.model_hash for b in loaded.bundles] == [first.model_hash, second.model_hash]
    alone = BundleTimeline.load(tmp_path / "a", in_sample=True)
    assert [b.model_hash for b in alone.bundles] == [second.model_hash]
    assert alone.in_sample
    with pytest.raises(BundleError, match="holds no bundle"):
        BundleTimeline.load(tmp_path / ".damaged-c" / "empty")
