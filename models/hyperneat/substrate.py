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
from cppncripto_strategy.models.hyperneat.genome import (
    COORDINATES,
    GATED_OUTPUTS,
    MORE_COORDINATES,
    OUTPUTS,
)

FIVE_MINUTES_MS = 300_000
# Candles per row: an hour of 5-minute candles.
STRIDE = 12
# One day of 5-minute candles back is time coordinate -1.
_LOG2_DAY = float(np.log2(1 + 288))
_DAY_MS = 288 * FIVE_MINUTES_MS


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
    coordinates : pairs of coordinates beside the five (see `genome.MORE_COORDINATES`), of a tap's
        age: "day" and "week" say how far round a day and a week it is, "period" how far round a
        quadrupling of the age; of a channel: "scatter" is a number drawn for each once and for all,
        so that neighbours need not be painted alike.
    gated : whether each filter has a gate of its own weights, which multiplies what it answers.
    half_life : rows after which one counts half as much in the first half of the pooled vector;
        None: every row counts alike in all of it.
    """

    layers: tuple[Layer, ...]
    stride: int = STRIDE
    interval_ms: int = FIVE_MINUTES_MS
    features: tuple[str, ...] = ()
    coordinates: tuple[str, ...] = ()
    gated: bool = False
    half_life: float | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise RecipeError("a substrate needs at least one layer")
        unknown = [name for name in self.coordinates if name not in MORE_COORDINATES]
        if unknown or len(set(self.coordinates)) < len(self.coordinates):
            raise RecipeError(
                f"coordinates {', '.join(self.coordinates)}: expected each at most once of "
                f"{', '.join(MORE_COORDINATES)}"
            )
        if self.half_life is not None and not self.half_life > 0:
            raise RecipeError(f"half_life must be above 0 rows, found {self.half_life}")
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
        return sum(layer.weights for layer in self.layers) * (2 if self.gated else 1)

    @property
    def receptive_field(self) -> int:
        """Rows (of `stride` candles) that one row of the feature map depends on."""
        return 1 + sum((layer.taps - 1) * layer.dilation for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """JSON document that `from_json` reads."""
        plain = {
            "layers": [asdict(layer) for layer in self.layers],
            "stride": self.stride,
            "interval_ms": self.interval_ms,
            "features": list(self.features),
        }
        later = {
            "coordinates": list(self.coordinates),
            "gated": self.gated,
            "half_life": self.half_life,
        }
        # Only where it is used, so that bundles of older genomes keep their names.
        return plain | {name: value for name, value in later.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Substrate:
        """The substrate of a document written by `to_json`; Raises RecipeError when it is not."""
        try:
            layers = tuple(Layer(**layer) for layer in document["layers"])
            half_life = document.get("half_life")
            return cls(
                layers=layers,
                stride=int(document["stride"]),
                interval_ms=int(document["interval_ms"]),
                features=tuple(document.get("features", ())),
                coordinates=tuple(document.get("coordinates", ())),
                gated=bool(document.get("gated", False)),
                half_life=None if half_life is None else float(half_life),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"the substrate is incomplete: {error}") from error

    def layer_coordinate(self, index: int) -> float:
        """Depth of a layer: -1 for the first, 1 for the last."""
        return float(even_axis(len(self.layers))[index])

    def tap_times(self, layer: Layer) -> FloatArray:
        """Time of each tap, oldest first: minus log2 of its lag, -1 a day ago, (taps,)."""
        return np.asarray(-np.log2(1 + self._lag_ms(layer) / FIVE_MINUTES_MS) / _LOG2_DAY)

    def more_axes(self, layer: Layer) -> list[FloatArray]:
        """The coordinates beside the five, each an axis of (out, in, tap), oldest tap first."""
        lag_ms = self._lag_ms(layer)
        turns = {
            "period": np.log2(1 + lag_ms / FIVE_MINUTES_MS) / 2,
            "day": lag_ms / _DAY_MS,
            "week": lag_ms / (7 * _DAY_MS),
        }
        axes = []
        for name in self.coordinates:
            if name == "scatter":
                axes.append(scattered(layer.outputs, 0)[:, None, None])
                axes.append(scattered(layer.inputs, 1)[None, :, None])
            else:
                axes += [wave(2 * np.pi * turns[name])[None, None, :] for wave in (np.sin, np.cos)]
        return axes

    def _lag_ms(self, layer: Layer) -> FloatArray:
        row_ms = self.stride * self.interval_ms
        lag_ms: FloatArray = np.arange(layer.taps - 1, -1, -1.0) * layer.dilation * row_ms
        return lag_ms

    @property
    def inputs(self) -> int:
        """Coordinates that a genome reads here."""
        return len(COORDINATES) + 2 * len(self.coordinates)

    @property
    def outputs(self) -> int:
        """Answers that a genome gives here."""
        return len(GATED_OUTPUTS) if self.gated else len(OUTPUTS)

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of the coordinates, in the order of a genome's inputs."""
        return (*COORDINATES, *(n for pair in self.coordinates for n in MORE_COORDINATES[pair]))


def scattered(size: int, side: int) -> FloatArray:
    """Numbers from -1 to 1 that follow no order, the same first ones for every size."""
    return np.random.default_rng(side).uniform(-1.0, 1.0, size)


def even_axis(size: int) -> FloatArray:
    """Evenly spaced coordinates from -1 to 1; 0 where there is only one."""
    return np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
