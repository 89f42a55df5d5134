"""What every pretraining objective promises, and the one loop they share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.models.device import CPU, moved
from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.inputs.sessions import SessionFacts
from cppncripto_strategy.models.options import PartOptions
from cppncripto_strategy.models.pretraining._registry import OBJECTIVES, objective_options
from cppncripto_strategy.models.settings import PretrainSettings
from cppncripto_strategy.progress import Progress

DAY_CANDLES = 288
"""Candles per day, of 5 minutes."""
HELD_BYTES = 512 * 2**20
"""Scaled windows up to this size are kept for all epochs; more are made anew in each."""
GATHERED = 64
"""Windows scaled at a time."""


class MacroWindows(Protocol):
    """Where the loop takes scaled macro windows from: `len()` windows, gathered by index."""

    def __len__(self) -> int: ...

    def gather(self, index: IntArray) -> Tensor:
        """Scaled windows (B, T_long, F), float32, for these window numbers."""
        ...


@runtime_checkable
class InformedWindows(MacroWindows, Protocol):
    """Windows with what is known of their sessions, for an objective that needs it."""

    def facts(self) -> SessionFacts:
        """Terms and outcomes of every window, in the windows' order."""
        ...


class Objective(nn.Module):
    """Base of the objectives. The heads one needs are its own parameters, dropped afterwards.

    A subclass takes `(encoder, columns, day_candles, options)`, calls `super().__init__()`, and
    sets `Options` to the class of its options. `cppncripto_strategy.testing.check_objective` tests
    what an objective has to keep.
    """

    Options: ClassVar[type[PartOptions]] = PartOptions
    needs_facts: ClassVar[bool] = False
    """Whether it learns from sessions' terms and outcomes, by `informed_loss`, not by `loss`."""

    def prepare(self, facts: SessionFacts) -> None:
        """Take what follows from all training sessions at once; called before learning."""

    def informed_loss(
        self, encoder: Encoder, x: Tensor, facts: SessionFacts, generator: torch.Generator
    ) -> Tensor:
        """As `loss`, where `needs_facts`: with the batch's terms (B, K) and outcomes (B, 3)."""
        raise NotImplementedError

    def correction(self) -> tuple[Tensor, Tensor] | None:
        """What the encoder's vector adds to a linear forecast of the outcomes, once learned.

        Weights (3, width) and constants (3,); None where nothing is forecast. A bundle keeps half
        of it: the mean of this forecast and the linear one.
        """
        return None

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Scalar loss of a batch of scaled macro windows x (B, T_long, F).

        Parameters
        ----------
        generator : the only source of random draws, so that a validation draws the same again.
        """
        raise NotImplementedError


@dataclass(slots=True)
class LossCurve:
    """Loss by epoch, and the epoch whose weights were kept."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle."""
        return {
            "train": self.train,
            "validation": self.validation,
            "best_epoch": self.best_epoch,
        }


def build_objective(
    name: str,
    encoder: Encoder,
    columns: FeatureTable,
    options: Mapping[str, Any] | None = None,
    day_candles: int = DAY_CANDLES,
) -> Objective:
    """The objective of this name for this encoder and these features.

    Parameters
    ----------
    columns : the features of a window, by column.
    options : plain values, as a recipe has them.
    day_candles : candles per day at the candles' interval.

    Raises
    ------
    RecipeError
        When objective or option is unknown, a value is impossible, or the two do not fit together.
    """
    checked = objective_options(name, options or {})
    objective = OBJECTIVES.get(name)(encoder, columns, day_candles, checked)
    if not isinstance(objective, Objective):
        raise RecipeError(f"objective {name!r} is no subclass of {Objective.__module__}.Objective")
    return objective


