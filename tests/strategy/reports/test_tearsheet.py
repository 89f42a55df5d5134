"""The QuantStats tearsheet of made-up returns, and the page that stands in for it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.returns import sharpe_ratio
from cppncripto_strategy.reports.tearsheet import write_tearsheet


def daily(days, seed, mean=0.0, first=None):
    values = np.random.default_rng(seed).normal(mean, 0.02, days)
    if first is not None:
        values[0] = first
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=days), name="return")


def table_row(path, name):
    """The cells of the tearsheet's row that begins with `name`."""
    page = path.read_text("utf-8")
    row = next(r for r in re.findall(r"<tr>(.*?)</tr>", page, re.S) if f"<td>{name}" in r)
    return [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td>(.*?)</td>", row, re.S)]


def test_tearsheet_is_quiet_offline_and_agrees_with_our_metrics(tmp_path, no_warnings, requests_of):
    """Dies here: warnings on the terminal, an icon from a server, 252 days, swapped columns."""
    returns, benchmark = daily(120, 1, 0.003), daily(120, 2)
    path = tmp_path / "tearsheet.html"
    assert write_tearsheet(returns, benchmark, path, "A run")
    assert requests_of(path) == []
    assert [item.name for item in tmp_path.iterdir()] == ["tearsheet.html"]
    assert "Benchmark: BUY AND HOLD" in path.read_text("utf-8")
    _, held, ours = table_row(path, "Sharpe")
    assert float(ours) == pytest.approx(sharpe_ratio(returns.to_numpy()), abs=0.006)
    assert float(held) == pytest.approx(sharpe_ratio(benchmark.to_numpy()), abs=0.006)


def test_tearsheet_of_a_run_that_falls_from_its_first_day_shows_its_drawdown(tmp_path):
    """Dies here: QuantStats' blank drawdown for an account that was never above its start."""
    returns = daily(40, 3, -0.02, first=-0.05)
    path = tmp_path / "tearsheet.html"
    write_tearsheet(returns, daily(40, 4), path, "A loser")
    equity = np.cumprod(np.r_[1.0, 1 + returns.to_numpy()])
    deepest = 100 * float((1 - equity / np.maximum.accumulate(equity)).max())
    shown = -float(table_row(path, "Max Drawdown")[2].rstrip("%"))
    assert shown == pytest.approx(deepest, abs=0.01)


@pytest.mark.parametrize(("days", "panels"), [(120, 0), (300, 4)])
def test_tearsheet_has_rolling_charts_where_there_is_half_a_year_to_roll(tmp_path, days, panels):
    """Four empty frames, which look like a fault, or full ones thrown away with them."""
    path = tmp_path / "tearsheet.html"
    assert write_tearsheet(daily(days, 5), daily(days, 6), path, "A run")
    html = path.read_text("utf-8")
    assert html.count('<div id="rolling_') == panels
    assert ("too short for them" in html) == (panels == 0)
    assert all(f'<div id="{kept}">' in html for kept in ("daily_returns", "dd_periods", "dd_plot"))


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (daily(3, 1), "There are 3 days"),
        (daily(0, 1), "There are 0 days"),
        (daily(30, 1) * 0, "The account never moved"),
        (daily(30, 1) * 0 + 0.001, "The account never moved"),
    ],
)
def test_tearsheet_of_short_or_flat_returns_is_a_page_that_says_why(
    returns, reason, tmp_path, no_warnings, requests_of
):
    """Dies here: a crash, or ratios of nothing, after a run of a few days or without a trade."""
    path = tmp_path / "tearsheet.html"
    benchmark = daily(len(returns), 2)
    assert not write_tearsheet(returns, benchmark, path, "Short")
    page = path.read_text("utf-8")
    assert reason in page
    assert requests_of(path) == []


def test_tearsheet_survives_a_failure_inside_quantstats(tmp_path, monkeypatch, caplog):
    """Dies here: a finished backtest lost because a chart could not be drawn."""
    import quantstats

    def broken(*_, **__):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(quantstats.reports, "html", broken)
    path = tmp_path / "tearsheet.html"
    assert not write_tearsheet(daily(30, 1), daily(30, 2), path, "Broken")
    assert "could not draw these returns (inside)" in path.read_text("utf-8")
    assert "could not draw" in caplog.text
