"""The arms of a run trained: with macro and, for comparison, without, side by side where asked for.

In processes of their own arms fill the cache of bundles, which is then read as it always is: the
same bytes come out, whoever trained them. All of them read the same features, from a file that is
there for as long as they need it. Stamps that follow from no bundle before them, because
MacroNet is trained at each, are spread over processes too. Left out: trading (`replay`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.memory import give_back
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.walkforward import is_cached, walk_forward
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.runlog import PhaseClock
from cppncripto_strategy.spreading.jobs import PROCESS_BYTES, Job, run_jobs
from cppncripto_strategy.spreading.mapped import lay_out, taken_up
from cppncripto_strategy.spreading.spread import Spread

log = logging.getLogger(__name__)


def train_arms(
    recipe: Recipe,
    market: Market,
    span: Span,
    cache: Path | None,
    clock: PhaseClock,
    jobs: int = 1,
) -> dict[str, BundleTimeline]:
    """The timeline that trades and, where the recipe asks for it, the one without macro.

    Parameters
    ----------
    market : candles of the traded symbols, and of those beside them.
    cache : where finished bundles are kept between runs; None keeps them for this run alone.
    jobs : processes to train in, at most; 1 is this one.

    Raises
    ------
    TrainingError
        As `walk_forward` does.
    """
    arms = {"with macro" if recipe.macro.enabled else "without macro": recipe.macro.enabled}
    if recipe.macro.enabled and recipe.compare_without_macro:
        arms["without macro"] = False
    with _kept(cache, jobs) as folder, _room() as room:
        tables = _sessions(recipe, market, clock)
        work = _lacking(recipe, tables, span, folder, arms, jobs) if folder is not None else []
        laid = _laid_out(tables, room) if len(work) > 1 else None
        if laid is not None:
            bytes_each = PROCESS_BYTES + sum(table.features.nbytes for table in tables)
            tables = taken_up(laid, room)  # the pages of all processes, in place of its own
            give_back()
            with clock.phase(f"training in {min(jobs, len(work))} processes"):
                shared = [replace(job, arguments=(*job.arguments, laid, room)) for job in work]
                run_jobs(shared, Spread(workers=jobs), clock.progress, bytes_each)
        timelines = {}
        for arm, use_macro in arms.items():
            settings = recipe.learn_settings(use_macro)
            with clock.phase(f"training {arm}") as report:
                timelines[arm] = walk_forward(
                    tables, span.start_ms, span.end_ms, settings, recipe.seed, folder, report
                )
    return timelines


@contextmanager
def _kept(cache: Path | None, jobs: int) -> Iterator[Path | None]:
    """The cache; without one, a folder for as long as processes need it."""
    if cache is not None or jobs < 2:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="cppncripto-bundles-") as folder:
        yield Path(folder)


@contextmanager
def _room() -> Iterator[Path]:
    """Where a file may lie that is removed in the end, or never made."""
    folder = tempfile.TemporaryDirectory(
        prefix="cppncripto-features-",
        ignore_cleanup_errors=True,  # where a file that is still read cannot be removed
    )
    with folder as name:
        yield Path(name) / "features"


def _laid_out(tables: list[SessionTable], path: Path) -> Any:
    """The tables with places in a file instead of arrays; None where there is no room for it."""
    try:
        return lay_out(tables, path)
    except OSError as cause:
        log.warning("one thing after another: features cannot be shared (%s)", cause)
        return None


def _sessions(recipe: Recipe, market: Market, clock: PhaseClock) -> list[SessionTable]:
    with clock.phase("features"):
        return session_tables(market, recipe.learn_settings().session)


def _lacking(
    recipe: Recipe,
    tables: Sequence[SessionTable],
    span: Span,
    folder: Path,
    arms: dict[str, bool],
    jobs: int,
) -> list[Job]:
    """What would fill the cache with what it lacks, in jobs that are not given the features yet."""
    if jobs < 2:
        return []
    lacking = {}
    for arm, use_macro in arms.items():
        settings = recipe.learn_settings(use_macro)
        if not is_cached(tables, span.start_ms, span.end_ms, settings, recipe.seed, folder):
            lacking[arm] = use_macro, settings
    work = []
    for arm, (use_macro, settings) in lacking.items():
        # A process takes seconds to begin: no more of them than can run at a time.
        spans = _spans(span, settings, max(1, jobs // len(lacking)))
        for number, part in enumerate(spans):
            name = f"training {arm}" + (f" {number + 1}/{len(spans)}" if len(spans) > 1 else "")
            work.append(Job(name, _train, (recipe, use_macro, part, folder)))
    return work


def _spans(span: Span, settings: LearnSettings, parts: int) -> list[list[tuple[int, int]]]:
    """What can be trained apart: every so many-th stamp where each is trained afresh, else all."""
    afresh = settings.macro_retrain_days <= settings.retrain_days
    if settings.retrain != "calendar" or not afresh:
        return [[(span.start_ms, span.end_ms)]]
    stamps = calendar(span.start_ms, span.end_ms, settings.retrain_days)
    parts = min(parts, len(stamps))
    return [[(stamp, stamp) for stamp in stamps[first::parts]] for first in range(parts)]


def _train(
    recipe: Recipe,
    use_macro: bool,
    spans: Sequence[tuple[int, int]],
    folder: Path,
    laid: Any,
    features: Path,
    progress: Progress,
) -> None:
    """In a worker: the bundles of some spans into the cache."""
    torch.set_num_threads(1)
    settings = recipe.learn_settings(use_macro)  # which runs the recipe's plugins
    tables = taken_up(laid, features)
    for number, (start_ms, end_ms) in enumerate(spans):

        def report(done: int, total: int, text: str, number: int = number) -> None:
            share = number + done / max(total, 1)
            progress(round(1000 * share), 1000 * len(spans), text)

        walk_forward(tables, start_ms, end_ms, settings, recipe.seed, folder, report)
