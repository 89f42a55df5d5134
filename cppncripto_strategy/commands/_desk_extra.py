"""The extra `desk` may not be installed: that is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def extra() -> Iterator[None]:
    """Import the desk in here. Raises click.ClickException where a package of it is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "cppncripto_strategy":
            raise
        raise click.ClickException(
            f"the desk needs {missing.name}, which is not installed:"
            " pip install 'cppncripto-strategy[desk]'"
        ) from missing
