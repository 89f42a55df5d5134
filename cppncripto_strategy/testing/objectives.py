"""Contract tests of a pretraining objective: finite, differentiable, deterministic, gap-proof.

`check_objective` runs them all on random windows with a small encoder. Left out: whether what it
teaches is of any use.

Examples
--------
>>> from cppncripto_strategy.testing.objectives import check_objective
>>> check_objective("masked", {"hidden": 8})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cppncripto_strategy.models.encoders import Encoder, build_encoder
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FeatureTable
from cppncripto_strategy.models.inputs.outcomes import OUTCOMES
from cppncripto_strategy.models.inputs.sessions import SessionFacts
from cppncripto_strategy.models.pretraining import Objective, build_objective, objective_options
from cppncripto_strategy.testing.options import check_refuses_unknown

DAY_CANDLES = 96
WINDOWS, DAYS = 6, 2
STEPS = 20


def check_objective(
    objective: str | type[Objective],
    options: Mapping[str, Any] | None = None,
    encoder: str = "tcn",
    seed: int = 0,
) -> None:
    """Every check of this module.

    Parameters
    ----------
    objective : the class, or the name it is registered by.
    options : plain values, as a recipe has them.
    encoder : registered encoder that learns.
    seed : of weights and windows.

    Raises
    ------
    AssertionError
        When a promise is broken; the message says which, and what was found.
    RecipeError
        When the objective or an option is unknown, or a value is impossible.
    """
    columns = FeatureTable.of(DEFAULT_COLUMNS)
    torch.manual_seed(seed)
    net = build_encoder(encoder, len(columns), {"stride": 4})
    task = _build(objective, net, columns, options or {})
    x = windows(columns, seed)
    check_loss(task, net, x)
    check_draws(task, net, x)
    check_mirrored(task, net, x, columns)
    check_gap(task, net, x, columns)
    check_learns(task, net, x)
    check_options(objective)


def check_loss(objective: Objective, encoder: Encoder, x: Tensor) -> None:
    """One finite number, whose gradient is finite and reaches the encoder; windows untouched."""
    before = x.clone()
    loss = _loss(objective, encoder, x)
    _require(loss.dim() == 0, f"gives a loss of shape {tuple(loss.shape)}: expected one number")
    _require(bool(loss.isfinite()), f"gives the loss {loss.item()}")
    _require(torch.equal(before, x), "changes the windows it is given")
    encoder.zero_grad()
    objective.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [
        weight.grad
        for module in (encoder, objective)
        for weight in module.parameters()
        if weight.grad is not None
    ]
    _require(
        all(bool(grad.isfinite().all()) for grad in grads), "has a gradient that is not finite"
    )
    taught = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    _require(any(bool(grad.any()) for grad in taught), "teaches the encoder nothing: no gradient")


@torch.no_grad()
def check_draws(objective: Objective, encoder: Encoder, x: Tensor) -> None:
    """Randomness comes from the generator alone: validation draws the same in every epoch."""
    first = _loss(objective, encoder, x)
    state = torch.get_rng_state()
    torch.manual_seed(987)
    inner = torch.get_rng_state()
    again = _loss(objective, encoder, x)
    used = not torch.equal(inner, torch.get_rng_state())
    torch.set_rng_state(state)
    _require(torch.equal(first, again), "gives another loss for the same generator state")
    _require(not used, "draws from torch's global state: use the generator it is given")


@torch.no_grad()
def check_mirrored(
    objective: Objective, encoder: Encoder, x: Tensor, columns: FeatureTable
) -> None:
    """A mirrored market is a market: its loss is finite."""
    other = x.clone()
    other[..., list(columns.odd)] *= -1
    loss = _loss(objective, encoder, other)
    _require(bool(loss.isfinite()), f"gives the loss {loss.item()} for a mirrored market")


@torch.no_grad()
def check_gap(objective: Objective, encoder: Encoder, x: Tensor, columns: FeatureTable) -> None:
    """An outage of a day leaves the loss finite."""
    other = x.clone()
    other[:, :DAY_CANDLES, [*columns.scaled, columns.present]] = 0.0
    loss = _loss(objective, encoder, other)
    _require(bool(loss.isfinite()), f"gives the loss {loss.item()} where a day has no candle")


def check_learns(objective: Objective, encoder: Encoder, x: Tensor) -> None:
    """Following the gradient on one batch, with one draw, lowers the loss."""
    weights = [*encoder.parameters(), *objective.parameters()]
    optimiser = torch.optim.Adam(weights, lr=3e-3)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = _loss(objective, encoder, x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    _require(
        losses[-1] < losses[0],
        f"is not lowered by its own gradient: {losses[0]:.4g}, and {losses[-1]:.4g} after {STEPS}"
        " steps on one batch",
    )


def check_options(objective: str | type[Objective]) -> None:
    """An unknown option is refused by its name."""
    check_refuses_unknown("objective", lambda options: _read(objective, options))


def windows(columns: FeatureTable, seed: int = 0) -> Tensor:
    """Random scaled windows (WINDOWS, DAYS x DAY_CANDLES, F), every candle present."""
    shape = WINDOWS, DAYS * DAY_CANDLES, len(columns)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    x[..., columns.present] = 1.0
    return x


def facts(seed: int = 0, sessions: int = WINDOWS) -> SessionFacts:
    """Random terms and outcomes of the windows; one outcome is not known."""
    generator = torch.Generator().manual_seed(seed + 2)
    outcomes = torch.randn((sessions, len(OUTCOMES)), generator=generator)
    outcomes[0, -1] = torch.nan
    return SessionFacts(torch.randn((sessions, 2), generator=generator), outcomes)


def _loss(objective: Objective, encoder: Encoder, x: Tensor) -> Tensor:
    """The loss of windows, with random facts where the objective learns from them."""
    if objective.needs_facts:
        return objective.informed_loss(encoder, x, facts(), _generator())
    return objective.loss(encoder, x, _generator())


def _build(
    objective: str | type[Objective],
    encoder: Encoder,
    columns: FeatureTable,
    options: Mapping[str, Any],
) -> Objective:
    if isinstance(objective, str):
        made = build_objective(objective, encoder, columns, options, DAY_CANDLES)
    else:
        make: Any = objective
        made = make(encoder, columns, DAY_CANDLES, _read(objective, options))
    if made.needs_facts:
        made.prepare(facts(sessions=20 * WINDOWS))
    return made


def _read(objective: str | type[Objective], options: Mapping[str, Any]) -> Any:
    if isinstance(objective, str):
        return objective_options(objective, options)
    return objective.Options.read(options, f"objective {objective.__name__}")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the objective {what}")
