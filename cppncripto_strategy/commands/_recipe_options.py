"""The recipe that a command is asked to run: its argument, its options, and how it is read.

Nothing here imports torch, so that a mistake in a recipe is reported at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cppncripto_strategy.paths import CANDLES, RecipeFile, RecipeHome

if TYPE_CHECKING:
    from cppncripto_strategy.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = {
    "symbols": click.option("--symbols", help="BTCUSDT,ETHUSDT instead of the recipe's."),
    "timerange": click.option(
        "--timerange",
        help="Candles to trade, such as 20240101-20240901 (end exclusive), instead of the"
        " recipe's.",
    ),
    "candles": click.option(
        "--candles",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Candle store, or folder of SYMBOL-5m.parquet files, instead of the recipe's.",
    ),
    "seed": click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        help="Seed of every draw, instead of the recipe's.",
    ),
    "device": click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        help="Where networks learn and score in a backtest, instead of the recipe's.",
    ),
}


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """The recipe a person named, and what they changed of it on the command line.

    Parameters
    ----------
    recipe : a file, or the name of a shipped recipe; None is the demo.
    symbols, timerange, candles, seed, device : replacements; None keeps the recipe's.
    """

    recipe: str | None = None
    symbols: str | None = None
    timerange: str | None = None
    candles: Path | None = None
    seed: int | None = None
    device: str | None = None

    def file(self) -> RecipeFile:
        """Where the recipe lies. Raises RecipeError when there is none."""
        return RecipeFile.find(self.recipe or "demo")

    def home(self, out: Path | None = None) -> RecipeHome:
        """Where everything made from the recipe lies; `out` is what `run --out` was given."""
        file = self.file()
        return RecipeHome.of(file.path, file.shipped, out)

    def load(self) -> Recipe:
        """The recipe with its replacements.

        A shipped recipe that reads a folder reads `candles/` of the current folder.

        Raises
        ------
        RecipeError
            When it is not there, or has an unknown or impossible setting.
        """
        from cppncripto_strategy.recipe import load_recipe

        file = self.file()
        names = [name.strip().upper() for name in (self.symbols or "").split(",")]
        symbols = tuple(name for name in names if name) or None
        changes = {"timerange": self.timerange, "seed": self.seed, "device": self.device}
        recipe = load_recipe(file.path, symbols=symbols, **changes)
        folder = self.candles
        if folder is None and file.shipped and recipe.candles.source == "folder":
            folder = CANDLES
        if folder is None:
            return recipe
        lying = {"source": "folder", "folder": folder.resolve()}
        return recipe.model_copy(update={"candles": recipe.candles.model_copy(update=lying)})


def recipe_options(*names: str) -> Callable[[Command], Command]:
    """The argument RECIPE and the options of these names, handed over as `request`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def inner(**values: Any) -> Any:
            known = {f.name: values.pop(f.name) for f in fields(RecipeRequest) if f.name in values}
            return command(request=RecipeRequest(**known), **values)

        wrapped: Any = inner
        for name in reversed(names):
            wrapped = _OPTIONS[name](wrapped)
        decorated: Command = click.argument("recipe", required=False)(wrapped)
        return decorated

    return decorate
