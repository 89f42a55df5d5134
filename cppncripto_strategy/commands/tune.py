"""`cppn-bt tune`: search for better settings, on one machine or many."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options
from cppncripto_strategy.commands._spread_options import spread_options
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.spreading.spread import Spread

if TYPE_CHECKING:
    from cppncripto_strategy.tuning.found import Found, Pulse
    from cppncripto_strategy.tuning.search import Where

EXAMPLES = """
\b
Examples:
  cppn-bt tune tune                        a planted market, a few minutes; again to resume
  cppn-bt tune my.toml space.toml          a recipe of your own, and what may vary
  cppn-bt tune my.toml space.toml --objective sharpe --objective drawdown
  cppn-bt tune my.toml space.toml --backend dask --scheduler tcp://10.0.0.5:8786
  cppn-bt tune my.toml space.toml --adopt 17
"""


class SearchProgress:
    """A bar over all trials: best so far, trials a minute, pruned share, time left."""

    def __init__(self, bars: ProgressBars) -> None:
        self._bars, self._bar = bars, bars.phase("searching")
        self._best: int | None = None

    def __call__(self, pulse: Pulse) -> None:
        """Show how the search gets on; a new best gets a line of its own."""
        parts = [f"{pulse.per_minute:.1f} trials/min"]
        if pulse.pruned:
            parts.append(f"{100 * pulse.pruned_share:.0f} % pruned")
        if pulse.failed:
            parts.append(f"{pulse.failed} failed")
        best = pulse.best
        if best is not None and best.values is not None:
            values = ", ".join(f"{value:.4g}" for value in best.values)
            parts.insert(0, f"best {values} (trial {best.number})")
            if best.number != self._best:
                self._best = best.number
                changes = ", ".join(f"{k} = {_short(v)}" for k, v in best.changes.items())
                self._bars.console.print(
                    f"trial {best.number}: [bold]{values}[/]  [dim]{changes}[/]",
                    highlight=False,
                    soft_wrap=True,
                )
        self._bar(pulse.done, pulse.total, "  ".join(parts))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command(name="tune", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed", "device")
@click.argument("space", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trials", type=click.IntRange(1), help="Candidates, instead of the recipe's.")
@click.option("--sampler", help="tpe, nsga3, random, grid or gp, instead of the recipe's.")
@click.option("--objective", multiple=True, help="Instead of the recipe's; may be repeated.")
@click.option("--pruner", help="halving, wilcoxon or none, instead of the recipe's.")
@click.option(
    "--storage",
    metavar="URL",
    help="Database of Optuna's, such as postgresql://user@host/name; default: a journal file.",
)
@spread_options("candidates are evaluated")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the study; default: tuning/ in the recipe's home.",
)
@click.option("--keep-sealed", is_flag=True, help="Leave the sealed days closed at the end.")
@click.option("--fresh", is_flag=True, help="Put the study aside that is there, and begin anew.")
@click.option(
    "--take-over", is_flag=True, help="Run again what machines that are gone left running."
)
@click.option("--adopt", type=click.IntRange(0), metavar="N", help="Write trial N's recipe, only.")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for --adopt; default: adopted-N.toml in the study's folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(
    request: RecipeRequest,
    space: Path | None,
    out: Path | None,
    adopt: int | None,
    to: Path | None,
    spread: Spread,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for better settings; the last days stay sealed until one is chosen.

    RECIPE is a TOML file, or the name of a shipped recipe. SPACE is a TOML file with the tables
    [space] and [search], where the recipe has none or others are wanted. Candidates are judged on
    inner windows of the traded span. A search that was stopped, in whatever way, resumes when the
    same command is given again; two at once share one study. Open tuning.html in its folder.
    """
    recipe, home = request.load(), request.home()
    folder = out or home.tuning
    from cppncripto_strategy.tuning.request import adopt as write_adopted
    from cppncripto_strategy.tuning.request import with_search

    if adopt is not None:
        path = write_adopted(recipe, folder, adopt, to or folder / f"adopted-{adopt}.toml")
        click.echo(path)
        return
    names = ("trials", "sampler", "pruner")
    changes = {name: options[name] for name in names} | {"objectives": options["objective"] or None}
    recipe = with_search(recipe, space, changes)
    found = _search(recipe, _where(home.path, folder, options["storage"], spread), options, as_json)
    if as_json:
        click.echo(json.dumps(found.summary(), allow_nan=False))
    else:
        _report(found, folder)
    if found.interrupted is not None:
        raise found.interrupted


def _where(home: Path, folder: Path, storage: str | None, spread: Spread) -> Where:
    if find_spec("optuna") is None:
        raise RecipeError("tune needs Optuna: pip install 'cppncripto-strategy[tune]'")
    from cppncripto_strategy.tuning.search import Where

    return Where(home, folder, storage, spread)


def _search(recipe: Any, where: Where, options: dict[str, Any], quiet: bool) -> Found:
    from cppncripto_strategy.tuning.search import tune

    flags = {name: options[name] for name in ("fresh", "take_over", "keep_sealed")}
    with ProgressBars(quiet, transient=True) as bars:
        return tune(recipe, where, SearchProgress(bars), **flags)


def _report(found: Found, folder: Path) -> None:
    """The chosen recipe beside the untuned one, what the sealed days said, and what to do next."""
    from rich.table import Table

    from cppncripto_strategy.tuning.words import compared, how_far, to_adopt

    console = Console(highlight=False)
    console.print(how_far(found), soft_wrap=True)
    best = found.best
    if best is not None:
        head, rows = compared(found)
        table = Table(*head, title=f"Trial {best.number}", title_justify="left", box=None)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for key, value in best.changes.items():
            console.print(f"  {key} = {_short(value)}", markup=False, soft_wrap=True)
    if found.sealed is not None:
        console.print(found.sealed.opening.sentence(), soft_wrap=True)
    if found.worth:
        console.print(found.worth["headline"], style="bold", markup=False, soft_wrap=True)
    console.print(f"  [dim]{folder / 'tuning.html'}[/]", soft_wrap=True)
    if best is not None:
        console.print(f"  [dim]{to_adopt(found)}[/]", soft_wrap=True)
