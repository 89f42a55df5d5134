"""The eight leak checks of a recipe: does anything in this pipeline know the future?

On the recipe's own candles, with networks trained briefly for the purpose (a leak in the plumbing
does not need a good network to show):

1. prefix, 2. perturbation, 3. start-invariance of features, session scalers, embeddings, scores and
   thresholds, across a change of bundles; of what Backtrader trades on them (1 and 2); and of
   training itself: candles after `trained_until` must not move a single weight (2).
4. embedding time-shift: no embedding sees its own day; and on the planted market an embedding
   shifted by 60 days or more must lose what macro gained.
5. peeking outcomes: evidence counts no outcome before it is known.
6. shuffled labels: a network that learned nonsense must not predict that nonsense.

On planted markets, where the answer is known:

7. null market: nothing can be predicted, so nothing may be.
8. ceiling: no hit ratio above what a perfect observer reaches.

Checks 1 to 5 compare numbers and are exact up to rounding. Checks 6 to 8 are statistical: they fail
when a 99.9 % day-block interval (99 % for shifted embeddings) lies wholly above what is possible.
So an honest pipeline rarely fails, and a leak worth a point of hit ratio may pass.

Left out: whether the strategy earns; that is what the backtest reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cppncripto_strategy.checks.causality import causal
from cppncripto_strategy.checks.evidence import PEEKING
from cppncripto_strategy.checks.plan import CheckPlan, Report
from cppncripto_strategy.checks.planted import CEILING, NULL, null_market, planted_market
from cppncripto_strategy.checks.shuffled import SHUFFLED, shuffled_labels
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.judging.leaks import (
    PERTURBATION,
    PREFIX,
    START_INVARIANCE,
    TIME_SHIFT,
    LeakVerdict,
)
from cppncripto_strategy.progress import Progress

CHECKS = (
    PREFIX,
    PERTURBATION,
    START_INVARIANCE,
    TIME_SHIFT,
    PEEKING,
    SHUFFLED,
    NULL,
    CEILING,
)
_STEPS: tuple[tuple[tuple[str, ...], str, Callable[[CheckPlan, Report], list[LeakVerdict]]], ...]
_STEPS = (
    ((PREFIX, PERTURBATION, START_INVARIANCE, TIME_SHIFT, PEEKING), "causality", causal),
    ((SHUFFLED,), "shuffled labels", shuffled_labels),
    ((NULL,), "null market", null_market),
    ((TIME_SHIFT, CEILING), "planted market", planted_market),
)


def run_checks(
    plan: CheckPlan, only: Iterable[str] = CHECKS, progress: Progress | None = None
) -> list[LeakVerdict]:
    """Run the checks, in the order of `CHECKS`; a check may give several verdicts.

    Parameters
    ----------
    only : names of the checks to run, of `CHECKS`.
    progress : called with (done, total, text).

    Raises
    ------
    RecipeError
        When a name is not that of a check.
    TrainingError
        When the candles are too few to train the networks that the checks need.
    """
    wanted = tuple(only)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        raise RecipeError(f"no such check: {unknown}; there are: {', '.join(CHECKS)}")
    steps = [step for step in _STEPS if set(step[0]) & set(wanted)]
    verdicts: list[LeakVerdict] = []
    for number, (_, text, check) in enumerate(steps):

        def report(share: float, detail: str, number: int = number, text: str = text) -> None:
            if progress is not None:
                done = round(1000 * (number + min(share, 1.0)))
                progress(done, 1000 * len(steps), f"{text}: {detail}")

        verdicts += check(plan, report)
    if progress is not None:
        progress(1000 * len(steps), 1000 * len(steps), "done")
    return sorted(
        (verdict for verdict in verdicts if verdict.name in wanted),
        key=lambda verdict: CHECKS.index(verdict.name),
    )


def summary(verdicts: Sequence[LeakVerdict]) -> str:
    """One line for a person."""
    failed = sorted({v.name for v in verdicts if not v.passed}, key=CHECKS.index)
    ran = len({v.name for v in verdicts})
    if failed:
        return f"{len(failed)} of {ran} checks failed: {', '.join(failed)}"
    return "the check passed" if ran == 1 else f"all {ran} checks passed"
