"""The sub-commands of cppn-bt, one file each (`listing` aside), and the table of all that exist.

A command of a user's own is a click command that a plugin file (`cppn-bt --plugin mine.py NAME`) or
an installed package (entry points of the group below) offers under a new name. Commands are
imported when they are asked for: listing them runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cppncripto_strategy.registry import Registry

if TYPE_CHECKING:
    import click

# Name -> one line of help, in the order of `cppn-bt --help`.
SHORT_HELP = {
    "init": "Write a first recipe for your symbols, and say what comes next.",
    "doctor": "Check the installation, and say what to do.",
    "run": "Train both networks and backtest them out of sample.",
    "tune": "Search for better settings; the last days stay sealed until one is chosen.",
    "evolve": "Evolve the CPPN that generates MacroNet's kernels.",
    "fetch": "Fetch Binance history: checked, resumable, every gap named.",
    "data": "Import, list, verify, repair and draw the candle store.",
    "exchange": "Serve a loopback Binance on this machine, at any speed.",
    "check": "Look for the future in a recipe's past: eight leak checks.",
    "embed": "Write the embedding of every day to Parquet, and judge it.",
    "days": "List the past days most like a day, and what followed.",
    "forecast": "Forecast a symbol's coming day: volatility and range, with intervals.",
    "experiment": "Compare arms of a recipe: macro, objective, window, threshold, transfer.",
    "paper": "Trade live candles on paper; --demo does it offline, at speed.",
    "desk": "Look at sessions, runs and data in a browser, read-only; with an API.",
    "alerts": "Check who is notified of what happens to sessions; --test tries it.",
    "crosscheck": "Rebuild a run's accounts with a second engine, vectorbt, and compare.",
    "parity": "Replay a paper session and compare it bar by bar.",
}
COMMANDS: Registry[click.Command] = Registry(
    "command",
    "cppncripto_strategy.commands",
    {name: f"cppncripto_strategy.commands.{name}:command" for name in SHORT_HELP},
)
