"""Training MicroNet: what it learns, what it keeps, what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.models.learning import training
from cppncripto_strategy.models.learning.training import (
    IGNORED,
    MicroData,
    micro_loss,
    train_micronet,
)
from cppncripto_strategy.models.micronet import BUY, HOLD, SELL
from cppncripto_strategy.models.settings import MicroNetSettings, TrainSettings

DAY, FEATURES, CONTEXT = 24, 3, 4
SHAPE = MicroNetSettings(
    n_features=FEATURES, n_context=CONTEXT, short_window=8, channels=8, hidden=8, components=2
)
FIELD = 7
QUICK = TrainSettings(
    epochs=12, patience=12, initialisations=1, batch_sessions=8, averaging=0.5, learning_rate=1e-2
)


def toy_data(sessions=48, seed=0, sign_from_context=True, labelled=True):
    """Sessions whose label is the sign of the last return, turned over by the day's context."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(sessions, FIELD - 1 + DAY, FEATURES)).astype(np.float32)
    context = rng.normal(size=(sessions, CONTEXT)).astype(np.float32) * 0.1
    regime = rng.integers(0, 2, sessions) * 2 - 1
    context[:, 0] = 2.0 * regime if sign_from_context else 0.0
    last = inputs[:, FIELD - 1 :, 0]
    answer = np.sign(last) * (regime[:, None] if sign_from_context else 1)
    target = np.where(np.abs(last) < 0.3, HOLD, np.where(answer > 0, BUY, SELL))
    if not labelled:
        target[:] = IGNORED
    known = target != IGNORED
    forward = np.where(known, 0.01 * answer * np.abs(last), np.nan).astype(np.float32)
    return MicroData(
        inputs=torch.from_numpy(inputs),
        context=torch.from_numpy(context),
        # A market upside down keeps this toy's regime: both the bar and its answer turn over.
        mirror_context=torch.from_numpy(context),
        target=torch.from_numpy(target.astype(np.int64)),
        value=torch.from_numpy(np.tanh(forward / 0.01)),
        forward_return=torch.from_numpy(forward),
        odd_columns=(0,),
    )


def accuracy(net, data):
    """Share of right signs where there is a move."""
    with torch.no_grad():
        score = net.probabilities(net(data.inputs, data.context))[..., 0]
    moves = (data.target == BUY) | (data.target == SELL)
    return float(((score > 0) == (data.target == BUY))[moves].float().mean())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.2},
        {"confidence_penalty": 0.1},
        {"mirror": False},
        {"averaging": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", ["classes", "regression"])
def test_planted_product_of_bar_and_context_is_learned(head, change):
    """A sign lost between label, loss, head and score; an option that breaks the loss."""
    how = dataclasses.replace(QUICK, **change)
    shape = dataclasses.replace(SHAPE, head=head)
    trained = train_micronet(toy_data(), toy_data(16, seed=1), shape, how, seed=0)
    assert accuracy(trained.net, toy_data(32, seed=2)) > 0.9
    assert not trained.net.training


def test_network_without_context_cannot_learn_what_only_context_tells():
    """The toy's answer leaking through another column would make the test above hollow."""
    train, validation = toy_data(), toy_data(16, seed=1)
    blind = [
        dataclasses.replace(part, context=0 * part.context, mirror_context=0 * part.mirror_context)
        for part in (train, validation)
    ]
    trained = train_micronet(*blind, SHAPE, QUICK, seed=0)
    # A net that always bets on one regime is right in its share of the sessions: many are needed.
    test = toy_data(400, seed=2)
    assert abs(accuracy(trained.net, test) - 0.5) < 0.1


def test_mirrored_is_an_involution_that_swaps_classes_and_signs():
    """A mirror that forgets the embedding, the ignored candles or an odd feature."""
    data = toy_data(6)
    data.target[0, :5] = IGNORED
    data = dataclasses.replace(data, mirror_context=-data.context)
    flip = torch.tensor([True, False, True, True, False, False])
    other = data.mirrored(flip)
    for name in ("inputs", "context", "mirror_context", "target", "value", "forward_return"):
        before, after = getattr(data, name), getattr(other, name)
        assert torch.equal(after[~flip], before[~flip])
        back = getattr(other.mirrored(flip), name)
        torch.testing.assert_close(back, before, rtol=0, atol=0, equal_nan=True)
    swap = {SELL: BUY, HOLD: HOLD, BUY: SELL, IGNORED: IGNORED}
    expected = [swap[int(label)] for label in data.target[flip].flatten()]
    assert other.target[flip].flatten().tolist() == expected
    assert torch.equal(other.inputs[flip][..., 0], -data.inputs[flip][..., 0])
    assert torch.equal(other.inputs[flip][..., 1:], data.inputs[flip][..., 1:])
    assert torch.equal(other.context[flip], data.mirror_context[flip])
    torch.testing.assert_close(other.value[flip], -data.value[flip], equal_nan=True)


def test_early_stopping_keeps_the_best_epoch_and_stops_after_its_patience():
    """The last epoch's weights kept, or the patience counted from the start."""
    # Labels of noise: the validation loss has its best epoch early, then grows.
    train, validation = toy_data(12, seed=3), toy_data(12, seed=4)
    noise = torch.randint(0, 3, train.target.shape, generator=torch.Generator().manual_seed(0))
    train = dataclasses.replace(train, target=noise)
    how = dataclasses.replace(QUICK, epochs=60, patience=4, learning_rate=3e-2, mirror=False)
    trained = train_micronet(train, validation, SHAPE, how, seed=0)
    curve = trained.curves[0]
    best = int(np.argmin(curve["validation"]))
    assert curve["best_epoch"] == best
    assert len(curve["validation"]) == best + 1 + how.patience < how.epochs
    with torch.no_grad():
        loss = micro_loss(trained.net, validation, how).item()
    assert loss == pytest.approx(curve["validation"][best], abs=1e-6)
    assert trained.validation_loss == curve["validation"][best]


def test_best_of_several_initialisations_is_kept():
    """The first or the last initialisation kept whatever the validation says."""
    how = dataclasses.replace(QUICK, epochs=3, initialisations=4)
    trained = train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed=5)
    losses = [min(curve["validation"]) for curve in trained.curves]
    assert len(set(losses)) == 4
    assert trained.validation_loss == min(losses)
    alone = train_micronet(
        toy_data(),
        toy_data(16, seed=1),
        SHAPE,
        dataclasses.replace(how, initialisations=1),
        seed=5 + 1000 * int(np.argmin(losses)),
    )
    for name, weight in alone.net.state_dict().items():
        assert torch.equal(weight, trained.net.state_dict()[name]), name


