"""How MicroNet reads the embedding: the directions that predict the coming days come first.

A label that is mostly noise cannot fit a hundred inputs, so that only a few directions of the
embedding reach MicroNet. The directions of most variance need not be those worth knowing: a regime
that one number in a hundred holds is lost among them. Here they are chosen by what they say of the
profile of volume and volatility of the days on both sides of the embedding's midnight, which every
candle file holds and no label enters. What lasts shows in the days that the encoder saw with less
noise than in the days to come; whether it lasts, only these can tell:

1. ridges of both profiles on the embedding (Hoerl & Kennard 1970), penalties by cross-validation
   over blocks of days: neighbouring windows overlap, and leaving out one row would leave out
   nothing;
2. the leading principal directions of what they predict: reduced-rank regression (Izenman 1975);
   each by the penalty that predicts it best, since a regime may lie where there is little variance;
3. each with unit variance, times the share of its correlation with the coming days, left out of
   its ridge, that is not chance: a direction that only fitted its own days, or only remembers days
   past, shrinks to zero, and a useless embedding with it.

A direction's sign and order are settled by its largest weight, so that one candle more does not
turn it over. Left out: what the embedding knows of the label and not of the days' profile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features.returns import log_returns
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.ridge import PENALTIES, RidgePath, ridge_path

BLOCKS = 12
"""Parts of the coming day, where its candles can be shared out among so many."""
DAYS = 3
"""Days on either side whose profiles are averaged: what lasts shows through one day's noise."""
# Fewer days with a known profile, and the correlation of one direction is a guess.
MIN_DAYS = 60
FOLDS = 6
# Macro windows of neighbouring days overlap: days this near to a fold do not learn for it.
GAP_DAYS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """What the days around each session's midnight were like.

    Parameters
    ----------
    recent, coming : float64 (N, 2 B), of the days before it, and of the days from it on. B parts of
        a day: the mean ln volume of candles with trades, then the ln of the mean squared
        return; each averaged over the days, less the same of the macro window. NaN where a part of
        any day has no candle, no trade or no movement.
    """

    recent: FloatArray
    coming: FloatArray

    @property
    def known(self) -> BoolArray:
        """Which rows have no NaN, (N,)."""
        known: BoolArray = np.asarray(np.isfinite(self.recent + self.coming).all(axis=1))
        return known


def day_profiles(sessions: SessionSet, until_ms: int, count: int = DAYS) -> Profiles:
    """The profiles of `count` days on either side of each session's 00:00.

    NaN throughout a coming profile whose last day ends after `until_ms`, and a recent one that
    begins before the grid.
    """
    settings = sessions.tables[0].settings
    blocks, span = math.gcd(BLOCKS, settings.day_candles), count * settings.day_candles
    found = np.full((2, len(sessions), 2 * blocks), np.nan)
    returns = [log_returns(table.grid) for table in sessions.tables]
    for place, (number, session) in enumerate(sessions.members):
        table = sessions.tables[number]
        first = int(table.row[session])  # the candle that opens at 00:00

        def profile(
            rows: slice, table: SessionTable = table, log_return: FloatArray = returns[number]
        ) -> FloatArray:
            days = _levels(table.grid, log_return, rows, count * blocks)
            mean: FloatArray = days.reshape(2, count, blocks).mean(axis=1)
            return mean

        window = slice(first - settings.long_window, first)
        level = _levels(table.grid, returns[number], window, 1)
        if first >= span:
            found[0, place] = (profile(slice(first - span, first)) - level).ravel()
        known_ms = table.start_ms[session] + count * DAY_MS
        if first + span <= len(table.grid) and known_ms <= until_ms:
            found[1, place] = (profile(slice(first, first + span)) - level).ravel()
    return Profiles(*found)


def predictive_reading(
    context: FloatArray, profiles: Profiles, day_ms: IntArray, components: int
) -> FloatArray | None:
    """Weights float64 (E, components) that turn an embedding into what MicroNet reads of it.

    Parameters
    ----------
    context : float64 (N, E), embeddings of the training days.
    profiles : of the days around each row's midnight; rows with NaN are left out.
    day_ms : int64 (N,), 00:00 UTC of each row's session.
    components : directions at most; those that there are none of stay zero.

    Returns
    -------
    The weights; None when fewer than 60 days are known or the embedding does not vary: then there
    is nothing to choose by.
    """
    known = profiles.known
    days = np.unique(day_ms[known])
    if len(days) < MIN_DAYS or not (context[known].std(axis=0) > 1e-6).any():
        return None
    inputs = context[known]
    targets = _standardised(np.hstack([profiles.recent[known], profiles.coming[known]]))
    coming = slice(profiles.recent.shape[1], None)
    folds = _Folds.of(inputs, targets, day_ms[known])
    whole = ridge_path(inputs, targets)
    axes = _axes((inputs - whole.center) @ whole.slopes[folds.shared], components)  # (K, count)
    came, predicted = folds.along(axes.shape[1])  # (N, count), (P, N, count)
    own = ((predicted - came) ** 2).sum(axis=1).argmin(axis=0)  # penalty of each direction
    came, _ = folds.along(axes.shape[1], coming)
    reading = np.zeros((context.shape[1], components))
    for place, axis in enumerate(axes.T):
        weights = whole.slopes[own[place]] @ axis  # (E,)
        held = predicted[own[place], :, place]
        kept = _kept(held, came[:, place], len(days) / GAP_DAYS)
        turn = np.sign(weights[np.abs(weights).argmax()])
        reading[:, place] = weights * (kept * turn / (inputs @ weights).std())
    return reading


