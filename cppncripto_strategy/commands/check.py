"""`cppn-bt check`: the leak checks of a recipe, each with a verdict."""

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
"""


@click.command(name="check", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(CHECK_NAMES),
    help="Run this check alone; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(request: RecipeRequest, only: tuple[str, ...], as_json: bool) -> None:
    """Look for the future in a recipe's past: eight leak checks, each with a verdict.

    RECIPE is a TOML file, or the name of a shipped recipe; without one, the demo. Briefly trains
    the recipe's networks on its own candles and on planted markets. The exit status is 1 when a
    check fails.
    """
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
