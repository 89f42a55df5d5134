"""What an embedding adds to a linear forecast, out of sample, of several targets at once.

The anchor's terms and the embedding are two blocks of one ridge regression, each with a penalty of
its own. The days are cut into consecutive parts. Each part but the first is predicted by the days
before it, with the penalties that would have served the parts before it best; the first part only
chooses. Where no penalty helped, the embedding is left out, and the gain of that part is 0.

The anchor is fitted out of the embedding once for all penalties (Frisch & Waugh 1933, with the
anchor's penalty), so that a penalty costs one product with the eigenvectors.

Source: Brown & Zidek 1980 (a penalty per block); Dawid 1984 (judged one step ahead). Left out:
intervals, and the test whether a gain is luck (`evaluation.forecasts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS

ANCHOR_PENALTIES = (1e-3, 1.0, 10.0, 100.0)
PENALTIES = (*(10.0**k for k in np.arange(-1.0, 5.5, 0.5)), np.inf)
"""Penalties of the embedding, for columns of unit deviation; the last one leaves it out."""
# Share of the days that the first part is predicted from.
FIRST_SHARE = 0.4
# With fewer days to learn from, fifteen terms say nothing.
MIN_FIT_DAYS = 20
# Fewer days to a part, and its error is that of a week-end.
MIN_PART_DAYS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Days to judge embeddings on (N rows).

    Parameters
    ----------
    anchor : float64 (N, A), the terms that the embedding is added to; finite.
    targets : float64 (N, K), finite. weights : float64 (K,), what a standardised error counts.
    symbol : int64 (N,), 0 to S - 1; each has a constant of its own.
    day_ms : int64 (N,), 00:00 UTC of each row's session.
    days : days from a session's 00:00 on until all its targets are known.
    """

    anchor: FloatArray
    targets: FloatArray
    weights: FloatArray
    symbol: IntArray
    day_ms: IntArray
    days: int = 1

    def rows(self, kept: IntArray) -> Judged:
        """Some of the rows."""
        columns = self.symbol[kept], self.day_ms[kept]
        return Judged(self.anchor[kept], self.targets[kept], self.weights, *columns, self.days)


def walk_forward_gain(embedding: FloatArray, judged: Judged, folds: int = 3) -> float:
    """Share of the anchor's weighted squared error that the embedding (N, C) takes away.

    0 : the embedding adds nothing. Negative : it costs. The parts after the first are pooled.

    Raises
    ------
    TrainingError
        When there are fewer than 20 days to learn from, or three to a part.
    """
    anchor_error, error = np.zeros(len(ANCHOR_PENALTIES)), np.zeros(len(PENALTIES))
    whole = rest = 0.0
    for number, anchors in enumerate(_anchors(judged, folds + 1)):
        alone = np.array([part.error(judged.weights) for part in anchors])
        # The first part has nothing before it: there the anchor is chosen on itself.
        part = anchors[int((anchor_error if number else alone).argmin())]
        losses = part.errors(embedding, judged.weights)
        if number:
            whole += float(losses[-1])
            rest += float(losses[error.argmin()])
        anchor_error += alone
        error += losses
    return 1 - rest / whole if whole > 0 else 0.0


# A search judges hundreds of embeddings on the same days.
@lru_cache(maxsize=2)
def _anchors(judged: Judged, count: int) -> list[list[_Part]]:
    """The anchor under each penalty, for each part."""
    return [
        [_Part.of(judged, learn, judge, penalty) for penalty in ANCHOR_PENALTIES]
        for learn, judge in parts_of(judged.day_ms, count, judged.days)
    ]


