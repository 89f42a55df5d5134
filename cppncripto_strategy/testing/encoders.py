"""Contract tests of an encoder: causal, start-invariant, deterministic, batch = alone, rebuilt.

`check_encoder` runs them all on random windows. Each check is a function of its own, for a look at
one promise. Left out: whether an embedding is of any use.

Examples
--------
>>> from cppncripto_strategy.testing.encoders import check_encoder
>>> check_encoder("gru", {"channels": 8, "layers": 1})
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cppncripto_strategy.models.encoders import Encoder, build_encoder, encoder_options
from cppncripto_strategy.testing.options import check_refuses_unknown

N_FEATURES = 9
WIDTH = 20
PATCHES = 120
"""Rows of the feature map of a test window: five days of hours."""
MEMORY = 60
"""Rows after which an encoder has forgotten where a window began."""
TOLERANCE = 1e-4
"""Largest difference between the same numbers from arrays of another shape, single precision."""

Make = Callable[[int], Encoder]


def check_encoder(
    encoder: str | type[Encoder],
    options: Mapping[str, Any] | None = None,
    memory: int = MEMORY,
    seed: int = 0,
) -> None:
    """Every check of this module.

    Parameters
    ----------
    encoder : the class, or the name it is registered by.
    options : plain values, as a recipe has them.
    memory : rows after which the start of a window no longer shows.
    seed : of weights and windows.

    Raises
    ------
    AssertionError
        When a promise is broken; the message says which, and what was found.
    RecipeError
        When the encoder or an option is unknown, or a value is impossible.
    """
    make = maker(encoder, options)
    check_shapes(make(seed))
    check_causal(make(seed))
    check_start(make(seed), memory)
    check_batch(make(seed))
    check_seed(make, seed)
    check_rebuilt(encoder, make(seed))
    check_options(encoder)


def maker(encoder: str | type[Encoder], options: Mapping[str, Any] | None = None) -> Make:
    """A function from a seed to a fresh encoder, evaluating. Raises RecipeError."""

    def make(seed: int) -> Encoder:
        torch.manual_seed(seed)
        return _build(encoder, options or {}).eval()

    return make


@torch.no_grad()
def check_shapes(encoder: Encoder) -> None:
    """Any whole number of patches gives one row each, finite, and one vector per window."""
    for patches in (1, 2, 7, PATCHES):
        x = windows(2, patches * encoder.stride)
        rows = encoder.feature_map(x)
        wanted = (2, patches, encoder.width)
        _require(
            tuple(rows.shape) == wanted,
            f"gives a feature map of shape {tuple(rows.shape)} for {patches} patches of"
            f" {encoder.stride} candles: expected {wanted}",
        )
        vector = encoder(x)
        _require(
            tuple(vector.shape) == (2, encoder.width),
            f"gives {tuple(vector.shape)} for 2 windows: expected (2, {encoder.width})",
        )
        _require(bool(rows.isfinite().all() and vector.isfinite().all()), "is not finite")
        _require(torch.equal(vector, encoder(x)), "gives another vector for the same window again")


@torch.no_grad()
def check_causal(encoder: Encoder) -> None:
    """Neither another future, nor none, changes a row before it."""
    stride, x = encoder.stride, windows(2, PATCHES * encoder.stride)
    before = encoder.feature_map(x)
    for cut in (stride // 2, 50 * stride, 50 * stride + stride // 2, PATCHES * stride - 1):
        whole = cut // stride  # rows whose last candle lies before the cut
        changed = x.clone()
        changed[:, cut:] += 3.0
        after = encoder.feature_map(changed)
        _require(
            torch.equal(before[:, :whole], after[:, :whole]),
            f"has other rows before candle {cut} when the candles from there on differ: does"
            " something pad on the right, or read backwards?",
        )
        _require(
            not torch.equal(before[:, whole], after[:, whole]),
            f"does not read candle {cut} in the row of its patch",
        )
        if whole:
            _close(
                encoder.feature_map(x[:, : whole * stride]),
                before[:, :whole],
                "other rows when the window ends there: does something average over time?",
            )


@torch.no_grad()
def check_start(encoder: Encoder, memory: int = MEMORY) -> None:
    """A window that begins some patches later has the same rows once the memory is full."""
    stride, x = encoder.stride, windows(2, PATCHES * encoder.stride)
    whole = encoder.feature_map(x)
    for late in (1, 5, PATCHES - memory - 10):
        _close(
            encoder.feature_map(x[:, late * stride :])[:, memory:],
            whole[:, late + memory :],
            f"other rows when the window begins {late} patches later and {memory} patches have"
            " passed: does it know absolute positions, or a longer past?",
        )


@torch.no_grad()
def check_batch(encoder: Encoder) -> None:
    """A window embeds alone as it does among others."""
    x = windows(9, PATCHES * encoder.stride)
    alone = torch.cat([encoder(window[None]) for window in x])
    _close(encoder(x), alone, "another vector for a window among others than alone")


@torch.no_grad()
def check_seed(make: Make, seed: int = 0) -> None:
    """The same torch seed gives the same weights, another one others."""
    first, again, other = make(seed), make(seed), make(seed + 1)
    x = windows(2, 10 * first.stride)
    _require(torch.equal(first(x), again(x)), "has other weights under the same torch seed")
    _require(not torch.equal(first(x), other(x)), "has the same weights under another torch seed")


@torch.no_grad()
def check_rebuilt(encoder: str | type[Encoder], made: Encoder) -> None:
    """Options as JSON and weights rebuild the network: a bundle keeps nothing else."""
    plain = json.loads(json.dumps(made.options.to_json()))
    torch.manual_seed(12345)
    again = _build(encoder, plain).eval()
    again.load_state_dict(made.state_dict())
    _require(again.options.to_json() == plain, "has other options when it is built from its own")
    x = windows(2, 10 * made.stride)
    _require(torch.equal(made(x), again(x)), "is another network when rebuilt from its options")


def check_options(encoder: str | type[Encoder]) -> None:
    """An unknown option is refused by its name."""
    check_refuses_unknown("encoder", lambda options: _read(encoder, options))


def windows(count: int, length: int, seed: int = 1) -> Tensor:
    """Random scaled windows (count, length, N_FEATURES)."""
    return torch.randn(count, length, N_FEATURES, generator=torch.Generator().manual_seed(seed))


def _build(encoder: str | type[Encoder], options: Mapping[str, Any]) -> Encoder:
    if isinstance(encoder, str):
        return build_encoder(encoder, N_FEATURES, options, WIDTH)
    return encoder(N_FEATURES, WIDTH, _read(encoder, options))


def _read(encoder: str | type[Encoder], options: Mapping[str, Any]) -> Any:
    if isinstance(encoder, str):
        return encoder_options(encoder, options)
    return encoder.Options.read(options, f"encoder {encoder.__name__}")


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    away = float((actual - expected).abs().max())
    _require(away <= TOLERANCE, f"has {what} (off by {away:.3g})")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the encoder {what}")
