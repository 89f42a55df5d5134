"""The encoders that `evolved.py` compares: searched, random, ROCKET's, fine-tuned, by gradient."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.hyperneat.decoding import Kernels
from cppncripto_strategy.models.hyperneat.encoder import CPPNEncoder, PaintedConv
from cppncripto_strategy.models.hyperneat.evolution import Evolution
from cppncripto_strategy.models.hyperneat.fitness import ProbeData, Score, embed_rows, evaluate
from cppncripto_strategy.models.hyperneat.front import Candidate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.macronet import MacroNet
from cppncripto_strategy.models.options import PartOptions
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.settings import PretrainSettings

FINE_TUNE_EPOCHS, DECAY = 6, 0.1
CHAMPIONS = {"neat": "evolved", "map-elites": "MAP-Elites", "random": "random search"}
KERNELS, ROCKET = "random kernels, as sparse", "ROCKET"
FITTEST_KERNELS = "random kernels, the fittest of as many"
Arm = tuple[str, MacroNet, float, dict[str, Any]]
"""Name, network, CPU seconds, and what else is known."""


class Rocket(Encoder):
    """Random dilated kernels, each pooled to its share of positive values and its maximum."""

    def __init__(self, n_features: int, width: int, seed: int, window: int, stride: int) -> None:
        super().__init__(n_features, width, PartOptions())
        self.stride, rng = stride, np.random.default_rng(seed)
        self.kernels = []
        for _ in range(-(-width // 2)):
            length = int(rng.choice((7, 9, 11)))
            longest = max(np.log2((window - 1) / (length - 1)), 0.0)
            count = int(2 ** rng.uniform(0, np.log2(n_features + 1)))
            weight = np.zeros((1, n_features, length), dtype=np.float32)
            chosen = rng.choice(n_features, max(count, 1), replace=False)
            drawn = rng.standard_normal((len(chosen), length))
            weight[0, chosen] = drawn - drawn.mean(axis=1, keepdims=True)
            dilation = int(2 ** rng.uniform(0, longest))
            bias = torch.tensor([rng.uniform(-1, 1)], dtype=torch.float32)
            self.kernels.append((torch.from_numpy(weight), bias, dilation))

    @property
    def connections(self) -> int:
        """Weights that are not 0."""
        return sum(int(weight.count_nonzero()) for weight, _, _ in self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled features (B, T, F) -> (B, width)."""
        rows = x.unflatten(1, (-1, self.stride)).mean(dim=2).transpose(1, 2)  # (B, F, R)
        answers = []
        for weight, bias, dilation in self.kernels:
            past = (weight.shape[2] - 1) * dilation
            padded = torch.nn.functional.pad(rows, (past, 0))
            z = torch.nn.functional.conv1d(padded, weight, bias, dilation=dilation)  # (B, 1, R)
            answers += [(z > 0).float().mean(dim=2), z.amax(dim=2)]
        return torch.cat(answers, dim=1)[:, : self.width]


@dataclass(frozen=True)
class Found:
    """A search's champion: the fittest genome, and what it cost."""

    candidate: Candidate
    genomes: int
    cpu_s: float


def search(
    data: ProbeData, substrate: Substrate, settings: EvolutionSettings, evaluations: int
) -> Found:
    """Run a search until it has evaluated so many genomes, not one more or less.

    The last generation is cut short; `settings.generations` must not end the run before.
    """
    began, run, left = time.process_time(), Evolution.begin(settings, substrate, ""), evaluations
    best: Candidate | None = None
    while left and not run.finished:
        pending = run.pending()[:left]
        scores: dict[int, Score] = {g.key: evaluate(g, substrate, data, settings) for g in pending}
        for genome in pending:
            if best is None or scores[genome.key].fitness > best.score.fitness:
                best = Candidate(genome, scores[genome.key], run.generation)
        left -= len(pending)
        if left:
            run.advance(scores)
    assert best is not None
    assert not left
    return Found(best, evaluations, time.process_time() - began)


def options_of(genome: Genome, substrate: Substrate, **more: Any) -> dict[str, Any]:
    """Options of encoder `cppn` with a genome."""
    return {"genome": genome.to_json(), "substrate": substrate.to_json(), **more}


