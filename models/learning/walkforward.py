"""Walk-forward: on an absolute calendar, learn from the past, then score what follows.

    |<----- train ----->| purge |<- embargo ->| validate |  R  | score until the next R
                                                          trained_until

The calendar is in `calendar.py`, what one bundle learns from in `learner.py`, what happens at a
stamp in `retraining.py`, and where finished bundles are kept in `cache.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.memory import return_pages
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.cache import read_cached
from cppncripto_strategy.models.learning.calendar import calendar, lead_in
from cppncripto_strategy.models.learning.drift import Repair, RetrainDecision
from cppncripto_strategy.models.learning.retraining import cached_folder, carry_out, decide
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress

log = logging.getLogger(__name__)


def walk_forward(
    tables: Sequence[SessionTable],
    start_ms: int,
    end_ms: int,
    settings: LearnSettings,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> BundleTimeline:
    """Train a bundle at every retraining stamp that scoring [start_ms, end_ms) needs.

    Parameters
    ----------
    tables : session tables of the symbols to learn from, reaching at least to the last stamp.
    cache : folder of finished bundles; None trains afresh and keeps nothing.
    progress : called with (done, total, text), over all stamps.

    Raises
    ------
    TrainingError
        When the candles do not reach back far enough before the first stamp.
    """
    wanted = calendar(start_ms, end_ms, settings.retrain_days)
    stamps = lead_in(tables, wanted[0], settings) + wanted
    bundles: list[Bundle] = []
    decision: RetrainDecision | None = None
    for number, stamp in enumerate(stamps):

        def report(done: int, total: int, text: str, number: int = number) -> None:
            if progress is not None:
                share = round(1000 * (number + done / max(total, 1)))
                progress(share, 1000 * len(stamps), f"bundle {number + 1}/{len(stamps)} {text}")

        previous = bundles[-1] if bundles else None
        decision = decide(tables, stamp, settings, previous, decision)
        log.info("%s: %s: %s", ms_to_date(stamp), decision.repair.name.lower(), decision.reason)
        bundle = carry_out(tables, decision, settings, seed, previous, cache, report)
        return_pages()  # or each training would come on top of what the one before has let go of
        if bundle is not None:
            bundles.append(bundle)
    first = max(i for i, b in enumerate(bundles) if b.info.trained_until_ms <= wanted[0])
    return BundleTimeline(tuple(bundles[first:]))


def is_cached(
    tables: Sequence[SessionTable],
    start_ms: int,
    end_ms: int,
    settings: LearnSettings,
    seed: int,
    cache: Path,
) -> bool:
    """Whether `walk_forward` would find every bundle it needs in the cache."""
    wanted = calendar(start_ms, end_ms, settings.retrain_days)
    previous: Bundle | None = None
    decision: RetrainDecision | None = None
    for stamp in lead_in(tables, wanted[0], settings) + wanted:
        decision = decide(tables, stamp, settings, previous, decision)
        if decision.repair is Repair.KEEP:
            continue
        previous = read_cached(cached_folder(tables, decision, settings, seed, previous, cache))
        if previous is None:
            return False
    return True
