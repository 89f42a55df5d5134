"""`cppn-bt desk`: a page, an API and metrics over a folder of results, read-only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

EPILOG = """
\b
Examples:
  cppn-bt desk                        what lies under the current folder, on 127.0.0.1
  cppn-bt desk paper                  paper sessions only
  cppn-bt paper my.toml --desk        a session, and a desk in a process beside it
  cppn-bt desk --new-token            replace the token; everybody signs in anew
\b
  curl -H "Authorization: Bearer $(cat ~/.config/cppn-bt/desk-token)" \\
      http://127.0.0.1:8470/api/v1/sessions

Needs the extra: pip install 'cppncripto-strategy[desk]'. What it promises about security stands in
docs/security.md; reverse proxy, systemd, Prometheus and Grafana in docs/desk.md.
"""


@click.command(epilog=EPILOG)
@click.argument(
    "folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", default=8470, show_default=True, type=click.IntRange(1, 65_535))
@click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path),
    help="Where the token lies; default: ~/.config/cppn-bt/desk-token.",
)  # fmt: skip
@click.option("--new-token", is_flag=True, help="Replace the token and exit.")
@click.option("--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="PEM file.")
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="PEM file.")
@click.option("--behind-proxy", is_flag=True, help="A reverse proxy on this machine encrypts.")
@click.option("--name", "names", multiple=True, help="Host name to answer to; may be repeated.")
@click.option("--origin", "origins", multiple=True,
              help="Origin whose pages may read the API; may be repeated.")  # fmt: skip
def command(
    folder: Path,
    token_file: Path | None,
    new_token: bool,
    names: tuple[str, ...],
    origins: tuple[str, ...],
    **address: Any,
) -> None:
    """Look at sessions, runs, candles and embeddings under FOLDER in a browser.

    Read-only: nothing here can place an order, train, or change a file; only the token is
    written, to a file of mode 0600. Whoever looks needs that token. Sessions are read from their
    journals: a desk that is slow or killed delays no candle.

    It binds to this machine alone. Another --host is refused without TLS files or --behind-proxy.
    """
    with _extra():
        from cppncripto_strategy.desk.app import build
        from cppncripto_strategy.desk.credentials import default_token_file, make_token
        from cppncripto_strategy.desk.server import serve
        from cppncripto_strategy.desk.settings import DeskSettings

    token_file = token_file or default_token_file()
    if new_token:
        make_token(token_file, replace=True)
        click.echo(f"A new token lies in {token_file}.")
        return
    settings = DeskSettings(folder.resolve(), token_file, names=names, origins=origins, **address)

    def started() -> None:
        click.echo(f"Desk of {settings.folder}: {settings.address}")
        click.echo(f"The token lies in {settings.token_file}. Ctrl-C stops the desk.")

    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    serve(settings, build, started)


@contextmanager
def _extra() -> Iterator[None]:
    """The extra's packages may be missing: that is one sentence."""
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "cppncripto_strategy":
            raise
        raise click.ClickException(
            f"the desk needs {missing.name}, which is not installed:"
            " pip install 'cppncripto-strategy[desk]'"
        ) from missing