def randomised(net: MacroNet, seed: int) -> MacroNet:
    """The same architecture with as many connections per layer, at random places and weights."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in painted(net):
            order = torch.randperm(layer.mask.numel(), generator=drawn)
            layer.mask.copy_(layer.mask.flatten()[order].reshape(layer.mask.shape))
            for weight in (layer.weight, layer.gate):
                if weight is not None:
                    values = torch.randn(weight.shape, generator=drawn) * layer.mask
                    length = values.flatten(1).norm(dim=1).clamp(min=1e-9)
                    weight.copy_(values / length[:, None, None])
    return net


def painted(net: MacroNet) -> list[PaintedConv]:
    """The convolutions of an encoder `cppn`."""
    assert isinstance(net.encoder, CPPNEncoder)
    return net.encoder.painted


def connections(encoder: Encoder) -> int:
    """Weights that connect something."""
    if isinstance(encoder, CPPNEncoder | Rocket):
        return encoder.connections
    return sum(p.numel() for p in encoder.parameters() if p.dim() > 1)


@dataclass(frozen=True, eq=False)
class Arms:
    """Makes the encoders of all arms for one span of days.

    Parameters
    ----------
    build : a MacroNet of an encoder's name and options, its weights drawn from a seed.
    train, validation : sessions to learn from, and to stop on. data : the same, for genomes.
    objective, objective_options : of fine-tuning and of the TCN. tcn : options of the TCN.
    evaluations : genomes that every search evaluates.
    """

    build: Callable[[str, dict[str, Any], int], MacroNet]
    train: SessionSet
    validation: SessionSet
    data: ProbeData
    substrate: Substrate
    objective: str
    objective_options: dict[str, Any]
    tcn: dict[str, Any]
    settings: EvolutionSettings
    searches: Sequence[str]
    evaluations: int

    def nets(self, seed: int, by_gradient: bool = True) -> Iterator[Arm]:
        """One arm after another; without gradient, those that learn nothing by it."""
        champion, evolving = None, 0.0
        for kind in self.searches:
            settings = replace(self.settings, search=kind, seed=seed)
            found = search(self.data, self.substrate, settings, self.evaluations)
            chosen, about = found.candidate, {"genomes": found.genomes}
            about["fitness"] = round(chosen.score.fitness, 4)
            options = options_of(chosen.genome, self.substrate)
            if champion is None:
                champion, evolving = options, found.cpu_s
            yield CHAMPIONS[kind], self.build("cppn", options, seed), found.cpu_s, about
        assert champion is not None
        yield KERNELS, randomised(self.build("cppn", champion, seed), 1000 * seed), 0.0, {}
        yield self.fittest_kernels(seed, champion)
        rocket = self.build("tcn", {}, seed)
        names, window = rocket.encoder.n_features, self.data.rows.shape[1]
        width, stride = rocket.encoder.width, self.substrate.stride
        rocket.encoder = Rocket(names, width, seed, window, stride)
        yield ROCKET, rocket, 0.0, {}
        if by_gradient:
            yield from self.learned_nets(seed, champion, evolving)

    def fittest_kernels(self, seed: int, champion: dict[str, Any]) -> Arm:
        """Of as many draws of random kernels as a search evaluates, the fittest."""
        began, scores = time.process_time(), []
        numbers = range(1000 * seed, 1000 * seed + self.evaluations)
        for number in numbers:
            layers = painted(randomised(self.build("cppn", champion, seed), number))
            kernels = Kernels(
                tuple(layer.weight.detach() for layer in layers),
                tuple(layer.mask for layer in layers),
                tuple(y.gate.detach() for y in layers if y.gate is not None),
            )
            embedding = embed_rows(kernels, self.substrate, self.data.rows)
            scores.append(self.data.probe(embedding, self.settings.folds))
        best = int(np.argmax(scores))
        net = randomised(self.build("cppn", champion, seed), numbers[best])
        # As many connections as the champion, so at its price.
        price = self.settings.connection_cost * connections(net.encoder) / self.substrate.weights
        about = {"genomes": len(scores), "fitness": round(scores[best] - price, 4)}
        return FITTEST_KERNELS, net, time.process_time() - began, about

    def learned_nets(self, seed: int, champion: dict[str, Any], evolving: float) -> Iterator[Arm]:
        """The champion fine-tuned, and the TCN for as many CPU seconds as both took."""
        tuned = self.build("cppn", champion | {"decay": DECAY}, seed)
        tuning = self.learned(tuned, seed, FINE_TUNE_EPOCHS, 5e-4)
        name = f"{CHAMPIONS[self.searches[0]]} + fine-tuned"
        yield name, tuned, evolving + tuning, {}
        tcn = self.build("tcn", self.tcn, seed)
        epochs = max(1, round((evolving + tuning) / self.tcn_epoch_s))
        spent = self.learned(tcn, seed, epochs, 2e-3)
        yield "TCN", tcn, spent, {"epochs": epochs}

    @cached_property
    def tcn_epoch_s(self) -> float:
        """CPU seconds of an epoch of the TCN; the first of a run has its set-up in it."""
        one, three = (self.learned(self.build("tcn", self.tcn, 0), 0, n, 2e-3) for n in (1, 3))
        return max((three - one) / 2, 1e-3)

    def learned(self, net: MacroNet, seed: int, epochs: int, rate: float) -> float:
        """Train an encoder; CPU seconds."""
        began, session = time.process_time(), self.train.tables[0].settings
        objective = build_objective(
            self.objective,
            net.encoder,
            session.table,
            self.objective_options,
            session.macro_day_rows,
        )
        how = PretrainSettings(epochs=epochs, patience=epochs, learning_rate=rate)
        pretrain(net.encoder, objective, self.train, self.validation, how, seed)
        return time.process_time() - began
