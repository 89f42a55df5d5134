"""The contracts of encoders, objectives and labels: kept by each there is, and each broken once."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.models.encoders import ENCODERS, Encoder
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import LABELS, LabelKind, Labels
from cppncripto_strategy.models.labels.fixed import fixed_horizon
from cppncripto_strategy.models.options import PartOptions
from cppncripto_strategy.models.pretraining import OBJECTIVES, Objective
from cppncripto_strategy.plugins import _LOADED, load_plugins
from cppncripto_strategy.registry import forget_everywhere
from cppncripto_strategy.testing import encoders, labels, objectives
from cppncripto_strategy.testing.encoders import check_encoder
from cppncripto_strategy.testing.labels import check_label
from cppncripto_strategy.testing.objectives import check_objective

EXAMPLE = (Path(__file__).parents[1] / "plugin_example.py").resolve()
SMALL = {"transformer": {"window": 6, "heads": 2, "channels": 16}, "gru": {"channels": 16}}
# Barriers that a random market touches within the test's horizon.
TOUCHED = {"barrier": {"barrier_bps": 30.0}, "trade": {"barrier_bps": 60.0}}


@pytest.fixture(scope="module")
def plugin():
    """The parts of a user's file, known for the tests of this module."""
    load_plugins([EXAMPLE])
    yield
    forget_everywhere(str(EXAMPLE))
    _LOADED.pop(EXAMPLE, None)


@pytest.mark.parametrize("name", [*ENCODERS.names(), "patches"])
def test_every_encoder_keeps_the_contract(name, plugin):
    """An encoder, cppn and a user's own included, that sees the future or cannot be rebuilt."""
    check_encoder(name)
    check_encoder(name, {**SMALL.get(name, {}), "stride": 3}, seed=1)


def test_the_tcn_that_weighs_recent_rows_keeps_the_contract():
    """A pooling that reads its own length, or cannot be rebuilt from its options."""
    check_encoder("tcn", {"half_life": 2.5})


@pytest.mark.parametrize("name", [*OBJECTIVES.names(), "last return"])
@pytest.mark.parametrize("encoder", ["tcn", "cppn", "patches"])
def test_every_objective_keeps_the_contract(name, encoder, plugin):
    """A loss that draws from elsewhere, is NaN after an outage, or teaches nothing."""
    check_objective(name, encoder=encoder)


@pytest.mark.parametrize("name", [*LABELS.names(), "sign"])
@pytest.mark.parametrize("horizon", [1, 6, 40])
def test_every_label_keeps_the_contract(name, horizon, plugin):
    """A label that reads further than is purged, or is guessed across a gap."""
    check_label(name, TOUCHED.get(name), horizon)


@pytest.mark.parametrize("module", [encoders, objectives, labels])
def test_the_examples_of_the_kit_run(module: ModuleType):
    """An example that nobody ran."""
    assert doctest.testmod(module).failed == 0


# --- one broken part for each promise -------------------------------------------------------------


class Linear(Encoder):
    """Honest: each patch by itself."""

    def __init__(self, n_features: int, width: int, options: PartOptions) -> None:
        super().__init__(n_features, width, options)
        self.stride = 6
        self.mix = nn.Linear(n_features * self.stride, width)

    def feature_map(self, x: Tensor) -> Tensor:
        return self.mix(x.unflatten(1, (-1, self.stride)).flatten(2))


class Acausal(Linear):
    """LEAK: pads on both sides."""

    def feature_map(self, x: Tensor) -> Tensor:
        z = super().feature_map(x).transpose(1, 2)
        return functional.avg_pool1d(z, 3, stride=1, padding=1).transpose(1, 2)


class Normed(Linear):
    """LEAK: divides by the deviation over the whole window."""

    def feature_map(self, x: Tensor) -> Tensor:
        z = super().feature_map(x)
        return z / (1 + z.std(dim=1, keepdim=True, correction=0))


class Positioned(Linear):
    """Knows where in the array a row stands."""

    def feature_map(self, x: Tensor) -> Tensor:
        z = super().feature_map(x)
        return z + torch.arange(z.shape[1])[None, :, None] / 100


class Batched(Linear):
    """Mixes the windows of a batch."""

    def pool(self, z: Tensor) -> Tensor:
        return z.mean(dim=1) - z.mean(dim=(0, 1))


class Unseeded(Linear):
    """Draws its weights from nowhere that a seed reaches."""

    def __init__(self, n_features: int, width: int, options: PartOptions) -> None:
        super().__init__(n_features, width, options)
        nn.init.normal_(self.mix.weight, generator=torch.Generator().manual_seed(id(self)))


