"""Embeddings kept on disk by model and data."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.models.scoring.embedding_cache import EmbeddingCache
from cppncripto_strategy.models.scoring.macro_stream import MacroStream

COLUMNS = ("open", "high", "low", "close", "volume", "taker_buy_volume")


def replay(timeline, candles, cache=None) -> MacroStream:
    """A stream that has seen these candles."""
    stream = MacroStream(timeline, cache)
    rows = np.stack([getattr(candles, name) for name in COLUMNS], axis=1)
    for open_time, row in zip(candles.open_time, rows, strict=True):
        stream.push(int(open_time), row)
    return stream


@pytest.fixture
def world(toy):
    """Candles and a timeline that embeds their last days."""
    candles = toy.candles()
    return candles, toy.timeline(toy.grid(candles), toy.settings)


def test_restarted_stream_takes_embeddings_from_disk_and_computes_none(world, tmp_path):
    """A restart that computes what it already knew, or a cache that is never read."""
    candles, timeline = world
    plain = replay(timeline, candles)
    first = replay(timeline, candles, EmbeddingCache(tmp_path))
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == len(first.rollover_s) > 1
    for bundle in timeline.bundles:
        bundle.macro.forward = None  # whoever computes now fails
    second = replay(timeline, candles, EmbeddingCache(tmp_path))
    np.testing.assert_array_equal(plain.state.embedding, first.state.embedding)
    np.testing.assert_array_equal(plain.state.embedding, second.state.embedding)
    assert kept == sorted(tmp_path.iterdir())


def test_other_data_or_another_model_is_another_file(tmp_path):
    """A stale embedding served after the candles, or the model, changed."""
    cache, window = EmbeddingCache(tmp_path), np.zeros((4, 3), np.float32)
    changed = window.copy()
    changed[2, 1] = 1e-6
    paths = {
        cache.path("model", window, window[0]),
        cache.path("model", changed, window[0]),
        cache.path("other", window, window[0]),
    }
    assert len(paths) == 3


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\0" + b[1:], lambda b: b""])
def test_damaged_file_is_computed_again(world, tmp_path, damage):
    """A torn write that becomes a wrong embedding."""
    candles, timeline = world
    first = replay(timeline, candles, EmbeddingCache(tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    again = replay(timeline, candles, EmbeddingCache(tmp_path))
    np.testing.assert_array_equal(first.state.embedding, again.state.embedding)


def test_full_disk_costs_the_copy_and_not_the_session(tmp_path):
    """A session that dies at midnight because a cache could not be written."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = EmbeddingCache(blocked)
    path = cache.path("model", np.zeros(3, np.float32))
    cache.put(path, np.zeros(3, np.float32))
    assert cache.get(path) is None
