"""`cppn-bt`: the command line. Sub-commands are imported only when asked for: `--help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click
from rich.console import Console
from rich.markup import escape

from cppncripto_strategy import __version__
from cppncripto_strategy.errors import CppnError

# Name -> (module of the click command, one line of help shown by `cppn-bt --help`).
COMMANDS: dict[str, tuple[str, str]] = {
    "run": (
        "cppncripto_strategy.commands.run",
        "Train both networks and backtest them out of sample.",
    ),
    "evolve": (
        "cppncripto_strategy.commands.evolve",
        "Evolve the CPPN that paints MacroNet's kernels.",
    ),
    "fetch": (
        "cppncripto_strategy.commands.fetch",
        "Fetch Binance history: checked, resumable, every hole named.",
    ),
    "data": (
        "cppncripto_strategy.commands.data",
        "Import, list, verify, mend and draw the candle store.",
    ),
    "exchange": (
        "cppncripto_strategy.commands.exchange",
        "Serve a loopback Binance on this machine, at any speed.",
    ),
    "check": (
        "cppncripto_strategy.commands.check",
        "Look for the future in a recipe's past: seven leak checks.",
    ),
    "embed": (
        "cppncripto_strategy.commands.embed",
        "Write the embedding of every day to Parquet, and judge it.",
    ),
    "days": (
        "cppncripto_strategy.commands.days",
        "List the past days most like a day, and what followed.",
    ),
    "experiment": (
        "cppncripto_strategy.commands.experiment",
        "Compare arms of a recipe: macro, objective, window, threshold, transfer.",
    ),
    "paper": (
        "cppncripto_strategy.commands.paper",
        "Trade live candles on paper; --demo does it offline, at speed.",
    ),
    "parity": (
        "cppncripto_strategy.commands.parity",
        "Replay a paper session and compare it bar by bar.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint} There are: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `cppn-bt run`: the demo on a planted market, with no network and no data.",
)
@click.version_option(__version__, prog_name="cppn-bt")
def cli() -> None:
    """Two networks on two clocks trade Binance spot candles in Backtrader.

    MacroNet reads the last days once a day; MicroNet reads the last hours at every candle.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: our own errors become one red line and exit status 1."""
    # Before anything loads numpy: its small decompositions are slower on two threads than on one.
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(library, "1")
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="cppn-bt")
    except CppnError as error:
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
