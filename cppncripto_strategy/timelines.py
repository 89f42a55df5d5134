"""The arms of a run trained: with macro and, for comparison, without, side by side where asked for.

In processes of their own arms fill the cache of bundles, which is then read as it always is: the
same bytes come out, whoever trained them. Stamps that follow from no bundle before them, because
MacroNet is trained at each, are spread over processes too. Left out: trading (`replay`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.market import Market, load_market, session_tables
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
from cppncripto_strategy.spreading.spread import Spread

# Candles, features, scaled windows: a process holds so many times the features of its symbols.
_TIMES_FEATURES = 3


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
    with _kept(cache, jobs) as folder:
        tables = _sessions(recipe, market, clock)
        work = _lacking(recipe, tables, span, folder, arms, jobs) if folder is not None else []
        if len(work) > 1:
            bytes_each = PROCESS_BYTES + _TIMES_FEATURES * sum(t.features.nbytes for t in tables)
            del tables  # each process has its own: no need to hold one more beside them
            give_back()
            with clock.phase(f"training in {min(jobs, len(work))} processes"):
                run_jobs(work, Spread(workers=jobs), clock.progress, bytes_each)
            tables = _sessions(recipe, market, clock)
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
    """What would fill the cache with what it lacks, in jobs for several processes."""
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
    progress: Progress,
) -> None:
    """In a worker: candles, features, and the bundles of some spans into the cache."""
    torch.set_num_threads(1)
    settings = recipe.learn_settings(use_macro)  # which runs the recipe's plugins
    tables = session_tables(load_market(recipe), settings.session)
    give_back()  # the candles are gone, and every process of the run would keep their pages
    for number, (start_ms, end_ms) in enumerate(spans):

        def report(done: int, total: int, text: str, number: int = number) -> None:
            share = number + done / max(total, 1)
            progress(round(1000 * share), 1000 * len(spans), text)

        walk_forward(tables, start_ms, end_ms, settings, recipe.seed, folder, report)
