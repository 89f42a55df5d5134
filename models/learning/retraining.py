"""What a retraining stamp calls for, and carrying it out: keep, recalibrate or retrain."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.models.bundle import Bundle, arm_folder
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.learning.cache import (
    MACRONETS,
    bundle_of_macro,
    cache_key,
    macro_key,
    note_macro,
    read_cached,
)
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.drift import (
    Repair,
    RetrainDecision,
    bank_drift,
    decide_by_drift,
)
from cppncripto_strategy.models.learning.learner import learn_bundle, score_quantiles
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress

log = logging.getLogger(__name__)


def decide(
    tables: Sequence[SessionTable],
    stamp_ms: int,
    settings: LearnSettings,
    previous: Bundle | None,
    before: RetrainDecision | None,
) -> RetrainDecision:
    """What to do at a retraining stamp, from candles that closed by then alone.

    Parameters
    ----------
    previous : the active bundle, None at the first stamp; before : the decision before this one.
    """
    nan = float("nan")
    macro_due = calendar(stamp_ms, stamp_ms, settings.macro_retrain_days)[0]
    both = RetrainDecision(stamp_ms, nan, Repair.RETRAIN_MACRO, "calendar, both networks")
    if previous is None:
        # A first bundle that is due anyway has the bytes, and so the reason, of a longer run's.
        due = stamp_ms - macro_due < settings.retrain_days * DAY_MS
        return (
            both
            if due and settings.retrain == "calendar"
            else dataclasses.replace(both, reason="first")
        )
    if settings.retrain == "drift" and previous.macro is not None:
        return decide_by_drift(
            stamp_ms, _drifts(tables, stamp_ms, settings, previous), settings.drift_limit, before
        )
    if macro_due > previous.info.trained_until_ms:
        return both
    return RetrainDecision(stamp_ms, nan, Repair.RETRAIN_MICRO, "calendar, MicroNet")


def _drifts(
    tables: Sequence[SessionTable], stamp_ms: int, settings: LearnSettings, bundle: Bundle
) -> list[float]:
    """Drift of each day of each symbol since the check before."""
    since = stamp_ms - settings.retrain_days * DAY_MS
    recent = SessionSet.between(tables, since, stamp_ms)
    if len(recent) == 0:
        return []
    vectors = embed_set(bundle.macro, recent).numpy()
    pairs = zip(vectors, recent.start_ms(), strict=True)
    return [bank_drift(bundle, vector, int(ms)) for vector, ms in pairs]


def recalibrate(
    tables: Sequence[SessionTable], bundle: Bundle, until_ms: int, settings: LearnSettings
) -> Bundle:
    """The same networks with a threshold start made of their own recent scores.

    The scores are of days the bundle was not trained on, the last `validate_days` at most. Without
    any, the old start is kept.
    """
    since = max(bundle.info.trained_until_ms, until_ms - settings.validate_days * DAY_MS)
    recent = SessionSet.between(tables, since, until_ms)
    info = dataclasses.replace(bundle.info, trained_until_ms=until_ms)
    if len(recent) == 0:
        return dataclasses.replace(bundle, info=info)
    net = bundle.micro
    with torch.no_grad():
        inputs = recent.micro_inputs(np.arange(len(recent)), net.receptive_field)
        scores = net.probabilities(net(inputs, embed_set(bundle.macro, recent)))[..., 0]
    return dataclasses.replace(bundle, info=info, score_seed=score_quantiles(scores.numpy()))


def carry_out(
    tables: Sequence[SessionTable],
    decision: RetrainDecision,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Bundle | None:
    """The bundle that a decision asks for, from the cache or made now; None where it keeps.

    The bundle's `info.reason` is the decision's. Walk-forward and paper sessions both come here.

    Parameters
    ----------
    previous : the active bundle, from which a cheaper repair than MacroNet's starts.
    cache : folder of finished bundles, each arm in its own below it; None makes the bundle anew
        and keeps nothing. A bundle that another process is making is waited for.

    Raises
    ------
    TrainingError
        As `learn_bundle` does.
    """
    if decision.repair is Repair.KEEP:
        return None
    kept = None if decision.repair is Repair.RETRAIN_MACRO else previous
    if cache is None:
        return _make(tables, decision, settings, seed, kept, progress)
    folder = cached_folder(tables, decision, settings, seed, previous, cache)
    with _cache_lock(folder, progress):
        bundle = read_cached(folder)
        if bundle is not None:
            return bundle
        if kept is not None or not settings.use_macro:
            bundle = _make(tables, decision, settings, seed, kept, progress)
            bundle.save(folder)
            return bundle
        # Another bundle may have the MacroNet that this one needs, under another MicroNet.
        name = macro_key(tables, decision.stamp_ms, settings, seed)
        with _cache_lock(cache / MACRONETS / name, progress):
            pretrained = bundle_of_macro(cache, name)
            bundle = _make(tables, decision, settings, seed, kept, progress, pretrained)
            bundle.save(folder)
            if pretrained is None:
                note_macro(cache, name, folder)
    return bundle


def cached_folder(
    tables: Sequence[SessionTable],
    decision: RetrainDecision,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    cache: Path,
) -> Path:
    """Where the bundle that a decision asks for lies in the cache, once it is made."""
    kept = None if decision.repair is Repair.RETRAIN_MACRO else previous
    key = cache_key(tables, decision.stamp_ms, settings, seed, kept)
    return cache / arm_folder(settings.use_macro) / f"{key}-{decision.repair.name.lower()}"


def _cache_lock(folder: Path, progress: Progress | None) -> FileLock:
    """The right to look for, and to make, one bundle of the cache; whoever is second waits."""

    def waiting(holder: str) -> None:
        log.warning("%s is being trained by %s: waiting for it", folder, holder)
        if progress is not None:
            progress(0, 1, f"waiting for {holder}")

    path = folder.with_name(f".{folder.name}{LOCK_FILE}")
    return FileLock.take(path, f"the bundle {folder}", BundleError, "", math.inf, waiting)


def _make(
    tables: Sequence[SessionTable],
    decision: RetrainDecision,
    settings: LearnSettings,
    seed: int,
    kept: Bundle | None,
    progress: Progress | None,
    pretrained: Bundle | None = None,
) -> Bundle:
    """Recalibrate or train as decided; `kept` is the bundle whose networks are built on."""
    if decision.repair is Repair.RECALIBRATE and kept is not None:
        bundle = recalibrate(tables, kept, decision.stamp_ms, settings)
    else:
        bundle = learn_bundle(tables, decision.stamp_ms, settings, seed, kept, progress, pretrained)
    info = dataclasses.replace(bundle.info, reason=decision.reason)
    return dataclasses.replace(bundle, info=info)