def parts_of(day_ms: IntArray, count: int, known_after: int = 1) -> list[tuple[IntArray, IntArray]]:
    """Rows to learn from and to judge on, for consecutive parts of the later days.

    A part learns from the days whose targets are known when its first day begins, `known_after`
    days after their own beginning.
    """
    days = np.unique(day_ms)
    first = max(round(FIRST_SHARE * len(days)), MIN_FIT_DAYS + known_after - 1)
    if len(days) < first + count * MIN_PART_DAYS:
        raise TrainingError(
            f"a gain is judged on {len(days)} days whose terms and outcomes are known, and needs "
            f"{first} to learn from and {count * MIN_PART_DAYS} to judge on: give the evolution a "
            "longer span, or fitness 'profile'"
        )
    edges = np.linspace(first, len(days), count + 1).round().astype(int)
    return [
        (
            np.flatnonzero(day_ms <= days[begin] - known_after * DAY_MS),
            np.flatnonzero((day_ms >= days[begin]) & (day_ms <= days[end - 1])),
        )
        for begin, end in pairwise(edges)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One part under one penalty of the anchor: what the anchor leaves of the targets.

    Parameters
    ----------
    rows : int64 (L,), (J,), learning and judged rows. symbols : of these rows.
    learn, judge : float64 (L, A), (J, A), standardised terms, less their symbols' means.
    hat : float64 (A, L), from values on the learning days to the anchor's weights.
    left, missed : float64 (L, K), (J, K), targets less what the anchor predicts.
    """

    rows: tuple[IntArray, IntArray]
    symbols: tuple[IntArray, IntArray]
    learn: FloatArray
    judge: FloatArray
    hat: FloatArray
    left: FloatArray
    missed: FloatArray

    @classmethod
    def of(cls, judged: Judged, learn: IntArray, judge: IntArray, penalty: float) -> _Part:
        symbols = judged.symbol[learn], judged.symbol[judge]
        known, asked = _standardised(judged.anchor[learn], judged.anchor[judge], symbols)
        came, comes = _standardised(judged.targets[learn], judged.targets[judge], symbols)
        gram = known.T @ known + penalty * np.eye(known.shape[1])
        hat: FloatArray = np.asarray(np.linalg.solve(gram, known.T), dtype=np.float64)
        weights = hat @ came
        left = came - known @ weights, comes - asked @ weights
        return cls((learn, judge), symbols, known, asked, hat, *left)

    def error(self, weights: FloatArray) -> float:
        """Weighted squared error of the anchor alone."""
        return float((self.missed**2 @ weights).sum())

    def errors(self, embedding: FloatArray, weights: FloatArray) -> FloatArray:
        """Weighted squared error under each penalty of the embedding (N, C), (P,)."""
        learn, judge = self.rows
        known, asked = _standardised(embedding[learn], embedding[judge], self.symbols)
        hat = self.hat @ known  # (A, C)
        gram = known.T @ known - (known.T @ self.learn) @ hat
        values, vectors = np.linalg.eigh(gram)
        moment = vectors.T @ (known.T @ self.left)  # (C, K)
        asked = (asked - self.judge @ hat) @ vectors  # (J, C)
        finite = np.array(PENALTIES[:-1])
        shrunk = moment / (np.maximum(values, 0.0)[:, None] + finite[:, None, None])  # (P, C, K)
        missed = self.missed - asked @ shrunk  # (P, J, K)
        errors = np.einsum("pjk,pjk,k->p", missed, missed, weights)
        return np.append(errors, self.error(weights))


def _standardised(
    known: FloatArray, asked: FloatArray, symbols: tuple[IntArray, IntArray]
) -> tuple[FloatArray, FloatArray]:
    """Learning and judged rows, each less its symbol's learning mean, in units of their deviation.

    A symbol without a learning day gets the mean of all. A column that does not vary becomes 0.
    """
    count = int(max(symbols[0].max(), symbols[1].max())) + 1
    rows = np.bincount(symbols[0], minlength=count)
    total = np.eye(count)[:, symbols[0]] @ known  # (S, C)
    mean = np.where(rows[:, None] > 0, total / np.maximum(rows, 1)[:, None], known.mean(axis=0))
    away = known - mean[symbols[0]]
    spread = away.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    return away / spread, (asked - mean[symbols[1]]) / spread


def thinned(symbol: IntArray, day_ms: IntArray, most: int) -> IntArray:
    """At most `most` rows, every symbol's days evenly spread, other days for other symbols.

    All of them where there are no more.
    """
    every = -(-len(day_ms) // most)
    if every <= 1:
        return np.arange(len(day_ms))
    return np.flatnonzero((day_ms // DAY_MS + symbol) % every == 0)[:most]
