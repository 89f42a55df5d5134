"""`cppn-bt experiment`: the four experiments and the transfer table, on your own recipe."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cppncripto_strategy.experiments.page import Findings
    from cppncripto_strategy.experiments.runner import RecipeRunner
    from cppncripto_strategy.paths import RecipeHome
    from cppncripto_strategy.recipe import Recipe

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
"""


@click.command(name="experiment", epilog=EPILOG)
@click.argument("name", type=click.Choice([*NAMES, "all", "transfer"]))
@click.argument("recipe", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many seeds every arm is run under.",
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The first of them.",
)
@click.option("--symbols", help="Comma-separated symbols instead of the recipe's.")
@click.option("--timerange", help="Candles to trade, such as 20240101-20240901 (end exclusive).")
@click.option(
    "--candles",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Candle store, or folder of SYMBOL-5m files, instead of the recipe's.",
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
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
def command(
    name: str,
    recipe: Path | None,
    seeds: int,
    first_seed: int,
    symbols: str | None,
    timerange: str | None,
    candles: Path | None,
    out: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Run an experiment: the recipe with one setting changed, same candles, several seeds.

    RECIPE is a TOML file; without one, the demo. A finished cell (arm and seed) is kept, so an
    experiment that was stopped goes on where it was when started again. Leaves one page per
    experiment and results.parquet with every cell.
    """
    from cppncripto_strategy.experiments.runner import RecipeRunner

    settings, home = _recipe(recipe, symbols, timerange, candles)
    folder = out or home.experiments
    runner = RecipeRunner(settings, home.bundles)
    console = Console(stderr=True, quiet=as_json)
    if name == "transfer":
        _transfer(runner, folder, markdown, as_json, console)
        return
    chosen = NAMES if name == "all" else (name,)
    numbers = list(range(first_seed, first_seed + seeds))
    found = [_run(runner, one, numbers, folder, console) for one in chosen]
    _report(found, folder, markdown, as_json)


def _recipe(
    path: Path | None,
    symbols: str | None,
    timerange: str | None,
    candles: Path | None,
) -> tuple[Recipe, RecipeHome]:
    """The recipe with the command line's changes, and its home."""
    from cppncripto_strategy.paths import RecipeHome
    from cppncripto_strategy.recipe import load_recipe, shipped_recipe

    source = path or shipped_recipe("demo")
    given = tuple(name.strip().upper() for name in symbols.split(",")) if symbols else None
    recipe = load_recipe(source, symbols=given, timerange=timerange)
    if candles is not None:
        changed = recipe.candles.model_copy(update={"source": "folder", "folder": candles})
        recipe = recipe.model_copy(update={"candles": changed})
    return recipe, RecipeHome.of(source, shipped=path is None)


def _run(
    runner: RecipeRunner, name: str, seeds: list[int], folder: Path, console: Console
) -> Findings:
    from cppncripto_strategy.experiments.arms import build_experiment
    from cppncripto_strategy.experiments.cells import run_experiment

    experiment = build_experiment(name, runner.recipe)
    about = runner.about(_command_line(), seeds) | {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    with _bar(console) as progress:
        return run_experiment(
            experiment, seeds, folder, runner, runner.identity, about, runner.notes(), progress
        )


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on the error stream; yields what moves it: (done, total, text)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading candles", total=None)

        def move(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total, description=text)

        yield move


def _command_line() -> str:
    return shlex.join(["cppn-bt", *sys.argv[1:]])


def _report(found: list[Findings], folder: Path, markdown: Path | None, as_json: bool) -> None:
    from cppncripto_strategy.experiments.cells import summary
    from cppncripto_strategy.experiments.page import markdown as to_markdown
    from cppncripto_strategy.experiments.page import terminal_table
    from cppncripto_strategy.results import write_text

    if markdown is not None:
        write_text(markdown, "\n".join(to_markdown(findings) for findings in found))
    if as_json:
        click.echo(json.dumps([summary(findings) for findings in found], allow_nan=False))
        return
    console = Console(highlight=False)
    for findings in found:
        console.print(terminal_table(findings))
        console.print(f"  [dim]{folder / findings.name}.html[/]\n", soft_wrap=True)
    console.print(f"  [dim]{folder / 'results.parquet'}[/]", soft_wrap=True)


def _transfer(
    runner: RecipeRunner, folder: Path, markdown: Path | None, as_json: bool, console: Console
) -> None:
    from cppncripto_strategy.experiments.page import markdown_table
    from cppncripto_strategy.experiments.transfer import readable, write_transfer_page
    from cppncripto_strategy.results import to_plain, write_table, write_text

    with _bar(console) as progress:
        table = runner.transfer(progress)
    about: dict[str, Any] = runner.about(_command_line(), [runner.recipe.seed])
    write_table(table, folder / "transfer.parquet")
    write_transfer_page(table, folder / "transfer.html", about)
    head, rows = readable(table)
    if markdown is not None:
        write_text(markdown, "\n".join(["## Transfer", "", *markdown_table(head, rows), ""]))
    if as_json:
        click.echo(json.dumps(to_plain(table.to_dict("records")), allow_nan=False))
        return
    from rich.table import Table

    shown = Table(*head, box=None, title="Transfer between symbols", title_justify="left")
    for row in rows:
        shown.add_row(*row)
    printed = Console(highlight=False)
    printed.print(shown)
    printed.print(f"  [dim]{folder / 'transfer.html'}[/]", soft_wrap=True)
