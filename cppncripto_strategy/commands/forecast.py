"""`cppn-bt forecast`: the coming day's volatility and range, and how such forecasts have held."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cppncripto_strategy.commands._candle_options import candles_option, market_option
from cppncripto_strategy.commands._examples import examples

if TYPE_CHECKING:
    from cppncripto_strategy.evaluation.statistics import Estimate
    from cppncripto_strategy.forecasts import DayForecast, Outlook
    from cppncripto_strategy.models.bundle import Bundle


@click.command(epilog=examples("forecast"))
@click.argument("symbol")
@candles_option
@click.option("--interval", help="Candle length  [default: the bundle's, else 5m]")
@click.option("--date", help="UTC day to forecast  [default: the first that is not over]")
@market_option
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a run or a bundle whose MacroNet joins the forecast.",
)
@click.option(
    "--level",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the days that an interval should hold.",
)
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to draw past forecasts into, and what came: .html or .png.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(
    symbol: str,
    candles: Path,
    interval: str | None,
    date: str | None,
    market: str | None,
    bundle: Path | None,
    level: float,
    chart: Path | None,
    as_json: bool,
) -> None:
    """Forecast SYMBOL's coming UTC day: expected volatility and range, with intervals.

    The forecast is linear, fitted on the days in the candles: means of past volatility, the
    weekday, the market, yesterday's return, volume, share of falls and last hours. A bundle whose
    MacroNet has learned to forecast corrects it. It says nothing about direction. The intervals'
    record counts past days, each predicted by what was known then.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if chart is not None and chart.suffix not in (".html", ".png"):
        raise click.BadParameter(f"{chart} must end in .html or .png", param_hint="--chart")

    from cppncripto_strategy.commands._candle_options import market_candles
    from cppncripto_strategy.embeddings import interval_text
    from cppncripto_strategy.feeds.clock import interval_to_ms
    from cppncripto_strategy.feeds.history.files import open_source
    from cppncripto_strategy.forecasts import forecast_day

    day_ms = None if date is None else _midnight_ms(date)
    model = None if bundle is None else _bundle(bundle, day_ms)
    length = interval or ("5m" if model is None else interval_text(model.info.session.interval_ms))
    source = open_source(candles)
    series = {symbol: source.read(symbol, length)}
    asked = market or (None if model is None else model.info.session.market)
    name, others = market_candles(source, asked, length, series)
    if name is not None and others is not None:
        series[name] = others
    found = forecast_day(symbol, series, interval_to_ms(length), name, day_ms, level, model)
    if chart is not None:
        _draw(found, chart)
    if as_json:
        click.echo(json.dumps({**found.to_json(), "chart": None if chart is None else str(chart)}))
    else:
        _print(found)
        if chart is not None:
            click.echo(f"Drawn into {chart}.")


def _midnight_ms(date: str) -> int:
    """UTC milliseconds of a day's 00:00. Raises click.BadParameter for a time within a day."""
    from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms

    time_ms = utc_to_ms(date)
    if time_ms % DAY_MS:
        raise click.BadParameter(f"{date!r} is not a day: give a date such as 2024-03-14")
    return time_ms


def _bundle(folder: Path, day_ms: int | None) -> Bundle:
    """The latest bundle of a folder that was trained until the day, or before it.

    Raises click.BadParameter when there is none.
    """
    import torch

    from cppncripto_strategy.feeds.clock import ms_to_date
    from cppncripto_strategy.models.bundle import BundleTimeline

    torch.set_num_threads(1)
    timeline = BundleTimeline.load(folder)
    if day_ms is None:
        return timeline.bundles[-1]
    number = int(timeline.active_in([day_ms])[0])
    if number < 0:
        raise click.BadParameter(
            f"{folder} holds no bundle that was trained before {ms_to_date(day_ms)}: its first one"
            f" has seen candles until {ms_to_date(timeline.first_session_ms)}",
            param_hint="--bundle",
        )
    return timeline.bundles[number]


def _draw(found: DayForecast, path: Path) -> None:
    from cppncripto_strategy.reports.forecast_chart import save_forecast_page, save_forecast_picture

    save = save_forecast_page if path.suffix == ".html" else save_forecast_picture
    coming = (found.volatility.expected, found.volatility.low, found.volatility.high)
    save(path, found.symbol, found.history, found.day_ms, coming, found.level)


def _print(found: DayForecast) -> None:
    from cppncripto_strategy.feeds.clock import ms_to_date

    console, share = Console(highlight=False), f"{100 * found.level:.0f} %"
    market = "no market symbol" if found.market is None else f"the market symbol {found.market}"
    record = "  no past day could be predicted yet"
    if found.score is not None:
        record = (
            f"  {share} intervals held {_held(found.volatility_held)} (volatility) and"
            f" {_held(found.range_held)} (range) of {found.past_days} past days;\n"
            f"  R2 of those days' forecasts {found.score.r2:.2f} against the 30-day mean"
        )
    lines = [
        f"{found.symbol}, the day that begins {ms_to_date(found.day_ms)} 00:00 UTC",
        f"  volatility {_outlook(found.volatility)}, {share} interval;"
        f" {100 * found.annual_volatility:.0f} % a year;"
        f" usual of the last 30 days {100 * found.usual_volatility:.2f} %",
        f"  range {_outlook(found.range)} (high over low), {share} interval",
        record,
        f"  made by {found.inputs} with {market}, fitted on {found.learned_days:,} days from"
        f" {ms_to_date(found.learned_from_ms)}; no direction is predicted",
    ]
    if found.embedding:
        lines.append(f"  {found.embedding}")
    console.print("\n".join(lines), soft_wrap=True)


def _outlook(outlook: Outlook) -> str:
    low, high = 100 * outlook.low, 100 * outlook.high
    return f"{100 * outlook.expected:.2f} % expected, {low:.2f} to {high:.2f} %"


def _held(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.0f} %"
    return f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
