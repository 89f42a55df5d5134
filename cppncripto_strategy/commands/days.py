"""`cppn-bt days`: the past days that looked most like a day, and what followed them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cppncripto_strategy.commands._examples import examples
from cppncripto_strategy.paths import CANDLES, EMBEDDINGS

if TYPE_CHECKING:
    from cppncripto_strategy.embeddings import Outcome, SimilarDay


@click.command(epilog=examples("days"))
@click.argument("symbol")
@click.argument("date")
@click.option(
    "--embeddings",
    type=click.Path(dir_okay=False, path_type=Path),
    default=EMBEDDINGS,
    show_default=True,
    help="File that `cppn-bt embed` wrote.",
)
@click.option(
    "--candles",
    type=click.Path(file_okay=False, path_type=Path),
    default=CANDLES,
    show_default=True,
    help="Candle store, or folder of SYMBOL-5m files, to see what followed.",
)
@click.option(
    "--interval", default="5m", show_default=True, help="Candle length that shows what followed."
)
@click.option(
    "--count", default=10, show_default=True, type=click.IntRange(min=1), help="Days to list."
)
@click.option("--every-symbol", is_flag=True, help="Look among the days of every symbol.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(
    symbol: str,
    date: str,
    embeddings: Path,
    candles: Path,
    interval: str,
    count: int,
    every_symbol: bool,
    as_json: bool,
) -> None:
    """List the past days most like DATE, their distances, and what followed them.

    Days are compared by what MacroNet saw before 00:00 UTC; "what followed" is the day itself.
    Only days that share no candle with DATE's window are compared. A file of days after training
    alone may hold few: `cppn-bt embed BUNDLE --in-sample` adds those before.
    """
    from cppncripto_strategy.embeddings import read_embeddings, similar_days

    session_ms = _midnight_ms(date)
    table = read_embeddings(embeddings)
    near = similar_days(table, symbol, session_ms, count, every_symbol)
    followed = _what_followed(candles, interval, near)
    if as_json:
        click.echo(json.dumps(_document(symbol, session_ms, near, followed)))
    else:
        _print(symbol, session_ms, near, followed)


def _midnight_ms(date: str) -> int:
    """UTC milliseconds of a day's 00:00. Raises click.BadParameter for a time within a day."""
    from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms

    time_ms = utc_to_ms(date)
    if time_ms % DAY_MS:
        raise click.BadParameter(f"{date!r} is not a day: give a date such as 2024-03-14")
    return time_ms


def _what_followed(folder: Path, interval: str, near: list[SimilarDay]) -> list[Outcome]:
    """The outcome of each day found."""
    from cppncripto_strategy.embeddings import outcomes
    from cppncripto_strategy.feeds.clock import interval_to_ms
    from cppncripto_strategy.feeds.history.files import open_source

    source = open_source(folder)
    series = {name: source.read(name, interval) for name in {day.symbol for day in near}}
    return [
        outcomes(series[day.symbol], interval_to_ms(interval), [day.session_ms])[0] for day in near
    ]


def _document(
    symbol: str, session_ms: int, near: list[SimilarDay], followed: list[Outcome]
) -> dict[str, Any]:
    """The JSON document; numbers that are not known are null."""
    return {
        "symbol": symbol,
        "session_ms": session_ms,
        "days": [
            {
                "symbol": day.symbol,
                "session_ms": day.session_ms,
                "distance": day.distance,
                "return": _known(outcome.simple_return),
                "realised_volatility": _known(outcome.realised_volatility),
            }
            for day, outcome in zip(near, followed, strict=True)
        ],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print(symbol: str, session_ms: int, near: list[SimilarDay], followed: list[Outcome]) -> None:
    from rich.table import Table

    from cppncripto_strategy.feeds.clock import ms_to_utc

    console, day = Console(highlight=False), ms_to_utc(session_ms)[:10]
    if not near:
        console.print(
            f"No day before {day} shares no candle with its window: embed more history"
            " (`cppn-bt embed BUNDLE --in-sample`).",
            soft_wrap=True,
        )
        return
    table = Table(title=f"Days like {symbol} {day}", title_justify="left", box=None)
    for name in ("day (UTC)", "symbol"):
        table.add_column(name)
    for name in ("distance", "return that day", "realised volatility"):
        table.add_column(name, justify="right")
    for similar, outcome in zip(near, followed, strict=True):
        table.add_row(
            ms_to_utc(similar.session_ms)[:10],
            similar.symbol,
            f"{similar.distance:.2f}",
            _percent(outcome.simple_return, "+.2f"),
            _percent(outcome.realised_volatility, ".2f"),
        )
    console.print(table)
    returns = [o.simple_return for o in followed if math.isfinite(o.simple_return)]
    if returns:
        rose = sum(value > 0 for value in returns)
        mean = 100 * sum(returns) / len(returns)
        console.print(f"{rose} of {len(returns)} rose; mean return {mean:+.2f} %.", soft_wrap=True)


def _percent(value: float, form: str) -> str:
    return f"{100 * value:{form}} %" if math.isfinite(value) else "-"
