"""The summary in the terminal."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console

from cppncripto_strategy.feeds.filters import KnownFilters, SymbolFilters
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


def test_the_rules_of_every_symbol_are_named(run):
    """Dies here: an account cut to another symbol's maximum, of which nobody is told."""
    rules = KnownFilters(SymbolFilters(lot_step=Decimal(1)), "derived from 5,000 candles")
    run = dataclasses.replace(run, filters=[{"symbol": "SHIBUSDT", **rules.to_plain()}])
    console = Console(width=120, record=True, file=StringIO())
    console.print(terminal_summary(run))
    line = "SHIBUSDT: step 1, tick none, minimum notional none (derived from 5,000 candles)"
    assert line in console.export_text()


PLANTED = {
    "what": "a hidden regime, 30 days long on average; setups whose answer follows its sign",
    "hit at setups, ceiling (regime known)": "78.8 %",
    "hit at setups, best from 60 candles without a clock": "66.5 %",
    "hit at setups, reached with macro": "74.5 % (70.7 to 78.2), 886 setups",
    "net of an oracle's trade after fees": "55 bps",
}


@pytest.mark.parametrize("scale", [1.0, -1000.0])
def test_no_number_wraps_in_80_columns(run, scale):
    """Dies here: a bracket on a line of its own, a label cut off by dots."""
    quality = json.loads(json.dumps(run.metrics["signals"]))
    for side in ("buy", "sell", "both"):
        net = quality[side]["net_return_bps"]
        quality[side]["net_return_bps"] = {k: (v or 0) * scale / 50 for k, v in net.items()}
    wide = dataclasses.replace(run, planted=PLANTED, metrics={**run.metrics, "signals": quality})
    console = Console(width=80, record=True, file=StringIO())
    console.print(terminal_summary(wide))
    text = console.export_text()
    assert "…" not in text
    rows = [line.split() for line in text.splitlines()]
    for side in ("buy", "sell", "both"):
        (row,) = [row for row in rows if row[:1] == [side]]
        assert row[-1].endswith("]"), row
        assert sum(cell.startswith("[") for cell in row) == 2, row
    assert "    best from 60 candles without a clock   66.5 %" in text
    assert "    reached with macro                     74.5 % (70.7 to 78.2), 886 setups" in text
    assert "  Net of an oracle's trade after fees" in text


def test_labels_are_the_words_of_the_field(run):
    """Dies here: "growth a year" where every reader looks for CAGR."""
    console = Console(width=80, record=True, file=StringIO())
    console.print(terminal_summary(run))
    text = console.export_text()
    for label in (
        "Sortino ratio",
        "Maximum drawdown",
        "Probabilistic Sharpe ratio",
        "Time in market",
    ):
        assert label in text