def pretrain(
    encoder: Encoder,
    objective: Objective,
    train: MacroWindows,
    validation: MacroWindows,
    settings: PretrainSettings,
    seed: int,
    progress: Progress | None = None,
    device: torch.device = CPU,
) -> LossCurve:
    """Train encoder and objective together; leave both with their best validation weights.

    They learn on `device` and come back on the processor. The same seed gives the same weights on
    one CPU thread. Validation draws the same segments or
    masks in every epoch, so that epochs can be compared.

    Raises
    ------
    TrainingError
        When there are no windows to learn from or to validate on, or the loss is not finite.
    """
    if len(train) < 2 or len(validation) < 2:
        raise TrainingError(
            f"pretraining needs at least 2 training and 2 validation days, found {len(train)} and"
            f" {len(validation)}: give it a longer span or a shorter macro window"
        )
    facts = _facts(objective, train), _facts(objective, validation)
    if facts[0] is not None:
        objective.prepare(facts[0])
    known, asked = (None if part is None else part.to(device) for part in facts)
    train, validation = _held(train, device), _held(validation, device)
    encoder.to(device)
    objective.to(device)
    parameters = [p for m in (encoder, objective) for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    shuffler = np.random.default_rng(seed)
    curve, best_loss, best = LossCurve(), np.inf, _weights(encoder, objective)
    for epoch in range(settings.epochs):
        curve.train.append(
            _epoch(encoder, objective, train, known, settings, shuffler, generator, optimiser)
        )
        curve.validation.append(_validate(encoder, objective, validation, asked, settings, seed))
        if not np.isfinite(curve.validation[-1]):
            raise TrainingError(f"pretraining loss is {curve.validation[-1]} in epoch {epoch}")
        if curve.validation[-1] < best_loss:
            best_loss, curve.best_epoch = curve.validation[-1], epoch
            best = _weights(encoder, objective)
        if progress is not None:
            progress(epoch + 1, settings.epochs, f"loss {curve.validation[-1]:.3f}")
        if epoch - curve.best_epoch >= settings.patience:
            break
    encoder.load_state_dict(best[0])
    objective.load_state_dict(best[1])
    encoder.to(CPU).eval()
    objective.to(CPU).eval()
    return curve


def _weights(*modules: nn.Module) -> list[dict[str, Any]]:
    """Copies of modules' weights."""
    return [copy.deepcopy(module.state_dict()) for module in modules]


def _facts(objective: Objective, windows: MacroWindows) -> SessionFacts | None:
    """What is known of the windows' sessions, where the objective needs it.

    Raises
    ------
    TrainingError
        When it does, and they are windows alone.
    """
    if not objective.needs_facts:
        return None
    if not isinstance(windows, InformedWindows):
        raise TrainingError(
            f"{type(objective).__name__} learns from what followed each window, and"
            f" {type(windows).__name__} does not know it: give it a SessionSet"
        )
    return windows.facts()


def _loss(
    encoder: Encoder,
    objective: Objective,
    windows: MacroWindows,
    facts: SessionFacts | None,
    index: IntArray,
    generator: torch.Generator,
) -> Tensor:
    """The loss of some windows."""
    x = windows.gather(index)
    if facts is None:
        return objective.loss(encoder, x, generator)
    return objective.informed_loss(encoder, x, facts.at(index), generator)


class _HeldWindows:
    """Windows scaled once and kept on the device, instead of once in every epoch."""

    def __init__(self, windows: MacroWindows, device: torch.device) -> None:
        order = np.arange(len(windows))
        parts = [windows.gather(order[part]) for part in _batches(len(order), GATHERED)]
        self._windows = moved(torch.cat(parts), device)

    def __len__(self) -> int:
        return len(self._windows)

    def gather(self, index: IntArray) -> Tensor:
        """Scaled windows (B, T_long, F) on the device."""
        return self._windows[torch.from_numpy(index).to(self._windows.device)]


class _MovedWindows:
    """Windows scaled when they are asked for, and moved to the device."""

    def __init__(self, windows: MacroWindows, device: torch.device) -> None:
        self._windows, self._device = windows, device

    def __len__(self) -> int:
        return len(self._windows)

    def gather(self, index: IntArray) -> Tensor:
        """Scaled windows (B, T_long, F) on the device."""
        return moved(self._windows.gather(index), self._device)


def _held(windows: MacroWindows, device: torch.device) -> MacroWindows:
    """The windows scaled once, where they fit into `HELD_BYTES`, else whenever they are needed."""
    one = windows.gather(np.arange(1))
    if len(windows) * one.nbytes > HELD_BYTES:
        return _MovedWindows(windows, device)
    return _HeldWindows(windows, device)


def _batches(count: int, size: int) -> list[slice]:
    """Slices of at most `size`; a last batch of one joins the one before (a contrast needs two)."""
    edges = [*range(0, count, size), count]
    if len(edges) > 2 and edges[-1] - edges[-2] < 2:
        del edges[-2]
    return [slice(a, b) for a, b in pairwise(edges)]


def _epoch(
    encoder: Encoder,
    objective: Objective,
    windows: MacroWindows,
    facts: SessionFacts | None,
    settings: PretrainSettings,
    shuffler: np.random.Generator,
    generator: torch.Generator,
    optimiser: torch.optim.Optimizer,
) -> float:
    """One pass over the windows in a new order; mean loss."""
    encoder.train()
    objective.train()
    order, losses = shuffler.permutation(len(windows)), []
    for batch in _batches(len(windows), settings.batch_size):
        optimiser.zero_grad(set_to_none=True)
        loss = _loss(encoder, objective, windows, facts, order[batch], generator)
        penalty = encoder.penalty()
        if penalty is not None:
            loss = loss + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
    return _mean(losses)


def _mean(losses: list[Tensor]) -> float:
    """Mean of losses, read from the device once at the end: each read waits for all before it."""
    return float(np.mean([loss.item() for loss in losses]))


@torch.no_grad()
def _validate(
    encoder: Encoder,
    objective: Objective,
    windows: MacroWindows,
    facts: SessionFacts | None,
    settings: PretrainSettings,
    seed: int,
) -> float:
    """Mean loss over the windows, in one fixed order and with one fixed draw."""
    encoder.eval()
    objective.eval()
    generator = torch.Generator().manual_seed(seed + 1)
    order = np.random.default_rng(seed + 1).permutation(len(windows))
    losses = [
        _loss(encoder, objective, windows, facts, order[batch], generator)
        for batch in _batches(len(windows), settings.batch_size)
    ]
    return _mean(losses)
