"""`cppn-bt paper --desk`: a desk in a process of its own, beside a session.

The two share files and nothing else: either may be slow, stuck or killed, and the other does not
notice. Ctrl-C in the terminal is the session's; a session that ends in order ends its desk.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

LOG_FILE = "desk.log"
FAREWELL_S = 5.0
_NEEDED = ("fastapi", "prometheus_client", "uvicorn")


def require_extra() -> None:
    """Raises click.ClickException where a package of the extra is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"--desk needs {', '.join(missing)}, not installed here:"
            " pip install 'cppncripto-strategy[desk]'"
        )


@contextmanager
def desk_beside(folder: Path, *options: str) -> Iterator[int]:
    """A desk of a folder runs meanwhile; yields its process number.

    What it says is in `desk.log` in the folder. It is not waited for: a desk that cannot start (its
    port is taken, say) leaves its reason there, and the session goes its way.

    Parameters
    ----------
    options : of `cppn-bt desk`, such as "--port", "9000".
    """
    require_extra()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cppncripto_strategy", "desk", str(folder), *options]
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(FAREWELL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
