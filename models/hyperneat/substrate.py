"""The substrate: where a genome paints, and at which coordinates.

Because a kernel is a picture over coordinates, the same genome can be painted on another substrate:
another dilation, width, stride or candle interval. Deviation from HyperNEAT: time is a coordinate
of its own, so that dilated taps sit where they act instead of where they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError

FIVE_MINUTES_MS = 300_000
# Candles per row: an hour of 5-minute candles.
STRIDE = 12
# One day of 5-minute candles back is time coordinate -1.
_LOG2_DAY = float(np.log2(1 + 288))


@dataclass(frozen=True, slots=True)
class Layer:
    """One causal convolution: kernel (outputs, inputs, taps), taps `dilation` rows apart."""

    inputs: int
    outputs: int
    taps: int
    dilation: int

    @property
    def weights(self) -> int:
        """Weights of the dense kernel."""
        return self.outputs * self.inputs * self.taps


@dataclass(frozen=True, slots=True)
class Substrate:
    """Where a genome paints: causal convolutions over rows of `stride` candles.

    Parameters
    ----------
    layers : the convolutions, the first reading the features.
    stride : candles averaged into one row before the first layer.
    interval_ms : length of a candle, milliseconds; with the stride it puts taps at physical times.
    features : names of what the first layer reads, where somebody has chosen a genome on them.
    """

    layers: tuple[Layer, ...]
    stride: int = STRIDE
    interval_ms: int = FIVE_MINUTES_MS
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise RecipeError("a substrate needs at least one layer")
        values = [v for layer in self.layers for v in asdict(layer).values()]
        if min(*values, self.stride, self.interval_ms) < 1:
            raise RecipeError(f"sizes of a substrate must be 1 or more: {self}")
        for i, (below, above) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if below.outputs != above.inputs:
                raise RecipeError(
                    f"layer {i} has {below.outputs} outputs, layer {i + 1} {above.inputs} inputs"
                )

    @classmethod
    def temporal(
        cls,
        n_features: int,
        width: int,
        channels: int,
        taps: int,
        dilations: Sequence[int],
        stride: int = STRIDE,
        interval_ms: int = FIVE_MINUTES_MS,
    ) -> Substrate:
        """A stack of dilated convolutions, one for each dilation; the last has `width` outputs."""
        sizes = [n_features, *([channels] * (len(dilations) - 1)), width]
        layers = tuple(
            Layer(inputs, outputs, taps, dilation)
            for inputs, outputs, dilation in zip(sizes, sizes[1:], dilations, strict=False)
        )
        return cls(layers, stride, interval_ms)

    def with_width(self, width: int) -> Substrate:
        """The same substrate with another number of outputs."""
        last = replace(self.layers[-1], outputs=width)
        return replace(self, layers=(*self.layers[:-1], last))

    @property
    def width(self) -> int:
        """Channels of the last layer."""
        return self.layers[-1].outputs

    @property
    def weights(self) -> int:
        """Weights of all dense kernels: the most connections a genome can express here."""
        return sum(layer.weights for layer in self.layers)

    @property
    def receptive_field(self) -> int:
        """Rows (of `stride` candles) that one row of the feature map depends on."""
        return 1 + sum((layer.taps - 1) * layer.dilation for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """JSON document that `from_json` reads."""
        layers = [asdict(layer) for layer in self.layers]
        return asdict(self) | {"layers": layers, "features": list(self.features)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Substrate:
        """The substrate of a document written by `to_json`; Raises RecipeError when it is not."""
        try:
            layers = tuple(Layer(**layer) for layer in document["layers"])
            features = tuple(document.get("features", ()))
            return cls(layers, int(document["stride"]), int(document["interval_ms"]), features)
        except (KeyError, TypeError) as error:
            raise RecipeError(f"the substrate is incomplete: {error}") from error

    def layer_coordinate(self, index: int) -> float:
        """Depth of a layer: -1 for the first, 1 for the last."""
        return float(even_axis(len(self.layers))[index])

    def tap_times(self, layer: Layer) -> FloatArray:
        """Time of each tap, oldest first: minus log2 of its lag, -1 a day ago, (taps,)."""
        row_ms = self.stride * self.interval_ms
        lag_ms = np.arange(layer.taps - 1, -1, -1) * layer.dilation * row_ms
        return np.asarray(-np.log2(1 + lag_ms / FIVE_MINUTES_MS) / _LOG2_DAY)


def even_axis(size: int) -> FloatArray:
    """Evenly spaced coordinates from -1 to 1; 0 where there is only one."""
    return np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
