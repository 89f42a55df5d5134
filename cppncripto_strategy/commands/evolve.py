"""`cppn-bt evolve`: evolve the CPPN that paints MacroNet's kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options
from cppncripto_strategy.commands._spread_options import spread_options
from cppncripto_strategy.models.hyperneat.settings import (
    FITNESSES,
    SEARCHES,
    EvolutionSettings,
    NeatSettings,
)
from cppncripto_strategy.spreading.spread import Spread

if TYPE_CHECKING:
    from cppncripto_strategy.evolution.evolved import Evolved
    from cppncripto_strategy.models.hyperneat.evolution import Evolution, Generation

EXAMPLES = """
\b
Examples:
  cppn-bt evolve                                    the demo's planted market, under 3 minutes
  cppn-bt evolve my.toml --generations 40           a recipe of your own; run again to resume
  cppn-bt evolve my.toml --pick best                another point of the same front
  cppn-bt evolve my.toml --search neat --fresh      bred instead of drawn
  cppn-bt evolve my.toml --search map-elites --pick elites:4
  cppn-bt evolve my.toml --backend dask --scheduler tcp://10.0.0.5:8786
"""


DEFAULTS = EvolutionSettings()


class EvolutionProgress:
    """A bar over all genomes and one line per generation, on stderr."""

    def __init__(self, bars: ProgressBars) -> None:
        self._bars, self._bar = bars, bars.phase("evolving")
        self._done = self._total = self._generations = self._weights = 0
        self._text, self._species = "", True

    def begin(self, run: Evolution, pending: int) -> None:
        """Elites keep their scores, so a generation may be a little shorter than the population."""
        self._generations = run.settings.generations
        self._weights = run.substrate.weights
        self._species = run.settings.search == "neat"
        left = self._generations - run.generation - 1
        self._total = self._done + pending + left * run.settings.neat.population
        self._text = f"generation {run.generation + 1}/{self._generations}"
        self._bar(self._done, self._total, self._text)

    def scored(self) -> None:
        """One genome further."""
        self._done += 1
        self._bar(self._done, self._total, self._text)

    def end(self, line: Generation, seconds: float, scored: int) -> None:
        """Print the generation's line."""
        self._bars.console.print(
            f"{line.number + 1:>3}/{self._generations}"
            f"  best [bold]{line.best_fitness:.4f}[/]"
            f" (probe {line.best_probe:.4f}, {line.best_connections:,} of {self._weights:,}"
            f" connections)  median {line.median_fitness:.4f}"
            f"  {f'{line.species} species, ' if self._species else ''}{line.cells} kinds"
            f"  {scored / max(seconds, 1e-9):.1f} genomes/s",
            highlight=False,
            soft_wrap=True,
        )


@click.command(name="evolve", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed")
@click.option("--generations", type=click.IntRange(1), default=15, show_default=True)
@click.option("--population", type=click.IntRange(4), default=48, show_default=True)
@click.option(
    "--connection-cost",
    type=click.FloatRange(0),
    default=0.02,
    show_default=True,
    help="Fitness that expressing every connection costs.",
)
@click.option(
    "--search",
    type=click.Choice(SEARCHES),
    default=DEFAULTS.search,
    show_default=True,
    help="How genomes are found.",
)
@click.option(
    "--fitness",
    type=click.Choice(FITNESSES),
    default=DEFAULTS.fitness,
    show_default=True,
    help="What a genome is worth: its gain over HAR-X's terms, or R2 of the coming day's profile.",
)
@click.option("--locality", is_flag=True, help="Start with connections among near channels.")
@click.option(
    "--pick",
    default="knee",
    show_default=True,
    metavar="knee|best|N|elites:N",
    help="The champion: the front's knee, its best probe, its point with N connections, or the N"
    " fittest kinds side by side.",
)
@spread_options("genomes are evaluated")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the evolution; default: evolution/ in the recipe's home.",
)
@click.option("--fresh", is_flag=True, help="Start again, even where a checkpoint exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(request: RecipeRequest, spread: Spread, **values: Any) -> None:
    """Evolve the CPPN that paints MacroNet's kernels.

    RECIPE is a TOML file, or the name of a shipped recipe; without one, the demo. Genomes are
    judged on the days that the recipe's first MacroNet learns from, and on none later. A run that
    was stopped, in whatever way, resumes when the same command is given again. Open evolution.html
    in its folder.
    """
    recipe = request.load()
    from cppncripto_strategy.evolution.search import evolve, summary

    settings = EvolutionSettings(
        generations=values["generations"],
        search=values["search"],
        fitness=values["fitness"],
        seed=recipe.seed,
        connection_cost=values["connection_cost"],
        neat=NeatSettings(population=values["population"], locality=values["locality"]),
    )
    folder = values["out"] or request.home().evolution
    with ProgressBars(quiet=values["as_json"]) as bars:
        watcher = EvolutionProgress(bars)
        result = evolve(recipe, settings, folder, spread, values["pick"], values["fresh"], watcher)
    if values["as_json"]:
        click.echo(json.dumps(summary(result, folder)))
    else:
        _report(result, folder)


def _report(result: Evolved, folder: Path) -> None:
    """The champion, the front and what to do next."""
    from rich.table import Table

    from cppncripto_strategy.evolution.page import recipe_lines

    console = Console(highlight=False)
    run = result.run
    table = Table(title="Front", title_justify="left", box=None)
    for name in ("", "connections", "probe", "hidden nodes", "generation"):
        table.add_column(name, justify="right")
    for index, point in enumerate(run.front):
        mark = "champion" if index == result.index else ""
        numbers = f"{point.score.connections:,}", f"{point.score.probe:.4f}"
        table.add_row(mark, *numbers, str(point.genome.hidden), str(point.generation + 1))
    console.print(table)
    done = f"{result.genomes} genomes in {result.seconds:.0f} s"
    console.print(done if result.genomes else "this evolution had finished; nothing was evaluated")
    for name in ("evolution.html", "champion.json"):
        console.print(f"  [dim]{folder / name}[/]", soft_wrap=True)
    console.print("To trade with it:", soft_wrap=True)
    console.print(recipe_lines(folder / "champion.json"), markup=False, soft_wrap=True)
