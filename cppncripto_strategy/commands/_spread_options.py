"""`--backend`, `--workers`, `--scheduler`: where a command's work is done."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from cppncripto_strategy.spreading.spread import BACKENDS, Spread

Command = Callable[..., Any]


def spread_options(what: str, *also: str) -> Callable[[Command], Command]:
    """The options, handed over as `spread`.

    Parameters
    ----------
    what : what is done there, as the help says it: "Where candidates are evaluated."
    also : other names of --workers.
    """
    decorators = (
        click.option(
            "--backend",
            type=click.Choice(BACKENDS),
            default="processes",
            show_default=True,
            help=f"Where {what}.",
        ),
        click.option(
            "--workers",
            *also,
            "workers",
            type=click.IntRange(0),
            default=0,
            help="At most so many at a time. Default: one per core, or all that the cluster has.",
        ),
        click.option("--scheduler", help="Address of a Dask scheduler or a Ray cluster."),
    )

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def inner(
            *arguments: Any, backend: Any, workers: int, scheduler: str | None, **values: Any
        ) -> Any:
            return command(*arguments, spread=Spread(backend, workers, scheduler), **values)

        decorated: Command = inner
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        return decorated

    return decorate
