"""Ridge regression with one penalty, chosen from the learning rows alone.

Source: Hoerl & Kennard 1970 (ridge); Golub, Heath & Wahba 1979 (generalised cross-validation). Left
out: a penalty per block of columns (`forecasting.ridge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import FloatArray

PENALTIES = tuple(10.0**k for k in range(-1, 7))


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A fitted ridge regression on standardised columns.

    Parameters
    ----------
    center, scale : float64 (C,), of the inputs.
    intercept : float64 (K,), mean of the targets.
    weights : float64 (C, K).
    penalty : the chosen penalty.
    """

    center: FloatArray
    scale: FloatArray
    intercept: FloatArray
    weights: FloatArray
    penalty: float

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Inputs (N, C) -> predictions (N, K)."""
        return self.intercept + (inputs - self.center) / self.scale @ self.weights


def fit_ridge(
    inputs: FloatArray, targets: FloatArray, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Ridge of targets (N, K) on inputs (N, C), penalty by generalised cross-validation.

    A column that does not vary is left alone: it gets no weight. Inputs and targets must be finite.
    """
    center, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    intercept = targets.mean(axis=0)
    # The singular vectors of the inputs serve all penalties.
    u, singular, vt = np.linalg.svd((inputs - center) / scale, full_matrices=False)
    projected = u.T @ (targets - intercept)  # (C, K)
    outside = ((targets - intercept) ** 2).sum() - (projected**2).sum()
    best: tuple[float, float] | None = None
    for penalty in penalties:
        kept = singular**2 / (singular**2 + penalty)  # (C,)
        error = outside + (((1 - kept)[:, None] * projected) ** 2).sum()
        freedom = max(1 - (kept.sum() + 1) / len(inputs), 1e-3)
        if best is None or error / freedom**2 < best[0]:
            best = error / freedom**2, penalty
    assert best is not None
    shrunk = singular / (singular**2 + best[1])
    return Ridge(center, scale, intercept, vt.T @ (shrunk[:, None] * projected), best[1])