class Forgetful(Linear):
    """Keeps a number that neither options nor weights hold."""

    def __init__(self, n_features: int, width: int, options: PartOptions) -> None:
        super().__init__(n_features, width, options)
        self.scale = float(torch.rand(()))

    def feature_map(self, x: Tensor) -> Tensor:
        return self.scale * super().feature_map(x)


class Anything(Linear):
    """Takes any option."""

    class Options(PartOptions):
        model_config = {"extra": "allow"}

        @classmethod
        def read(cls, values, owner):
            return cls(**values)


def test_the_honest_encoder_passes():
    """A kit that refuses everything finds every mistake."""
    check_encoder(Linear)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (Acausal, "other rows before candle"),
        (Normed, "other rows before candle"),
        (Positioned, "absolute positions"),
        (Batched, "among others than alone"),
        (Unseeded, "other weights under the same torch seed"),
        (Forgetful, "another network when rebuilt"),
        (Anything, "takes an option that it does not have"),
    ],
)
def test_a_broken_encoder_is_caught(encoder, words):
    """A check that cannot fail."""
    with pytest.raises(AssertionError, match=words):
        check_encoder(encoder)


class Honest(Objective):
    """Mean squared output towards 1."""

    def __init__(self, encoder, columns, day_candles, options) -> None:
        super().__init__()

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        return (encoder(x) - 1).square().mean()


class PerWindow(Honest):
    def loss(self, encoder, x, generator):
        return (encoder(x) - 1).square().mean(dim=1)


class Detached(Honest):
    def loss(self, encoder, x, generator):
        bias = next(encoder.parameters()).sum() * 0
        return (encoder(x) - 1).square().mean().detach() + bias


class Global(Honest):
    def loss(self, encoder, x, generator):
        return super().loss(encoder, x + torch.rand(()) / 100, generator)


class Wild(Honest):
    """NaN where a day is empty."""

    def loss(self, encoder, x, generator):
        day = x[:, : objectives.DAY_CANDLES]
        return super().loss(encoder, x, generator) + 0 * (day.sum() / day[..., 8].sum())


class Uphill(Honest):
    def loss(self, encoder, x, generator):
        loss = super().loss(encoder, x, generator)
        return 2 * loss.detach() - loss


class Overwriting(Honest):
    def loss(self, encoder, x, generator):
        x[:, 0] = 0
        return super().loss(encoder, x, generator)


def test_the_honest_objective_passes():
    """A kit that refuses everything finds every mistake."""
    check_objective(Honest)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (PerWindow, r"shape \(6,\)"),
        (Detached, "teaches the encoder nothing"),
        (Global, "another loss for the same generator state"),
        (Wild, "where a day has no candle"),
        (Uphill, "not lowered by its own gradient"),
        (Overwriting, "changes the windows"),
    ],
)
def test_a_broken_objective_is_caught(objective, words):
    """A check that cannot fail."""
    with pytest.raises(AssertionError, match=words):
        check_objective(objective)


class Near(LabelKind):
    """Honest: the sign of the return over the horizon."""

    def compute(self, grid: CandleGrid) -> Labels:
        return fixed_horizon(grid, self.horizon, 0.0)


class Understated(LabelKind):
    """LEAK: reads one candle more than it says."""

    def compute(self, grid: CandleGrid) -> Labels:
        found = fixed_horizon(grid, self.horizon + 1, 0.0)
        return Labels(found.target, found.forward_return, found.valid, self.horizon)


class Guessing(LabelKind):
    """Valid where candles are missing or not there yet."""

    def compute(self, grid: CandleGrid) -> Labels:
        found = fixed_horizon(grid, self.horizon, 0.0)
        returns = np.nan_to_num(found.forward_return)
        return Labels(found.target, returns, np.ones(len(grid), bool), self.horizon)


class OneSided(LabelKind):
    """Calls a fall a buy, too."""

    def compute(self, grid: CandleGrid) -> Labels:
        found = fixed_horizon(grid, self.horizon, 0.0)
        target = np.abs(found.target).astype(np.int8)
        return Labels(target, found.forward_return, found.valid, self.horizon)


def test_the_honest_label_passes():
    """A kit that refuses everything finds every mistake."""
    check_label(Near)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Understated, "reads further than the 6 candles it declares"),
        (Guessing, "is valid in the last 6 rows"),
        (OneSided, "buy and sell must change places"),
    ],
)
def test_a_broken_label_is_caught(kind, words):
    """A check that cannot fail."""
    with pytest.raises(AssertionError, match=words):
        check_label(kind)
