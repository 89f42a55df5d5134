"""Temperature: class probabilities made as sure as validation days bear out.

A network trained on labels that are nearly all noise is too sure of itself, and then its
probabilities can be worse than the bare class frequencies. One number repairs most of that: every
class's probability to the power of 1 / T, brought to a sum of 1. T is fitted on the validation days
and kept in the bundle. It does not touch the score, whose threshold is made of its own past.

Source: Guo, Pleiss, Sun & Weinberger 2017, sec. 4.2 (temperature scaling). Left out: a calibration
of each class by itself, which would need more days than there are.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray

# Bounds of a fitted temperature: beyond them a network says nothing, or everything.
COLDEST, HOTTEST = 0.1, 100.0
_LEAST_PROBABILITY = 1e-12
# Golden-section steps: each shortens the bracket by 0.62, so 50 find T to ten digits.
_STEPS = 50
_GOLDEN = (np.sqrt(5) - 1) / 2

Value = TypeVar("Value", float, NDArray[np.float64])


def fit_temperature(probabilities: FloatArray, target: IntArray) -> float:
    """The temperature of the lowest log loss; 1 without a candle.

    Parameters
    ----------
    probabilities : float (M, 3). target : int (M,), number of the class that came.
    """
    if len(target) == 0:
        return 1.0
    log_p = np.log(np.maximum(probabilities.astype(np.float64), _LEAST_PROBABILITY))

    def loss(log_temperature: float) -> float:
        scaled = log_p * np.exp(-log_temperature)
        top = scaled.max(axis=1)
        norm = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
        return float((norm - scaled[np.arange(len(target)), target]).mean())

    low, high = float(np.log(COLDEST)), float(np.log(HOTTEST))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):  # convex in 1 / T, so there is one lowest point
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


def tempered(p_buy: Value, p_sell: Value, temperature: float) -> tuple[Value, Value]:
    """p_buy and p_sell at a temperature; NaN stays NaN, and at 1 they are returned as they are."""
    if temperature == 1.0:
        return p_buy, p_sell
    power = 1.0 / temperature
    buy, sell = p_buy**power, p_sell**power
    rest = np.maximum(1.0 - p_buy - p_sell, 0.0) ** power
    total = buy + sell + rest
    return buy / total, sell / total
