"""Gradient-trained encoders beyond their contract, which tests/strategy/testing checks."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import Encoder, build_encoder
from cppncripto_strategy.models.encoders.gru import GRUEncoder
from cppncripto_strategy.models.encoders.transformer import LocalAttention

NAMES = ("tcn", "transformer", "gru")
FEATURES = 9
DAYS_5 = 1_440
# Two training steps on 30 days of 5-minute candles, batch 32; prints the peak memory in bytes.
TRAINING_STEP = """
import resource, sys, torch
torch.set_num_threads(1)
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FeatureTable
from cppncripto_strategy.models.pretraining import build_objective
torch.manual_seed(0)
encoder = build_encoder(sys.argv[1], 9)
objective = build_objective(sys.argv[2], encoder, FeatureTable.of(DEFAULT_COLUMNS))
x = torch.randn(32, 8640, 9)
x[..., 8] = 1.0
optimiser = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()])
for _ in range(2):
    optimiser.zero_grad()
    objective.loss(encoder, x, torch.Generator().manual_seed(0)).backward()
    optimiser.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def _seeded(name: str, seed: int = 0, **options: object) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(name, FEATURES, options).eval()


def _windows(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, length, FEATURES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    """Kills a layer that was built and never wired in."""
    encoder = _seeded(name)
    encoder(_windows(4, DAYS_5)).square().sum().backward()
    idle = [
        key
        for key, weight in encoder.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    # A bias before a softmax over time shifts every weight alike: it has no gradient by nature.
    assert set(idle) <= {"weigh.2.bias"}


@pytest.mark.parametrize("length", [5, 8, 24])
def test_local_attention_is_dense_attention_with_a_band_mask(length: int) -> None:
    """Kills block arithmetic that drops, doubles or misplaces a token at a block's edge."""
    torch.manual_seed(3)
    channels, heads, window = 12, 3, 8
    attention = LocalAttention(channels, heads, window)
    torch.nn.init.normal_(attention.bias)
    z = torch.randn(2, length, channels)
    query, key, value = attention.to_qkv(z).chunk(3, dim=-1)
    expected = torch.zeros(2, length, channels)
    size = channels // heads
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for now in range(length):
            seen = range(max(0, now - window + 1), now + 1)
            score = torch.stack(
                [
                    (query[:, now, own] * key[:, past, own]).sum(-1) / math.sqrt(size)
                    + attention.bias[head, now - past]
                    for past in seen
                ],
                dim=-1,
            )  # (B, seen)
            weight = torch.softmax(score, dim=-1)
            for place, past in enumerate(seen):
                expected[:, now, own] += weight[:, place : place + 1] * value[:, past, own]
    torch.testing.assert_close(attention(z), attention.mix(expected), rtol=1e-4, atol=1e-5)


def test_the_transformer_is_stationary_in_time() -> None:
    """Kills absolute positions: a row far from the start depends only on what its layers reach."""
    encoder = _seeded("transformer", layers=2, window=4)
    x = _windows(1, 50 * 12)
    reach = 2 * (4 - 1)
    whole, later = encoder.feature_map(x), encoder.feature_map(x[:, 20 * 12 :])
    torch.testing.assert_close(whole[:, 20 + reach :], later[:, reach:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole[:, 20], later[:, 0], atol=1e-4)


def test_attention_pooling_weighs_rows() -> None:
    """Kills a pooling whose weights do not sum to one, or do not depend on the rows."""
    encoder = _seeded("gru")
    assert isinstance(encoder, GRUEncoder)
    row = torch.randn(1, 1, encoder.width)
    torch.testing.assert_close(encoder.pool(row.expand(-1, 7, -1)), row[:, 0])
    z = torch.randn(3, 9, encoder.width)
    assert not torch.allclose(encoder.pool(z), z.mean(dim=1), atol=1e-3)
    turned = z.flip(1)
    torch.testing.assert_close(encoder.pool(turned), encoder.pool(z), rtol=1e-5, atol=1e-5)


def test_half_of_the_tcns_vector_weighs_by_age() -> None:
    """Weights turned around, so that the oldest patch counts most; a mean that is no mean."""
    torch.manual_seed(0)
    z = torch.randn(2, 7, 10)
    net = build_encoder("tcn", 3, {"half_life": 2.0}, width=10)
    weight = np.array([0.5 ** (age / 2.0) for age in range(6, -1, -1)])
    expected = (z.numpy() * weight[None, :, None]).sum(axis=1) / weight.sum()
    np.testing.assert_allclose(net.pool(z)[:, :5], expected[:, :5], atol=1e-6)
    np.testing.assert_allclose(net.pool(z)[:, 5:], z.numpy().mean(axis=1)[:, 5:], atol=1e-6)


def test_impossible_heads_are_refused() -> None:
    """A reshape error deep in attention would not say which recipe key to change."""
    with pytest.raises(RecipeError, match="multiple of heads"):
        build_encoder("transformer", FEATURES, {"channels": 10, "heads": 4})


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective"),
    [("tcn", "masked"), ("transformer", "masked"), ("gru", "autoencoder")],
)
def test_thirty_days_train_within_four_gigabytes(name: str, objective: str) -> None:
    """Kills attention over all pairs of patches, or anything else whose memory grows with T^2."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINING_STEP, name, objective],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert int(done.stdout) < 4 * 2**30


@pytest.mark.parametrize("half_life", [None, 3.0])
def test_members_are_networks_of_their_own(half_life: float | None) -> None:
    """Kills gates of one member on another's content, and parts that overlap."""
    torch.manual_seed(2)
    options = {"channels": 6, "stride": 12, "dilations": [1, 2], "members": 3}
    encoder = build_encoder("tcn", FEATURES, {**options, "half_life": half_life}, width=20).eval()
    x = _windows(2, 48)
    before = encoder(x)  # (B, 20): three parts of six, and two numbers of nobody
    assert not before[:, 18:].any()
    blocks = [module for module in encoder.modules() if isinstance(module, torch.nn.Conv1d)]
    with torch.no_grad():
        for layer in blocks[1:]:  # behind the patches; outputs of a group stand together
            size = layer.out_channels // 3
            layer.weight[size : 2 * size] += 0.1
    moved = (encoder(x) != before).any(dim=0)
    assert moved.tolist() == [False] * 6 + [True] * 6 + [False] * 8


def test_half_of_each_members_part_is_recent() -> None:
    """Kills a half-life that falls on the first members alone."""
    torch.manual_seed(2)
    options = {"channels": 6, "stride": 12, "dilations": [1], "members": 2, "half_life": 0.5}
    encoder = build_encoder("tcn", FEATURES, options, width=12)
    z = torch.randn(1, 9, 12)
    found = encoder.pool(z)[0]
    weight = 0.25 ** torch.arange(8, -1, -1)
    recent = (z[0] * (weight / weight.sum())[:, None]).sum(dim=0)
    early = torch.tensor([True] * 3 + [False] * 3).repeat(2)
    torch.testing.assert_close(found, torch.where(early, recent, z[0].mean(dim=0)))


def test_more_members_than_numbers_are_refused() -> None:
    """Kills a convolution of no channel, reported by torch in its own words."""
    with pytest.raises(RecipeError, match="2 numbers, too few for 3 members"):
        build_encoder("tcn", FEATURES, {"members": 3}, width=2)
