"""Forecast: the coming day's realised variance, volume and range, each as a mean and a width.

The linear part of the forecast is fitted first, in closed form, to the session's terms alone (the
weekday, the lags of HAR: see `models.inputs.terms`), and stays as it is. What the encoder's vector
adds starts small, so learning begins where the linear forecast stands and leaves it only where the
validation days agree. The loss is the negative log-likelihood of a normal distribution, summed over
the outcomes with weights: of the mean under the linear forecast's own width, and of the width under
the mean as it is. Other objectives may be learned beside it on the same windows.

An outcome is known at the end of its session's day. Training sessions begin before the split, so
their days are over by then; those of validation sessions are over by the stamp.

Source: heteroscedastic regression after Nix and Weigend (1994), eq. 2; the linear part is HAR
(Corsi 2009) in logarithms with a calendar. Deviations: the linear part is not learned further; the
width starts at the linear forecast's own error; and the mean is not weighed by the width, which
lets a network excuse its errors instead of reducing them (Seitzer et al. 2022). Left out:
quantiles, and the forecast of a direction.

An encoder of several members gets a head for each, which learns alone; the forecast is the mean of
theirs. The correction is linear in the encoder's vector, so that a bundle keeps it as weights of
the embedding (`correction`), and the head itself is dropped.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.models.encoders import Encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.inputs.outcomes import OUTCOMES
from cppncripto_strategy.models.inputs.sessions import SessionFacts
from cppncripto_strategy.models.pretraining._base import Objective, build_objective
from cppncripto_strategy.models.pretraining.options import ForecastOptions

# Widths are kept within a factor of e^3 of the linear forecast's error: a likelihood without a
# floor is unbounded where one day is met exactly.
WIDTH_CLIP = 3.0


class DayForecast(Objective):
    """Negative log-likelihood of the coming day's outcomes.

    Parameters
    ----------
    encoder : the encoder to be trained (its width is read).
    columns : the features of a window, by column.
    day_candles : rows of a window per day, for the objectives learned beside this one.
    options : see `ForecastOptions`.
    """

    Options = ForecastOptions
    needs_facts = True

    weights: Tensor
    center: Tensor
    spread: Tensor
    anchor: Tensor
    error: Tensor

    def __init__(
        self, encoder: Encoder, columns: FeatureTable, day_candles: int, options: ForecastOptions
    ) -> None:
        super().__init__()
        self.options = options
        self.odd = list(columns.odd)
        self.width, self.members = encoder.width, encoder.members
        self.part = self.width // self.members
        self.used = self.part * self.members
        self.heads = nn.ModuleList(
            nn.Linear(self.part, 2 * len(OUTCOMES)) for _ in range(self.members)
        )
        with torch.no_grad():  # nearly nothing: at 0 the encoder would get no gradient
            for weight in self.heads.parameters():
                weight.mul_(0.1 if weight.ndim > 1 else 0.0)
        self.beside = nn.ModuleDict(
            {
                name: build_objective(name, encoder, columns, {}, day_candles)
                for name in options.beside
            }
        )
        others = {name: cast(Objective, other) for name, other in self.beside.items()}
        informed = [name for name, other in others.items() if other.needs_facts]
        if informed:
            raise RecipeError(
                f"objective 'forecast' cannot learn {', '.join(informed)} beside it: that learns"
                " from what follows a window, too, and only one of them can"
            )
        weights = [options.variance, options.volume, options.range]
        self.register_buffer("weights", torch.tensor(weights))
        for name in ("center", "spread", "anchor", "error"):
            self.register_buffer(name, torch.empty(0))

    def prepare(self, facts: SessionFacts) -> None:
        """Fit the linear part on the training sessions, by ridge regression in closed form.

        Raises
        ------
        TrainingError
            When there are no terms to fit it on, or hardly any outcome is known.
        """
        terms, outcomes = facts.terms.double(), facts.outcomes.double()  # (N, K), (N, 3)
        if not terms.shape[1]:
            raise TrainingError(
                "objective 'forecast' starts from a session's terms, and there are none: name"
                " some in macro.terms, such as weekday and har"
            )
        known = outcomes.isfinite().all(dim=1) & terms.isfinite().all(dim=1)  # (N,)
        if int(known.sum()) <= terms.shape[1]:
            raise TrainingError(
                f"objective 'forecast' knows the outcomes of {int(known.sum())} sessions, too few"
                f" to fit {terms.shape[1]} terms: give it more days before the first stamp"
            )
        x, y = terms[known], outcomes[known]
        center, spread = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        x = torch.cat([(x - center) / spread, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        penalty = self.options.ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        penalty[-1, -1] = 0.0  # the mean is free
        anchor = torch.linalg.solve(x.T @ x + penalty, x.T @ y)  # (K + 1, 3)
        error = (y - x @ anchor).std(dim=0).clamp(min=1e-6)  # (3,)
        self.center, self.spread = center.float(), spread.float()
        self.anchor, self.error = anchor.float(), error.float()

    def linear(self, terms: Tensor) -> Tensor:
        """The linear forecast (B, 3) of sessions' terms (B, K)."""
        x = (terms - self.center) / self.spread
        return x @ self.anchor[:-1] + self.anchor[-1]

    def forecast(self, encoder: Encoder, x: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Means and widths (B, 3) of the outcomes, from windows x (B, T, F) and terms (B, K)."""
        mean, width = self._of_members(encoder(x), terms)  # 2 x (M, B, 3)
        return mean.mean(dim=0), width.mean(dim=0)

    def correction(self) -> tuple[Tensor, Tensor]:
        """What the encoder's vector adds to the outcomes: weights (3, width), constants (3,).

        Numbers of the vector that belong to no member have a weight of 0.
        """
        heads = [cast(nn.Linear, head) for head in self.heads]
        parts = [head.weight[: len(OUTCOMES)] / self.members for head in heads]  # (3, part)
        weights = functional.pad(torch.cat(parts, dim=1), (0, self.width - self.used))
        constants = torch.stack([head.bias[: len(OUTCOMES)] for head in heads]).mean(dim=0)
        return self.error[:, None] * weights, self.error * constants

    def _of_members(self, vector: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Each member's means and widths (M, B, 3), from the encoder's vector (B, width)."""
        parts = vector[:, : self.used].chunk(self.members, dim=1)
        pairs = [head(part) for head, part in zip(self.heads, parts, strict=True)]
        change, width = torch.stack(pairs).chunk(2, dim=2)  # 2 x (M, B, 3)
        mean = self.linear(terms) + self.error * change
        return mean, self.error * width.clamp(-WIDTH_CLIP, WIDTH_CLIP).exp()

    def informed_loss(
        self, encoder: Encoder, x: Tensor, facts: SessionFacts, generator: torch.Generator
    ) -> Tensor:
        """Weighted likelihood of what is known of the days, and the losses beside it."""
        seen = self._mirrored(x, generator) if self.training else x
        vector = self._with_dropout(encoder(seen), generator) if self.training else encoder(seen)
        mean, width = self._of_members(vector, facts.terms)  # 2 x (M, B, 3)
        if not self.training:  # what is validated is the forecast that is used, their mean
            mean, width = mean.mean(dim=0, keepdim=True), width.mean(dim=0, keepdim=True)
        known = facts.outcomes.isfinite()  # (B, 3)
        target = torch.where(known, facts.outcomes, mean.detach())  # (M, B, 3)
        squared = ((target - mean) / self.error) ** 2 / 2
        # The width learns from the errors the mean leaves, and does not excuse them.
        left = ((target - mean.detach()) / width) ** 2 / 2 + torch.log(width / self.error)
        surprise = (squared + left).mean(dim=0)  # (B, 3)
        count = known.sum(dim=0).clamp(min=1)  # (3,)
        loss = ((surprise * known).sum(dim=0) / count * self.weights).sum()
        for name, weight in self.options.beside.items():
            objective = cast(Objective, self.beside[name])
            loss = loss + weight * objective.loss(encoder, x, generator)
        return loss

    def _with_dropout(self, vector: Tensor, generator: torch.Generator) -> Tensor:
        """The vector (B, width), a share of its numbers hidden and the others raised by as much."""
        share = self.options.dropout
        if share == 0:
            return vector
        kept = torch.rand(vector.shape, generator=generator).to(vector.device) >= share
        return vector * kept / (1 - share)

    def _mirrored(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Half of the windows in a mirrored market: the size of a day has no sign."""
        sign = torch.randint(2, (len(x), 1, 1), generator=generator).to(x.device) * 2 - 1
        factor = torch.ones(len(x), 1, x.shape[2], device=x.device)
        factor[..., self.odd] = sign.expand(-1, -1, len(self.odd)).to(x.dtype)
        return x * factor
