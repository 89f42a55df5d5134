"""Numbers that may not exist: None where a metric is undefined, never 0, NaN or infinity.

A test that cannot be made says why: `Refusal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Refusal:
    """Why a test was not made, in a sentence for a reader: what there was, and what it takes."""

    reason: str


def defined(value: float | np.floating[Any]) -> float | None:
    """The number, or None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def mean(values: NDArray[np.floating[Any]]) -> float | None:
    """Mean of an array (N,); None for no value, or where one of them is NaN or infinite."""
    return defined(values.mean()) if len(values) else None


def ratio(top: float | None, bottom: float | None) -> float | None:
    """`top` over `bottom`; None where either is None or `bottom` is 0."""
    return None if top is None or not bottom else defined(top / bottom)
