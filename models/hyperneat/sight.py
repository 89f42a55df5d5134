"""What painted kernels see: how far back, at which period, through how many connections.

The kernels are run without their nonlinearities on one impulse per feature. What comes out, row
after row, is the weight that each lag has in the feature map. Left out: biases, gates and what the
nonlinearity makes of two features together; see the page's impulse for what it does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.hyperneat.decoding import Kernels
from cppncripto_strategy.models.hyperneat.substrate import Substrate

_HOUR_MS = 3_600_000
# The slope of a GELU at 0: what the nonlinearity is to a small signal.
_SLOPE = 0.5
# The spectrum is read this much finer than the response is long.
_FINER = 4
# What is seen must not depend on a machine's last bit: it decides about a cell of the archive.
_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Sight:
    """What kernels see.

    Parameters
    ----------
    reach_h : mean age of what they read, weighted by squared response, hours.
    period_h : period of the strongest frequency of the response, hours; 0 where that is none.
    """

    reach_h: float
    period_h: float


@torch.no_grad()
def impulse_response(kernels: Kernels, substrate: Substrate) -> FloatArray:
    """Response of the feature map to one unit of each feature, float64 (F, C, R).

    Lag 0 first, as many rows as the receptive field.
    """
    features, rows = substrate.layers[0].inputs, substrate.receptive_field
    z = torch.zeros(features, features, rows, dtype=torch.float64)
    z[torch.arange(features), torch.arange(features), 0] = 1.0
    for layer, weight in zip(substrate.layers, kernels.weights, strict=True):
        padded = functional.pad(z, ((layer.taps - 1) * layer.dilation, 0))
        new = _SLOPE * functional.conv1d(padded, weight.double(), dilation=layer.dilation)
        z = z + new if z.shape == new.shape else new  # (F, C, R)
    return np.asarray(z.numpy())


def spectrum(response: FloatArray) -> FloatArray:
    """Power of a response (F, C, R) by frequency, summed over features and channels, (K,).

    Frequency k is k cycles in `2 (K - 1)` rows.
    """
    waves = np.fft.rfft(response, n=_FINER * response.shape[-1], axis=-1)
    power: FloatArray = (np.abs(waves) ** 2).sum(axis=(0, 1))
    return power


def sight_of(kernels: Kernels, substrate: Substrate) -> Sight:
    """What these kernels see; zeros where nothing passes them."""
    response = impulse_response(kernels, substrate)
    energy = (response**2).sum(axis=(0, 1))  # (R,)
    if not energy.sum() > 0:
        return Sight(0.0, 0.0)
    row_h = substrate.stride * substrate.interval_ms / _HOUR_MS
    reach = float(energy @ np.arange(len(energy)) / energy.sum()) * row_h
    strongest = int(np.argmax(np.round(spectrum(response) / energy.sum(), _DECIMALS)))
    cycle = _FINER * response.shape[-1] * row_h
    period = cycle / strongest if strongest else 0.0
    return Sight(round(reach, _DECIMALS), round(period, _DECIMALS))
