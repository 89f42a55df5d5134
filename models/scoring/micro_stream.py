"""MicroNet one candle at a time: the twin of `score_sessions` in `batch`.

`MicroStream` runs MicroNet through ring buffers, one row per symbol and candle, of several symbols
in one product: a round of two hundred costs little more than one of five. At a rollover the scaler
changes, so the rows that the receptive field still sees are replayed. Left out: who is scored with
whom (`round_scorer`).

What a stream will still look at it hands over (`snapshot`) and takes back (`restore`): a restored
stream gives the very bits of one that was never interrupted, as long as the same symbols are scored
together, as they are when the same rounds are shown again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.models.micronet import BUY, CONTEXT_CLIP, SELL, MicroNet

Floats = NDArray[np.float32]
Slots = slice | NDArray[np.int64]
Product = tuple[Floats, Floats]
"""A matrix (in, out) and its bias (out,)."""
# Larger products are shared out among threads by some BLAS, and then sum as the machine likes.
_LARGEST_PRODUCT = 200_000


class MicroStream:
    """MicroNet over ring buffers: a scaled row of each symbol in, a body output of each out.

    A symbol has a slot, for as long as the stream lives. Rows stand in the rings by their number
    on the time axis, so that symbols of one round are at one place whenever they began; each row
    stands there twice, so that the last rows are one view.

    Parameters
    ----------
    net : MicroNet. slots : symbols at most.
    """

    def __init__(self, net: MicroNet, slots: int = 1) -> None:
        self.net, self.slots = net, slots
        kernel, channels = net.settings.kernel, net.settings.channels
        features, taps = net.settings.n_features, net.recall_taps
        self._fold(net)
        self._rings = [
            np.zeros((slots, 2 * ((kernel - 1) * d + 1), channels), np.float32)
            for d in net.dilations
        ]
        sizes = [ring.shape[1] // 2 for ring in self._rings]
        self._layers = list(zip(self._rings, sizes, self._taps, net.dilations, strict=True))
        self._recent = np.zeros((slots, 2 * taps, features), np.float32)
        self._values = np.zeros((slots, net.receptive_field - taps + 1, channels), np.float32)
        self._most = max(1, _LARGEST_PRODUCT // max(w.size + b.size for w, b in self._products))
        dark = self._film(np.zeros(net.settings.n_context, np.float32))
        # Under the embedding and under none: (gain and offset, with and without, slots, channels).
        self._context = np.tile(np.stack(dark)[:, None, None], (1, 2, slots, 1))

    def _fold(self, net: MicroNet) -> None:
        """The network's weights as products of rows: each a matrix, and its bias."""
        w = {name: value.numpy() for name, value in net.state_dict().items()}
        seen, half = net.seen.numpy(), np.ones(2 * net.settings.channels, np.float32)
        half[net.settings.channels :] = 0.5  # sigmoid(x) = 0.5 + 0.5 tanh(x / 2)

        def product(name: str, columns: Any = 1.0, rows: Any = 1.0) -> Product:
            weight, bias = (w[f"{name}.weight"] * columns).T * rows, w[f"{name}.bias"] * rows
            plain = (np.ascontiguousarray(part, dtype=np.float32) for part in (weight, bias))
            return next(plain), next(plain)

        self._embed = product("embed", seen)
        self._taps = [product(f"taps.{i}") for i in range(len(net.dilations))]
        self._local = product("local", np.tile(seen, net.recall_taps))
        self._deepen, self._recall_out = product("deepen"), product("recall_out")
        value, query = product("value", rows=half), product("query")
        self._ask = (
            np.concatenate([value[0], query[0]], axis=1),
            np.concatenate([value[1], query[1]]),
        )
        self._hidden, self._output = product("hidden"), product("output")
        self._whiten = np.ascontiguousarray(w["whiten"])
        self._film_product = product("film")
        self._products = [self._embed, *self._taps, self._local, self._deepen, self._ask,
                          self._recall_out, self._hidden, self._output]  # fmt: skip

    def set_context(self, slot: int, embedding: Floats) -> None:
        """Condition a symbol on another embedding (E,)."""
        gain, offset = self._film(embedding)
        self._context[0, 0, slot], self._context[1, 0, slot] = gain, offset

    def rewarm(self, slots: NDArray[np.int64], rows: Floats, first: int) -> None:
        """Forget everything of these symbols, and replay their rows (S, N, F), numbered from first.

        N is the receptive field less one: whatever else stands in the rings is overwritten before
        anybody looks at it.
        """
        for number in range(rows.shape[1]):
            self.advance(rows[:, number], first + number, slots)

    def advance(self, rows: Floats, number: int, slots: NDArray[np.int64]) -> Floats:
        """Take a scaled row (S, F) of each of these symbols; the body's outputs (S, channels).

        They are valid after a receptive field of rows. `number` is the rows' place on the time
        axis, one more than the last.
        """
        if len(slots) <= self._most:
            return self._advance(rows, number, _slots(slots, self.slots))
        parts = [
            self._advance(rows[first : first + self._most], number, _slots(part, self.slots))
            for first in range(0, len(slots), self._most)
            for part in [slots[first : first + self._most]]
        ]
        return np.concatenate(parts)

    def _advance(self, rows: Floats, number: int, slots: Slots) -> Floats:
        z = _linear(rows, self._embed)  # (S, C)
        recalled = self._recall(rows, number, slots)
        for ring, size, product, dilation in self._layers:
            place = number % size
            ring[slots, place::size] = z[:, None]  # both of its places
            taps = ring[slots, place + 1 : place + 1 + size : dilation]  # (S, kernel, C)
            more = _linear(taps.reshape(len(z), -1), product)
            z = z + np.maximum(more, 0, out=more)
        z += recalled
        return z

    def _recall(self, rows: Floats, number: int, slots: Slots) -> Floats:
        """The twin of `MicroNet.recall` for the newest rows (S, F): its part of the body (S, C)."""
        channels, taps = self.net.settings.channels, self.net.recall_taps
        place = number % taps
        self._recent[slots, place::taps] = rows[:, None]
        recent = self._recent[slots, place + 1 : place + 1 + taps]  # (S, taps, F)
        both = _linear(recent.reshape(len(rows), -1), self._local)
        a = both[:, :channels]
        h = a * np.tanh(both[:, channels:]) + np.maximum(a, 0)  # (S, C)
        both = _linear(h, self._deepen)
        h = h + both[:, :channels] * np.tanh(both[:, channels:])
        asked = _linear(h, self._ask)  # (S, 3 C)
        told = np.tanh(asked[:, : 2 * channels])
        self._values[slots, number % self._values.shape[1]] = (
            0.5 + 0.5 * told[:, channels:]
        ) * told[:, :channels]
        parts = np.empty((len(rows), 3 * channels), np.float32)
        parts[:, :channels] = h
        summed = self._values[slots].sum(axis=1, out=parts[:, channels : 2 * channels])
        np.multiply(asked[:, 2 * channels :], np.tanh(summed), out=parts[:, 2 * channels :])
        return _linear(parts, self._recall_out)

    def scores(self, z: Floats, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """(score, p_buy, p_sell, score under a zero embedding) of body outputs (S, C): (S, 4)."""
        gain, offset = self._context[:, :, _slots(slots, self.slots)]  # each (2, S, C)
        both = (gain * z + offset).reshape(-1, z.shape[1])  # (2 S, C)
        hidden = _linear(both, self._hidden)
        np.maximum(hidden, 0, out=hidden)
        logits = _linear(hidden, self._output)
        found = np.empty((len(slots), 4))
        if self.net.settings.head == "classes":
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            score = p[:, BUY] - p[:, SELL]  # (2 S,)
            found[:, 1], found[:, 2] = p[: len(slots), BUY], p[: len(slots), SELL]
        else:
            score = np.tanh(logits[:, 0])
            lit = score[: len(slots)]
            found[:, 1], found[:, 2] = np.maximum(lit, 0), np.maximum(-lit, 0)
        found[:, 0], found[:, 3] = score[: len(slots)], score[len(slots) :]
        return found

    def snapshot(self, slot: int) -> dict[str, Any]:
        """What the rings hold of a symbol, copied; the embedding belongs to the activated state."""
        return {
            "rings": [ring[slot, : ring.shape[1] // 2].copy() for ring in self._rings],
            "recent": self._recent[slot, : self.net.recall_taps].copy(),
            "values": self._values[slot].copy(),
        }

    def restore(self, slot: int, kept: dict[str, Any], embedding: Floats) -> None:
        """Continue where a stream of the same network was, conditioned on the embedding (E,)."""
        self.set_context(slot, embedding)
        for ring, rows in zip(self._rings, kept["rings"], strict=True):
            ring[slot] = np.concatenate([rows, rows])
        self._recent[slot] = np.concatenate([kept["recent"], kept["recent"]])
        self._values[slot] = kept["values"]

    def _film(self, embedding: Floats) -> tuple[Floats, Floats]:
        components = np.clip(embedding @ self._whiten, -CONTEXT_CLIP, CONTEXT_CLIP)
        both = _linear(components, self._film_product)  # (2 C,)
        channels = len(both) // 2
        return 1 + both[:channels], both[channels:]


def _linear(rows: Floats, product: Product) -> Floats:
    """Rows (N, in) through a matrix and its bias: (N, out)."""
    weight, bias = product
    out: Floats = rows @ weight
    out += bias
    return out


def _slots(slots: NDArray[np.int64], count: int) -> Slots:
    """Slots as a slice where they are all there are, in order: a view is not copied."""
    whole = len(slots) == count and (count == 1 or bool((np.diff(slots) == 1).all()))
    return slice(None) if whole else slots
