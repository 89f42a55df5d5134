"""`cppn-bt init`: a first recipe of one's own, and the three commands that come next."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import click

EXAMPLES = """
\b
Examples:
  cppn-bt init                                    recipe.toml in this folder, for BTCUSDT
  cppn-bt init trading --symbols BTCUSDT,ETHUSDT
  cppn-bt init trading --symbols SOLUSDT --interval 15m
"""


@click.command(epilog=EXAMPLES)
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--symbols", default="BTCUSDT", show_default=True, help="BTCUSDT,ETHUSDT.")
@click.option(
    "--interval", default="5m", show_default=True, help="Length of a candle, from 1m to 15m."
)
@click.option("--force", is_flag=True, help="Replace a recipe.toml that is there.")
def command(folder: Path, symbols: str, interval: str, force: bool) -> None:
    """Write a commented recipe for your symbols into FOLDER, and say what to do next.

    Nothing is fetched and nothing is trained yet. The traded span is the six whole months before
    this one; what is learned from lies before it.
    """
    from cppncripto_strategy.errors import RecipeError
    from cppncripto_strategy.foreign import writing
    from cppncripto_strategy.new_recipe import fetch_from, recipe_text
    from cppncripto_strategy.results import write_text

    names = tuple(name for part in symbols.split(",") if (name := part.strip().upper()))
    if not names:
        raise click.UsageError("--symbols names none: give one or more, such as BTCUSDT,ETHUSDT")
    today = datetime.now(UTC).date()
    text = recipe_text(names, interval, today)
    path = folder / "recipe.toml"
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already: choose another folder, or give --force")
    with writing(folder, RecipeError):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    store, recipe = shlex.quote(str(folder / "candles")), shlex.quote(str(path))
    click.echo(f"wrote {path}; next:")
    first = fetch_from(today)
    click.echo(f"  cppn-bt fetch {' '.join(names)} --interval {interval} --from {first}"
               f" --store {store}")  # fmt: skip
    click.echo(f"  cppn-bt run {recipe}")
    click.echo(f"  cppn-bt paper {recipe}")
