"""Packed values come back as they were, and changed bytes are never taken for values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cppncripto_strategy.paper.packing import digest_of, pack, unpack

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from(["<f8", "<f4", "<i8"]).flatmap(lambda kind: arrays.arrays(kind, SHAPES))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | ARRAYS
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
VALUES = st.dictionaries(st.text(max_size=4), TREES, max_size=4)


def same(one: Any, other: Any) -> bool:
    """Equal with types, NaN and the sign of zero included."""
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, float):
        bits = (math.copysign(1.0, one), repr(one)) == (math.copysign(1.0, other), repr(other))
        return isinstance(other, float) and (bits or (math.isnan(one) and math.isnan(other)))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_values_come_back_as_they_were(values: dict[str, Any]) -> None:
    """A state that comes back an ulp off is another state."""
    assert same(values, unpack(pack(values)))
    assert digest_of(values) == digest_of(unpack(pack(values)))


@settings(max_examples=150, deadline=None)
@given(VALUES, st.data())
def test_any_changed_byte_is_noticed(values: dict[str, Any], data: st.DataObject) -> None:
    """A bit that fell over on the disk must not become a position."""
    content = bytearray(pack(values))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"format|SHA-256"):
        unpack(bytes(content))
    with pytest.raises(ValueError, match=r"format|SHA-256"):
        unpack(pack(values)[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("odd", [object(), {1: 2}, {"__array__": 1}, np.zeros(2, bool), 1j])
def test_what_cannot_come_back_is_refused(odd: object) -> None:
    """A set that comes back as a list would be another state without a word."""
    with pytest.raises(TypeError, match=r"expected|cannot pack"):
        pack({"odd": odd})
