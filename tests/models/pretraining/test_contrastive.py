"""Same-day contrast, and the loop that every objective shares."""

import math

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.macronet import CLIP, build_macronet
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.pretraining._base import Objective, _batches
from cppncripto_strategy.models.settings import EMBEDDING_SIZE, PretrainSettings

DAY, STRIDE, FEATURES = 48, 4, 3
COLUMNS = FeatureTable.of(("log_return", "volume_z", "present"))
ENCODER = {"channels": 8, "stride": STRIDE, "dilations": [1, 2]}
QUICK = PretrainSettings(epochs=20, batch_size=16, patience=20)


class Windows:
    """Two-day windows with a sign of their own in the daily profile of one column."""

    def __init__(self, count, seed, days=2):
        rng = np.random.default_rng(seed)
        angle = 2 * np.pi * np.arange(days * DAY) / DAY
        self.sign = rng.choice([-1.0, 1.0], count)
        x = rng.normal(0, 0.5, (count, days * DAY, FEATURES))
        x[..., 0] += self.sign[:, None] * np.sin(angle)
        x[..., 1], x[..., 2] = np.sin(angle), np.cos(angle)
        self.x = torch.from_numpy(x.astype(np.float32))

    def __len__(self):
        return len(self.x)

    def gather(self, index):
        return self.x[torch.from_numpy(index)]


def pair(seed=0, day_candles=DAY, **options):
    torch.manual_seed(seed)
    encoder = build_encoder("tcn", FEATURES, ENCODER, 12)
    objective = build_objective("contrastive", encoder, COLUMNS, options, day_candles)
    return encoder, objective


def probe(encoder, train, test):
    """Share of test signs a ridge regression on the embeddings names."""
    with torch.no_grad():
        a, b = encoder(train.x).double().numpy(), encoder(test.x).double().numpy()
    a, b = np.c_[a, np.ones(len(a))], np.c_[b, np.ones(len(b))]
    weights = np.linalg.solve(a.T @ a + 1e-3 * np.eye(a.shape[1]), a.T @ train.sign)
    return float((np.sign(b @ weights) == test.sign).mean())


def test_pretraining_holds_the_sign_of_the_day():
    """An objective that is minimised without learning what two segments of a day share."""
    encoder, objective = pair()
    curve = pretrain(encoder, objective, Windows(96, 1), Windows(32, 2), QUICK, seed=0)
    assert min(curve.validation) < curve.validation[0]
    assert probe(encoder, Windows(200, 3), Windows(200, 4)) > 0.9
    assert not encoder.training


def test_loss_of_what_cannot_be_told_apart_is_the_logarithm_of_the_batch():
    """InfoNCE over the wrong axis, or its temperature applied twice: the floor is ln B."""
    encoder, objective = pair()
    same = Windows(1, 0).x.expand(8, -1, -1)
    for parameter in objective.project[-1].parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(objective.project[-1].bias)
    loss = objective.loss(encoder, same, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(math.log(8), abs=1e-5)


def test_loss_is_symmetric_infonce_of_the_cosines_over_the_temperature():
    """One direction alone, the temperature forgotten, or lengths that count as likeness."""
    encoder, objective = pair(temperature=0.3)
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 12)) for _ in range(2))
    parts = [torch.from_numpy(part.astype(np.float32)) for part in (first, second)]
    encoder.forward = lambda _: parts.pop(0)
    objective.project = torch.nn.Identity()
    found = objective.loss(encoder, Windows(5, 0).x, torch.Generator().manual_seed(0)).item()
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (first, second)]
    likeness = np.exp(unit[0] @ unit[1].T / 0.3)
    own = np.diag(likeness)
    expected = -(np.log(own / likeness.sum(1)) + np.log(own / likeness.sum(0))).mean() / 2
    assert found == pytest.approx(expected, abs=1e-5)


