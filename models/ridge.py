"""Ridge regression with one penalty, chosen from the learning rows alone, or with each of several.

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


@dataclass(frozen=True, slots=True, eq=False)
class RidgePath:
    """Ridge regressions on standardised columns, one per penalty.

    Parameters
    ----------
    center : float64 (C,), of the inputs. intercept : float64 (K,), mean of the targets.
    slopes : float64 (P, C, K), per unit of the inputs as they came.
    """

    center: FloatArray
    intercept: FloatArray
    slopes: FloatArray

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Inputs (N, C) -> predictions under every penalty (P, N, K)."""
        return self.intercept + (inputs - self.center) @ self.slopes


def ridge_path(
    inputs: FloatArray, targets: FloatArray, penalties: Sequence[float] = PENALTIES
) -> RidgePath:
    """Ridges of targets (N, K) on inputs (N, C) under each penalty; see `fit_ridge`."""
    parts = _Decomposed.of(inputs, targets)
    slopes = [parts.weights(penalty) / parts.scale[:, None] for penalty in penalties]
    return RidgePath(parts.center, parts.intercept, np.stack(slopes))


def fit_ridge(
    inputs: FloatArray, targets: FloatArray, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Ridge of targets (N, K) on inputs (N, C), penalty by generalised cross-validation.

    A column that does not vary is left alone: it gets no weight. Inputs and targets must be finite.
    """
    parts = _Decomposed.of(inputs, targets)
    outside = ((targets - parts.intercept) ** 2).sum() - (parts.projected**2).sum()
    best: tuple[float, float] | None = None
    for penalty in penalties:
        kept = parts.singular**2 / (parts.singular**2 + penalty)  # (C,)
        error = outside + (((1 - kept)[:, None] * parts.projected) ** 2).sum()
        freedom = max(1 - (kept.sum() + 1) / len(inputs), 1e-3)
        if best is None or error / freedom**2 < best[0]:
            best = error / freedom**2, penalty
    assert best is not None
    weights = parts.weights(best[1])
    return Ridge(parts.center, parts.scale, parts.intercept, weights, best[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Decomposed:
    """Standardised inputs by their singular vectors, which serve all penalties."""

    center: FloatArray
    scale: FloatArray
    intercept: FloatArray
    singular: FloatArray
    vt: FloatArray
    projected: FloatArray  # targets on the left singular vectors, (C, K)

    @classmethod
    def of(cls, inputs: FloatArray, targets: FloatArray) -> _Decomposed:
        center, scale = inputs.mean(axis=0), inputs.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        intercept = targets.mean(axis=0)
        u, singular, vt = np.linalg.svd((inputs - center) / scale, full_matrices=False)
        return cls(center, scale, intercept, singular, vt, u.T @ (targets - intercept))

    def weights(self, penalty: float) -> FloatArray:
        """Of the standardised inputs, float64 (C, K)."""
        shrunk = self.singular / (self.singular**2 + penalty)
        weights: FloatArray = self.vt.T @ (shrunk[:, None] * self.projected)
        return weights
