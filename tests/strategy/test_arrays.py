"""What arrays do together: the union of stamps, and which are among others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.arrays import among_ascending, union_of_ascending

PARTS = st.lists(st.lists(st.integers(-5, 30), max_size=20), min_size=1, max_size=4)


@given(PARTS, st.sampled_from([np.int64, np.float64]))
def test_union_is_what_unique_says(parts, kind) -> None:
    """A stamp of two symbols twice in the equity, or the first one lost."""
    arrays = [np.array(part, dtype=kind) for part in parts]
    union = union_of_ascending(arrays)
    np.testing.assert_array_equal(union, np.unique(np.concatenate(arrays)))
    assert union.dtype == kind


@given(*[st.lists(st.integers(-5, 30), max_size=20)] * 2)
def test_membership_is_what_isin_says(values, known) -> None:
    """A stored candle that is taken for a new one, the last of them, say, or the reverse."""
    known_array = np.unique(np.array(known, dtype=np.int64))
    array = np.array(values, dtype=np.int64)
    found = among_ascending(array, known_array)
    np.testing.assert_array_equal(found, np.isin(array, known_array))
    assert found.dtype == np.bool_
