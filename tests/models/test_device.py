"""Devices: what may be asked for, and that an accelerator learns the same within its rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.device import CPU, moved, placed, resolve_device
from cppncripto_strategy.models.encoders import ENCODERS
from cppncripto_strategy.models.inputs.sessions import SessionSet, build_sessions
from cppncripto_strategy.models.learning import cache, data
from cppncripto_strategy.models.learning.training import MicroData, train_micronet
from cppncripto_strategy.models.macronet import build_macronet
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.pretraining import _base as pretraining
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.scoring import batch
from cppncripto_strategy.models.scoring.batch import _two_heads, score_span
from cppncripto_strategy.models.settings import (
    LearnSettings,
    MicroNetSettings,
    PretrainSettings,
    TrainSettings,
)

TOLERANCE = 2e-3
"""Relative difference of a loss after a few epochs between devices: they add in another order."""
SCORE_TOLERANCE = 1e-5
"""Largest difference of a score between devices."""
META = torch.device("meta")
"""A device of shapes without numbers: what is left on the processor cannot be mixed with it."""
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_auto_is_the_processor_where_there_is_nothing_else(monkeypatch) -> None:
    """A laptop that fails because its recipe was written for a server dies here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU


def test_an_accelerator_is_used_where_there_is_one(monkeypatch) -> None:
    """An accelerator that stands idle dies here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize(("name", "message"), [("cuda", "no CUDA"), ("gpu", "auto, cpu or cuda")])
def test_what_cannot_be_had_is_refused_by_name(monkeypatch, name: str, message: str) -> None:
    """A torch traceback in the middle of a training dies here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=message):
        resolve_device(name)


def test_moving_to_where_it_is_copies_nothing() -> None:
    """A copy of every batch on the processor dies here."""
    values = torch.arange(3.0)
    assert moved(values, CPU).data_ptr() == values.data_ptr()


SHAPE = MicroNetSettings(n_features=4, short_window=20, channels=8, hidden=8)


def micro_data(seed: int) -> MicroData:
    draw = torch.Generator().manual_seed(seed)
    context = torch.randn(12, 128, generator=draw)
    forward = torch.randn(12, 24, generator=draw)
    return MicroData(
        inputs=torch.randn(12, SHAPE.receptive_field - 1 + 24, 4, generator=draw),
        context=context,
        mirror_context=-context,
        target=torch.randint(3, (12, 24), generator=draw),
        value=torch.tanh(forward),
        forward_return=forward,
        odd_columns=(0, 2),
    )


def learn_micro(device: torch.device):
    settings = TrainSettings(epochs=3, initialisations=2, batch_sessions=4)
    return train_micronet(micro_data(0), micro_data(1), SHAPE, settings, seed=3, device=device)


def learn_macro(toy, device: torch.device):
    """A pretrained encoder's weights and its losses."""
    table = build_sessions("X", toy.grid(toy.candles(days=30)), toy.settings)
    sessions = SessionSet.between([table], 0, 2**62)
    torch.manual_seed(0)
    columns = table.settings.table
    options = {"channels": 6, "stride": 6, "dilations": [1, 2]}
    macro = build_macronet("tcn", len(columns), table.settings.n_statistics, options)
    objective = build_objective("contrastive", macro.encoder, columns, {}, 24)
    settings = PretrainSettings(epochs=3, batch_size=4)
    curve = pretrain(macro.encoder, objective, sessions, sessions, settings, 5, device=device)
    return macro.encoder.state_dict(), curve


def test_windows_scaled_once_teach_the_same_bits(toy, monkeypatch) -> None:
    """Keeping the scaled windows for all epochs must change no bit of what is learned."""
    kept, curve = learn_macro(toy, CPU)
    monkeypatch.setattr(pretraining, "HELD_BYTES", 0)
    anew, again = learn_macro(toy, CPU)
    assert curve.validation == again.validation
    for name, values in kept.items():
        assert torch.equal(values, anew[name]), name


