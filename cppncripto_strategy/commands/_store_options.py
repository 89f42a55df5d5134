"""Options and small helpers that the commands on the candle store share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cppncripto_strategy.paths import CANDLES

if TYPE_CHECKING:
    from cppncripto_strategy.feeds.history.fetch_job import FetchSettings, Progress, SeriesReport

Command = TypeVar("Command", bound=Callable[..., Any])

store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=CANDLES,
    show_default=True,
    help="Folder of the candle store.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
interval_option = click.option("--interval", help="Only series of this candle length, such as 5m.")


def source_options(command: Command) -> Command:
    """--archive-url, --rest-url and --no-archives."""
    for decorate in (
        click.option("--no-archives", is_flag=True, help="Take everything from REST."),
        click.option("--rest-url", help="REST address  [default: Binance's keyless one]"),
        click.option("--archive-url", help="Bulk archives' address  [default: Binance's]"),
    ):
        command = decorate(command)
    return command


def fetch_settings(
    archive_url: str | None, rest_url: str | None, no_archives: bool
) -> FetchSettings:
    """Fetch settings from the options of `source_options`."""
    from cppncripto_strategy.feeds.binance.endpoints import Sources
    from cppncripto_strategy.feeds.history.fetch_job import FetchSettings

    default = Sources()
    sources = Sources(
        archive_url=archive_url or default.archive_url,
        rest_url=rest_url or default.rest_url,
        stream_url=default.stream_url,
    )
    return FetchSettings(sources=sources, archives=not no_archives)


@contextmanager
def progress_bars(unit: str, quiet: bool) -> Iterator[Progress]:
    """A callback (symbol, done, total) that draws a bar per symbol with rate and time left."""
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, show_time=False)
    library = logging.getLogger("cppncripto_strategy")
    library.addHandler(handler)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]}} {unit}/s"),
        TimeRemainingColumn(),
        console=console,
        disable=quiet,
    )
    tasks: dict[str, TaskID] = {}

    def update(symbol: str, done: int, total: int) -> None:
        if symbol not in tasks:
            tasks[symbol] = bars.add_task(symbol, total=total, rate="-")
        task = bars.tasks[bars.task_ids.index(tasks[symbol])]
        rate = f"{done / task.elapsed:,.0f}" if task.elapsed else "-"
        bars.update(tasks[symbol], completed=done, total=total, rate=rate)

    try:
        with bars:
            yield update
    finally:
        library.removeHandler(handler)


def short_time(time_ms: int) -> str:
    """'2024-05-01', with the time of day where it is not midnight."""
    from cppncripto_strategy.feeds.clock import ms_to_utc

    return ms_to_utc(time_ms).removesuffix(" 00:00")


def report_fields(report: SeriesReport) -> dict[str, object]:
    """A fetch report as JSON fields."""
    return {
        "symbol": report.symbol,
        "interval": report.interval,
        "start_ms": report.span.start_ms,
        "end_ms": report.span.end_ms,
        "expected": report.expected,
        "held": report.held,
        "from_archives": report.from_archives,
        "from_rest": report.from_rest,
        "rejected": report.rejected,
        "months_changed": list(report.months_changed),
        "exchange_down": [[e.start_ms, e.end_ms] for e in report.exchange_down],
        "missing": [
            {"start_ms": e.start_ms, "end_ms": e.end_ms, "reason": e.reason} for e in report.missing
        ],
        "seconds": round(report.seconds, 3),
        "complete": report.complete,
        "error": report.error,
    }


def print_reports(reports: Sequence[SeriesReport]) -> None:
    """The summary table of a fetch, and every hole by name."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("series", "from (UTC)", "to (UTC)", box=None, padding=(0, 1, 0, 0))
    for name in ("held", "of", "archives", "REST", "down", "missing"):
        table.add_column(name, justify="right")
    for report in reports:
        table.add_row(
            *(f"{report.symbol} {report.interval}", short_time(report.span.start_ms)),
            *(short_time(report.span.end_ms), f"{report.held:,}", f"{report.expected:,}"),
            *(f"{report.from_archives:,}", f"{report.from_rest:,}"),
            *(f"{len(report.exchange_down):,}", f"{len(report.missing):,}"),
        )
    console.print(table)
    for report in reports:
        for entry in report.exchange_down:
            console.print(f"{report.symbol}: exchange down {entry.span}", soft_wrap=True)
        for entry in report.missing:
            console.print(
                f"[yellow]{report.symbol}: missing {entry.span}[/] ({entry.reason})", soft_wrap=True
            )
        if report.rejected:
            console.print(
                f"{report.symbol}: {report.rejected:,} candles broke a rule and are quarantined"
            )
        if report.error:
            console.print(f"[red]{report.symbol}: {report.error}[/]", soft_wrap=True)
