"""MicroNet one candle at a time: the twin of `score_sessions` in `batch`.

`MicroStream` runs MicroNet through numpy ring buffers, one row per candle; at a rollover the scaler
changes, so it replays the rows its receptive field still sees. `ScoreStream` feeds it from a
`MacroStream`. Snapshots are as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.models.micronet import BUY, CONTEXT_CLIP, SELL, MicroNet
from cppncripto_strategy.models.scoring.batch import MIN_PRESENT_SHARE
from cppncripto_strategy.models.scoring.macro_stream import MacroState, MacroStream
from cppncripto_strategy.models.temperature import tempered

NO_SCORES = (np.nan, np.nan, np.nan, np.nan)


class MicroStream:
    """MicroNet over ring buffers: one scaled row in, four scores out.

    Lives from one rollover to the next in meaning, and for one run as an object: `rewarm` starts it
    again under a new state.
    """

    def __init__(self, net: MicroNet) -> None:
        self.net = net
        kernel, weights = net.settings.kernel, _numpy_weights(net)
        self._weights, self._kernel = weights, kernel
        self._embed = np.concatenate([weights["embed.weight"], weights["embed.bias"][:, None]], 1)
        self._layers = [
            (weights[f"taps.{i}.weight"], weights[f"taps.{i}.bias"], dilation)
            for i, dilation in enumerate(net.dilations)
        ]
        channels = net.settings.channels
        self._rings = [
            np.zeros(((kernel - 1) * d + 1, channels), np.float32) for d in net.dilations
        ]
        self._taps = [np.empty(kernel * channels, np.float32) for _ in net.dilations]
        self._seen = net.seen.numpy()
        self._recent = np.zeros((net.recall_taps, net.settings.n_features), np.float32)
        self._values = np.zeros((net.receptive_field - net.recall_taps + 1, channels), np.float32)
        self._step = 0
        self._lit = self._dark = self._film(np.zeros(net.settings.n_context, np.float32))

    def set_context(self, embedding: NDArray[np.float32]) -> None:
        """Condition on another embedding (E,)."""
        self._lit = self._film(embedding)

    def rewarm(self, rows: NDArray[np.float32], embedding: NDArray[np.float32]) -> None:
        """Start again: forget everything, condition on the embedding, replay rows (N, F)."""
        self._step = 0
        self.set_context(embedding)
        for row in rows:
            self.advance(row)

    def advance(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take a scaled row (F,); the body's output (channels,), valid after a receptive field."""
        row = row * self._seen
        recalled = self._recall(row)  # (C,)
        z: NDArray[np.float32] = self._embed[:, :-1] @ row + self._embed[:, -1]  # (C,)
        step, kernel, channels = self._step, self._kernel, len(z)
        for ring, taps, (weight, bias, dilation) in zip(
            self._rings, self._taps, self._layers, strict=True
        ):
            size = len(ring)
            ring[step % size] = z
            for k in range(kernel):
                back = (kernel - 1 - k) * dilation
                taps[k * channels : (k + 1) * channels] = ring[(step - back) % size]
            z = z + np.maximum(weight @ taps + bias, 0)  # (C,)
        self._step += 1
        return z + recalled

    def _recall(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """The twin of `MicroNet.recall` for the newest row (F,): its part of the body (C,)."""
        w = self._weights
        self._recent[:-1] = self._recent[1:]
        self._recent[-1] = row
        a, b = _halves(w["local.weight"] @ self._recent.ravel() + w["local.bias"])
        h = a * np.tanh(b) + np.maximum(a, 0)  # (C,)
        a, b = _halves(w["deepen.weight"] @ h + w["deepen.bias"])
        h = h + a * np.tanh(b)
        value, gate = _halves(w["value.weight"] @ h + w["value.bias"])
        open_share = 0.5 + 0.5 * np.tanh(0.5 * gate)  # the sigmoid, without overflow
        self._values[self._step % len(self._values)] = open_share * np.tanh(value)
        summed = self._values.sum(axis=0)
        asked = w["query.weight"] @ h + w["query.bias"]
        parts = np.concatenate([h, summed, asked * np.tanh(summed)])
        out: NDArray[np.float32] = w["recall_out.weight"] @ parts + w["recall_out.bias"]
        return out

    def scores(self, z: NDArray[np.float32]) -> tuple[float, float, float, float]:
        """(score, p_buy, p_sell, score under a zero embedding) of a body output (channels,)."""
        score, p_buy, p_sell = self._probabilities(z, *self._lit)
        return score, p_buy, p_sell, self._probabilities(z, *self._dark)[0]

    def snapshot(self) -> dict[str, Any]:
        """What the rings hold, copied; the embedding belongs to the state that was activated."""
        return {
            "step": self._step,
            "rings": [ring.copy() for ring in self._rings],
            "recent": self._recent.copy(),
            "values": self._values.copy(),
        }

    def restore(self, kept: dict[str, Any], embedding: NDArray[np.float32]) -> None:
        """Continue where a stream of the same network was, conditioned on the embedding (E,)."""
        self.set_context(embedding)
        self._step = kept["step"]
        for ring, rows in zip(self._rings, kept["rings"], strict=True):
            ring[:] = rows
        self._recent[:] = kept["recent"]
        self._values[:] = kept["values"]

    def _film(
        self, embedding: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        components = np.clip(embedding @ self._weights["whiten"], -CONTEXT_CLIP, CONTEXT_CLIP)
        both = self._weights["film.weight"] @ components + self._weights["film.bias"]  # (2 C,)
        gamma, beta = _halves(both)
        return 1 + gamma, beta

    def _probabilities(
        self, z: NDArray[np.float32], gamma: NDArray[np.float32], beta: NDArray[np.float32]
    ) -> tuple[float, float, float]:
        w = self._weights
        hidden = np.maximum(w["hidden.weight"] @ (gamma * z + beta) + w["hidden.bias"], 0)
        logits = w["output.weight"] @ hidden + w["output.bias"]
        if self.net.settings.head == "classes":
            p = np.exp(logits - logits.max())
            p /= p.sum()
            return float(p[BUY] - p[SELL]), float(p[BUY]), float(p[SELL])
        score = float(np.tanh(logits[0]))
        return score, max(score, 0.0), max(-score, 0.0)


def _halves(both: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(2 C,) -> two of (C,); `np.split` takes longer than the product before it."""
    middle = len(both) // 2
    return both[:middle], both[middle:]


def _numpy_weights(net: MicroNet) -> dict[str, NDArray[np.float32]]:
    """The network's weights as contiguous numpy arrays."""
    pairs: Iterator[tuple[str, torch.Tensor]] = iter(net.state_dict().items())
    return {name: np.ascontiguousarray(value.numpy()) for name, value in pairs}


class ScoreStream:
    """MicroNet behind a MacroStream: call `update` once after each `MacroStream.push`."""

    def __init__(self, macro: MacroStream) -> None:
        self.macro = macro
        self._streams: dict[int, MicroStream] = {}
        self._window = max(b.info.micro.short_window for b in macro.timeline.bundles)

    def update(self) -> tuple[float, float, float, float]:
        """(score, p_buy, p_sell, score_zero) of the last candle; NaN where undefined."""
        macro, state = self.macro, self.macro.state
        if state is None:
            return NO_SCORES
        stream = self._stream_of(state)
        if macro.rolled:
            before = macro.scaled(stream.net.receptive_field - 1, 1)
            stream.rewarm(before, state.embedding)
            rows = macro.scaled(1)
        else:
            rows = macro.scaled(macro.fresh_rows)
        for row in rows:
            z = stream.advance(row)
        if macro.present_share(self._window) < MIN_PRESENT_SHARE:
            return NO_SCORES
        score, p_buy, p_sell, zero = stream.scores(z)
        temperature = macro.timeline.bundles[state.bundle].temperature
        return score, *tempered(p_buy, p_sell, temperature), zero

    def _stream_of(self, state: MacroState) -> MicroStream:
        """The active bundle's network; those before it are not asked again, and are let go of."""
        stream = self._streams.get(state.bundle)
        if stream is None:
            stream = MicroStream(self.macro.timeline.bundles[state.bundle].micro)
            self._streams = {state.bundle: stream}
        return stream

    def snapshot(self) -> dict[str, Any]:
        """The active network's rings, copied; {} while nothing is scored."""
        state = self.macro.state
        return {} if state is None else self._stream_of(state).snapshot()

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where another stream was, once the MacroStream was restored."""
        if self.macro.state is not None:
            self._stream_of(self.macro.state).restore(kept, self.macro.state.embedding)
