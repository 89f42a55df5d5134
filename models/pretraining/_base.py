"""What every pretraining objective promises, the table of them, and the one loop they share."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.progress import Progress

log = logging.getLogger(__name__)

OBJECTIVES = {
    "contrastive": "cppncripto_strategy.models.pretraining.contrastive:SameDayContrast",
    "autoencoder": "cppncripto_strategy.models.pretraining.autoencoder:HourlyAutoencoder",
    "masked": "cppncripto_strategy.models.pretraining.masked:MaskedPatches",
}


class MacroWindows(Protocol):
    """Where the loop takes scaled macro windows from: `len()` windows, gathered by index."""

    def __len__(self) -> int: ...

    def gather(self, index: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Scaled windows (B, T_long, F), float32, for these window numbers."""
        ...


class Objective(nn.Module):
    """Base of the objectives. The heads one needs are its own parameters, dropped afterwards."""

    name: ClassVar[str]

    def loss(self, encoder: Encoder, x: Tensor, generator: torch.Generator) -> Tensor:
        """Scalar loss of a batch of scaled macro windows x (B, T_long, F)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """How long and how fast MacroNet learns.

    Parameters
    ----------
    epochs : int, at most.
    batch_size : int, windows a step.
    learning_rate, weight_decay : float, of AdamW.
    patience : int, epochs without a better validation loss before stopping.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    patience: int = 6


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
    name: str, encoder: Encoder, columns: FeatureTable, options: dict[str, Any] | None = None
) -> Objective:
    """The objective of this name for this encoder and these features.

    Raises
    ------
    RecipeError
        When no objective has this name.
    """
    if name not in OBJECTIVES:
        raise RecipeError(f"objective {name!r} is unknown; there are: {', '.join(OBJECTIVES)}")
    module, attribute = OBJECTIVES[name].split(":")
    objective_class: type[Objective] = getattr(import_module(module), attribute)
    return objective_class(encoder, columns, **(options or {}))


def pretrain(
    encoder: Encoder,
    objective: Objective,
    train: MacroWindows,
    validation: MacroWindows,
    settings: PretrainSettings,
    seed: int,
    progress: Progress | None = None,
) -> LossCurve:
    """Train encoder and objective together; leave the encoder with its best validation weights.

    The same seed gives the same weights on one CPU thread. Validation draws the same segments or
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
    parameters = [p for m in (encoder, objective) for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    shuffler = np.random.default_rng(seed)
    curve, best_loss, best_weights = LossCurve(), np.inf, copy.deepcopy(encoder.state_dict())
    for epoch in range(settings.epochs):
        curve.train.append(
            _epoch(encoder, objective, train, settings, shuffler, generator, optimiser)
        )
        curve.validation.append(_validate(encoder, objective, validation, settings, seed))
        if not np.isfinite(curve.validation[-1]):
            raise TrainingError(f"pretraining loss is {curve.validation[-1]} in epoch {epoch}")
        if curve.validation[-1] < best_loss:
            best_loss, curve.best_epoch = curve.validation[-1], epoch
            best_weights = copy.deepcopy(encoder.state_dict())
        if progress is not None:
            progress(epoch + 1, settings.epochs, f"loss {curve.validation[-1]:.3f}")
        if epoch - curve.best_epoch >= settings.patience:
            break
    encoder.load_state_dict(best_weights)
    encoder.eval()
    return curve


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
        loss = objective.loss(encoder, windows.gather(order[batch]), generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def _validate(
    encoder: Encoder,
    objective: Objective,
    windows: MacroWindows,
    settings: PretrainSettings,
    seed: int,
) -> float:
    """Mean loss over the windows, in one fixed order and with one fixed draw."""
    encoder.eval()
    objective.eval()
    generator = torch.Generator().manual_seed(seed + 1)
    order = np.random.default_rng(seed + 1).permutation(len(windows))
    losses = [
        objective.loss(encoder, windows.gather(order[batch]), generator).item()
        for batch in _batches(len(windows), settings.batch_size)
    ]
    return float(np.mean(losses))
