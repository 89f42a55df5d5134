"""`cppn-bt doctor`: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cppncripto_strategy.installation import Finding

EXAMPLES = """
\b
Examples:
  cppn-bt doctor                      everything, the exchange's addresses included
  cppn-bt doctor --offline            nothing that needs a network
  cppn-bt doctor --json
"""
_COLOURS = {"ok": "green", "note": "yellow", "fault": "bold red"}


@click.command(epilog=EXAMPLES)
@click.option("--offline", is_flag=True, help="Ask no network.")
@click.option(
    "--timeout",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.1, max=120),
    help="Seconds one address may take.",
)
@click.option("--rest-url", help="Another REST address.")
@click.option("--archive-url", help="Another address of the archives.")
@click.option("--stream-url", help="Another websocket address.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def command(
    offline: bool,
    timeout: float,
    rest_url: str | None,
    archive_url: str | None,
    stream_url: str | None,
    as_json: bool,
) -> None:
    """Check the installation: versions, cores, disk, links, the exchange's addresses, the clock.

    Says what to do where something is wrong. A fault keeps some command from working, and the exit
    status is 1; a note costs comfort only.
    """
    from cppncripto_strategy.feeds.binance.endpoints import Sources
    from cppncripto_strategy.installation import local_findings, network_findings

    found = list(local_findings(Path()))
    if not offline:
        given = {"rest_url": rest_url, "archive_url": archive_url, "stream_url": stream_url}
        sources = Sources(**{name: url for name, url in given.items() if url})
        found += network_findings(sources, timeout)
    good = all(finding.state != "fault" for finding in found)
    if as_json:
        rows = [
            {"check": f.check, "state": f.state, "found": f.found, "advice": f.advice}
            for f in found
        ]
        click.echo(json.dumps({"ready": good, "findings": rows}))
    else:
        _show(found, good)
    sys.exit(0 if good else 1)


def _show(found: list[Finding], good: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("check", "", "found", "what to do", box=None)
    for finding in found:
        state = f"[{_COLOURS[finding.state]}]{finding.state}[/]"
        table.add_row(finding.check, state, escape(finding.found), escape(finding.advice))
    console.print(table)
    console.print("[green]ready[/]" if good else "[bold red]not ready: see the faults above[/]")
