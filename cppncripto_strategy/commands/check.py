"""`cppn-bt check`: leak checks of a recipe, each with a verdict; or its Sharpe ratio over paths."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options

if TYPE_CHECKING:
    from cppncripto_strategy.checks.plan import CheckPlan
    from cppncripto_strategy.models.judging.leaks import LeakVerdict

# As in `checks.suite.CHECKS`, which cannot be imported here without torch; a test holds them equal.
CHECK_NAMES = (
    "prefix",
    "perturbation",
    "start-invariance",
    "embedding time-shift",
    "peeking outcomes",
    "shuffled labels",
    "null market",
    "ceiling",
)

EXAMPLES = """
\b
Examples:
  cppn-bt check                                      the demo's pipeline, no data needed
  cppn-bt check null                                 a shipped recipe by its name
  cppn-bt check my.toml --candles ~/candles          your recipe on your candles
  cppn-bt check my.toml --only prefix --only perturbation   the quick, exact ones
  cppn-bt check my.toml --json > verdicts.json
  cppn-bt check my.toml --cpcv                       the Sharpe ratio over paths, 15 trainings
"""


@click.command(name="check", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(CHECK_NAMES),
    help="Run this check alone; may be repeated.",
)
@click.option(
    "--cpcv",
    is_flag=True,
    help="Instead of the checks, combinatorial purged cross-validation: the recipe's networks are"
    " trained on every combination of other days, and the Sharpe ratio shown over several paths.",
)
@click.option(
    "--groups",
    type=click.IntRange(2, 20),
    default=6,
    show_default=True,
    help="Groups that --cpcv cuts the days into, two of them tested at a time (one of two groups):"
    " 6 make 15 trainings and 5 paths.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(
    request: RecipeRequest, only: tuple[str, ...], cpcv: bool, groups: int, as_json: bool
) -> None:
    """Look for the future in a recipe's past: eight leak checks, each with a verdict.

    RECIPE is a TOML file, or the name of a shipped recipe; without one, the demo. Briefly trains
    the recipe's networks on its own candles and on planted markets. The exit status is 1 when a
    check fails.

    With --cpcv, the recipe is trained in full as often as there are pairs of groups, and a page
    and a JSON file are left in the recipe's home.
    """
    if cpcv:
        if only:
            raise click.UsageError("--cpcv runs no leak check: leave --only out, or --cpcv")
        _cross_validate(request, groups, as_json)
        return
    name, plan = _plan(request)
    verdicts = _run(plan, only or CHECK_NAMES, quiet=as_json)
    passed = all(verdict.passed for verdict in verdicts)
    if as_json:
        rows = [_plain(verdict) for verdict in verdicts]
        document = {"recipe": name, "seed": plan.seed, "passed": passed, "verdicts": rows}
        click.echo(json.dumps(document, allow_nan=False))
    else:
        _print(name, verdicts)
    if not passed:
        raise SystemExit(1)


def _cross_validate(request: RecipeRequest, groups: int, as_json: bool) -> None:
    """Train and trade over all combinations of days; print what was found, and leave its page."""
    recipe, home = request.load(), request.home()
    import torch

    from cppncripto_strategy.checks.cross_page import write_cross_page
    from cppncripto_strategy.checks.cross_validation import cross_validate
    from cppncripto_strategy.evaluation.cross_paths import Folds
    from cppncripto_strategy.results import write_json

    torch.set_num_threads(1)
    with ProgressBars(as_json, transient=True) as bars:
        folds = Folds(groups, min(2, groups - 1))
        found = cross_validate(recipe, folds, bars.phase("cross-validating"))
    write_json(home.cross_validation.with_suffix(".json"), found.to_plain())
    write_cross_page(found, home.cross_validation)
    if as_json:
        click.echo(json.dumps(found.to_plain(), allow_nan=False))
        return
    console = Console(highlight=False)
    for sentence in found.words():
        console.print(sentence)
    console.print(f"  [dim]{home.cross_validation}[/]", soft_wrap=True)


def _plan(request: RecipeRequest) -> tuple[str, CheckPlan]:
    """The recipe's name, and the plan that checks it."""
    recipe = request.load()
    import torch

    from cppncripto_strategy.checks.plan import plan_of

    torch.set_num_threads(1)  # as the backtest does: small tensors, and the same bits every time
    return recipe.name, plan_of(recipe)


def _run(plan: CheckPlan, only: tuple[str, ...], quiet: bool) -> list[LeakVerdict]:
    """The verdicts, with a progress bar on the terminal's error stream."""
    from cppncripto_strategy.checks.suite import run_checks

    with ProgressBars(quiet, transient=True) as bars:
        return run_checks(plan, only, bars.phase("checking"))


def _plain(verdict: LeakVerdict) -> dict[str, object]:
    """A verdict as JSON knows it: a value that was undefined (NaN) becomes null."""
    value = verdict.first_offending_value
    return {
        "check": verdict.name,
        "subject": verdict.subject,
        "passed": verdict.passed,
        "detail": verdict.detail,
        "first_offending_time_ms": verdict.first_offending_time_ms,
        "first_offending_value": None if value is None or math.isnan(value) else value,
    }


def _print(name: str, verdicts: list[LeakVerdict]) -> None:
    """A table of verdicts, and the sum of them."""
    from rich.markup import escape
    from rich.table import Table

    from cppncripto_strategy.checks.suite import summary

    console = Console(highlight=False)
    table = Table("check", "verdict", "what was found", title=f"Leak checks of {name}", box=None)
    table.title_justify = "left"
    for verdict in verdicts:
        word = "[green]passed[/]" if verdict.passed else "[bold red]FAILED[/]"
        table.add_row(verdict.name, word, escape(verdict.detail))
    console.print(table)
    good = all(verdict.passed for verdict in verdicts)
    console.print(summary(verdicts), style="green" if good else "bold red")
