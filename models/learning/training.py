"""How MicroNet learns: several initialisations, early stopping, the best on validation kept.

The loss runs over every candle of a session at once, through the shared convolutions. Candles
whose label would look past the end of the training span carry no loss.

Two things keep a network alive on labels that are nearly all noise; `docs/design.md` has what
each is worth on the planted market:

- sessions are mirrored at random (returns negated, in MicroNet's window and in MacroNet's, buy and
  sell exchanged), the symmetry of a market without a preferred direction;
- the weights that are validated and kept are a running average over steps (Polyak & Juditsky 1992).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.models.device import CPU, moved
from cppncripto_strategy.models.micronet import N_CLASSES, MicroNet
from cppncripto_strategy.models.settings import MicroNetSettings, TrainSettings
from cppncripto_strategy.models.temperature import fit_temperature
from cppncripto_strategy.progress import Progress

IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class MicroData:
    """What MicroNet learns from.

    Parameters
    ----------
    inputs : float32 (N, receptive_field - 1 + day_candles, F), scaled.
    context : float32 (N, n_context), embeddings (zeros for a network without macro).
    mirror_context : float32 (N, n_context), embeddings of the mirrored macro windows.
    target : int64 (N, day_candles), class 0 sell, 1 nothing, 2 buy, or IGNORED.
    value : float32 (N, day_candles), the regression target in (-1, 1); NaN where ignored.
    forward_return : float32 (N, day_candles), at the label horizon; NaN where unknown.
    odd_columns : those of the F columns that change sign in a mirrored market.
    """

    inputs: Tensor
    context: Tensor
    mirror_context: Tensor
    target: Tensor
    value: Tensor
    forward_return: Tensor
    odd_columns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> MicroData:
        """Sessions by number."""
        index = index.to(self.inputs.device)
        return self._each(lambda values: values[index])

    def to(self, device: torch.device) -> MicroData:
        """The same sessions on this device."""
        return self._each(lambda values: moved(values, device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> MicroData:
        tensors: dict[str, Any] = {
            field.name: change(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "odd_columns"
        }
        return dataclasses.replace(self, **tensors)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[MicroData]:
        """All sessions, `size` at a time, as they come or in this order (N,)."""
        order = torch.arange(len(self)) if order is None else order
        for first in range(0, len(self), size):
            yield self.take(order[first : first + size])

    def mirrored(self, flip: Tensor) -> MicroData:
        """The sessions where `flip` (N,) is True as a mirrored market would show them."""
        flip = flip.to(self.inputs.device)
        sign = 1 - 2 * flip.float()  # (N,)
        signs = torch.ones(len(self), 1, self.inputs.shape[-1], device=flip.device)
        signs[:, 0, list(self.odd_columns)] = sign[:, None]  # (N, 1, F)
        labelled = flip[:, None] & (self.target != IGNORED)
        target = torch.where(labelled, N_CLASSES - 1 - self.target, self.target)
        return MicroData(
            inputs=self.inputs * signs,
            context=torch.where(flip[:, None], self.mirror_context, self.context),
            mirror_context=torch.where(flip[:, None], self.context, self.mirror_context),
            target=target,
            value=self.value * sign[:, None],
            forward_return=self.forward_return * sign[:, None],
            odd_columns=self.odd_columns,
        )

    def with_labels(self) -> MicroData:
        """The sessions that have a label at all: a step over none would have no loss, only NaN."""
        return self.take(torch.nonzero((self.target != IGNORED).any(dim=1))[:, 0])

    @property
    def labelled(self) -> int:
        """Candles that carry a loss."""
        return int((self.target != IGNORED).sum())


@dataclass(slots=True)
class TrainedMicro:
    """A trained MicroNet and how it got there.

    Attributes
    ----------
    net : in evaluation mode, on the CPU.
    validation_loss : of the kept weights.
    curves : per initialisation, the training and validation loss by epoch.
    validation_scores : float32 (M,), scores of the labelled validation candles.
    temperature : of the class probabilities, fitted on those candles; see `models.temperature`.
    """

    net: MicroNet
    validation_loss: float
    curves: list[dict[str, Any]]
    validation_scores: NDArray[np.float32]
    temperature: float = 1.0


def train_micronet(
    train: MicroData,
    validation: MicroData,
    shape: MicroNetSettings,
    settings: TrainSettings,
    seed: int,
    warm_start: MicroNet | None = None,
    progress: Progress | None = None,
    device: torch.device = CPU,
    reading: FloatArray | None = None,
) -> TrainedMicro:
    """Train `settings.initialisations` networks and keep the one with the best validation loss.

    With `warm_start` the first of them begins from that network's weights, its reading included.
    The others read the embedding by `reading`, float64 (n_context, components), or, when that is
    None, by its principal components. They learn on `device` and come back on the processor. The
    same seed gives the same weights on one CPU thread.

    Raises
    ------
    TrainingError
        When either part has no labelled candle, or no initialisation reached a finite loss.
    """
    for name, part in (("training", train), ("validation", validation)):
        if len(part) == 0 or part.labelled == 0:
            raise TrainingError(
                f"the {name} part has {len(part)} sessions and no labelled candle: give it a longer"
                " span, a shorter horizon or a shorter macro window"
            )
    train, validation = train.with_labels(), validation.with_labels()
    context = train.context
    train, validation = train.to(device), validation.to(device)
    best: TrainedMicro | None = None
    curves: list[dict[str, Any]] = []
    for number in range(settings.initialisations):
        torch.manual_seed(seed + 1000 * number)
        net = _fresh(shape, context, reading)
        if warm_start is not None and number == 0:
            net.load_state_dict(warm_start.state_dict())
        net.to(device)

        def report(epoch: int, loss: float, number: int = number) -> None:
            if progress is not None:
                done = number * settings.epochs + epoch
                progress(done, settings.initialisations * settings.epochs, f"loss {loss:.4f}")

        loss, curve = _fit(net, train, validation, settings, seed + 1000 * number, report)
        curves.append(curve)
        if np.isfinite(loss) and (best is None or loss < best.validation_loss):
            best = TrainedMicro(net, loss, curves, np.empty(0, dtype=np.float32))
    if best is None:
        raise TrainingError("no initialisation reached a finite validation loss")
    if progress is not None:
        total = settings.initialisations * settings.epochs
        progress(total, total, f"loss {best.validation_loss:.4f}")
    best.validation_scores = _scores_of_labelled(best.net, validation)
    best.temperature = _temperature(best.net, validation)
    best.net.to(CPU)
    return best


def _fresh(shape: MicroNetSettings, context: Tensor, reading: FloatArray | None) -> MicroNet:
    """A network of random weights that knows which components of the embedding it reads."""
    net = MicroNet(shape)
    if reading is None:
        net.fit_context(context)
    else:
        net.set_reading(torch.from_numpy(reading))
    return net


def micro_loss(net: MicroNet, data: MicroData, settings: TrainSettings) -> Tensor:
    """Mean loss over the labelled candles of a batch."""
    logits = net(data.inputs, data.context)  # (B, day, outputs)
    if net.settings.head == "regression":
        known = ~torch.isnan(data.value)
        return functional.mse_loss(torch.tanh(logits[..., 0])[known], data.value[known])
    flat, target = logits.flatten(0, 1), data.target.flatten()  # (B day, 3), (B day,)
    smoothing = settings.label_smoothing if net.training else 0.0
    loss = functional.cross_entropy(flat, target, ignore_index=IGNORED, label_smoothing=smoothing)
    if settings.confidence_penalty > 0 and net.training:
        log_p = torch.log_softmax(flat[target != IGNORED], dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1).mean()
        loss = loss - settings.confidence_penalty * entropy
    return loss


def _fit(
    net: MicroNet,
    train: MicroData,
    validation: MicroData,
    settings: TrainSettings,
    seed: int,
    report: Callable[[int, float], None],
) -> tuple[float, dict[str, Any]]:
    """Train one network with early stopping; leave it with its best weights, evaluating."""
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    average = copy.deepcopy(net)
    best_loss, best_epoch, best_weights = np.inf, -1, copy.deepcopy(net.state_dict())
    steps = 0
    curve: dict[str, Any] = {"train": [], "validation": []}
    for epoch in range(settings.epochs):
        net.train()
        losses = []
        order = torch.randperm(len(train), generator=generator)
        for batch in train.batches(settings.batch_sessions, order):
            if settings.mirror:
                batch = batch.mirrored(torch.rand(len(batch), generator=generator) < 0.5)
            optimiser.zero_grad(set_to_none=True)
            loss = micro_loss(net, batch, settings)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())  # read later: each read waits for the device
            steps += 1
            _average(average, net, settings.averaging, steps)
        curve["train"].append(float(np.mean([loss.item() for loss in losses])))
        curve["validation"].append(_validation_loss(average, validation, settings))
        if curve["validation"][-1] < best_loss:
            best_loss, best_epoch = curve["validation"][-1], epoch
            best_weights = copy.deepcopy(average.state_dict())
        report(epoch + 1, curve["validation"][-1])
        if epoch - best_epoch >= settings.patience:
            break
    net.load_state_dict(best_weights)
    net.eval()
    curve["best_epoch"] = best_epoch
    return float(best_loss), curve


@torch.no_grad()
def _average(average: MicroNet, net: MicroNet, decay: float, steps: int) -> None:
    """Move the average towards the weights; faster in the first steps, to forget the start."""
    rate = 1 - min(decay, (1 + steps) / (10 + steps))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, rate)


@torch.no_grad()
def _validation_loss(net: MicroNet, data: MicroData, settings: TrainSettings) -> float:
    """Loss over the labelled candles, without dropout, smoothing or penalty."""
    net.eval()
    total, count = 0.0, 0
    for part in data.batches(64):
        total += micro_loss(net, part, settings).item() * part.labelled
        count += part.labelled
    return total / count


@torch.no_grad()
def _scores_of_labelled(net: MicroNet, data: MicroData) -> NDArray[np.float32]:
    """Scores of the labelled candles, in time order within a session."""
    scores = []
    for part in data.batches(64):
        score = net.probabilities(net(part.inputs, part.context))[..., 0]  # (B, day)
        scores.append(score[part.target != IGNORED])
    result: NDArray[np.float32] = torch.cat(scores).cpu().numpy()
    return result


@torch.no_grad()
def _temperature(net: MicroNet, data: MicroData) -> float:
    """Fitted on the labelled candles; 1 for a head without classes."""
    if net.settings.head != "classes":
        return 1.0
    found, targets = [], []
    for part in data.batches(64):
        known = part.target != IGNORED
        found.append(torch.softmax(net(part.inputs, part.context)[known], dim=-1))
        targets.append(part.target[known])
    return fit_temperature(torch.cat(found).cpu().numpy(), torch.cat(targets).cpu().numpy())
