"""`cppn-bt parity`: replay a recorded paper session and compare it bar by bar."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from cppncripto_strategy.commands._examples import examples

SHOWN = 20


@click.command(epilog=examples("parity"))
@click.argument("session", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def command(session: Path, as_json: bool) -> None:
    """Replay SESSION (a folder such as paper/demo) and compare it bar by bar.

    Twice: its rounds in the order in which it saw them, which must agree to the last bit, and its
    candles as a backtest runs them, whose orders and fills must be the same. What has no
    counterpart in a backtest is counted and named. Exits with 1 on any difference.
    """
    from cppncripto_strategy.paper.create import options_of
    from cppncripto_strategy.paper.parity import compare

    report = compare(session, options_of(session))
    if as_json:
        document = {
            "session": str(session),
            "same": report.same,
            "compared": report.compared,
            "differences": [str(difference) for difference in report.differences],
            "worst_score": report.worst_score,
            "notes": report.notes,
            "apart": report.apart,
        }
        click.echo(json.dumps(document, allow_nan=False))
    else:
        _show(session, report)
    sys.exit(0 if report.same else 1)


def _show(session: Path, report: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from cppncripto_strategy.paper.parity import ParityReport

    assert isinstance(report, ParityReport)
    console = Console()
    table = Table("compared", "records", title=f"Parity of {session}")
    for name, count in report.compared.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    for difference in report.differences[:SHOWN]:
        console.print(f"[red]{difference}[/]", highlight=False)
    if len(report.differences) > SHOWN:
        console.print(f"and {len(report.differences) - SHOWN} more")
    for name, count in report.apart.items():
        console.print(f"without a counterpart in a backtest: {count:,} {name}")
    for note in report.notes:
        console.print(note)
    verdict = "[green]0 differences[/]" if report.same else f"[red]{len(report.differences)}[/]"
    console.print(f"{verdict}; largest difference of a number, batch against stream:"
                  f" {report.worst_score:.2e}")  # fmt: skip
