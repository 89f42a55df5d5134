"""Scoring in batches: a span of candles to embeddings and scores, many sessions at a time.

Two halves, as the indicators need them apart: `embed_sessions` decides what is active in each
session (bundle, scaler, embedding), `score_sessions` runs MicroNet under it. The streaming twins
are in `macro_stream.py` and `micro_stream.py`; tests hold the two equal.

A score is NaN, never 0, where there is no candle, where less than half of the short window exists,
where no bundle may score the session, and where the last good rollover is too old.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.device import CPU, moved, placed, scoring_precision
from cppncripto_strategy.models.forecasting.forecaster import forecast_sessions
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import (
    SessionSet,
    SessionTable,
    build_sessions,
    present_share,
)
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.drift import bank_drift
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.settings import EMBEDDING_SIZE
from cppncripto_strategy.models.temperature import tempered

# Sessions per pass: large enough to amortise the call, small enough for the cache.
BATCH_SESSIONS = 32
# A failed rollover keeps the embedding before it for this many sessions, then scores become NaN.
GRACE_SESSIONS = 3
MIN_PRESENT_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class SessionStates:
    """What is active in each session of a table (D sessions).

    Parameters
    ----------
    bundle : int64 (D,), number of the bundle in the timeline, -1 for none.
    source : int64 (D,), the session whose rollover (scaler and embedding) is active, -1 for none;
        equal to the session itself unless its own rollover failed.
    embedding : float32 (D, E), zeros where none or without macro.
    drift : float64 (D,), see `drift.bank_drift`; NaN where undefined.
    forecast : float64 (D, 4), see `forecaster.forecast_sessions`.
    """

    bundle: IntArray
    source: IntArray
    embedding: NDArray[np.float32]
    drift: FloatArray
    forecast: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSpan:
    """Scores of every grid row (T rows), NaN where undefined.

    Parameters
    ----------
    score, p_buy, p_sell : float64 (T,).
    score_zero : float64 (T,), the score under a zero embedding: what is left without macro.
    drift, age_ms : float64 (T,), of the active embedding; age counts from its session's midnight.
    states : SessionStates.
    """

    score: FloatArray
    p_buy: FloatArray
    p_sell: FloatArray
    score_zero: FloatArray
    drift: FloatArray
    age_ms: FloatArray
    states: SessionStates


def embed_sessions(
    table: SessionTable, timeline: BundleTimeline, device: torch.device = CPU
) -> SessionStates:
    """Active bundle, scaler and embedding in each session of the table, computed on `device`.

    A session whose own rollover fails (too few candles in its macro window) keeps the whole state
    of the last good session, its bundle included, for GRACE_SESSIONS sessions.
    """
    own = timeline.active_in(table.start_ms)
    fresh = np.where(table.ok & (own >= 0), np.arange(len(table)), -1)
    source = np.maximum.accumulate(fresh) if len(fresh) else fresh
    source = np.where(np.arange(len(table)) - source <= GRACE_SESSIONS, source, -1)
    bundle = np.where(source >= 0, own[source], -1) if len(own) else own
    embedding = np.zeros((len(table), EMBEDDING_SIZE), dtype=np.float32)
    drift = np.full(len(table), np.nan)
    for number in np.unique(own[fresh[fresh >= 0]]):
        model = timeline.bundles[int(number)]
        index = np.flatnonzero((fresh >= 0) & (own == number))
        members = np.stack([np.zeros_like(index), index], axis=1)  # (B, 2)
        sessions = SessionSet((table,), members)
        vectors = embed_set(model.macro, sessions, batch=BATCH_SESSIONS, device=device)
        embedding[index] = vectors.numpy()
        if model.macro is not None:
            drift[index] = [bank_drift(model, embedding[i], int(table.start_ms[i])) for i in index]
    forecasters = [model.forecaster for model in timeline.bundles]
    forecast = forecast_sessions(table, forecasters, own, fresh, embedding)
    kept = source >= 0
    embedding[kept], drift[kept] = embedding[source[kept]], drift[source[kept]]
    embedding[~kept], drift[~kept] = 0.0, np.nan
    return SessionStates(bundle, source, embedding, drift, forecast)


@torch.no_grad()
def score_sessions(
    table: SessionTable,
    timeline: BundleTimeline,
    states: SessionStates,
    device: torch.device = CPU,
) -> ScoredSpan:
    """Scores of every grid row under the active states, computed on `device`."""
    rows, day = len(table.grid), table.settings.day_candles
    lines = np.full((6, max(rows, len(table.features))), np.nan)
    for number in np.unique(states.bundle[states.bundle >= 0]):
        model = timeline.bundles[int(number)]
        net = placed(model.micro, device)
        members = np.flatnonzero(states.bundle == number)
        for index in np.array_split(members, -(-len(members) // BATCH_SESSIONS)):
            found = _score_batch(net, table, states, index, device)
            scores = found.astype(np.float64)  # (4, B, day)
            scores[1], scores[2] = tempered(scores[1], scores[2], model.temperature)
            for place, session in enumerate(index):
                at = table.session_rows(int(session))
                lines[:4, at] = scores[:, place]
                lines[4, at] = states.drift[session]
                source_ms = table.start_ms[states.source[session]]
                first_close = table.start_ms[session]
                closes = first_close + np.arange(day) * table.settings.interval_ms
                lines[5, at] = closes - source_ms
    lines = lines[:, :rows]
    lines[:4, ~scorable(table.grid, timeline)] = np.nan
    score, p_buy, p_sell, score_zero, drift, age_ms = lines
    return ScoredSpan(score, p_buy, p_sell, score_zero, drift, age_ms, states)


def scorable(grid: CandleGrid, timeline: BundleTimeline) -> NDArray[np.bool_]:
    """Rows with a candle and with enough of their short window, bool (T,)."""
    window = max(bundle.info.micro.short_window for bundle in timeline.bundles)
    enough: NDArray[np.bool_] = present_share(grid, window) >= MIN_PRESENT_SHARE
    return grid.present & enough


def _score_batch(
    net: MicroNet,
    table: SessionTable,
    states: SessionStates,
    index: IntArray,
    device: torch.device,
) -> NDArray[np.float32]:
    """(score, p_buy, p_sell, score_zero) of some sessions, (4, B, day)."""
    x = table.micro_inputs(index, net.receptive_field, states.source[index])  # (B, T, F)
    context = torch.from_numpy(states.embedding[index])  # (B, E)
    with scoring_precision(device):
        z = net.body(moved(x, device), _tanh)  # (B, day, C)
        both = net.probabilities(_two_heads(net, z, moved(context, device)))  # (B, day, 2, 3)
    scores = torch.cat([both[:, :, 0], both[:, :, 1, :1]], dim=-1)  # (B, day, 4)
    plain: NDArray[np.float32] = scores.permute(2, 0, 1).cpu().numpy()
    return plain


def _tanh(values: Tensor) -> Tensor:
    """On the processor numpy's, which the stream uses too: it takes a seventh of torch's time."""
    on_cpu = values.device.type == "cpu"
    return torch.from_numpy(np.tanh(values.numpy())) if on_cpu else torch.tanh(values)


def _two_heads(net: MicroNet, z: Tensor, context: Tensor) -> Tensor:
    """Logits (B, day, 2, outputs) under the embeddings (B, E) and under none, in one product.

    FiLM scales and shifts what a matrix then takes in: both go into a matrix per session.
    """
    conditions = [net.condition(context), net.condition(torch.zeros_like(context))]
    gamma, beta = (torch.stack(part, dim=1) for part in zip(*conditions, strict=True))  # (B, 2, C)
    weight, constant = net.hidden.weight, net.hidden.bias  # (H, C), (H,)
    folded = (1 + gamma)[:, :, None] * weight  # (B, 2, H, C)
    shift = functional.linear(beta, weight, constant)  # (B, 2, H)
    hidden = torch.baddbmm(
        shift.flatten(1)[:, None], z, folded.flatten(1, 2).transpose(1, 2)
    )  # (B, day, 2 H)
    logits: Tensor = net.output(hidden.relu_().view(*z.shape[:2], 2, -1))
    return logits


def score_span(
    symbol: str, grid: CandleGrid, timeline: BundleTimeline, device: torch.device = CPU
) -> ScoredSpan:
    """Scores of a span of candles from nothing but the candles and a timeline of bundles.

    Sessions before the first bundle's `trained_until_ms` are NaN: they are its own past.
    """
    table = build_sessions(symbol, grid, timeline.session)
    states = embed_sessions(table, timeline, device)
    return score_sessions(table, timeline, states, device)
