"""`cppn-bt run`: train both networks and backtest them out of sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EXAMPLES = """
\b
Examples:
  cppn-bt run                                      the demo: a planted market, no data needed
  cppn-bt run runs/real.toml --candles ~/candles   your candles, another folder
  cppn-bt run my.toml --symbols BTCUSDT,ETHUSDT --timerange 20240101-20240901
"""


class RunProgress:
    """One rich progress bar a phase, on stderr; shown only on a terminal or as plain lines."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[text]}"),
            console=console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, phase: str, done: int, total: int, text: str) -> None:
        """Show how far a phase is."""
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total, text=text)
        if text == "done":
            done = total = 1
        self._progress.update(self._tasks[phase], completed=done, total=total, text=text)


@click.command(name="run", epilog=EXAMPLES)
@click.argument("recipe", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--symbols", help="Comma-separated symbols instead of the recipe's.")
@click.option("--timerange", help="Candles to trade, such as 20240101-20240901 (end exclusive).")
@click.option(
    "--candles",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of candles: a candle store, or SYMBOL-5m.parquet files.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results go; default: beside the recipe.",
)
@click.option("--seed", type=int, help="Seed of everything random, instead of the recipe's.")
@click.option("--no-cache", is_flag=True, help="Train again, even where finished bundles exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as one JSON document.")
def command(
    recipe: Path | None,
    symbols: str | None,
    timerange: str | None,
    candles: Path | None,
    out: Path | None,
    seed: int | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Train both networks and backtest them out of sample.

    RECIPE is a TOML file; without one, the demo runs. Every candle that is traded lies after the
    last candle its networks were trained on. Results land in a folder of their own beside the
    recipe: open report.html and tearsheet.html there.
    """
    from cppncripto_strategy.backtest import run_backtest
    from cppncripto_strategy.paths import RecipeHome
    from cppncripto_strategy.recipe import load_recipe, shipped_recipe
    from cppncripto_strategy.reports.report import terminal_summary
    from cppncripto_strategy.results import to_plain

    path = recipe or shipped_recipe("demo")
    named = [name.strip().upper() for name in (symbols or "").split(",")]
    given = tuple(name for name in named if name) or None
    settings = load_recipe(path, symbols=given, timerange=timerange, seed=seed)
    if candles is not None:
        changed = settings.candles.model_copy(
            update={"source": "folder", "folder": candles.resolve()}
        )
        settings = settings.model_copy(update={"candles": changed})
    home = RecipeHome.of(path, shipped=recipe is None, out=out)
    cache = None if no_cache else home.bundles
    folder = home.claim_run()
    with RunProgress(Console(stderr=True)) as progress:
        result = run_backtest(settings, folder, cache, progress)
    if as_json:
        document = {"folder": str(folder), "planted": result.planted, **result.metrics}
        click.echo(json.dumps(to_plain(document), allow_nan=False))
        return
    console = Console()
    console.print(terminal_summary(result))
    for name in ("report.html", "tearsheet.html", "metrics.json"):
        place = f"  {folder / name}"
        console.print(place, style="dim", soft_wrap=True, highlight=False, markup=False)
