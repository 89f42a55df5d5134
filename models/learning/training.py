"""How MicroNet learns: several initialisations, early stopping, the best on validation kept.

The loss runs over every candle of a session at once, through the shared convolutions. Candles
whose label would look past the end of the training span carry no loss. Initialisations are tried
by successive halving (Jamieson & Talwalkar 2016, algorithm 1): each learns for a few epochs, the
better half of them for as many more, until one is left, which learns to its end. Their order is
seen long before any of them is done.

Two things keep a network alive on labels that are nearly all noise; `docs/design.md` has what
each is worth on the planted market:

- sessions are mirrored at random (returns negated, in MicroNet's window and in MacroNet's, buy and
  sell exchanged), the symmetry of a market without a preferred direction;
- the weights that are validated and kept are a running average over steps (Polyak & Juditsky 1992).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
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
        labelled = (self.target != IGNORED).any(dim=1)
        return self if bool(labelled.all()) else self.take(torch.nonzero(labelled)[:, 0])

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
    curves : per initialisation, the training and validation loss by epoch; short where others were
        better in the trial.
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

    After every `settings.trial_epochs` the better half of them goes on, until one is left; that
    learns to its end. With `warm_start` the first of them begins from that network's weights, its
    reading included. The others read the embedding by `reading`, float64 (n_context, components),
    or, when that is None, by its principal components. They learn on `device` and come back on the
    processor. The same seed gives the same weights on one CPU thread.

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
    fits = []
    for number in range(settings.initialisations):
        torch.manual_seed(seed + 1000 * number)
        net = _fresh(shape, train.context, reading)
        if warm_start is not None and number == 0:
            net.load_state_dict(warm_start.state_dict())
        fits.append(_Fit(net.to(device), settings, seed + 1000 * number))
    train, validation = train.to(device), validation.to(device)
    best = _best_of(fits, train, validation, settings, progress)
    net = best.finish()
    trained = TrainedMicro(
        net,
        float(best.loss),
        [fit.curve for fit in fits],
        _scores_of_labelled(net, validation),
        _temperature(net, validation),
    )
    net.to(CPU)
    return trained


def _best_of(
    fits: list[_Fit],
    train: MicroData,
    validation: MicroData,
    settings: TrainSettings,
    progress: Progress | None,
) -> _Fit:
    """Let the better half learn on after each rung of the trial, and the last one to the end.

    Raises
    ------
    TrainingError
        When none reached a finite validation loss.
    """
    rungs = _rungs(len(fits), settings)
    steps = np.diff([0, *(until for _, until in rungs)])
    total = sum(count * int(step) for (count, _), step in zip(rungs, steps, strict=True))

    def report(before: int, fit: _Fit) -> None:
        if progress is not None:
            progress(before + fit.epochs, total, f"loss {fit.curve['validation'][-1]:.4f}")

    done = start = 0
    for count, until in rungs:
        # The first of equals goes on: sorting is stable.
        fits = sorted(fits, key=lambda fit: fit.loss)[:count]
        for fit in fits:
            fit.learn(train, validation, until, functools.partial(report, done - start))
            done += until - start
        start = until
    best = fits[0]
    if not np.isfinite(best.loss):
        raise TrainingError("no initialisation reached a finite validation loss")
    if progress is not None:
        progress(total, total, f"loss {best.loss:.4f}")
    return best


def _rungs(count: int, settings: TrainSettings) -> list[tuple[int, int]]:
    """How many networks learn until which epoch, rung by rung."""
    until, rungs = 0, []
    while count > 1:
        until = min(until + settings.trial_epochs, settings.epochs)
        rungs.append((count, until))
        count = -(-count // 2)
    return [*rungs, (1, settings.epochs)]


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


class _Fit:
    """One network that learns, some epochs at a time, with early stopping; it lives for a training.

    Attributes
    ----------
    loss : the best validation loss so far; infinite while there is none.
    epochs : epochs learned.
    curve : the losses by epoch, and the epoch whose weights are kept.
    """

    def __init__(self, net: MicroNet, settings: TrainSettings, seed: int) -> None:
        self._net, self._settings = net, settings
        # Fused: one pass over all weights instead of a dozen small operations for each of them.
        self._optimiser = torch.optim.AdamW(
            net.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._average = copy.deepcopy(net)
        self._best_weights = copy.deepcopy(net.state_dict())
        self._steps = 0
        self.loss, self.epochs = np.inf, 0
        self.curve: dict[str, Any] = {"train": [], "validation": [], "best_epoch": -1}

    @property
    def _over(self) -> bool:
        """Whether its patience is at an end."""
        return self.epochs - 1 - int(self.curve["best_epoch"]) >= self._settings.patience

    def learn(
        self,
        train: MicroData,
        validation: MicroData,
        until_epoch: int,
        report: Callable[[_Fit], None],
    ) -> None:
        """Learn until so many epochs are done, or the patience is over."""
        while self.epochs < until_epoch and not self._over:
            self.curve["train"].append(self._epoch(train))
            found = _validation_loss(self._average, validation, self._settings)
            self.curve["validation"].append(found)
            if found < self.loss:
                self.loss, self.curve["best_epoch"] = found, self.epochs
                self._best_weights = copy.deepcopy(self._average.state_dict())
            self.epochs += 1
            report(self)

    def _epoch(self, train: MicroData) -> float:
        """One pass over the sessions in a new order; mean loss."""
        self._net.train()
        losses = []
        order = torch.randperm(len(train), generator=self._generator)
        for batch in train.batches(self._settings.batch_sessions, order):
            if self._settings.mirror:
                flip = torch.rand(len(batch), generator=self._generator) < 0.5
                batch = batch.mirrored(flip)
            self._optimiser.zero_grad(set_to_none=True)
            loss = micro_loss(self._net, batch, self._settings)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            losses.append(loss.detach())  # read later: each read waits for the device
            self._steps += 1
            _average(self._average, self._net, self._settings.averaging, self._steps)
        return float(np.mean([loss.item() for loss in losses]))

    def finish(self) -> MicroNet:
        """The network with its best weights, evaluating."""
        self._net.load_state_dict(self._best_weights)
        return self._net.eval()


@torch.no_grad()
def _average(average: MicroNet, net: MicroNet, decay: float, steps: int) -> None:
    """Move the average towards the weights; faster in the first steps, to forget the start."""
    rate = 1 - min(decay, (1 + steps) / (10 + steps))
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), rate)


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
