"""`cppn-bt alerts`: checks and tries the settings of alerts; `cppn-bt desk --watch` sends them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cppncripto_strategy.commands._desk_extra import extra

EPILOG = """
\b
Examples:
  cppn-bt alerts --example > alerts.toml      a commented file to begin with
  cppn-bt alerts --kinds                      what there is to be notified of
  cppn-bt alerts --settings alerts.toml       is it right, and where does it lead?
  cppn-bt alerts --settings alerts.toml --test
  cppn-bt desk paper --watch --alerts alerts.toml
\b
Addresses of services (Telegram, ntfy, mail, Slack and 100 more, as apprise writes them) lie in a
file of mode 600 or in the environment, never in the settings:
\b
  umask 077 && echo 'ntfys://my-secret-topic' > alert-urls
\b
A program of yours gets each message as one JSON object on its standard input: kind, severity,
title, text and the alerts. It ends with status 0, or the message comes again later.

Needs the extra: pip install 'cppncripto-strategy[desk]'. More in docs/alerts.md.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--settings", "path", type=click.Path(dir_okay=False, path_type=Path),
    help="The settings; default: ~/.config/cppn-bt/alerts.toml.",
)  # fmt: skip
@click.option("--test", "test", is_flag=True, help="Send one test alert through every target.")
@click.option("--example", is_flag=True, help="Print a commented file to begin with.")
@click.option("--kinds", "kinds", is_flag=True, help="Print what there is to be notified of.")
def command(path: Path | None, test: bool, example: bool, kinds: bool) -> None:
    """Check who is notified of what happens to sessions, and try it.

    A watcher (`cppn-bt desk --watch`) follows the sessions of a folder from outside, by their
    journals and processes, and sends alerts: started, stopped, died, connection lost, gap, fill,
    missed order, daily summary and more. This command only reads the settings; with --test it
    sends one alert through every target and says what came of it.
    """
    if example:
        click.echo(_example(), nl=False)
        return
    with extra():
        from cppncripto_strategy.desk.alerts.delivery import senders, wanted_by
        from cppncripto_strategy.desk.alerts.kinds import KINDS
        from cppncripto_strategy.desk.alerts.settings import default_settings_file, load_settings

    if kinds:
        for kind, (severity, words) in KINDS.items():
            click.echo(f"{kind:<18} {severity:<9} {words}")
        return
    path = path or default_settings_file()
    settings = load_settings(path)
    targets = senders(settings)
    if test:
        sys.exit(_test(targets))
    for name in targets:
        click.echo(f"{name}: {', '.join(wanted_by(settings, name))}")
    click.echo(f"{path} is right. --test sends one alert through every target.")


def _test(targets: dict[str, Any]) -> int:
    """Send one alert to each; the exit status."""
    import time

    from cppncripto_strategy.desk.alerts.kinds import Alert
    from cppncripto_strategy.desk.alerts.outbox import message_of

    now_ms = time.time_ns() // 1_000_000
    alert = Alert(f"{now_ms:016x}"[-16:], "test", "", "", now_ms, "a test: alerts arrive here")
    failed = 0
    for name, target in targets.items():
        reason = target.send(message_of("test", [alert]))
        failed += bool(reason)
        click.echo(f"{name}: {f'not delivered: {reason}' if reason else 'delivered'}")
    return 1 if failed else 0


def _example() -> str:
    from importlib.resources import files

    return (files("cppncripto_strategy.desk.alerts") / "example.toml").read_text("utf-8")
