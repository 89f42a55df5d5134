"""Where the networks learn and score in batches: the processor, or an accelerator.

Every random draw is made on the processor and then moved, so that a seed means the same draws
everywhere. On the processor the same seed gives the same bits; an accelerator adds the same numbers
in another order, and agrees to a tolerance that `tests/models/test_device.py` states. Trained
networks always come back on the processor: a bundle does not know where it was made.
Left out: several accelerators, and anything but CUDA.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from cppncripto_strategy.errors import RecipeError

CPU = torch.device("cpu")
Net = TypeVar("Net", bound=nn.Module)


def resolve_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one, else the processor.

    Raises
    ------
    RecipeError
        When the name is unknown, or CUDA is asked for where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(f"device {name!r} is unknown: expected auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise RecipeError(
            "device = 'cuda', but this machine, or this build of torch, has no CUDA device: set it"
            " to 'auto' or 'cpu'"
        )
    return torch.device("cuda")


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The tensor on this device; through page-locked memory where that lets copies overlap."""
    if device.type == "cpu" or values.device == device:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def placed(net: Net, device: torch.device) -> Net:
    """A network to score with on this device: itself on the processor, elsewhere a copy, so that a
    bundle's own never leaves the processor."""
    return net if device.type == "cpu" else copy.deepcopy(net).to(device)


@contextmanager
def scoring_precision(device: torch.device) -> Iterator[None]:
    """Whole float32 products in the same order at each call, while this lasts.

    By default cuDNN rounds the factors of a convolution to the 10 bits of TF32: a thousandth of an
    embedding, far more than adding in another order costs.
    """
    if device.type == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
