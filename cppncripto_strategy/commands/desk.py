"""`cppn-bt desk`: a page, an API and metrics over a folder of results, read-only."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import click

from cppncripto_strategy.commands._desk_extra import extra
from cppncripto_strategy.system import lower_priority, only_when_idle

log = logging.getLogger(__name__)

LOW_NICE = 10

EPILOG = """
\b
Examples:
  cppn-bt desk                        what lies under the current folder, on 127.0.0.1
  cppn-bt desk paper                  paper sessions only
  cppn-bt paper my.toml --desk        a session, and a desk in a process beside it
  cppn-bt desk --new-token            replace the token; everybody signs in anew
  cppn-bt desk paper --watch          no page: send alerts (cppn-bt alerts --help)
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
@click.option(
    "--priority", type=click.Choice(("idle", "low")), default="idle", show_default=True,
    help="idle: only on processors that nothing else wants; low: a small share in any case.",
)  # fmt: skip
@click.option("--watch", "watch", is_flag=True, help="No page: follow sessions and send alerts.")
@click.option(
    "--alerts", "alerts_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Settings of alerts; default: ~/.config/cppn-bt/alerts.toml.",
)  # fmt: skip
@click.option(
    "--state", "state_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Where the watcher remembers; default: one file per folder in ~/.local/state/cppn-bt.",
)  # fmt: skip
def command(
    folder: Path,
    token_file: Path | None,
    new_token: bool,
    watch: bool,
    alerts_file: Path | None,
    state_file: Path | None,
    priority: str,
    names: tuple[str, ...],
    origins: tuple[str, ...],
    **address: Any,
) -> None:
    """Look at sessions, runs, candles and embeddings under FOLDER in a browser.

    Read-only: nothing here can place an order, train, or change a file; only the token is
    written, to a file of mode 0600. Whoever looks needs that token. Sessions are read from their
    journals: a desk that is slow or killed delays no candle.

    It takes a processor only while nothing else wants it, and so never from a session that trades.
    Where all processors are always busy pages come late: --priority low gives it a small share.

    It binds to this machine alone. Another --host is refused without TLS files or --behind-proxy.

    With --watch it serves nothing: it follows the sessions under FOLDER and sends alerts.
    """
    if watch:
        _watch(folder.resolve(), alerts_file, state_file)
        return
    from cppncripto_strategy.desk.credentials import default_token_file, make_token
    from cppncripto_strategy.desk.settings import DeskSettings

    token_file = token_file or default_token_file()
    if new_token:
        make_token(token_file, replace=True)
        click.echo(f"A new token lies in {token_file}.")
        return
    settings = DeskSettings(folder.resolve(), token_file, names=names, origins=origins, **address)
    _step_back(priority)
    with extra():
        from cppncripto_strategy.desk.app import build
        from cppncripto_strategy.desk.server import serve

    def started() -> None:
        click.echo(f"Desk of {settings.folder}: {settings.address}")
        click.echo(f"The token lies in {settings.token_file}. Ctrl-C stops the desk.")

    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    serve(settings, build, started)


def _step_back(priority: str) -> None:
    """Before anything heavy is read: whatever trades on this machine goes first."""
    if priority == "low":
        lower_priority(LOW_NICE)
    elif not only_when_idle():
        log.warning("this system has no idle priority: the desk runs at the lowest one it has")


def _watch(folder: Path, settings_file: Path | None, state_file: Path | None) -> None:
    """Send alerts until a signal; one watcher per state."""
    with extra():
        from cppncripto_strategy.desk.alerts.delivery import senders
        from cppncripto_strategy.desk.alerts.settings import default_settings_file, load_settings
        from cppncripto_strategy.desk.alerts.state import default_state_file, state_lock
        from cppncripto_strategy.desk.alerts.watch import Watcher

    settings = load_settings(settings_file or default_settings_file())
    targets = senders(settings)
    state_file = state_file or default_state_file(folder)
    with state_lock(state_file):
        watcher = Watcher(folder, settings, targets, state_file)
        click.echo(f"Watching {folder} for {', '.join(targets)}. Ctrl-C stops the watcher.")
        watcher.run(threading.Event())
