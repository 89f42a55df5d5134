"""MicroNet: a causal, unpadded TCN over the last hours, conditioned on MacroNet's embedding.

The body is a stack of dilated convolutions without padding, so an input of T candles gives
T - receptive_field + 1 outputs, each seeing exactly its own last `receptive_field` candles: a whole
day is scored in one pass, and that equals scoring each window by itself.

Beside the stack runs a recall: how did the market answer earlier in this window, and what does that
say about the present candle? That is a product of products (an event, its answer, the present
event), which a stack of ReLU convolutions of this size does not find in labels that are mostly
noise. Gated units (after Dauphin et al. 2017, eq. 1) name the event and its answer within half an
hour; their gated values are added up over the window, which is causal linear attention with a
diagonal state (Katharopoulos et al. 2020, section 3.3; kernel and normaliser left out) cut off at
the window; and the sum is multiplied by a query of the present.

The embedding then scales and shifts the body's channels (FiLM; Perez et al. 2018, eq. 1, with gamma
written as 1 + gamma), and an MLP head gives either three classes (sell, nothing, buy) or one
bounded score.

Deviations from the FiLM paper: the embedding is first reduced to a few directions, settled on the
training days before the network learns (`settings.reading`), because a label that is mostly noise
cannot fit 128 inputs per channel: it would fit their noise long before their sense.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppncripto_strategy.models.settings import MicroNetSettings

Activation = Callable[[Tensor], Tensor]
N_CLASSES = 3
# Candles within which the recall names an event and what followed it.
RECALL_TAPS = 8
# The recall starts this small, so that what the embedding says is learned undisturbed.
RECALL_START = 0.1
# Components beyond this many standard deviations of a whitened one are clipped.
CONTEXT_CLIP = 3.0
SELL, HOLD, BUY = 0, 1, 2


class MicroNet(nn.Module):
    """The network of one MicroNet; see the module's docstring.

    Attributes
    ----------
    dilations : dilation of each convolution.
    receptive_field : candles one score depends on, at most `settings.short_window`.
    recall_taps : candles the recall's gated units span; it adds up over the rest of the field.
    seen : 1 for the columns MicroNet reads, 0 for those it does not, (n_features,).
    """

    whiten: Tensor
    seen: Tensor

    def __init__(self, settings: MicroNetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dilations = settings.dilations
        self.receptive_field = settings.receptive_field
        assert self.receptive_field <= settings.short_window
        channels = settings.channels
        outputs = N_CLASSES if settings.head == "classes" else 1
        self.embed = nn.Linear(settings.n_features, channels)
        # A dilated convolution written as one matrix product over its taps: on a CPU with few
        # channels this is quicker than conv1d, and the streaming path multiplies the same matrix.
        self.taps = nn.ModuleList(
            nn.Linear(settings.kernel * channels, channels) for _ in self.dilations
        )
        self.recall_taps = min(RECALL_TAPS, self.receptive_field)
        self.local = nn.Linear(self.recall_taps * settings.n_features, 2 * channels)
        self.deepen = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, 2 * channels)
        self.query = nn.Linear(channels, channels)
        self.recall_out = nn.Linear(3 * channels, channels)
        with torch.no_grad():
            self.recall_out.weight.mul_(RECALL_START)
            self.recall_out.bias.zero_()
        seen = torch.ones(settings.n_features)
        seen[list(settings.unseen)] = 0
        self.register_buffer("seen", seen, persistent=False)
        self.register_buffer("whiten", torch.zeros(settings.n_context, settings.components))
        self.film = nn.Linear(settings.components, 2 * channels)
        self.hidden = nn.Linear(channels, settings.hidden)
        self.output = nn.Linear(settings.hidden, outputs)

    def body(self, x: Tensor, tanh: Activation = torch.tanh) -> Tensor:
        """Scaled features (B, T, F) -> (B, T - receptive_field + 1, channels).

        Parameters
        ----------
        tanh : how the recall's is computed, for who scores and needs no gradient.
        """
        kernel, x = self.settings.kernel, x * self.seen
        z: Tensor = self.embed(x)  # (B, T, C)
        for dilation, taps in zip(self.dilations, self.taps, strict=True):
            shifted = _shifted(z, kernel, dilation)
            z = shifted[-1] + functional.relu(taps(torch.cat(shifted, dim=-1)))  # (B, T', C)
        return z + self.recall(x, tanh)

    def recall(self, x: Tensor, tanh: Activation = torch.tanh) -> Tensor:
        """What earlier answers say about the present: (B, T, F) -> as `body`.

        h = a tanh(b) + relu(a), then h + a' tanh(b'); v = sigmoid(gate) tanh(value); s = sum of v
        over the window; W [h, s, query(h) tanh(s)].
        """
        a, b = self.local(torch.cat(_shifted(x, self.recall_taps, 1), dim=-1)).chunk(2, dim=-1)
        h = a * tanh(b) + functional.relu(a)  # (B, T - taps + 1, C)
        a, b = self.deepen(h).chunk(2, dim=-1)
        h = h + a * tanh(b)
        value, gate = self.value(h).chunk(2, dim=-1)
        value = torch.sigmoid(gate) * tanh(value)
        window = self.receptive_field - self.recall_taps + 1
        # In double precision, so that a sum does not depend on where the running total began.
        total = value.double().cumsum(dim=1)  # (B, T - taps + 1, C)
        summed = total[:, window - 1 :].clone()  # (B, T', C)
        summed[:, 1:] -= total[:, :-window]
        summed = summed.float()
        now = h[:, window - 1 :]
        parts = [now, summed, self.query(now) * tanh(summed)]
        out: Tensor = self.recall_out(torch.cat(parts, dim=-1))
        return out

    def condition(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, n_context) -> FiLM gamma and beta, each (B, channels)."""
        components = (context @ self.whiten).clamp(-CONTEXT_CLIP, CONTEXT_CLIP)  # (B, components)
        gamma, beta = self.film(components).chunk(2, dim=-1)  # 2 x (B, C)
        return gamma, beta

    def fit_context(self, context: Tensor) -> None:
        """Set the whitening from the training days' embeddings (N, n_context).

        Directions without variance are dropped, so that a zero embedding stays zero (a network
        without macro). Components keep the embedding's own origin: zero is the average day.
        """
        centred = (context - context.mean(dim=0)).double()
        _, strength, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = min(self.settings.components, int((strength > 1e-6 * len(context) ** 0.5).sum()))
        self.whiten.zero_()
        scale = len(context) ** 0.5 / strength[:kept]
        self.whiten[:, :kept] = (axes[:kept].T * scale).float()

    def set_reading(self, weights: Tensor) -> None:
        """Set the directions themselves, (n_context, components); a zero embedding reads as 0."""
        self.whiten.copy_(weights)

    def head(self, z: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Body output (B, T', C) under FiLM -> logits (B, T', 3), or (B, T', 1) for regression."""
        z = (1 + gamma[:, None]) * z + beta[:, None]  # (B, T', C)
        logits: Tensor = self.output(functional.relu(self.hidden(z)))
        return logits

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Features (B, T, F) and embedding (B, n_context) -> logits (B, T - RF + 1, outputs)."""
        return self.head(self.body(x), *self.condition(context))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (..., outputs) -> (score, p_buy, p_sell) in the last axis.

        Classes: score = p_buy - p_sell. Regression: score = tanh(output), and p_buy, p_sell are its
        positive and negative parts (not probabilities, but on the same scale).
        """
        if self.settings.head == "classes":
            p = torch.softmax(logits, dim=-1)
            return torch.stack([p[..., BUY] - p[..., SELL], p[..., BUY], p[..., SELL]], dim=-1)
        score = torch.tanh(logits[..., 0])
        return torch.stack([score, score.clamp(min=0), (-score).clamp(min=0)], dim=-1)


def _shifted(z: Tensor, count: int, dilation: int) -> list[Tensor]:
    """(B, T, C) at `count` lags `dilation` apart, oldest first, each (B, T', C), aligned."""
    length = z.shape[1] - (count - 1) * dilation
    return [z[:, k * dilation : k * dilation + length] for k in range(count)]