def test_the_same_seed_learns_the_same_bits_on_the_processor() -> None:
    """Losses that are read late must still be the losses of their own steps."""
    first, again = learn_micro(CPU), learn_micro(CPU)
    assert first.curves == again.curves
    assert len({tuple(curve["train"]) for curve in first.curves}) == 2  # two initialisations


@needs_cuda
def test_an_accelerator_learns_the_same_within_its_rounding(toy) -> None:
    """Another draw, a batch that was not moved, or a network left on the device dies here."""
    cuda = torch.device("cuda")
    here, there = learn_micro(CPU), learn_micro(cuda)
    for ours, theirs in zip(here.curves, there.curves, strict=True):
        np.testing.assert_allclose(theirs["validation"], ours["validation"], rtol=TOLERANCE)
    assert all(p.device == CPU for p in there.net.parameters())
    _, ours = learn_macro(toy, CPU)
    weights, theirs = learn_macro(toy, cuda)
    np.testing.assert_allclose(theirs.validation, ours.validation, rtol=TOLERANCE)
    assert all(values.device == CPU for values in weights.values())


def scored(toy, **where):
    grid = toy.grid(toy.candles(days=24))
    return score_span("X", grid, toy.timeline(grid, toy.settings, sessions=(2, 6)), **where)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_keeps_to_one_device(name) -> None:
    """A constant made on the processor, which only a machine with an accelerator trips over."""
    macro = placed(build_macronet(name, 9, 14).eval(), META)
    windows, statistics = torch.zeros(2, 1440, 9, device=META), torch.zeros(2, 14, device=META)
    assert macro(windows, statistics).device == META


def test_both_heads_keep_to_one_device_and_leave_the_bundle_alone() -> None:
    """A bundle whose network stays on the accelerator cannot be saved, or score a live candle."""
    net = MicroNet(SHAPE).eval()
    away = placed(net, META)
    z = away.body(torch.zeros(2, SHAPE.receptive_field + 9, SHAPE.n_features, device=META))
    both = away.probabilities(_two_heads(away, z, torch.zeros(2, 128, device=META)))
    assert (both.device, both.shape) == (META, (2, 10, 2, 3))
    assert all(part.device == CPU for part in net.state_dict().values())
    assert placed(net, CPU) is net


def test_windows_and_embeddings_are_moved_to_where_networks_score(toy, monkeypatch) -> None:
    """A device that is asked for and quietly not used; or one that the processor's bits notice."""
    asked = []

    def noted(values, device):
        asked.append(device)
        return moved(values, device)

    monkeypatch.setattr(batch, "moved", noted)
    monkeypatch.setattr(data, "moved", noted)
    here = scored(toy)
    plain, asked[:] = len(asked), []
    there = scored(toy, device=torch.device("cpu", 0))
    assert plain == len(asked) > 0
    assert sum(device.index == 0 for device in asked) == 4 * 2  # two bundles, four arrays each
    assert np.array_equal(here.score, there.score, equal_nan=True)
    assert np.array_equal(here.states.embedding, there.states.embedding)


@needs_cuda
def test_an_accelerator_scores_the_same_within_its_rounding(toy) -> None:
    """Convolutions rounded to TF32, another order of sessions, or a part that was not moved."""
    here, there = scored(toy), scored(toy, device=torch.device("cuda"))
    np.testing.assert_allclose(there.score, here.score, rtol=0, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(there.score_zero, here.score_zero, rtol=0, atol=SCORE_TOLERANCE)


def test_bundles_of_an_accelerator_have_names_of_their_own(monkeypatch) -> None:
    """A bundle from a server taken for the processor's, whose bits a seed promises; or the reverse,
    and all that was learned on a processor lost to who writes "auto"."""

    def keyed(device: str) -> dict[str, object]:
        return cache._settings(LearnSettings(device=device))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = keyed("cpu")
    assert keyed("auto") == here
    assert "device" not in here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert keyed("cpu") == here
    assert keyed("auto") == keyed("cuda") == {**here, "device": "cuda"}
