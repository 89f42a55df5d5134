"""Ranks in sliding windows against each window sorted."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.models.scoring.sliding import largest_of_windows


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(1, 400),
    count=st.integers(0, 700),
    depth=st.floats(0, 1),
    decimals=st.sampled_from([0, 1, 12]),
    drift=st.sampled_from([0.0, 0.05, -0.05, 3.0, -3.0]),
)
def test_ranks_are_those_of_each_window_sorted(seed, window, count, depth, decimals, drift) -> None:
    """A cut that a falling market leaves below too few values, a tie that is removed twice."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=window + count) + drift * np.arange(window + count)
    values = np.round(values, decimals) + 0.0
    rank = round(depth * (window - 1))
    ranks = (rank, max(rank - 1, 0))
    found = largest_of_windows(values, window, ranks)
    for one, got in zip(ranks, found, strict=True):
        expected = [np.sort(values[i : i + window])[window - 1 - one] for i in range(count)]
        assert got.tobytes() == np.array(expected, dtype=np.float64).tobytes()


def test_many_ties_and_a_level_that_jumps() -> None:
    """A list above the cut that grows without end where every value ties with the cut."""
    values = np.concatenate([np.zeros(300), np.ones(300), np.zeros(300)])
    for rank, got in zip((3, 2), largest_of_windows(values, 200, (3, 2)), strict=True):
        assert got.tolist() == [sorted(values[i : i + 200])[-1 - rank] for i in range(700)]