def test_both_segments_come_from_one_day_of_the_window():
    """Segments across midnight, of different days, or of different windows."""
    encoder, objective = pair()
    x = torch.zeros(6, 3 * DAY, FEATURES)
    for window in range(6):
        for day in range(3):
            x[window, day * DAY : (day + 1) * DAY, 0] = 10 * window + day
    x[..., 1] = torch.arange(3 * DAY) % DAY
    seen = []
    encoder.forward = lambda segment: seen.append(segment) or torch.randn(len(segment), 12)
    chosen = set()
    for draw in range(20):
        seen.clear()
        objective.loss(encoder, x, torch.Generator().manual_seed(draw))
        first, second = seen
        for a, b, window in zip(first, second, range(6), strict=True):
            days = set(a[:, 0].tolist()) | set(b[:, 0].tolist())
            assert len(days) == 1
            assert int(next(iter(days)) // 10) == window
            chosen.add(int(next(iter(days)) % 10))
            for segment in (a, b):
                place = segment[:, 1]
                assert (place.diff() == 1).all()  # consecutive candles of one day
                assert place[0] % STRIDE == 0
        assert first.shape[1] % STRIDE == 0
        assert DAY / 3 - STRIDE <= first.shape[1] <= DAY * 2 / 3
    assert chosen == {0, 1, 2}


def test_days_are_cut_from_the_end_of_a_window_that_is_no_multiple():
    """A window of two and a half days whose youngest candles are never seen."""
    _, objective = pair()
    x = torch.arange(2 * DAY + DAY // 2).float()[None, :, None].expand(4, -1, FEATURES)
    last = 0.0
    for draw in range(12):
        day = objective._one_day_each(x, torch.Generator().manual_seed(draw))
        assert day.shape == (4, DAY, FEATURES)
        assert (day[:, 0, 0] % DAY == DAY // 2).all()
        last = max(last, day.max().item())
    assert last == x.shape[1] - 1


def test_same_seed_gives_the_same_bytes():
    """Draws from a global generator."""
    weights = []
    for noise in (1, 2):
        encoder, objective = pair()
        torch.manual_seed(noise)
        settings = PretrainSettings(epochs=2, batch_size=8)
        pretrain(encoder, objective, Windows(20, 1), Windows(8, 2), settings, seed=3)
        weights.append(torch.cat([w.flatten() for w in encoder.state_dict().values()]))
    assert torch.equal(*weights)


class Scripted(Objective):
    """An objective whose validation loss follows a script, epoch by epoch."""

    def __init__(self, script):
        super().__init__()
        self.script, self.epoch = script, 0

    def loss(self, encoder, x, generator):
        if self.training:
            return sum((p**2).sum() for p in encoder.parameters())
        value = self.script[self.epoch]
        self.epoch += 1
        return torch.tensor(value)


def test_best_epoch_is_kept_and_patience_ends_the_training():
    """The last epoch's encoder kept."""
    encoder, _ = pair()
    script = [3.0, 1.0, 2.0, 2.0, 2.0, 0.5]
    settings = PretrainSettings(epochs=6, batch_size=64, patience=3)
    snapshots = []
    objective = Scripted(script)
    curve = pretrain(
        encoder,
        objective,
        Windows(8, 1),
        Windows(8, 2),
        settings,
        seed=0,
        progress=lambda *_: snapshots.append(
            torch.cat([w.flatten() for w in encoder.state_dict().values()])
        ),
    )
    assert curve.validation == script[:5]
    assert curve.best_epoch == 1
    kept = torch.cat([w.flatten() for w in encoder.state_dict().values()])
    assert torch.equal(kept, snapshots[1])
    assert not torch.equal(kept, snapshots[-1])


def test_loss_that_is_not_finite_is_an_error():
    """NaN weights shipped as an encoder."""
    encoder, _ = pair()
    with pytest.raises(TrainingError, match="loss is nan in epoch 0"):
        pretrain(encoder, Scripted([math.nan]), Windows(8, 1), Windows(8, 2), QUICK, seed=0)


@pytest.mark.parametrize(("train", "validation"), [(1, 8), (8, 1), (0, 0)])
def test_too_few_days_say_how_many(train, validation):
    """A contrast of a day with itself, which is always right."""
    encoder, objective = pair()
    with pytest.raises(TrainingError, match=f"found {train} and {validation}"):
        pretrain(encoder, objective, Windows(train, 1), Windows(validation, 2), QUICK, seed=0)


def test_day_shorter_than_a_patch_is_refused():
    """Four-hour candles under the default stride: an index error deep in torch."""
    with pytest.raises(RecipeError, match=r"a day of 3 candles is shorter than .* stride of 4"):
        pair(day_candles=STRIDE - 1)


def test_unknown_objective_names_the_known_ones():
    """A KeyError out of the recipe."""
    with pytest.raises(RecipeError, match="there are: autoencoder, contrastive, forecast"):
        build_objective("contrast", pair()[0], COLUMNS)


@pytest.mark.parametrize("count", range(2, 40))
def test_batches_cover_every_window_once_and_none_is_alone(count):
    """A last batch of one has no other day to be told from."""
    batches = _batches(count, 8)
    rows = [row for batch in batches for row in range(count)[batch]]
    assert rows == list(range(count))
    assert min(len(range(count)[batch]) for batch in batches) >= 2


def test_macronet_standardises_by_the_training_days_and_clips():
    """Statistics lost, or a wild day that multiplies the FiLM layer by a hundred."""
    torch.manual_seed(0)
    net = build_macronet("tcn", FEATURES, 4, {"channels": 4, "stride": STRIDE, "dilations": [1]})
    windows = Windows(30, 0)
    statistics = torch.randn(30, 4) * torch.tensor([1.0, 10.0, 0.1, 3.0]) - 6.0
    with torch.no_grad():
        raw = net.raw(windows.x, statistics)
        assert raw.shape == (30, EMBEDDING_SIZE) == (30, net.size)
        assert torch.equal(raw[:, -4:], statistics)
        net.calibrate(raw)
        embedding = net(windows.x, statistics)
        torch.testing.assert_close(embedding.mean(0), torch.zeros(net.size), atol=1e-4, rtol=0)
        torch.testing.assert_close(embedding.std(0), torch.ones(net.size), atol=1e-3, rtol=0)
        wild = net(windows.x, statistics * 1000)
    assert wild.abs().max() == CLIP
