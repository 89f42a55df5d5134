"""`cppn-bt`: the command line. Sub-commands are imported only when asked for: `--help` is quick."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape

from cppncripto_strategy import __version__
from cppncripto_strategy.commands import COMMANDS
from cppncripto_strategy.errors import CppnError, RecipeError
from cppncripto_strategy.plugins import load_plugins
from cppncripto_strategy.spreading.spread import ALGEBRA_THREADS
from cppncripto_strategy.stopping import Stopped, stops_cleanly

_DEBUG = ContextVar("debug", default=False)
"""Whether errors show where they were raised; lives as long as one command."""


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS.names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS.names():
            return None
        command: object = COMMANDS.get(cmd_name)
        if not isinstance(command, click.Command):
            raise RecipeError(
                f"command {cmd_name!r} of {COMMANDS.origin(cmd_name).name} is no click command:"
                " put @click.command() under @COMMANDS.register(...)"
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = COMMANDS.names()
        if args and args[0] not in names and not args[0].startswith("-"):
            close = get_close_matches(args[0], names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint} There are: {', '.join(names)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from cppncripto_strategy.commands.listing import short_help

        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help(name)) for name in COMMANDS.names()])


def _load_plugins(_: click.Context, __: click.Parameter, paths: tuple[Path, ...]) -> None:
    load_plugins(paths)


def _set_debug(_: click.Context, __: click.Parameter, debug: bool) -> None:
    _DEBUG.set(debug)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `cppn-bt run`: the demo on a planted market, with no network and no data.",
)
@click.version_option(__version__, prog_name="cppn-bt")
@click.option(
    "--plugin",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load_plugins,
    type=click.Path(path_type=Path),
    help="Python file that adds commands, report sections, ...; may be repeated.",
)
@click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show where an error was raised.",
)
def cli() -> None:
    """Two networks on two clocks trade Binance spot candles in Backtrader.

    MacroNet reads the last days once a day; MicroNet reads the last hours at every candle.
    """


class _Warnings(logging.Handler):
    """Shows what the package warns of, on stderr; a run's own log file has it, too."""

    def emit(self, record: logging.LogRecord) -> None:
        console = Console(stderr=True, highlight=False)
        console.print(f"[yellow]warning:[/] {escape(record.getMessage())}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors become one red line and exit status 1; signals one sentence."""
    handler = _Warnings(logging.WARNING)
    _DEBUG.set(False)
    logging.getLogger("cppncripto_strategy").addHandler(handler)
    try:
        with stops_cleanly():
            _main(arguments)
    finally:
        logging.getLogger("cppncripto_strategy").removeHandler(handler)


def _main(arguments: Sequence[str] | None) -> None:
    # Before anything loads numpy: its small decompositions are slower on two threads than on one.
    for library in ALGEBRA_THREADS:
        os.environ.setdefault(library, "1")
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="cppn-bt",
            standalone_mode=False,
        )
    except click.exceptions.Abort as abort:
        if isinstance(abort.__cause__, Stopped):
            raise abort.__cause__ from None
        _fail("the input ended before the answer")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CppnError as error:
        _fail(str(error), error)
    except OSError as error:  # a full disk, a folder in the way: not ours, and no traceback either
        reason = error.strerror or str(error)
        _fail(reason if error.filename is None else f"{error.filename}: {reason}", error)
    except MemoryError as error:
        _fail("there is not enough memory: close other programs, or take fewer symbols", error)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error}. {_A_FAULT}", error)
    sys.exit(status if isinstance(status, int) else 0)


_A_FAULT = (
    "This is a fault of the program, not of yours: run the same command as `cppn-bt --debug ...`"
    " and report what it shows"
)


def _fail(reason: str, error: BaseException | None = None) -> NoReturn:
    """Say what went wrong in one line and end with status 1; with --debug, where it was raised."""
    if error is not None and _DEBUG.get():
        traceback.print_exception(error)
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(reason)}", soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
