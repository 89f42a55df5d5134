"""`cppn-bt exchange`: a loopback Binance on 127.0.0.1, over planted or stored candles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cppncripto_strategy.commands._examples import examples

if TYPE_CHECKING:
    from cppncripto_strategy.feeds.candles import Candles
    from cppncripto_strategy.feeds.loopback.faults import RandomFaults
    from cppncripto_strategy.feeds.loopback.server import LoopbackExchange

DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")


def _rates(_: click.Context, __: click.Parameter, faults: tuple[str, ...]) -> dict[str, float]:
    """Name -> rate of NAME=RATE."""
    rates: dict[str, float] = {}
    for fault in faults:
        name, _sign, rate = fault.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError as cause:
            raise click.BadParameter(f"{fault!r}: expected NAME=RATE, as slow=0.02") from cause
    return rates


def _list_faults(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from cppncripto_strategy.feeds.loopback.faults import (
        ARCHIVE_FAULTS,
        RANDOM_STREAM_FAULTS,
        REST_FAULTS,
    )

    for where, names in (
        ("REST", REST_FAULTS),
        ("archives", ARCHIVE_FAULTS),
        ("stream", RANDOM_STREAM_FAULTS),
    ):
        click.echo(f"{where}: {', '.join(names)}")
    context.exit()


def _random_faults(seed: int, rates: dict[str, float]) -> RandomFaults:
    from cppncripto_strategy.feeds.loopback.faults import random_faults

    try:
        return random_faults(seed, rates)
    except ValueError as cause:
        said = str(cause).partition(": expected one of")[0]
        raise click.UsageError(f"--fault: {said}; --list-faults prints the names") from cause


@click.command(epilog=examples("exchange"))
@click.option("--planted", is_flag=True, help="Serve a planted market (the default).")
@click.option(
    "--candles",
    "store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Serve the candles of this store.",
)
@click.option("--symbol", "symbols", multiple=True, help="Symbol to serve; repeat for more.")
@click.option("--interval", default="5m", show_default=True, help="Candle interval.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65_535),
    help="Port on 127.0.0.1; 0: any free.",
)  # fmt: skip
@click.option(
    "--speed", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Market seconds per wall second; at 300 a 5-minute candle closes every second.",
)  # fmt: skip
@click.option(
    "--days", default=60, show_default=True, type=click.IntRange(min=1),
    help="Days of planted market.",
)  # fmt: skip
@click.option(
    "--seed", default=7, show_default=True, type=click.IntRange(min=0),
    help="Seed of the planted market.",
)  # fmt: skip
@click.option(
    "--history-days", default=40.0, show_default=True, type=click.FloatRange(min=0),
    help="Days already past when the clock starts.",
)  # fmt: skip
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME=RATE", callback=_rates,
    help="Let a fault strike at random, such as slow=0.02; repeat for more.",
)  # fmt: skip
@click.option(
    "--list-faults", is_flag=True, expose_value=False, is_eager=True, callback=_list_faults,
    help="Print the names that --fault takes, and end.",
)  # fmt: skip
@click.option(
    "--for", "for_s", type=click.FloatRange(min=0, min_open=True),
    help="Stop after so many wall seconds.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document with the addresses.")
def command(
    planted: bool,
    store: Path | None,
    symbols: tuple[str, ...],
    interval: str,
    port: int,
    speed: float,
    days: int,
    seed: int,
    history_days: float,
    faults: dict[str, float],
    for_s: float | None,
    as_json: bool,
) -> None:
    """Serve a loopback Binance: REST, archives and streams, on 127.0.0.1.

    The market's clock starts --history-days after the first candle and runs --speed times as fast
    as the wall's. --fault makes it a broken or hostile one, by --seed. Stop it with Ctrl-C.
    """
    if planted and store is not None:
        raise click.UsageError("--planted and --candles exclude each other")
    _require_symbols(symbols)
    if store is not None:
        candles = _stored(store, symbols, interval)
    else:
        candles = planted_candles(symbols or DEFAULT_SYMBOLS, days, interval, seed)
    exchange = _exchange(candles, interval, port, speed, history_days)
    exchange.faults.random = _random_faults(seed, faults)
    _serve(exchange, for_s, as_json)


def planted_candles(
    symbols: tuple[str, ...], days: int, interval: str, seed: int
) -> dict[str, Candles]:
    """A planted market per symbol, each with a seed of its own."""
    from cppncripto_strategy.feeds.planted import PlantedSettings, generate

    return {
        symbol: generate(PlantedSettings(days=days, interval=interval, seed=seed + index)).candles
        for index, symbol in enumerate(symbols)
    }


def _stored(root: Path, symbols: tuple[str, ...], interval: str) -> dict[str, Candles]:
    from cppncripto_strategy.feeds.history.store import CandleStore

    store = CandleStore(root)
    symbols_stored = [series.symbol for series in store.list() if series.interval == interval]
    return {symbol: store.read(symbol, interval) for symbol in symbols or tuple(symbols_stored)}


def _require_symbols(symbols: tuple[str, ...]) -> None:
    """Refuse symbols that no client could ask for. Raises StoreError, SourceError."""
    from cppncripto_strategy.errors import SourceError
    from cppncripto_strategy.feeds.history.store import check_symbol

    for symbol in symbols:
        check_symbol(symbol)
    twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
    if twice:
        raise SourceError(f"--symbol names {', '.join(twice)} more than once")


def _exchange(
    candles: dict[str, Candles], interval: str, port: int, speed: float, history_days: float
) -> LoopbackExchange:
    from cppncripto_strategy.errors import SourceError
    from cppncripto_strategy.feeds.clock import DAY_MS
    from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
    from cppncripto_strategy.feeds.loopback.market import SpeedClock
    from cppncripto_strategy.feeds.loopback.server import LoopbackExchange

    first = [int(series.open_time[0]) for series in candles.values() if len(series)]
    if not first:
        raise SourceError(f"no {interval} candles to serve: check --candles, --symbol, --interval")
    last = [int(series.open_time[-1]) for series in candles.values() if len(series)]
    start_ms, end_ms = min(first) + int(history_days * DAY_MS), max(last)
    if start_ms > end_ms:
        raise SourceError(
            f"the clock would start {history_days:g} days after the first candle, and the candles"
            f" are over after {(end_ms - min(first)) / DAY_MS:.1f} days: lower --history-days"
        )
    settings = ExchangeSettings(
        interval=interval, port=port, updates_per_candle=_updates(interval, speed)
    )
    return LoopbackExchange(candles, clock=SpeedClock(start_ms, speed), settings=settings)


def _updates(interval: str, speed: float) -> int:
    """A frame every two market seconds, as the exchange sends, at most 20 per wall second."""
    from cppncripto_strategy.feeds.clock import interval_to_ms

    interval_s = interval_to_ms(interval) / 1000
    most = min(interval_s / 2, 20 * interval_s / speed)
    return max(1, int(most) - 1)


def _serve(exchange: LoopbackExchange, for_s: float | None, as_json: bool) -> None:
    import asyncio
    from contextlib import suppress

    async def serve() -> None:
        async with exchange:
            _announce(exchange, as_json)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(exchange.finished.wait(), for_s)

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


def _announce(exchange: LoopbackExchange, as_json: bool) -> None:
    from cppncripto_strategy.feeds.clock import ms_to_utc

    facts = {
        "rest_url": exchange.rest_url,
        "stream_url": exchange.stream_url,
        "archive_url": exchange.archive_url,
        "symbols": list(exchange.candles),
        "interval": exchange.settings.interval,
        "market_time": ms_to_utc(exchange.now_ms()),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Loopback exchange (Ctrl-C stops it)", show_header=False)
    for name, value in facts.items():
        table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    Console().print(table)
