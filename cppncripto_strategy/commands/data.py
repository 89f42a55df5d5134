"""`cppn-bt data`: import, list, and look after the candle store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

STORE_OPTION = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("candles"),
    show_default=True,
    help="Folder of the candle store.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")


@click.group()
def command() -> None:
    """Import, list, verify and mend the candle store."""


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--symbol", required=True, help="Name of the series, such as BTCUSDT.")
@click.option("--interval", required=True, help="Length of a candle, such as 5m.")
@click.option("--sort", is_flag=True, help="Order the rows by time first (newest-first files).")
@STORE_OPTION
@JSON_OPTION
def import_file(
    file: Path, symbol: str, interval: str, sort: bool, store: Path, as_json: bool
) -> None:
    """Bring a Parquet, CSV (.gz) or feather FILE with OHLCV and a time column into the store.

    Times are integers (s, ms, us, ns), ISO text or timestamps, in UTC. Every row is checked first;
    a bad one is named and the store stays as it was.
    """
    from cppncripto_strategy.feeds.importer import read_file
    from cppncripto_strategy.feeds.store import CandleStore, check_symbol

    check_symbol(symbol)
    candles = read_file(file, interval, sort=sort)
    target = CandleStore(store)
    months = target.write(symbol, interval, candles)
    held = target.coverage(symbol, interval)
    document = {
        "symbol": symbol,
        "interval": interval,
        "imported": len(candles),
        "months_changed": list(months),
        **_coverage_fields(held),
    }
    if as_json:
        click.echo(json.dumps(document))
        return
    console = Console(highlight=False)
    console.print(
        f"{len(candles):,} candles of {symbol} {interval} read from {file};"
        f" {len(months)} months changed. The store holds {held.count:,} ({held.span}),"
        f" {len(held.gaps)} gaps.",
        soft_wrap=True,
    )


@command.command("list")
@STORE_OPTION
@JSON_OPTION
def list_series(store: Path, as_json: bool) -> None:
    """List what the store holds: symbol, interval, span, candles and gaps."""
    from cppncripto_strategy.feeds.store import CandleStore

    source = CandleStore(store)
    held = [source.coverage(one.symbol, one.interval) for one in source.list()]
    if as_json:
        rows = [
            {"symbol": one.symbol, "interval": one.interval, **_coverage_fields(one)}
            for one in held
        ]
        click.echo(json.dumps({"store": str(store), "series": rows}))
        return
    if not held:
        Console().print(f"{store} holds no candles: try `cppn-bt fetch` or `cppn-bt data import`.")
        return
    _print_series(held)


def _coverage_fields(held: Any) -> dict[str, object]:
    return {
        "start_ms": held.span.start_ms,
        "end_ms": held.span.end_ms,
        "count": held.count,
        "expected": held.expected,
        "gaps": [[gap.start_ms, gap.end_ms] for gap in held.gaps],
    }


def _print_series(held: list[Any]) -> None:
    from cppncripto_strategy.feeds.candles import ms_to_utc

    table = Table("symbol", "interval", "from (UTC)", "to (UTC)", box=None)
    for name in ("candles", "gaps", "held"):
        table.add_column(name, justify="right")
    for one in held:
        table.add_row(
            one.symbol,
            one.interval,
            ms_to_utc(one.span.start_ms),
            ms_to_utc(one.span.end_ms),
            f"{one.count:,}",
            f"{len(one.gaps):,}",
            f"{100 * one.fraction:.2f} %",
        )
    Console(highlight=False).print(table)
