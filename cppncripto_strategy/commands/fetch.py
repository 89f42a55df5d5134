"""`cppn-bt fetch`: the exchange's history into the candle store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cppncripto_strategy.commands._examples import examples
from cppncripto_strategy.commands._store_options import (
    fetch_settings,
    json_option,
    print_reports,
    progress_bars,
    report_fields,
    source_options,
    store_option,
)


@click.command(epilog=examples("fetch"))
@click.argument("symbols", nargs=-1, required=True)
@click.option("--interval", default="5m", show_default=True, help="Length of a candle.")
@click.option(
    "--from", "start", default="20200101", show_default=True, help="First day or time (UTC)."
)
@click.option("--to", "end", help="End, exclusive (UTC)  [default: the last closed candle]")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Months fetched at once.",
)
@store_option
@source_options
@json_option
def command(
    symbols: tuple[str, ...],
    interval: str,
    start: str,
    end: str | None,
    concurrency: int,
    store: Path,
    archive_url: str | None,
    rest_url: str | None,
    no_archives: bool,
    as_json: bool,
) -> None:
    """Fetch candles of SYMBOLS from Binance's archives and REST; no key is needed.

    Run it again at any time: it fetches what is new or missing and nothing else. Every gap is
    listed, as exchange-down (proved by two reads) or missing; the exit status is 1 when anything is
    missing.
    """
    from dataclasses import replace

    from cppncripto_strategy.errors import CppnError
    from cppncripto_strategy.feeds.clock import utc_to_ms
    from cppncripto_strategy.feeds.history.fetch import fetch
    from cppncripto_strategy.feeds.history.store import CandleStore

    settings = replace(fetch_settings(archive_url, rest_url, no_archives), concurrency=concurrency)
    start_ms, end_ms = utc_to_ms(start), None if end is None else utc_to_ms(end)
    if end_ms is not None and end_ms <= start_ms:
        raise click.UsageError(f"--to {end} is not after --from {start}")
    reports, error = [], ""
    try:
        with progress_bars("candles", quiet=as_json) as progress:
            reports = fetch(
                CandleStore(store), symbols, interval, start_ms, end_ms, settings, progress
            )
    except CppnError as cause:
        error = str(cause)
        raise
    finally:
        # Whoever reads the document finds one, whatever happened.
        if as_json:
            series = [report_fields(report) for report in reports]
            click.echo(json.dumps({"store": str(store), "series": series, "error": error}))
    if not as_json:
        print_reports(reports)
    if not all(report.complete for report in reports):
        click.get_current_context().exit(1)
