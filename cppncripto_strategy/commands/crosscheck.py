"""`cppn-bt crosscheck`: a second engine, vectorbt, over every account of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options

if TYPE_CHECKING:
    from cppncripto_strategy.crosscheck.record import AccountCheck

SHOWN = 20
EXAMPLES = """
\b
Examples:
  cppn-bt crosscheck runs/demo/20261127T103000Z    a finished run
  cppn-bt crosscheck demo                          run the demo, then check it
  cppn-bt crosscheck my.toml --timerange 20240101-20240401 --json
  cppn-bt crosscheck paper/demo                    a paper session, up to now
"""


@click.command(name="crosscheck", epilog=EXAMPLES)
@recipe_options("symbols", "timerange", "candles", "seed")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def command(request: RecipeRequest, as_json: bool) -> None:
    """Rebuild a run's accounts with a second engine, vectorbt, and compare.

    RECIPE is the folder of a finished run or of a paper session; or a recipe, which is run first
    (a file, or the name of a shipped one; without one, the demo). Orders are derived again from
    scores, thresholds, candles, exchange rules and account settings, and executed by vectorbt:
    with the embedding, without it, and under the other rule about evidence. Writes vectorbt.html
    into the folder. Exits with 1 on any difference, and names the first. Needs the extra
    `vectorbt`.
    """
    from cppncripto_strategy.crosscheck.portfolio import PAGE, require_installed

    require_installed()
    folder, checks = _checked(request, as_json)
    from cppncripto_strategy.crosscheck.page import write_check

    write_check(checks, folder / PAGE, folder.name)
    same = all(check.same for check in checks)
    if as_json:
        accounts = [check.to_plain() for check in checks]
        click.echo(json.dumps({"folder": str(folder), "same": same, "accounts": accounts}))
    else:
        _show(folder, checks, folder / PAGE)
    sys.exit(0 if same else 1)


def _checked(request: RecipeRequest, quiet: bool) -> tuple[Path, list[AccountCheck]]:
    """The folder and its accounts; a recipe is run into a new one."""
    from cppncripto_strategy.crosscheck.run import check_run
    from cppncripto_strategy.results import MANIFEST_FILE

    named = Path(request.recipe or "")
    with ProgressBars(quiet, transient=True) as bars:
        if named.is_dir() and (named / "session.json").is_file():
            from cppncripto_strategy.paper.day_crosscheck import check_session

            return named, [check_session(named)]
        if named.is_dir() and (named / MANIFEST_FILE).is_file():
            return named, check_run(named, bars.phase("cross-check"))
        recipe = request.load()
        from cppncripto_strategy.backtest import run_backtest

        home = request.home()
        folder = home.claim_run()
        run_backtest(recipe, folder, home.bundles, bars)
        return folder, check_run(folder, bars.phase("cross-check"))


def _show(folder: Path, checks: list[AccountCheck], page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from cppncripto_strategy.crosscheck.page import LABELS, shown_side, verdict

    console = Console(highlight=False)
    table = Table("account", "", "reported", "vectorbt", title=f"Cross-check of {folder}")
    for check in checks:
        for name, values in check.sides.items():
            sides = (shown_side(name, value) for value in values)
            table.add_row(check.name, LABELS[name], *sides)
    console.print(table)
    for check in checks:
        counts = ", ".join(f"{count:,} {what}" for what, count in check.compared.items())
        console.print(f"{check.name}: {counts}", markup=False)
        for difference in check.differences[:SHOWN]:
            console.print(f"  {difference}", style="red", markup=False)
        if len(check.differences) > SHOWN:
            console.print(f"  and {len(check.differences) - SHOWN:,} more", style="red")
    same = all(check.same for check in checks)
    console.print(verdict(checks), style="green" if same else "bold red", markup=False)
    console.print(f"  {page}", style="dim", soft_wrap=True, markup=False)
