"""The two reconstructing objectives: what they aim at, what they may see, and that they learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.encoders import Encoder, build_encoder
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FeatureTable
from cppncripto_strategy.models.options import PartOptions
from cppncripto_strategy.models.pretraining import Objective, build_objective, pretrain
from cppncripto_strategy.models.pretraining._targets import block_means, masked_mse
from cppncripto_strategy.models.pretraining.autoencoder import HourlyAutoencoder
from cppncripto_strategy.models.pretraining.masked import MaskedPatches
from cppncripto_strategy.models.settings import PretrainSettings

NAMES = DEFAULT_COLUMNS
FEATURES = len(NAMES)
COLUMNS = FeatureTable.of(NAMES)
TAKER_COLUMNS = FeatureTable.of((*NAMES, "taker_imbalance"))
VOLUME, PRESENT = NAMES.index("volume_z"), NAMES.index("present")
DAY = 288
OBJECTIVES = ("autoencoder", "masked")
ENCODERS = ("tcn", "transformer", "gru")
QUICK = PretrainSettings(epochs=2, batch_size=4)


class Windows:
    """Two-day windows whose volume follows the clock, or runs against it: a hidden sign each."""

    def __init__(self, count: int, seed: int, features: int = FEATURES) -> None:
        rng = np.random.default_rng(seed)
        angle = 2 * np.pi * np.arange(2 * DAY) / DAY
        x = rng.normal(0, 0.3, (count, 2 * DAY, features))
        self.sign = rng.choice([-1.0, 1.0], count)
        x[..., VOLUME] += self.sign[:, None] * np.sin(angle)
        x[..., NAMES.index("sin_day")] = np.sin(angle)
        x[..., NAMES.index("cos_day")] = np.cos(angle)
        x[..., PRESENT] = 1.0
        self.x = torch.from_numpy(x.astype(np.float32))

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, index: NDArray[np.int64]) -> Tensor:
        return self.x[torch.from_numpy(index)]


def _pair(encoder: str, objective: str, seed: int = 0) -> tuple[Encoder, Objective]:
    torch.manual_seed(seed)
    net = build_encoder(encoder, FEATURES, {"channels": 16})
    return net, build_objective(objective, net, COLUMNS)


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_block_means_leave_absent_candles_out() -> None:
    """Kills a mean that counts an outage's zeros as quiet trading."""
    columns = COLUMNS
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 31, FEATURES))
    x[..., PRESENT] = rng.random((2, 31)) < 0.5
    x[0, 7:13, PRESENT] = 0.0  # a block with no candle at all
    means, known = block_means(torch.from_numpy(x), 6, columns)
    assert means.shape == (2, 5, len(columns.scaled))
    for window in range(2):
        for block in range(5):
            rows = [r for r in range(1 + block * 6, 7 + block * 6) if x[window, r, PRESENT] == 1]
            assert bool(known[window, block]) == bool(rows)
            seen = [x[window, r][list(columns.scaled)] for r in rows]
            expected = np.mean(seen, axis=0) if rows else 0.0
            np.testing.assert_allclose(means[window, block].numpy(), expected, atol=1e-12)


