"""The last lines of a run: what to look at, and what to try next."""

from __future__ import annotations

import shlex
from pathlib import Path

PAGES = {
    "report.html": "verdict, accounts, signals: in a browser",
    "tearsheet.html": "daily returns, in a browser",
    "metrics.json": "every number",
}


def where_to_look(folder: Path) -> list[tuple[str, str]]:
    """(path, what it shows) of the files that a person begins with."""
    return [(str(folder / name), words) for name, words in PAGES.items()]


def what_to_try(recipe: str, candles: Path | None, planted: bool) -> list[tuple[str, str]]:
    """(command line, what it does) of three commands that lead on from a run.

    Parameters
    ----------
    recipe : as it was named on the command line.
    candles : the folder that took the place of the recipe's, or None.
    planted : whether the market was made up: then the next step is one's own symbols.
    """
    if planted:
        return [
            (
                "cppn-bt init trading --symbols BTCUSDT",
                "real candles: a recipe, and what is next",
            ),
            ("cppn-bt paper --demo", "the same code, live on paper, offline"),
            (f"cppn-bt check {shlex.quote(recipe)}", "does the past know the future?"),
        ]
    named = shlex.quote(recipe) + (f" --candles {shlex.quote(str(candles))}" if candles else "")
    return [
        (f"cppn-bt check {named}", "does the past know the future?"),
        (f"cppn-bt experiment e1 {named}", "is it luck? with and without macro, several seeds"),
        (f"cppn-bt paper {named}", "trade live candles on paper with the same code"),
    ]
