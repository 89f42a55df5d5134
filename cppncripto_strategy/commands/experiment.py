"""`cppn-bt experiment`: the four experiments and the transfer table, on your own recipe."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options
from cppncripto_strategy.commands._spread_options import spread_options
from cppncripto_strategy.spreading.spread import Spread

if TYPE_CHECKING:
    from cppncripto_strategy.experiments.page import Findings
    from cppncripto_strategy.experiments.runner import RecipeRunner

NAMES = ("e1", "e2", "e3", "e4")

EPILOG = """
\b
  e1        macro against no macro
  e2        contrast, autoencoder, masked patches: which pretraining
  e3        short window of 2, 5 and 10 hours
  e4        static against adaptive threshold
  all       e1 to e4
  transfer  score each symbol with networks that never saw it

\b
Examples:
  cppn-bt experiment e1                                  on the planted demo market
  cppn-bt experiment all runs/real.toml --candles ~/candles --seeds 3
  cppn-bt experiment e1 my.toml --backend dask --scheduler tcp://10.0.0.5:8786
"""


@click.command(name="experiment", epilog=EPILOG)
@click.argument("name", type=click.Choice([*NAMES, "all", "transfer"]))
@recipe_options("symbols", "timerange", "candles", "device")
@click.option(
    "--seeds",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="How many seeds every arm is run under.",
)
@click.option(
    "--first-seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="The first of them.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results go; default: experiments/ in the recipe's home.",
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the tables as Markdown, too.",
)
@spread_options("cells are run", "--jobs")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
def command(
    name: str,
    request: RecipeRequest,
    seeds: int,
    first_seed: int,
    out: Path | None,
    markdown: Path | None,
    spread: Spread,
    as_json: bool,
) -> None:
    """Run an experiment: the recipe with one setting changed, same candles, several seeds.

    RECIPE is a TOML file, or the name of a shipped recipe; without one, the demo. A finished cell
    (arm and seed) is kept, so an experiment that was stopped resumes when started again. Leaves one
    page per experiment and results.parquet with every cell.
    """
    settings, home = request.load(), request.home()
    from cppncripto_strategy.experiments.runner import RecipeRunner

    folder = out or home.experiments
    runner = RecipeRunner(settings, home.bundles)
    if name == "transfer":
        if not spread.here:
            raise click.UsageError("transfer trains in this process: --backend is for e1 to e4")
        _transfer(runner, folder, markdown, as_json)
        return
    chosen = NAMES if name == "all" else (name,)
    numbers = list(range(first_seed, first_seed + seeds))
    results = [_run(runner, name, numbers, folder, spread, as_json) for name in chosen]
    _report(results, folder, markdown, as_json)


def _run(
    runner: RecipeRunner, name: str, seeds: list[int], folder: Path, spread: Spread, quiet: bool
) -> Findings:
    from cppncripto_strategy.experiments.arms import build_experiment
    from cppncripto_strategy.experiments.beside import run_cells_beside
    from cppncripto_strategy.experiments.experiment import run_experiment

    experiment = build_experiment(name, runner.recipe)
    runner.check(experiment.arms)
    about = runner.about(_command_line(), seeds) | {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    with ProgressBars(quiet, transient=True) as bars:
        run_cells_beside(runner, experiment, seeds, folder, spread, bars)
        return run_experiment(
            experiment,
            seeds,
            folder,
            runner,
            runner.identity,
            about,
            runner.notes(),
            bars.phase(experiment.name),
        )


def _command_line() -> str:
    return shlex.join(["cppn-bt", *sys.argv[1:]])


def _report(results: list[Findings], folder: Path, markdown: Path | None, as_json: bool) -> None:
    from cppncripto_strategy.experiments.experiment import summary
    from cppncripto_strategy.experiments.page import markdown as to_markdown
    from cppncripto_strategy.experiments.page import terminal_table
    from cppncripto_strategy.results import write_text

    if markdown is not None:
        write_text(markdown, "\n".join(to_markdown(findings) for findings in results))
    if as_json:
        click.echo(json.dumps([summary(findings) for findings in results], allow_nan=False))
        return
    console = Console(highlight=False)
    for findings in results:
        console.print(terminal_table(findings))
        console.print(f"  [dim]{folder / findings.name}.html[/]\n", soft_wrap=True)
    console.print(f"  [dim]{folder / 'results.parquet'}[/]", soft_wrap=True)


def _transfer(runner: RecipeRunner, folder: Path, markdown: Path | None, as_json: bool) -> None:
    from cppncripto_strategy.errors import SourceError
    from cppncripto_strategy.experiments.page import markdown_table
    from cppncripto_strategy.experiments.transfer import (
        readable,
        recipe_transfer,
        write_transfer_page,
    )
    from cppncripto_strategy.locks import LOCK_FILE, FileLock
    from cppncripto_strategy.results import write_table, write_text

    advice = "wait for it to end, or give this one another --out"
    path, name = folder / f".transfer{LOCK_FILE}", f"the experiment transfer in {folder}"
    click.get_current_context().with_resource(FileLock.take(path, name, SourceError, advice))
    with ProgressBars(as_json, transient=True) as bars:
        found = recipe_transfer(runner, bars.phase("transfer"))
    about: dict[str, Any] = runner.about(_command_line(), [runner.recipe.seed])
    write_table(found.table, folder / "transfer.parquet")
    write_transfer_page(found, folder / "transfer.html", about)
    head, rows = readable(found.table)
    words = found.family.words()
    if markdown is not None:
        said = [f"- {sentence}" for sentence in words]
        lines = ["## Transfer", "", *said, "", *markdown_table(head, rows), ""]
        write_text(markdown, "\n".join(lines))
    if as_json:
        click.echo(json.dumps(found.to_plain(), allow_nan=False))
        return
    from rich.table import Table

    shown = Table(*head, box=None, title="Transfer between symbols", title_justify="left")
    for row in rows:
        shown.add_row(*row)
    printed = Console(highlight=False)
    printed.print(shown)
    for sentence in words:
        printed.print(f"  {sentence}")
    printed.print(f"  [dim]{folder / 'transfer.html'}[/]", soft_wrap=True)
