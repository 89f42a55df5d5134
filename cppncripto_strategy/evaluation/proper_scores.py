"""Log loss and Brier score of the three classes: how good probabilities are, not only their side.

A hit ratio cannot see that a network knows when nothing will happen. A proper score can: it is
lowest, on average, for the true probabilities. Beside it stands the constant forecast, the class
frequencies of the training days: probabilities that score worse than that know less than nothing.

Sources: Good 1952 (log loss); Brier 1950; Gneiting & Raftery 2007. Left out: comparing arms
(`class_scores`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cppncripto_strategy.arrays import FloatArray

# A probability of 0 for what then happens would cost infinitely much.
LEAST_PROBABILITY = 1e-6


def log_loss(p_buy: ArrayLike, p_sell: ArrayLike, label: ArrayLike) -> FloatArray:
    """Minus the logarithm of the probability that the label's class was given, (N,), in nats.

    Parameters
    ----------
    p_buy, p_sell : float (N,), probabilities; the rest is the third class.
    label : int (N,), +1 buy, -1 sell, 0 neither.
    """
    given = np.where(_hits(label), _classes(p_buy, p_sell), 0.0).sum(axis=1)
    loss: FloatArray = -np.log(np.maximum(given, LEAST_PROBABILITY))
    return loss


def brier_score(p_buy: ArrayLike, p_sell: ArrayLike, label: ArrayLike) -> FloatArray:
    """Summed squared error of the three probabilities, (N,), 0 to 2; parameters as `log_loss`."""
    away = _classes(p_buy, p_sell) - _hits(label)
    score: FloatArray = (away**2).sum(axis=1)
    return score


def _classes(p_buy: ArrayLike, p_sell: ArrayLike) -> FloatArray:
    """Probabilities of buy, neither, sell; (N, 3)."""
    buy, sell = np.asarray(p_buy, dtype=np.float64), np.asarray(p_sell, dtype=np.float64)
    return np.stack([buy, 1.0 - buy - sell, sell], axis=1)


def _hits(label: ArrayLike) -> NDArray[np.bool_]:
    """Which of buy, neither, sell came; (N, 3)."""
    hits: NDArray[np.bool_] = np.asarray(label)[:, None] == np.array([1, 0, -1])
    return hits
