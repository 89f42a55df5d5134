"""A training step of MicroNet: convolutions shared over the day against a window a candle.

Prints one JSON line: name, ours_s, baseline_s (seconds a step of 8 sessions, 2,304 candles),
speedup (baseline over ours), max_error (largest difference between the two losses' gradients),
candles and repeats. Both sides compute the same loss of the same weights and step the same
optimiser, in this process, on one thread, alternating; the median of the repeats counts.

    python benchmarks/training.py [--repeats N]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cppncripto_strategy.models.learning.training import MicroData, micro_loss
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.settings import MicroNetSettings, TrainSettings

SESSIONS, DAY, FEATURES = 8, 288, 9
SETTINGS = TrainSettings()


class WindowedMicroNet(MicroNet):
    """The definition: each candle's score from its own window, each window computed by itself."""

    def body(self, x: Tensor) -> Tensor:
        """Features (B, T, F) -> (B, T - RF + 1, C), through B x (T - RF + 1) separate windows."""
        windows = x.unfold(1, self.receptive_field, 1).transpose(2, 3)  # (B, T', RF, F)
        z = super().body(windows.flatten(0, 1))  # (B T', 1, C)
        return z.reshape(len(x), -1, z.shape[-1])  # (B, T', C)


def data(receptive_field: int) -> MicroData:
    """Sessions of noise with labels; the numbers do not matter, the shapes do."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(SESSIONS, 128, generator=generator)
    value = torch.tanh(torch.randn(SESSIONS, DAY, generator=generator))
    return MicroData(
        inputs=torch.randn(SESSIONS, receptive_field - 1 + DAY, FEATURES, generator=generator),
        context=context,
        mirror_context=context,
        target=torch.randint(3, (SESSIONS, DAY), generator=generator),
        value=value,
        forward_return=value,
        odd_columns=(0,),
    )


def stepper(net: MicroNet, batch: MicroData) -> Callable[[], float]:
    """A function that makes one training step and returns its seconds."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=SETTINGS.learning_rate)

    def step() -> float:
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        micro_loss(net, batch, SETTINGS).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return time.perf_counter() - began

    return step


def gradient_error(one: MicroNet, other: MicroNet, batch: MicroData) -> float:
    """Largest difference between the gradients of two networks with the same weights."""
    gradients = []
    for net in (one, other):
        net.zero_grad()
        micro_loss(net, batch, SETTINGS).backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    pairs = zip(*gradients, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shared = MicroNet(MicroNetSettings(n_features=FEATURES)).train()
    windowed = WindowedMicroNet(shared.settings).train()
    windowed.load_state_dict(copy.deepcopy(shared.state_dict()))
    batch = data(shared.receptive_field)
    error = gradient_error(shared, windowed, batch)
    ours, baseline = stepper(shared, batch), stepper(windowed, batch)
    pairs = [(ours(), baseline()) for _ in range(repeats + 1)][1:]
    ours_s, baseline_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    document = {
        "name": "micronet_training_step",
        "ours_s": ours_s,
        "baseline_s": baseline_s,
        "speedup": baseline_s / ours_s,
        "max_error": error,
        "candles": SESSIONS * DAY,
        "repeats": repeats,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
