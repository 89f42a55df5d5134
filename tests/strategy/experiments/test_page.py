"""The pages of experiments: what they escape, what charts say, how the terminal shows them."""

from __future__ import annotations

import dataclasses
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cppncripto_strategy.evaluation.statistics import DieboldMariano, Estimate
from cppncripto_strategy.experiments.comparison import Comparison
from cppncripto_strategy.experiments.family import arm_family
from cppncripto_strategy.experiments.page import (
    Findings,
    accounts_figure,
    difference_figure,
    terminal_table,
    write_experiment_page,
)
from cppncripto_strategy.experiments.transfer import Transfer, write_transfer_page
from cppncripto_strategy.experiments.verdicts import Verdict

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
WIDE = Estimate(-0.2583, -0.3557, -0.1583, 100)


def comparison(a, b):
    test = DieboldMariano(-10.3, 3.7e-23, 100)
    return Comparison(a, b, "setups", 720, 0.749, 0.49, WIDE, (-0.2, -0.3), test, WIDE, WIDE, WIDE)


def findings(name="macro", other="masked patches"):
    long = pd.Series(
        np.random.default_rng(1).normal(0, 0.01, 60), index=pd.date_range("2024-01-01", periods=60)
    )
    days = pd.Series([0.01, -0.02], index=pd.date_range("2024-01-01", periods=2))
    seeds = pd.DataFrame(
        {
            "pair": f"{name} - {other}",
            "seed": [0, 1],
            "hit_difference": 0.1,
            "low": 0.0,
            "high": 0.2,
            "diebold_mariano_p": 0.01,
            "found": True,
        }
    )
    return Findings(
        name=name,
        title=name,
        question=name,
        criterion=name,
        comparisons=[comparison(name, other), comparison(other, name)],
        verdicts=[Verdict(True, name, ((name, True),)), Verdict(False, name, ((name, False),))],
        seeds=[seeds],
        cells=pd.DataFrame({"arm": [name], "seed": [0], "sharpe": [1.0]}),
        curves={name: [days, days], other: [days]},
        luck={
            name: {
                "probabilistic_sharpe": 0.9,
                "deflated_sharpe": 0.5,
                "deflated_sharpe_effective": 0.6,
                "trials": 3,
                "effective_trials": 2,
                "minimum_backtest_days": 120.0,
            }
        },
        family=arm_family({name: [long], other: [long * 2 + 0.001]}, other, shared=True),
        about={"recipe": name, name: name},
        notes=[name],
        wanted_points=5.0,
    )


def harmless(path):
    page = path.read_text("utf-8")
    body = page[page.index("<body>") :]
    return (
        "<script>alert" not in body
        and "<img" not in body
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    )


def test_experiment_page_escapes_arms_verdicts_and_settings(tmp_path):
    """An arm, a command line or a recipe's name that runs as a script."""
    write_experiment_page(findings(HOSTILE), tmp_path / "e1.html")
    assert harmless(tmp_path / "e1.html")


def test_transfer_page_escapes_symbols(tmp_path):
    """A symbol that runs as a script."""
    row = {"scored": HOSTILE, "learned_from": HOSTILE, "seen": True, "where": "all"}
    table = pd.DataFrame([{**row, "candles": 3, "hit": 0.5, "low": 0.4, "high": 0.6}])
    found = Transfer(table, findings(HOSTILE).family)
    write_transfer_page(found, tmp_path / "transfer.html", {HOSTILE: HOSTILE})
    assert harmless(tmp_path / "transfer.html")


@pytest.mark.parametrize("kind", ["differences", "accounts"])
def test_axes_of_experiment_charts_are_named(kind):
    """A chart of nobody knows what."""
    known = findings()
    figure = (
        difference_figure(known.comparisons, 5.0)
        if kind == "differences"
        else accounts_figure(known.curves)
    )
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text


def test_differences_fit_into_80_columns():
    """A bracket on a line of its own: three pairs side by side wrapped in every cell."""
    console = Console(width=80, record=True, file=StringIO())
    pairs = [comparison("masked patches", "autoencoder")] * 3
    console.print(terminal_table(dataclasses.replace(findings(), comparisons=pairs)))
    text = console.export_text()
    assert text.count("Hit difference, points          -25.83 [-35.57, -15.83]") == 3
    assert text.count("masked patches − autoencoder") == 3
