"""The summary in the terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from cppncripto_strategy.reports.terminal import terminal_summary


def test_terminal_summary_names_the_verdict_and_the_three_accounts(run):
    """Dies here: a summary that shows the return but not what it is compared with."""
    console = Console(width=120, record=True, file=StringIO())
    console.print(terminal_summary(run))
    text = console.export_text()
    for part in (
        run.metrics["verdict"]["headline"],
        "With macro",
        "Without macro",
        "Buy and hold",
        "Break-even",
        "Ceiling hit ratio",
        "42.0 % sure after 17 trials",
    ):
        assert part in text
