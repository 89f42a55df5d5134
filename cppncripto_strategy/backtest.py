"""A backtest: a recipe and candles in, a results folder out.

Steps: read candles, refuse what could not mean anything, lay out sessions, train bundles on the
walk-forward calendar, replay the traded span through Cerebro (once with macro and, for comparison,
once with a MicroNet that never saw an embedding, and once under the other rule about evidence),
judge, write. Nothing here prints; progress goes to a callback.

Left out: choosing a recipe for you. Each run is one trial and is counted as one.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import torch

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.market import Market, load_market
from cppncripto_strategy.memory import give_back
from cppncripto_strategy.models.bundle import BundleTimeline, arm_folder
from cppncripto_strategy.outcome import build_result, write_outputs
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.progress import PhaseProgress, silent
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import Traded, traded
from cppncripto_strategy.results import RunResult
from cppncripto_strategy.runlog import PhaseClock, log_file
from cppncripto_strategy.timelines import train_arms

log = logging.getLogger(__name__)

# Of the signals of an arm that is there for comparison, what is judged.
_COMPARED = ("symbol", "close_time_ms", "score", "p_buy", "p_sell")


def run_backtest(
    recipe: Recipe,
    folder: Path,
    cache: Path | None = None,
    progress: PhaseProgress = silent,
    plain_loop: bool = False,
    jobs: int = 1,
) -> RunResult:
    """Run a recipe and write its results into `folder`.

    Parameters
    ----------
    folder : the results folder; made if absent.
    cache : where finished bundles are kept between runs; None trains afresh.
    progress : see `progress.PhaseProgress`.
    plain_loop, jobs : see `replay.replay` and `timelines.train_arms`; the results are the same.

    Raises
    ------
    CppnError
        Saying what was found, what was expected, and what to do.

    Examples
    --------
    A planted market, so that no candles are needed, and a training of seconds:

    >>> from pathlib import Path
    >>> from cppncripto_strategy import Recipe, run_backtest
    >>> recipe = Recipe(
    ...     symbols=("PLANTED",),
    ...     interval="15m",
    ...     candles={"source": "planted", "planted": {"days": 70}},
    ...     macro={"long_window": 288, "epochs": 1},
    ...     micro={"short_window": 24, "epochs": 1, "initialisations": 1},
    ...     walkforward={"train_days": 30, "validate_days": 10},
    ... )
    >>> result = run_backtest(recipe, Path("results"))
    >>> sorted(path.name for path in Path("results").glob("*.html"))
    ['report.html', 'tearsheet.html']
    """
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    clock = PhaseClock(progress)
    advice = "give this run a folder of its own"
    lock = FileLock.take(folder / LOCK_FILE, f"the results folder {folder}", RecipeError, advice)
    with lock, log_file(folder / "log.jsonl"):
        with clock.phase("candles"):
            market = load_market(recipe)
            give_back()
            span = checked_span(recipe, market)
        arms = train_arms(recipe, market, span, cache, clock, jobs)
        give_back()  # its sessions are gone: each pass makes its own, symbol by symbol
        passes, other = _trade(recipe, market, span, arms, clock, plain_loop)
        with clock.phase("report"):
            result = build_result(recipe, market, span, arms, passes, clock, folder, other)
            write_outputs(result, folder)
            _save_bundles(arms, folder)
        log.info("run finished in %.1f s", clock.total())
    return result


def _save_bundles(arms: dict[str, BundleTimeline], folder: Path) -> None:
    for timeline in arms.values():
        arm = arm_folder(timeline.bundles[0].macro is not None)
        timeline.save(folder / "bundles" / arm)


def _trade(
    recipe: Recipe,
    market: Market,
    span: Span,
    arms: dict[str, BundleTimeline],
    clock: PhaseClock,
    plain_loop: bool,
) -> tuple[dict[str, Traded], Traded | None]:
    """Every arm traded, and the first one once more under the other rule about evidence.

    The first one's own pass is the last: the signals of all candles need not wait for the others.
    """
    first, *others = arms
    trade = functools.partial(traded, candles=market.every, span=span, plain_loop=plain_loop)
    beside, passes, other = None, {}, recipe.other_rule()
    if other is not None:
        name = "waiting for evidence" if other.strategy.evidence == "wait" else "without waiting"
        with clock.phase(f"backtest {name}"):
            beside = trade(other, timeline=arms[first], signals=())
    for arm in others:
        with clock.phase(f"backtest {arm}"):
            passes[arm] = trade(recipe, timeline=arms[arm], signals=_COMPARED)
    with clock.phase(f"backtest {first}"):
        passes = {first: trade(recipe, timeline=arms[first]), **passes}
    return passes, beside
