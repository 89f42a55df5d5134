"""Ridge regression with a penalty per block of columns and a constant per symbol.

One penalty for all columns makes 128 columns of an embedding a burden: the penalty that tames them
shrinks the few terms that are worth having. Here each block has its own, chosen in order: the first
block alone, then the second beside it, and so on. Each later block may get an infinite penalty,
which leaves it out, so what is added cannot take away but by the luck of the choice; and it must
earn its place: unless it lowers the error on validation days by more than chance would (one-sided,
5 %, on daily means), it is left out.

Sources: Hoerl & Kennard 1970; a penalty per block: Brown & Zidek 1980; the test: Diebold & Mariano
1995, one step ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray

# For columns of unit deviation. The lowest one only keeps columns that repeat each other apart.
PENALTIES = (1e-3, 1.0, *(10.0**k for k in np.arange(1.0, 6.5, 0.5)))
INFINITE = math.inf
# Parts that the later half of the learning days is predicted in, to choose the penalties.
VALIDATION_PARTS = 3
# Standard errors by which a later block has to lower the error: one-sided, 5 %. With one standard
# error, noise beside 120 days of one symbol cost up to 0.013 of R2; with this, up to 0.007.
EARNED_ERRORS = 1.645
# A later block earns its place on at least so many validation days, or is left out.
MIN_EARN_DAYS = 20

Fold = tuple[IntArray, IntArray]
"""Rows to learn from and rows to judge on."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockRidge:
    """A fitted regression.

    Parameters
    ----------
    weights : float64 (C,), of the columns of all blocks as they come.
    constants : float64 (S,), of each symbol; NaN for a symbol without a learning day.
    penalties : of each block, infinite where it was left out.
    errors : float64 (M,), truth less prediction on the validation days, by models that did not see
        them: what an interval can be made of.
    """

    weights: FloatArray
    constants: FloatArray
    penalties: tuple[float, ...]
    errors: FloatArray

    def predict(self, blocks: Sequence[FloatArray], symbol: IntArray) -> FloatArray:
        """Predictions (N,) of the blocks' rows; a symbol never seen gets the mean constant.

        Parameters
        ----------
        blocks : float64 (N, C_k) each. symbol : int (N,), numbers as in fitting, -1 for unseen.
        """
        known = ~np.isnan(self.constants)
        constants = np.where(known, self.constants, self.constants[known].mean())
        own = np.append(constants, self.constants[known].mean())[symbol]
        # Blocks left out are not added as zeros: they would move the last bit.
        ends = np.cumsum([block.shape[1] for block in blocks])
        parts = zip(blocks, np.split(self.weights, ends[:-1]), strict=True)
        used = [(block, weights) for block, weights in parts if weights.any()]
        predicted = own + sum((block @ weights for block, weights in used), np.zeros(len(own)))
        return np.asarray(predicted, dtype=np.float64)


def fit_blocks(
    blocks: Sequence[FloatArray],
    target: FloatArray,
    symbol: IntArray,
    day: IntArray,
    earn_from: int | None = None,
    symbols: int | None = None,
) -> BlockRidge:
    """Fit a target on blocks of columns, penalties chosen on validation days.

    Parameters
    ----------
    blocks : float64 (N, C_k) each, the anchor first; finite.
    target : float64 (N,), finite. symbol : int (N,), 0 to S - 1. day : int (N,), of each row: rows
        of one day are counted as one when a gain is compared with its standard error.
    earn_from : first validation day, in units of `day`, on which a later block may earn its place;
        None for every one. The days that an encoder learned from are not for its embedding.
    symbols : S; None for what `symbol` holds.
    """
    columns = [block.shape[1] for block in blocks]
    member = np.repeat(np.arange(len(blocks)), columns)
    x = np.concatenate(blocks, axis=1)
    count = int(symbol.max()) + 1 if symbols is None else symbols
    folds = forward_folds(day)
    systems = [_System.of(x[learn], target[learn], symbol[learn], count) for learn, _ in folds]
    chosen: list[float] = []
    for block in range(len(blocks)):
        options = PENALTIES if block == 0 else (*PENALTIES, INFINITE)
        trials = []
        for penalty in options:
            tried = [*chosen, penalty, *[INFINITE] * (len(blocks) - block - 1)]
            errors = _errors(systems, folds, (x, target, symbol), member, tried)
            trials.append(errors)
        judged = np.concatenate([day[judge] for _, judge in folds]) if folds else day[:0]
        if block == 0:
            chosen.append(options[_best(trials, judged)])
        else:
            chosen.append(options[_earned(trials, judged, earn_from)])
    kept = [block for block, penalty in enumerate(chosen) if penalty < INFINITE]
    if len(kept) < len(blocks):  # to the bit as if what is left out had never been there
        alone = fit_blocks([blocks[k] for k in kept], target, symbol, day, earn_from, symbols)
        weights = np.zeros(len(member))
        weights[np.isin(member, kept)] = alone.weights
        for block, penalty in zip(kept, alone.penalties, strict=True):
            chosen[block] = penalty
        return BlockRidge(weights, alone.constants, tuple(chosen), alone.errors)
    errors = _errors(systems, folds, (x, target, symbol), member, chosen)
    whole = _System.of(x, target, symbol, count)
    weights, constants = whole.solve(member, chosen)
    return BlockRidge(weights, constants, tuple(chosen), errors)


