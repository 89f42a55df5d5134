"""`--jobs`: how many processes a command may train in."""

from __future__ import annotations

import click

from cppncripto_strategy.spreading.spread import cores

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=cores,
    show_default="the cores",
    help="Processes that train at a time, at most; fewer where memory is short. Same results.",
)
