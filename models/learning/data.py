"""What the networks learn from, gathered: embeddings, targets, and the candles' fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import zero_context
from cppncripto_strategy.models.device import CPU, moved, placed, scoring_precision
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.labels import Labels
from cppncripto_strategy.models.learning.training import IGNORED, MicroData
from cppncripto_strategy.models.macronet import MacroNet
from cppncripto_strategy.models.micronet import BUY, HOLD, SELL
from cppncripto_strategy.models.settings import LearnSettings

EMBED_BATCH = 64


def reach_ms(settings: LearnSettings, until_ms: int) -> int:
    """Open time of the first candle that a bundle trained until `until_ms` can depend on."""
    start = until_ms - (settings.train_days + settings.validate_days) * DAY_MS
    return start - settings.session.warmup * settings.session.interval_ms


def fingerprint(tables: Sequence[SessionTable], from_ms: int, until_ms: int) -> str:
    """SHA-256 over every symbol's candles that open from `from_ms` on and close by `until_ms`.

    The market symbol's, too, where something reads them.
    """
    digest = hashlib.sha256()
    for table in tables:
        grid = table.grid
        first, last = (int(np.clip(grid.row_of(ms), 0, len(grid))) for ms in (from_ms, until_ms))
        rows = grid.rows(first, last)
        digest.update(f"{table.symbol} {rows.start_ms} {rows.interval_ms}".encode())
        for column in (rows.open, rows.high, rows.low, rows.close, rows.volume):
            digest.update(np.ascontiguousarray(column).tobytes())
        for need in table.settings.table.needs:
            digest.update(np.ascontiguousarray(getattr(rows, need)).tobytes())
        if table.settings.reads_market:
            market = rows.of_market()
            digest.update(f"market {table.settings.market}".encode())
            for column in (market.open, market.high, market.low, market.close, market.volume):
                digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def embed_set(
    macro: MacroNet | None,
    sessions: SessionSet,
    raw: bool = False,
    mirrored: bool = False,
    batch: int = EMBED_BATCH,
    device: torch.device = CPU,
) -> Tensor:
    """Embeddings of a set of sessions, (N, E), on the processor; zeros without macro.

    `raw` leaves out the standardiser; `mirrored` embeds the mirrored market; `batch` sessions are
    embedded at a time, which may move the last bit, on `device`.
    """
    if macro is None:
        return zero_context(len(sessions))
    table = sessions.tables[0].settings.table
    scaled = list(table.scaled)
    macro = placed(macro, device)
    statistics, call = sessions.statistics(), macro.raw if raw else macro
    window_sign = torch.ones(len(table))
    if mirrored:
        window_sign[list(table.odd)] = -1.0
    statistics[:, : len(scaled)] *= window_sign[scaled]  # the centres
    if mirrored:
        signs = torch.tensor(sessions.tables[0].settings.term_signs, dtype=torch.float32)
        statistics[:, statistics.shape[1] - len(signs) :] *= signs
    parts = []
    with scoring_precision(device):
        for rows in np.array_split(np.arange(len(sessions)), -(-len(sessions) // batch)):
            windows = moved(sessions.gather(rows) * window_sign, device)
            parts.append(call(windows, moved(statistics[torch.from_numpy(rows)], device)))
    return torch.cat(parts).cpu()


def micro_data(
    sessions: SessionSet,
    labels: Sequence[Labels],
    contexts: tuple[Tensor, Tensor] | None,
    receptive_field: int,
    return_scale: float,
    from_ms: int,
    until_ms: int,
    whole: bool = False,
) -> MicroData:
    """Inputs, embeddings and targets of the sessions that have a target; of all, where none has.

    A candle carries a target when it closes at or after `from_ms`, and its label is valid (all its
    candles exist) and known by `until_ms`. `return_scale` divides the return before tanh, for the
    regression head. `contexts` are the embeddings of every session and of its mirror, (N, E) each;
    None is zeros. `whole` keeps the sessions without a target, too.
    """
    day = sessions.tables[0].settings.day_candles
    target = np.full((len(sessions), day), IGNORED, dtype=np.int64)
    value = np.full((len(sessions), day), np.nan, dtype=np.float32)
    forward = np.full((len(sessions), day), np.nan, dtype=np.float32)
    for place, (number, session) in enumerate(sessions.members):
        table, label = sessions.tables[number], labels[number]
        at = table.session_rows(int(session))
        rows = np.arange(at.start, min(at.stop, len(table.grid)))
        close = table.grid.start_ms + (rows + 1) * table.grid.interval_ms
        known_by = close + label.horizon * table.grid.interval_ms
        usable = label.valid[rows] & (close >= from_ms) & (known_by <= until_ms)
        columns, rows = np.flatnonzero(usable), rows[usable]
        target[place, columns] = np.where(
            label.target[rows] > 0, BUY, np.where(label.target[rows] < 0, SELL, HOLD)
        )
        forward[place, columns] = label.forward_return[rows]
        value[place, columns] = np.tanh(label.forward_return[rows] / return_scale)
    # Inputs are most of a training's memory: none are made to be left out afterwards.
    learned = np.flatnonzero((target != IGNORED).any(axis=1))
    learned = np.arange(len(sessions)) if whole or not len(learned) else learned
    context, mirror_context = contexts or (zero_context(len(sessions)),) * 2
    return MicroData(
        inputs=sessions.micro_inputs(learned, receptive_field),
        context=context[learned],
        mirror_context=mirror_context[learned],
        target=torch.from_numpy(target[learned]),
        value=torch.from_numpy(value[learned]),
        forward_return=torch.from_numpy(forward[learned]),
        odd_columns=sessions.tables[0].settings.table.odd,
    )


def return_scale(
    labels: Sequence[Labels], train: SessionSet, start_ms: int, split_ms: int
) -> float:
    """Root mean square of the training span's forward returns: the unit of the regression."""
    squares: list[NDArray[np.float64]] = []
    for table, label in zip(train.tables, labels, strict=True):
        close_ms = table.grid.close_time
        known = close_ms + label.horizon * table.grid.interval_ms <= split_ms
        inside = label.valid & known & (close_ms >= start_ms)
        squares.append(label.forward_return[inside] ** 2)
    every = np.concatenate(squares)
    return float(np.sqrt(every.mean())) if len(every) and every.any() else 1.0