def alone(how, number, seed=5):
    """The training of one of several initialisations by itself."""
    how = dataclasses.replace(how, initialisations=1)
    return train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed + 1000 * number)


def test_better_half_learns_on_after_each_rung_and_as_if_alone():
    """The trial's worst carried on, a rung left out, or draws that move with another network's."""
    how = dataclasses.replace(QUICK, epochs=5, trial_epochs=1, initialisations=3)
    trained = train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed=11)
    singles = [alone(how, number, seed=11) for number in range(3)]
    whole = [single.curves[0]["validation"] for single in singles]
    *two, dropped = sorted(range(3), key=lambda number: min(whole[number][:1]))
    best, second = sorted(two, key=lambda number: min(whole[number][:2]))
    assert [best, second] != two  # else one rung would do as well
    lengths = {best: 5, second: 2, dropped: 1}
    for number, curve in enumerate(trained.curves):
        assert curve["validation"] == whole[number][: lengths[number]]
    expected = singles[best].net.state_dict()
    for name, weight in trained.net.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_trial_as_long_as_the_training_lets_each_learn_to_its_end():
    """A trial that cuts off a network which would have been the best in the end."""
    how = dataclasses.replace(QUICK, epochs=6, trial_epochs=6, initialisations=3, patience=3)
    trained = train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed=5)
    assert trained.curves == [alone(how, number).curves[0] for number in range(3)]
    assert trained.validation_loss == min(min(c["validation"]) for c in trained.curves)


def test_progress_of_a_training_only_grows_and_reaches_its_total():
    """A bar that runs back when the best network learns on, or never gets to its end."""
    seen = []
    how = dataclasses.replace(QUICK, epochs=5, trial_epochs=2, initialisations=3)
    train_micronet(
        toy_data(),
        toy_data(16, seed=1),
        SHAPE,
        how,
        seed=5,
        progress=lambda done, total, _text: seen.append((done, total)),
    )
    assert {total for _, total in seen} == {3 * 2 + 2 * 2 + 1}
    assert [done for done, _ in seen] == [*range(1, 12), 11]


