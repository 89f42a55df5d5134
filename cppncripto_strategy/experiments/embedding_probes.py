"""What a frozen embedding says about the days, measured the same way for every objective.

An objective with a decoder reports a reconstruction loss, one without has none; so reconstruction
is measured by a ridge from the frozen embedding to the hourly means of the very window it was made
of, learned on earlier days and judged on later ones. Beside it, the same ridge predicts the next
day's profile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.judging.probes import profile_targets, walk_forward_r2
from cppncripto_strategy.models.learning.data import embed_set

log = logging.getLogger(__name__)


def probe_embedding(
    bundle: Bundle, tables: Sequence[SessionTable], start_ms: int, end_ms: int
) -> dict[str, float]:
    """Reconstruction error and next-day R2 of a bundle's embedding over [start_ms, end_ms).

    Parameters
    ----------
    tables : session tables of the traded symbols.
    start_ms, end_ms : span of sessions, out of sample for the bundle.

    Returns
    -------
    reconstruction_error : share of the windows' variance (hourly means of the scaled features) that
        a ridge cannot rebuild; 0 is perfect, 1 no better than the mean window.
    probe_r2 : R2 of the next day's profile of volume and volatility.
    Empty without macro, or where the span is too short to judge.
    """
    if bundle.macro is None:
        return {}
    sessions = SessionSet.between(tables, start_ms, end_ms)
    embedding = embed_set(bundle.macro, sessions).numpy().astype(np.float64)
    days = sessions.start_ms()
    profile = profile_targets(sessions, end_ms)
    known = ~np.isnan(profile).any(axis=1)
    try:
        return {
            "reconstruction_error": 1 - walk_forward_r2(embedding, _hourly(sessions), days),
            "probe_r2": walk_forward_r2(embedding[known], profile[known], days[known]),
        }
    except TrainingError as cause:
        log.warning("embedding not probed: %s", cause)
        return {}


def _hourly(sessions: SessionSet) -> FloatArray:
    """Hourly means of the scaled features of every macro window, float64 (N, hours * features)."""
    settings = sessions.tables[0].settings
    columns = list(settings.table.scaled)
    step = max(1, HOUR_MS // settings.interval_ms)
    parts = []
    for index in np.array_split(np.arange(len(sessions)), max(1, len(sessions) // 64)):
        windows = sessions.gather(index)[:, :, columns].numpy()  # (B, T, S)
        hours = windows[:, windows.shape[1] % step :].reshape(len(index), -1, step, len(columns))
        parts.append(hours.mean(axis=2).reshape(len(index), -1))
    return np.concatenate(parts).astype(np.float64)
