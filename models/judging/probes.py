"""Probes: what a frozen embedding says about the next day, by a ridge regression.

A probe learns on earlier days and is judged on later ones (walk-forward inside the span it is
given, a gap of days between), so it can serve as the fitness of a search without touching what the
search will be tested on. The default targets need no labels: the next day's profile of volume and
of volatility. It leaves out the networks (give it embeddings) and any nonlinear read-out.

Source: Hoerl & Kennard 1970 (ridge); Golub, Heath & Wahba 1979 (generalised cross-validation, which
picks the penalty from the learning days alone).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.features.table import PRESENT
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.ridge import fit_ridge

PROFILE_BLOCKS = 12
"""Blocks the next day is cut into: two hours each."""
# Fewer learning days than this and a ridge over a hundred columns says nothing.
MIN_FIT_DAYS = 20


def walk_forward_r2(
    embedding: FloatArray,
    targets: FloatArray,
    day_ms: IntArray,
    folds: int = 3,
    gap_days: int = 1,
) -> float:
    """Out-of-sample R2 of a ridge on the embedding, pooled over targets and expanding folds.

    The last `folds` fifths (and at most half) of the days are predicted, each fold by a ridge on
    the days before it, less the gap. The benchmark is the learning days' mean: 0 means no better.

    Parameters
    ----------
    embedding : float64 (N, C). targets : float64 (N, K). day_ms : int64 (N,), 00:00 UTC of each
        row's session; rows of several symbols may share a day, and then share a fold.
    folds : parts predicted, at least 1. gap_days : days left out before each part.

    Raises
    ------
    TrainingError
        When a fold would learn from fewer than 20 days.
    """
    squared_error = squared_benchmark = 0.0
    for learn, judge in fold_rows(day_ms, folds, gap_days):
        ridge = fit_ridge(embedding[learn], targets[learn])
        spread = targets[learn].std(axis=0) + 1e-12
        squared_error += float(
            (((ridge.predict(embedding[judge]) - targets[judge]) / spread) ** 2).sum()
        )
        squared_benchmark += float((((ridge.intercept - targets[judge]) / spread) ** 2).sum())
    return 1 - squared_error / squared_benchmark


def fold_rows(day_ms: IntArray, folds: int, gap_days: int) -> list[tuple[IntArray, IntArray]]:
    """Rows to learn from and to judge on, for each expanding fold (see `walk_forward_r2`)."""
    days = np.unique(day_ms)
    first_share = max(0.5, 1 - folds / 5)
    edges = np.linspace(first_share * len(days), len(days), folds + 1).round().astype(int)
    parts = []
    for begin, end in pairwise(edges):
        if begin - gap_days < MIN_FIT_DAYS or begin == end:
            raise TrainingError(
                f"a probe has {len(days)} days, and a fold would learn from "
                f"{max(begin - gap_days, 0)} of them (needs {MIN_FIT_DAYS}): give it a longer span"
            )
        learn = np.flatnonzero(day_ms < days[begin] - gap_days * DAY_MS)
        judge = np.flatnonzero((day_ms >= days[begin]) & (day_ms <= days[end - 1]))
        parts.append((learn, judge))
    return parts


def sign_accuracy(
    embedding: FloatArray, signs: NDArray[np.int8], learn: IntArray, judge: IntArray
) -> float:
    """Share of right signs of a ridge fitted to +-1 on rows `learn`, counted on rows `judge`."""
    ridge = fit_ridge(embedding[learn], signs[learn, None].astype(np.float64))
    return float((np.sign(ridge.predict(embedding[judge])[:, 0]) == signs[judge]).mean())


_Columns = tuple[FloatArray, FloatArray]
_PROFILED = ("volatility_12", "volume_z")


def next_day_profile(
    table: SessionTable, session: int, known: _Columns | None = None
) -> FloatArray:
    """What the session itself (the day after the macro window) will look like, float64 (24,).

    Twelve two-hour means of `volume_z`, then twelve of the log volatility of the last hour less
    the log of the session scaler's centre: the level the scaler knows is not credited to anybody.
    NaN where a block has no candle. Both are computed from the candles where the recipe's features
    do not have them, the level then as the median of the macro window. `known` is what
    `_profile_columns` gives, for many sessions of one table.

    Raises
    ------
    TrainingError
        When the session's candles cannot be shared out among twelve blocks.
    """
    if table.settings.day_candles % PROFILE_BLOCKS:
        raise TrainingError(
            f"a day of {table.settings.day_candles} candles cannot be cut into {PROFILE_BLOCKS}"
            " blocks: evolve on candles of 2 hours or less"
        )
    columns, levels = _profile_columns(table) if known is None else known
    day = columns[table.session_rows(session)]  # (day, 2)
    level = np.log(np.maximum(levels[session], 1e-9))
    volatility = np.log(np.maximum(day[:, 0], 1e-9)) - level
    volume = day[:, 1]
    blocks = np.stack([volume, volatility]).reshape(2 * PROFILE_BLOCKS, -1)  # (24, block)
    there = ~np.isnan(blocks)
    total = np.where(there, blocks, 0.0).sum(axis=1)
    count = there.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _profile_columns(table: SessionTable) -> _Columns:
    """Volatility and volume of every row (T + padding, 2), and each session's level (D,)."""
    names = table.settings.names
    if set(_PROFILED) <= set(names):  # scaled columns come first, in the same order
        columns = table.features[:, [names.index(name) for name in _PROFILED]]
        return columns, table.center[:, names.index(_PROFILED[0])]
    columns = np.full((len(table.features), 2), np.nan)
    computed = compute_features(table.grid, (*_PROFILED, PRESENT))[:, :2]
    columns[: len(computed)] = computed
    levels = np.full(len(table), np.nan)
    for session, first in enumerate(table.row):
        window = columns[max(first - table.settings.long_window, 0) : first, 0]
        levels[session] = np.nanmedian(window) if np.isfinite(window).any() else np.nan
    return columns, levels


def profile_targets(sessions: SessionSet, until_ms: int) -> FloatArray:
    """Next-day profiles of a set of sessions, float64 (N, 24).

    NaN throughout for a session that ends after `until_ms`, and where `next_day_profile` is NaN.
    """
    targets = np.full((len(sessions), 2 * PROFILE_BLOCKS), np.nan)
    columns = [_profile_columns(table) for table in sessions.tables]
    for place, (number, session) in enumerate(sessions.members):
        table = sessions.tables[number]
        if table.start_ms[session] + DAY_MS <= until_ms:
            targets[place] = next_day_profile(table, int(session), columns[number])
    return targets


__all__ = [
    "fold_rows",
    "next_day_profile",
    "profile_targets",
    "sign_accuracy",
    "walk_forward_r2",
]
