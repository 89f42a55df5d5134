"""`cppn-bt run`: train both networks and backtest them out of sample."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from cppncripto_strategy.commands._jobs import jobs_option
from cppncripto_strategy.commands._next_steps import what_to_try, where_to_look
from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options

EXAMPLES = """
\b
Examples:
  cppn-bt run                                      the demo: a planted market, no data needed
  cppn-bt run planted                              another recipe that is shipped
  cppn-bt run real --candles ~/candles             the recipe for real candles, on yours
  cppn-bt run my.toml --symbols BTCUSDT,ETHUSDT --timerange 20240101-20240901
  cppn-bt run my.toml --device auto                learn and score on an accelerator, if any
"""


@click.command(name="run", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed", "device")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the recipe's home goes; default: beside the recipe.",
)
@click.option("--no-cache", is_flag=True, help="Train again, even where finished bundles exist.")
@jobs_option
@click.option(
    "--plain-loop",
    is_flag=True,
    help="Take every candle in the backtest, also where nothing can happen: the same results.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as one JSON document.")
def command(
    request: RecipeRequest,
    out: Path | None,
    no_cache: bool,
    jobs: int,
    plain_loop: bool,
    as_json: bool,
) -> None:
    """Train both networks and backtest them out of sample.

    RECIPE is a TOML file, or the name of a shipped recipe; without one, the demo runs. Every candle
    that is traded lies after the last candle its networks were trained on. Results land in a folder
    of their own in the recipe's home, a folder named for it and beside it: open report.html and
    tearsheet.html there.
    """
    settings = request.load()
    from cppncripto_strategy.backtest import run_backtest
    from cppncripto_strategy.reports.terminal import terminal_summary
    from cppncripto_strategy.results import to_plain

    home = request.home(out)
    cache = None if no_cache else home.bundles
    folder = home.claim_run()
    with ProgressBars() as progress:
        result = run_backtest(settings, folder, cache, progress, plain_loop, jobs)
    if as_json:
        document = {"folder": str(folder), "planted": result.planted, **result.metrics}
        click.echo(json.dumps(to_plain(document), allow_nan=False))
        return
    console = Console()
    console.print(terminal_summary(result))
    _print_lines(console, "Look at", where_to_look(folder))
    planted = settings.candles.source == "planted"
    steps = what_to_try(request.recipe or "demo", request.candles, planted)
    _print_lines(console, "Try next", steps)


def _print_lines(console: Console, title: str, lines: list[tuple[str, str]]) -> None:
    """A title, and two columns below it; a path is never broken in two."""
    console.print(f"\n{title}", style="bold")
    width = max(len(first) for first, _ in lines)
    for first, words in lines:
        console.print(f"  {first:{width}}  {words}", soft_wrap=True, highlight=False, markup=False)