def test_same_seed_same_bits_other_seed_other_bits():
    """Randomness from a global generator."""
    nets = []
    for seed, noise in ((1, 10), (1, 20), (2, 10)):
        torch.manual_seed(noise)
        how = dataclasses.replace(QUICK, epochs=2)
        nets.append(train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed).net)
    weights = [torch.cat([w.flatten() for w in net.state_dict().values()]) for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_warm_start_begins_with_the_given_weights_and_leaves_them_alone():
    """A warm start that starts cold, forgets the whitening, or trains its predecessor in place."""
    first = train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, QUICK, seed=0).net
    before = {name: weight.clone() for name, weight in first.state_dict().items()}
    how = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-6)
    warm = train_micronet(toy_data(), toy_data(16, seed=1), SHAPE, how, seed=7, warm_start=first)
    assert accuracy(warm.net, toy_data(32, seed=2)) > 0.9
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, before[name])
        assert torch.allclose(weight, warm.net.state_dict()[name], atol=1e-3)
    assert torch.equal(warm.net.whiten, first.whiten)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_no_labelled_candle_is_an_error_that_says_where(part):
    """NaN weights, or a crash in torch, from a span without labels."""
    parts = {"training": toy_data(8), "validation": toy_data(8, seed=1)}
    parts[part] = toy_data(8, labelled=False)
    with pytest.raises(TrainingError, match=f"the {part} part has 8 sessions and no labelled"):
        train_micronet(parts["training"], parts["validation"], SHAPE, QUICK, seed=0)


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_session_without_any_label_does_not_poison_the_weights(head):
    """A day the exchange was down, alone in its batch: a mean over nothing is NaN for ever."""
    data = toy_data(17)
    data.target[3], data.value[3] = IGNORED, float("nan")
    validation = toy_data(9, seed=1)
    validation.target[0], validation.value[0] = IGNORED, float("nan")
    how = dataclasses.replace(QUICK, batch_sessions=1, epochs=2, confidence_penalty=0.1)
    shape = dataclasses.replace(SHAPE, head=head)
    trained = train_micronet(data, validation, shape, how, seed=0)
    assert all(torch.isfinite(weight).all() for weight in trained.net.state_dict().values())
    assert np.isfinite(trained.curves[0]["train"]).all()
    assert len(trained.validation_scores) == validation.labelled


def test_loss_that_is_never_finite_is_an_error():
    """An untrained network shipped as the best one."""
    data = toy_data(8)
    data.inputs[:] = float("nan")
    with pytest.raises(TrainingError, match="no initialisation reached a finite"):
        train_micronet(data, data, SHAPE, dataclasses.replace(QUICK, epochs=2), seed=0)


def test_ignored_candles_carry_no_loss():
    """A purged or embargoed candle that is learned from after all."""
    data = toy_data(8)
    net = train_micronet(data, data, SHAPE, dataclasses.replace(QUICK, epochs=1), seed=0).net
    masked = dataclasses.replace(data, target=data.target.clone(), value=data.value.clone())
    masked.target[:, 10:], masked.value[:, 10:] = IGNORED, float("nan")
    other = dataclasses.replace(masked, inputs=masked.inputs.clone())
    other.inputs[:, FIELD - 1 + 10 :] = 99.0  # rows that only the ignored candles see
    for head in ("classes", "regression"):
        shaped = dataclasses.replace(SHAPE, head=head)
        if head == "regression":
            net = training.MicroNet(shaped).eval()
        with torch.no_grad():
            assert micro_loss(net, masked, QUICK) == micro_loss(net, other, QUICK)


def test_smoothing_and_penalty_act_in_training_only():
    """Validation losses that cannot be compared between settings."""
    data = toy_data(8)
    net = training.MicroNet(SHAPE)
    plain = dataclasses.replace(QUICK, label_smoothing=0.0)
    hard = dataclasses.replace(plain, label_smoothing=0.3, confidence_penalty=0.5)
    with torch.no_grad():
        assert micro_loss(net.eval(), data, plain) == micro_loss(net.eval(), data, hard)
        net.train()
        logits = net(data.inputs, data.context).flatten(0, 1).double()
        p = torch.softmax(logits, dim=1)
        one_hot = torch.nn.functional.one_hot(data.target.flatten(), 3)
        smooth = 0.7 * one_hot + 0.1  # 0.3 spread over three classes
        expected = -(smooth * p.log()).sum(1).mean() - 0.5 * -(p * p.log()).sum(1).mean()
        assert micro_loss(net, data, hard).item() == pytest.approx(expected.item(), abs=1e-5)