def _standardised(values: FloatArray) -> FloatArray:
    spread = values.std(axis=0)
    standard: FloatArray = (values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    return standard


def _axes(predicted: FloatArray, most: int) -> FloatArray:
    """Leading principal directions of predictions (N, K), (K, count); no more than they have."""
    centred = predicted - predicted.mean(axis=0)
    _, strength, axes = np.linalg.svd(centred, full_matrices=False)
    count = min(most, int((strength > 1e-9 * len(predicted) ** 0.5).sum()))
    leading: FloatArray = axes[:count].T
    return leading


@dataclass(frozen=True, slots=True, eq=False)
class _Folds:
    """Blocks of days, each predicted under every penalty by ridges that did not learn from it."""

    inputs: FloatArray
    targets: FloatArray
    rows: Sequence[BoolArray]
    """Which rows each block judges."""
    paths: Sequence[RidgePath]
    shared: int
    """Number of the penalty that predicts all targets best."""

    @classmethod
    def of(cls, inputs: FloatArray, targets: FloatArray, day: IntArray) -> _Folds:
        """Learn the ridges of every block."""
        rows, paths, error = [], [], np.zeros(len(PENALTIES))
        for fold in np.array_split(np.unique(day), FOLDS):
            near = (day >= fold[0] - GAP_DAYS * DAY_MS) & (day <= fold[-1] + GAP_DAYS * DAY_MS)
            rows.append((day >= fold[0]) & (day <= fold[-1]))
            paths.append(ridge_path(inputs[~near], targets[~near]))
            missed = paths[-1].predict(inputs[rows[-1]]) - targets[rows[-1]]
            error += (missed**2).sum(axis=(1, 2))
        return cls(inputs, targets, rows, paths, int(error.argmin()))

    def along(self, count: int, part: slice = slice(None)) -> tuple[FloatArray, FloatArray]:
        """What came along `count` directions (N, count), and what was predicted (P, N, count).

        Of the targets in `part` alone.

        The directions, too, are those of the other days: chosen on all of them, they would fit the
        days that they are judged on.
        """
        came = np.zeros((len(self.targets), count))
        predicted = np.zeros((len(PENALTIES), *came.shape))
        for judged, path in zip(self.rows, self.paths, strict=True):
            axes = _axes(self.inputs @ path.slopes[self.shared], count)
            actual = self.targets[judged] - path.intercept
            came[judged, : axes.shape[1]] = actual[:, part] @ axes[part]
            forecast = (self.inputs[judged] - path.center) @ path.slopes[..., part] @ axes[part]
            predicted[:, judged, : axes.shape[1]] = forecast
        return came, predicted


def _kept(predicted: FloatArray, came: FloatArray, independent: float) -> float:
    """How much of a direction is kept, 0 to 1, by its correlation with what came.

    c^2 / (c^2 + 4 / n): chance alone gives a correlation over n independent days a standard error
    of 1 / sqrt(n), and at two of them half is kept.
    """
    if not (predicted.std() > 0 and came.std() > 0):
        return 0.0
    squared = max(float(np.corrcoef(predicted, came)[0, 1]), 0.0) ** 2
    return squared / (squared + 4 / independent)


def _levels(grid: CandleGrid, returns: FloatArray, rows: slice, blocks: int) -> FloatArray:
    """Mean ln volume and ln mean squared return of equal parts of the rows, (2, blocks)."""
    volume = grid.volume[rows].reshape(blocks, -1)
    squared = returns[rows].reshape(blocks, -1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = _mean(np.log(volume), volume > 0)
        levels: FloatArray = np.stack([logs, np.log(_mean(squared, squared >= 0))])
    levels[~np.isfinite(levels)] = np.nan
    return levels


def _mean(values: FloatArray, counted: BoolArray) -> FloatArray:
    """Mean of the counted in each row, (R, n) -> (R,); not finite where there are none."""
    mean: FloatArray = np.where(counted, values, 0.0).sum(axis=1) / counted.sum(axis=1)
    return mean
