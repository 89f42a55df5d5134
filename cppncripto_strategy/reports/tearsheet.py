"""The QuantStats tearsheet: daily returns against buy-and-hold, readable without network.

QuantStats gets daily UTC returns only, never those of candles, and 365 days a year. What it cannot
draw (a few days, returns that never move) becomes a short page that says so.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import escape

from cppncripto_strategy.evaluation.returns import DAYS_PER_YEAR, sharpe_ratio
from cppncripto_strategy.reports.blocks import Section, Table
from cppncripto_strategy.reports.pages import render, write_page
from cppncripto_strategy.reports.values import MISSING, number, percent
from cppncripto_strategy.results import write_text

logger = logging.getLogger(__name__)

# Below this QuantStats fills its tables with dashes and its charts with one point.
MIN_DAYS = 5
# Its rolling charts look back half a year, and are empty frames on anything shorter.
ROLLING_DAYS = DAYS_PER_YEAR // 2
_ROLLING = re.compile(r'<div id="rolling_\w+">.*?</div>\s*(?=<div id=)', flags=re.S)


def write_tearsheet(
    daily_returns: pd.Series[float],
    benchmark_returns: pd.Series[float],
    path: Path,
    title: str,
    benchmark_title: str = "Buy and hold",
) -> bool:
    """Write the tearsheet; True when QuantStats drew it, False for the short page instead.

    Parameters
    ----------
    daily_returns, benchmark_returns : simple returns indexed by UTC day (naive), as
        `metrics.daily_returns` gives them. NaN days are dropped.
    """
    returns, benchmark = daily_returns.dropna(), benchmark_returns.dropna()
    obstacle = _obstacle(returns, benchmark)
    if obstacle is None:
        try:
            html = _quantstats_html(returns, benchmark, path, title, benchmark_title)
        except Exception as cause:  # its internals raise whatever numpy, scipy and seaborn raise
            logger.warning("QuantStats could not draw %s: %s", path.name, cause)
            obstacle = f"QuantStats could not draw these returns ({cause})."
        else:
            html = html if len(returns) > ROLLING_DAYS else _without_rolling(html)
            write_text(path, _offline(html))
            return True
    _write_short_page(returns, benchmark, path, title, benchmark_title, obstacle)
    return False


def _obstacle(returns: pd.Series[float], benchmark: pd.Series[float]) -> str | None:
    if len(returns) < MIN_DAYS:
        return f"There are {len(returns)} days of returns; a tearsheet needs at least {MIN_DAYS}."
    for name, series in (("account", returns), ("benchmark", benchmark)):
        if len(series) < 2 or series.std() < 1e-12:
            return f"The {name} never moved: every ratio of return to risk is undefined."
    return None


def _quantstats_html(
    returns: pd.Series[float],
    benchmark: pd.Series[float],
    path: Path,
    title: str,
    benchmark_title: str,
) -> str:
    with _agg_backend(), _known_noise_silenced():
        import quantstats

        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.drawing")
        try:
            quantstats.reports.html(
                _from_a_peak(returns, benchmark),
                benchmark=_from_a_peak(benchmark, returns),
                output=str(scratch),
                title=str(escape(title)),  # its template takes text as HTML
                benchmark_title=benchmark_title,
                periods_per_year=DAYS_PER_YEAR,
                match_dates=False,  # matching would cut the days before the first trade
            )
            return scratch.read_text("utf-8")
        finally:
            scratch.unlink(missing_ok=True)


def _from_a_peak(returns: pd.Series[float], other: pd.Series[float]) -> pd.Series[float]:
    """The returns, preceded by a day at rest where either series begins with a loss.

    QuantStats 0.0.86 finds no drawdown at all in a series that falls on its first day and never
    recovers.
    """
    if returns.iloc[0] >= 0 and other.iloc[0] >= 0:
        return returns
    before = pd.DatetimeIndex(returns.index[:1]) - pd.Timedelta(days=1)
    return pd.concat([pd.Series([0.0], index=before, name=returns.name), returns])


@contextmanager
def _agg_backend() -> Iterator[None]:
    """Draw without a screen, and leave the user's backend as it was."""
    import matplotlib

    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    try:
        yield
    finally:
        matplotlib.use(before)


@contextmanager
def _known_noise_silenced() -> Iterator[None]:
    """Silence what QuantStats 0.0.86 says about pandas 3 and matplotlib 3.11, and a missing Arial.

    Only warnings raised inside quantstats and seaborn are dropped, and only for this call.
    """
    fonts = logging.getLogger("matplotlib.font_manager")
    fonts.addFilter(_is_not_about_arial)
    try:
        with warnings.catch_warnings():
            for module in ("quantstats", "seaborn"):
                warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
            yield
    finally:
        fonts.removeFilter(_is_not_about_arial)


def _is_not_about_arial(record: logging.LogRecord) -> bool:
    return "Arial" not in record.getMessage()


def _without_rolling(html: str) -> str:
    """The page without its rolling charts, and a sentence in their place."""
    html, dropped = _ROLLING.subn("", html)
    if dropped == 0:
        return html
    note = render("tearsheet_short.html", days=ROLLING_DAYS)
    return html.replace('<div id="dd_periods">', f'{note}<div id="dd_periods">', 1)


def _offline(html: str) -> str:
    """Drop what reaches for the network and the SVG prologues HTML ignores; fit it to a phone."""
    html = re.sub(r'<link rel="shortcut icon"[^>]*>', '<link rel="icon" href="data:,">', html)
    html = re.sub(r'<a href="http://quantstats\.io"[^>]*>(.*?)</a>', r"\1", html)
    html = re.sub(
        r"<\?xml[^>]*\?>|<!DOCTYPE svg[^>]*>|<metadata>.*?</metadata>", "", html, flags=re.S
    )
    html = html.replace("CAGR﹪", "CAGR %")  # few fonts have its small percent sign
    html = html.replace("</head>", f"{render('tearsheet_head.html')}</head>", 1)
    return html.replace(' onload="save()"', "")  # its template calls a function it does not define


def _write_short_page(
    returns: pd.Series[float],
    benchmark: pd.Series[float],
    path: Path,
    title: str,
    benchmark_title: str,
    obstacle: str,
) -> None:
    rows = [
        [name, *(_short_value(kind, series) for series in (returns, benchmark))]
        for name, kind in (
            ("Days", "days"),
            ("Total return", "total"),
            ("Best day", "best"),
            ("Worst day", "worst"),
            ("Sharpe ratio", "sharpe"),
        )
    ]
    span = f"{returns.index[0]:%Y-%m-%d} to {returns.index[-1]:%Y-%m-%d}" if len(returns) else ""
    table = Table(["", "Strategy", benchmark_title], rows)
    write_page(path, title, [Section("No full tearsheet", table, note=obstacle)], subtitle=span)


def _short_value(kind: str, returns: pd.Series[float]) -> str:
    values = np.asarray(returns, dtype=np.float64)
    if kind == "days":
        return str(len(values))
    if len(values) == 0:
        return MISSING
    if kind == "sharpe":
        return number(sharpe_ratio(values))
    share = {"total": np.prod(1 + values) - 1, "best": values.max(), "worst": values.min()}[kind]
    return percent(float(share))
