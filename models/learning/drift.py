"""Drift: how far today lies from the days a bundle knows, and the lowest-cost repair for it.

The distance is Euclidean, between embeddings, to the nearest training day at least one long window
away: nearer days share candles with this one and would look alike by construction. It is given as a
ratio to the same distance among the training days themselves, so 1 is as usual.

Repairs go from cheap to expensive, one step at each check at which the drift persists: recalibrate
the threshold, retrain MicroNet, retrain MacroNet. Left out: drift of the scores or of their
success.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.models.bundle import Bundle

# The baseline distance of each bundle alive: it costs a pass over the bank, and is asked for daily.
_USUAL: WeakKeyDictionary[Bundle, float] = WeakKeyDictionary()


def bank_drift(bundle: Bundle, embedding: NDArray[np.float32], session_ms: int) -> float:
    """Drift of one day's embedding (E,), as a ratio; NaN when the bank is too small.

    Parameters
    ----------
    session_ms : 00:00 UTC of the day, which decides which bank days share candles with it.
    """
    baseline = _baseline_distance(bundle)
    nearest = _nearest(bundle, embedding, session_ms)
    return nearest / baseline if baseline > 0 else float("nan")


def _nearest(bundle: Bundle, embedding: NDArray[np.float32], session_ms: int) -> float:
    """Distance to the nearest bank day that shares no candle with this session's window."""
    info = bundle.info
    lag_ms = info.session.long_window * info.session.interval_ms
    far = np.abs(bundle.bank_ms - session_ms) >= lag_ms
    if not far.any():
        return float("nan")
    distance = np.linalg.norm(bundle.bank[far].astype(np.float64) - embedding, axis=1)
    return float(distance.min())


def _baseline_distance(bundle: Bundle) -> float:
    """Median nearest distance inside the bank; remembered while the bundle lives."""
    if bundle not in _USUAL:
        pairs = zip(bundle.bank, bundle.bank_ms, strict=True)
        inside = [_nearest(bundle, vector, int(ms)) for vector, ms in pairs]
        _USUAL[bundle] = float(np.nanmedian(inside)) if np.isfinite(inside).any() else float("nan")
    return _USUAL[bundle]


class Repair(IntEnum):
    """What a check decides, from cheap to expensive."""

    KEEP = 0
    RECALIBRATE = 1
    RETRAIN_MICRO = 2
    RETRAIN_MACRO = 3


@dataclass(frozen=True, slots=True)
class RetrainDecision:
    """One check of the calendar, and what it decided.

    Parameters
    ----------
    stamp_ms : UTC ms of the check.
    drift : median drift over the days since the check before, NaN where there is none.
    repair : what was done; reason : why, in words.
    """

    stamp_ms: int
    drift: float
    repair: Repair
    reason: str


def decide_by_drift(
    stamp_ms: int, drifts: list[float], limit: float, before: RetrainDecision | None
) -> RetrainDecision:
    """The next repair, given the drifts (ratios) of the days since the last check.

    Parameters
    ----------
    limit : median drift above which something is done.
    before : the last decision; a drift that outlives its repair gets the next more expensive one.
    """
    known = [drift for drift in drifts if np.isfinite(drift)]
    if not known:
        return RetrainDecision(stamp_ms, float("nan"), Repair.KEEP, "no day's drift is known")
    median = float(np.median(known))
    found = f"median drift {median:.2f} over {len(known)} days, limit {limit:g}"
    if median <= limit:
        return RetrainDecision(stamp_ms, median, Repair.KEEP, found)
    last = Repair.KEEP if before is None else before.repair
    repair = Repair(last % Repair.RETRAIN_MACRO + 1)
    tried = f", after {last.name.lower()}" if last else ""
    return RetrainDecision(stamp_ms, median, repair, found + tried)