def test_only_counted_blocks_enter_the_error() -> None:
    """Kills a loss diluted by blocks that should not count."""
    decoded, target = torch.zeros(2, 3, 4), torch.full((2, 3, 4), 2.0)
    target[0, 0] = 100.0
    counted = torch.ones(2, 3, dtype=torch.bool)
    counted[0, 0] = False
    assert masked_mse(decoded, target, counted).item() == 4.0
    assert masked_mse(decoded, target, torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0


def test_columns_are_found_with_and_without_taker() -> None:
    """Kills positions pinned to one feature set: the clock must never become a target."""
    plain, taker = COLUMNS, TAKER_COLUMNS
    assert [NAMES[i] for i in plain.clock] == ["sin_day", "cos_day"]
    assert len(taker.scaled) == len(plain.scaled) + 1
    assert not set(taker.scaled) & {*taker.clock, taker.present}
    turned = FeatureTable.of(NAMES[::-1])
    assert [turned.names[i] for i in turned.scaled] == [NAMES[i] for i in plain.scaled][::-1]
    assert (turned.present, turned.clock) == (0, (1, 2))


def test_the_autoencoder_sees_the_window_only_through_the_embedding() -> None:
    """Kills a decoder that reads the answers off its input."""
    encoder, objective = _pair("tcn", "autoencoder")
    assert isinstance(objective, HourlyAutoencoder)
    x, embedding = Windows(3, 1).x, torch.randn(3, encoder.width)
    scrambled = x.clone()
    scrambled[..., list(objective.columns.scaled)] = 7.0
    told = objective.reconstruct(embedding, x)
    assert torch.equal(told, objective.reconstruct(embedding, scrambled))
    assert not torch.allclose(told, objective.reconstruct(embedding + 1, x), atol=1e-3)
    assert told.shape == (3, 2 * DAY // 12, len(objective.columns.scaled))


def test_hours_of_the_same_clock_are_told_apart_by_age() -> None:
    """Kills a query that asks for 'some 14:00' instead of yesterday's."""
    encoder, objective = _pair("tcn", "autoencoder")
    assert isinstance(objective, HourlyAutoencoder)
    told = objective.reconstruct(torch.randn(1, encoder.width), Windows(1, 1).x)
    assert not torch.allclose(told[:, 0], told[:, 24], atol=1e-4)


def test_forty_percent_of_the_patches_are_hidden_in_every_window() -> None:
    """Kills a share that varies by window, and masks that repeat from step to step."""
    _, objective = _pair("tcn", "masked")
    assert isinstance(objective, MaskedPatches)
    generator = _draws()
    first, second = (objective.draw(torch.Size((16, 120)), generator) for _ in range(2))
    assert (first.sum(dim=1) == round(0.4 * 120)).all()
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    with pytest.raises(RecipeError, match=r"objective 'masked': share: .*less than 1"):
        build_objective("masked", build_encoder("tcn", FEATURES), COLUMNS, {"share": 1.0})


def test_nothing_of_a_hidden_patch_reaches_the_encoder() -> None:
    """Kills a mask that hides one column and leaves its neighbours to give the answer."""
    encoder, objective = _pair("tcn", "masked")
    assert isinstance(objective, MaskedPatches)
    x = Windows(4, 2).x
    hidden = objective.draw(torch.Size((4, 48)), _draws())
    changed = x.clone()
    rows = hidden.repeat_interleave(encoder.stride, dim=1)
    keep = torch.zeros(FEATURES, dtype=torch.bool)
    keep[list(objective.columns.clock)] = True
    changed[rows[..., None] & ~keep] = 9.0
    assert torch.equal(objective.hide(x, hidden), objective.hide(changed, hidden))
    assert torch.equal(objective.hide(x, hidden)[~rows], x[~rows])
    assert torch.equal(objective.hide(x, hidden)[..., keep], x[..., keep])


def test_the_encoder_reads_the_masked_window_and_only_hidden_patches_are_judged() -> None:
    """Kills an encoder fed the answers, and a loss over visible patches, satisfied by copying."""

    class Blank(Encoder):
        """Answers zeros and remembers what it was shown."""

        stride = 12
        seen: Tensor

        def feature_map(self, x: Tensor) -> Tensor:
            self.seen = x
            return torch.zeros(len(x), x.shape[1] // self.stride, self.width)

    torch.manual_seed(0)
    blank, x = Blank(FEATURES, 8, PartOptions()), Windows(4, 2).x
    objective = build_objective("masked", blank, COLUMNS)
    assert isinstance(objective, MaskedPatches)
    x[0, :24, PRESENT] = 0.0  # two patches of outage, which no one can be asked about
    loss = objective.loss(blank, x, _draws(5))
    hidden = objective.draw(torch.Size((4, 48)), _draws(5))
    assert torch.equal(blank.seen, objective.hide(x, hidden))
    target, known = block_means(x, 12, objective.columns)
    told = objective.decoded(torch.zeros(4, 8), torch.zeros(4, 48, 8), x)
    expected = (told - target)[hidden & known].square().mean()
    assert (hidden & ~known).any()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_pooled_embedding_takes_part(objective: str) -> None:
    """Kills a decoder that gets by without the one vector that is kept."""
    net, task = _pair("gru", objective)
    task.loss(net, Windows(4, 2).x, _draws()).backward()
    pooling = net.get_parameter("weigh.0.weight")  # reached through the pooled vector alone
    assert pooling.grad is not None
    assert pooling.grad.abs().sum() > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_same_seed_gives_the_same_bytes(encoder: str, objective: str) -> None:
    """Kills draws from torch's global state, which other code moves."""
    train, validation = Windows(8, 1), Windows(4, 2)
    weights = []
    for noise in range(2):
        net, task = _pair(encoder, objective)
        torch.manual_seed(noise)  # must not matter from here on
        curve = pretrain(net, task, train, validation, QUICK, seed=3)
        assert len(curve.train) == len(curve.validation) == QUICK.epochs
        weights.append(b"".join(p.detach().numpy().tobytes() for p in net.parameters()))
    assert weights[0] == weights[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pretraining_finds_the_hidden_sign(objective: str) -> None:
    """Kills an objective whose gradient never reaches what is kept: the pooled embedding."""
    train, validation = Windows(32, 1), Windows(24, 2)
    net, task = _pair("tcn", objective)
    settings = PretrainSettings(epochs=12, batch_size=8)
    curve = pretrain(net, task, train, validation, settings, seed=0)
    assert min(curve.validation) == curve.validation[curve.best_epoch]
    assert min(curve.validation) < 0.6 * curve.validation[0]
    with torch.no_grad():
        known, new = net(train.x).numpy(), net(validation.x).numpy()
    direction = known[train.sign > 0].mean(axis=0) - known[train.sign < 0].mean(axis=0)
    middle = known.mean(axis=0)
    assert np.mean(np.sign((new - middle) @ direction) == validation.sign) > 0.95


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_window_without_candles_costs_nothing(objective: str) -> None:
    """Kills a division by zero present candles, which would poison the weights with NaN."""
    net, task = _pair("transformer", objective)
    x = Windows(4, 3).x
    x[..., list(COLUMNS.scaled)] = 0.0
    x[..., PRESENT] = 0.0
    loss = task.loss(net, x, _draws())
    assert loss.item() == 0.0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_taker_windows_are_reconstructed_too(objective: str) -> None:
    """Kills heads sized for nine columns when a recipe turns the taker imbalance on."""
    torch.manual_seed(0)
    net = build_encoder("gru", FEATURES + 1, {"channels": 16})
    task = build_objective(objective, net, TAKER_COLUMNS)
    assert torch.isfinite(task.loss(net, Windows(4, 3, FEATURES + 1).x, _draws()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_windows_without_a_clock_are_reconstructed(objective: str) -> None:
    """Kills a layer of no inputs, which torch warns of, where no feature says the time."""
    columns = FeatureTable.of([name for name in NAMES if name not in ("sin_day", "cos_day")])
    net = build_encoder("tcn", len(columns), {"channels": 16})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = build_objective(objective, net, columns)
    x = torch.ones(4, 2 * DAY, len(columns))
    assert torch.isfinite(task.loss(net, x, _draws()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_quarter_hour_market_is_reconstructed_by_its_own_hours(objective: str) -> None:
    """Kills an hour of twelve candles at every interval: of 15 minutes they make three hours."""
    torch.manual_seed(0)
    net = build_encoder("tcn", FEATURES, {"channels": 16, "stride": 4})
    task = build_objective(objective, net, COLUMNS, day_candles=96)
    x = Windows(2, 3).x
    assert torch.isfinite(task.loss(net, x, _draws()))
    if isinstance(task, HourlyAutoencoder):
        assert task.reconstruct(net(x), x).shape[1] == x.shape[1] // 4