def forward_folds(day: IntArray, parts: int = VALIDATION_PARTS) -> list[Fold]:
    """The later half of the days in consecutive parts, each judged by what lies before it.

    Parameters
    ----------
    day : int (N,), day of each row in any unit; rows of a day stay together.
    """
    days = np.unique(day)
    edges = np.linspace(len(days) / 2, len(days), parts + 1).round().astype(int)
    folds = []
    for begin, end in pairwise(edges):
        if 0 < begin < end:
            judge = (day >= days[begin]) & (day <= days[end - 1])
            folds.append((np.flatnonzero(day < days[begin]), np.flatnonzero(judge)))
    return folds


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """Normal equations of columns and target, less their symbols' means."""

    gram: FloatArray
    moment: FloatArray
    scale: FloatArray
    x_mean: FloatArray
    y_mean: FloatArray

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray, symbol: IntArray, symbols: int) -> _System:
        count = np.bincount(symbol, minlength=symbols).astype(np.float64)
        count[count == 0] = np.nan  # such a symbol has no mean
        x_mean = np.zeros((symbols, x.shape[1]))
        np.add.at(x_mean, symbol, x)
        x_mean /= count[:, None]
        y_mean = np.bincount(symbol, y, minlength=symbols) / count
        away = x - x_mean[symbol]
        scale = away.std(axis=0)
        scale = np.where(scale > 1e-9, scale, np.inf)  # what does not vary gets no weight
        away /= scale
        return cls(away.T @ away, away.T @ (y - y_mean[symbol]), scale, x_mean, y_mean)

    def solve(self, member: IntArray, penalties: Sequence[float]) -> tuple[FloatArray, FloatArray]:
        """Weights (C,) of the raw columns, and constants (S,)."""
        penalty = np.asarray(penalties)[member]
        kept = np.flatnonzero(np.isfinite(penalty))
        weights = np.zeros(len(member))
        ridge = self.gram[np.ix_(kept, kept)] + np.diag(penalty[kept])
        weights[kept] = np.linalg.solve(ridge, self.moment[kept]) / self.scale[kept]
        return weights, self.y_mean - self.x_mean @ weights


def _errors(
    systems: Sequence[_System],
    folds: Sequence[Fold],
    rows: tuple[FloatArray, FloatArray, IntArray],
    member: IntArray,
    penalties: Sequence[float],
) -> FloatArray:
    """Truth less prediction on the judged rows of all folds, one after another."""
    x, target, symbol = rows
    parts = []
    for system, (_, judge) in zip(systems, folds, strict=True):
        weights, constants = system.solve(member, penalties)
        ridge = BlockRidge(weights, constants, (), np.empty(0))
        parts.append(target[judge] - ridge.predict([x[judge]], symbol[judge]))
    return np.concatenate(parts) if parts else np.empty(0)


def _best(trials: list[FloatArray], judged: IntArray) -> int:
    """Number of the penalty with the least error, averaged by day; the lowest without a day."""
    if not len(judged):
        return 0
    return int(np.argmin([_by_day(errors**2, judged).mean() for errors in trials]))


def _earned(trials: list[FloatArray], judged: IntArray, earn_from: int | None) -> int:
    """The best penalty where it lowers the error by more than chance, else the last one.

    The last one is infinite, and leaves the block out.
    """
    honest = np.full(len(judged), True) if earn_from is None else judged >= earn_from
    if len(np.unique(judged[honest])) < MIN_EARN_DAYS:
        return len(trials) - 1
    losses = np.stack([_by_day(e[honest] ** 2, judged[honest]) for e in trials])
    best = int(np.argmin(losses.mean(axis=1)))
    gain = losses[-1] - losses[best]  # (days,)
    error = gain.std(ddof=1) / math.sqrt(len(gain))
    return best if gain.mean() > EARNED_ERRORS * error else len(trials) - 1


def _by_day(values: FloatArray, day: IntArray) -> FloatArray:
    """Mean of the values of each day that occurs, oldest first."""
    _, row = np.unique(day, return_inverse=True)
    return np.bincount(row, values) / np.bincount(row)
