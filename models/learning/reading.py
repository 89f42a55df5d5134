"""How MicroNet reads the embedding: the directions that tell of the coming day come first.

A label that is mostly noise cannot fit a hundred inputs, so that only a few directions of the
embedding reach MicroNet. The directions of most variance need not be those worth knowing: a regime
that one number in a hundred holds is lost among them. Here they are chosen by what they say of the
coming day's profile of volume and volatility, which every candle file holds and no label enters:

1. a ridge of the profile on the embedding (Hoerl & Kennard 1970), penalty by cross-validation;
2. the leading principal directions of what it predicts: reduced-rank regression (Izenman 1975);
3. each with unit variance, times its correlation with what came, on days left out of the ridge: a
   direction that only fitted its own days shrinks towards zero, and a useless embedding with it.

A direction's sign and order are settled by its largest weight, so that one candle more does not
turn it over. Left out: what the embedding knows of the label and not of the day's profile.
"""

from __future__ import annotations

import math

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features.returns import log_returns
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.ridge import fit_ridge

BLOCKS = 12
"""Parts of the coming day, where its candles can be shared out among so many."""
# Fewer days with a known profile, and the correlation of one direction is a guess.
MIN_DAYS = 60
FOLDS = 6
# Macro windows of neighbouring days overlap: days this near to a fold do not learn for it.
GAP_DAYS = 5


def coming_profiles(sessions: SessionSet, until_ms: int) -> FloatArray:
    """What each session was like, against the days before it, float64 (N, 2 B).

    B parts of the day: the mean ln volume of candles with trades, then the ln of the mean squared
    return; each less the same of the macro window. NaN throughout for a session that ends after
    `until_ms`; NaN where a part has no candle, no trade or no movement.
    """
    settings = sessions.tables[0].settings
    blocks = math.gcd(BLOCKS, settings.day_candles)
    profiles = np.full((len(sessions), 2 * blocks), np.nan)
    returns = [log_returns(table.grid) for table in sessions.tables]
    for place, (number, session) in enumerate(sessions.members):
        table = sessions.tables[number]
        first = int(table.row[session])  # the candle that opens at 00:00
        last = first + settings.day_candles
        if last <= len(table.grid) and table.start_ms[session] + DAY_MS <= until_ms:
            day = _levels(table.grid, returns[number], slice(first, last), blocks)
            before = slice(first - settings.long_window, first)
            profiles[place] = (day - _levels(table.grid, returns[number], before, 1)).ravel()
    return profiles


def predictive_reading(
    context: FloatArray, profiles: FloatArray, day_ms: IntArray, components: int
) -> FloatArray | None:
    """Weights float64 (E, components) that turn an embedding into what MicroNet reads of it.

    Parameters
    ----------
    context : float64 (N, E), embeddings of the training days.
    profiles : float64 (N, K), what came (`coming_profiles`); rows with NaN are left out.
    day_ms : int64 (N,), 00:00 UTC of each row's session.
    components : directions at most; those that there are none of stay zero.

    Returns
    -------
    The weights; None when fewer than 60 days are known or the embedding does not vary: then there
    is nothing to choose by.
    """
    known = np.isfinite(profiles).all(axis=1)
    days = np.unique(day_ms[known])
    if len(days) < MIN_DAYS or not (context[known].std(axis=0) > 1e-6).any():
        return None
    inputs, day = context[known], day_ms[known]
    targets = profiles[known]
    spread = targets.std(axis=0)
    targets = (targets - targets.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    whole = fit_ridge(inputs, targets)
    slopes = whole.weights / whole.scale[:, None]  # (E, K)
    predicted = (inputs - whole.center) @ slopes  # (N, K)
    _, strength, axes = np.linalg.svd(predicted - predicted.mean(axis=0), full_matrices=False)
    count = min(components, int((strength > 1e-9 * len(inputs) ** 0.5).sum()))
    axes = axes[:count].T  # (K, count)
    weights = slopes @ axes
    scale = _left_out_correlation(inputs, targets, day, axes) / (inputs @ weights).std(axis=0)
    turn = np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(count)])
    reading = np.zeros((context.shape[1], components))
    reading[:, :count] = weights * (scale * turn)
    return reading


def _left_out_correlation(
    inputs: FloatArray, targets: FloatArray, day: IntArray, axes: FloatArray
) -> FloatArray:
    """Correlation of each direction with what came, on days it was not fitted to; at least 0."""
    predicted = np.zeros((len(inputs), axes.shape[1]))
    for fold in np.array_split(np.unique(day), FOLDS):
        near = (day >= fold[0] - GAP_DAYS * DAY_MS) & (day <= fold[-1] + GAP_DAYS * DAY_MS)
        judged = (day >= fold[0]) & (day <= fold[-1])
        ridge = fit_ridge(inputs[~near], targets[~near])
        predicted[judged] = ridge.predict(inputs[judged]) @ axes
    came = targets @ axes
    found = [
        np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else 0.0
        for a, b in zip(predicted.T, came.T, strict=True)
    ]
    correlation: FloatArray = np.maximum(found, 0.0)
    return correlation


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
