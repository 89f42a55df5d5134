"""`cppn-bt data`: import, list, verify, mend and draw the candle store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from cppncripto_strategy.commands._store_options import (
    fetch_settings,
    interval_option,
    json_option,
    print_reports,
    progress_bars,
    report_fields,
    short_time,
    source_options,
    store_option,
)

if TYPE_CHECKING:
    from cppncripto_strategy.feeds.history.store import CandleStore, Coverage
    from cppncripto_strategy.feeds.history.verify import SeriesCheck


@click.group()
def command() -> None:
    """Import, list, verify, mend and draw the candle store."""


@command.command("import")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--symbol", required=True, help="Name of the series, such as BTCUSDT.")
@click.option("--interval", required=True, help="Length of a candle, such as 5m.")
@click.option("--sort", is_flag=True, help="Order the rows by time first (newest-first files).")
@store_option
@json_option
def import_files(
    files: tuple[Path, ...], symbol: str, interval: str, sort: bool, store: Path, as_json: bool
) -> None:
    """Bring Parquet, CSV (.gz) or feather FILES with OHLCV and a time column into the store.

    Times are integers (s, ms, us, ns), ISO text or timestamps, in UTC. Binance's own archives
    (BTCUSDT-1m-2026-03.zip) are taken too, against the .CHECKSUM beside them. Every row is checked
    first; a bad one is named and the store stays as it was.
    """
    from cppncripto_strategy.feeds.history.imports import import_files as bring
    from cppncripto_strategy.feeds.history.store import CandleStore

    target = CandleStore(store)
    count, months = bring(target, symbol, interval, files, sort=sort)
    held = target.coverage(symbol, interval)
    if as_json:
        document = {
            "symbol": symbol,
            "interval": interval,
            "imported": count,
            "months_changed": list(months),
            **_coverage_fields(held),
        }
        click.echo(json.dumps(document))
        return
    Console(highlight=False).print(
        f"{count:,} candles of {symbol} {interval} read; {len(months)} months changed. The store"
        f" holds {held.count:,} ({held.span}), {len(held.gaps)} gaps.",
        soft_wrap=True,
    )


@command.command("list")
@store_option
@json_option
def list_series(store: Path, as_json: bool) -> None:
    """List what the store holds: symbol, interval, span, candles and gaps."""
    from cppncripto_strategy.feeds.history.store import CandleStore

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


@command.command("verify")
@click.argument("symbols", nargs=-1)
@interval_option
@click.option("--restated", is_flag=True, help="Compare every candle with the exchange's of today.")
@store_option
@source_options
@json_option
def verify(
    symbols: tuple[str, ...],
    interval: str | None,
    restated: bool,
    store: Path,
    archive_url: str | None,
    rest_url: str | None,
    no_archives: bool,
    as_json: bool,
) -> None:
    """Check every file against the rules and the coverage ledger; the exit status is 1 if not ok.

    Reports damaged files, files the ledger does not know, missing spans, spans where the exchange
    was down, refused (such as misaligned) candles, flat candles without volume, and with --restated
    candles that the exchange now states differently. Nothing is changed.
    """
    from dataclasses import replace

    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.history.verify import find_restated, verify_series

    source = CandleStore(store)
    checks = [verify_series(source, *series) for series in _series(source, symbols, interval)]
    if restated:
        settings = fetch_settings(archive_url, rest_url, no_archives)
        for place, check in enumerate(checks):
            if not check.damaged:
                fresh = find_restated(source, check.symbol, check.interval, settings)
                checks[place] = replace(check, restated=tuple(fresh.open_time.tolist()))
    if as_json:
        document = {"store": str(store), "ok": all(check.ok for check in checks)}
        click.echo(json.dumps({**document, "series": [_check_fields(check) for check in checks]}))
    else:
        _print_checks(checks)
    if not all(check.ok for check in checks):
        click.get_current_context().exit(1)


@command.command("repair")
@click.argument("symbols", nargs=-1)
@interval_option
@click.option("--restated", is_flag=True, help="Also take over candles the exchange has restated.")
@store_option
@source_options
@json_option
def repair_series(
    symbols: tuple[str, ...],
    interval: str | None,
    restated: bool,
    store: Path,
    archive_url: str | None,
    rest_url: str | None,
    no_archives: bool,
    as_json: bool,
) -> None:
    """Move damaged files to quarantine and fetch what is missing; exit status 1 if it stays so."""
    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.history.verify import repair, verify_series

    source = CandleStore(store)
    series = _series(source, symbols, interval)
    if not restated:
        series = [one for one in series if not verify_series(source, *one).ok]
    settings = fetch_settings(archive_url, rest_url, no_archives)
    with progress_bars("candles", quiet=as_json) as progress:
        reports = repair(source, series, settings, progress, restated=restated)
    if as_json:
        document = {"store": str(store), "series": [report_fields(one) for one in reports]}
        click.echo(json.dumps(document))
    elif reports:
        print_reports(reports)
    else:
        Console().print("Nothing to repair.")
    if not all(report.complete for report in reports):
        click.get_current_context().exit(1)


@command.command("coverage")
@click.argument("symbols", nargs=-1)
@interval_option
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write this HTML file."
)
@store_option
@json_option
def coverage(
    symbols: tuple[str, ...],
    interval: str | None,
    html: Path | None,
    store: Path,
    as_json: bool,
) -> None:
    """Draw each series' months as a heat map: per cent of the slots held or proved absent."""
    from dataclasses import asdict

    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.history.verify import month_coverage
    from cppncripto_strategy.reports.coverage_map import html_map, terminal_map

    source = CandleStore(store)
    held = {one: month_coverage(source, *one) for one in _series(source, symbols, interval)}
    if html is not None:
        html_map(held, html)
    if as_json:
        rows = [
            {"symbol": of[0], "interval": of[1], "months": [asdict(month) for month in months]}
            for of, months in held.items()
        ]
        click.echo(json.dumps({"store": str(store), "series": rows}))
        return
    console = Console(highlight=False)
    for of, months in held.items():
        console.print(terminal_map(of, months))
    if html is not None:
        console.print(f"Written: {html}", soft_wrap=True)


@command.command("resample")
@click.argument("symbol")
@click.option("--interval", required=True, help="The short candles, such as 1m.")
@click.option("--to", "target", required=True, help="The long candles to make, such as 5m.")
@store_option
@json_option
def resample_series(symbol: str, interval: str, target: str, store: Path, as_json: bool) -> None:
    """Make longer candles from SYMBOL's shorter ones, complete buckets only."""
    from cppncripto_strategy.feeds.history.resample import resample_stored
    from cppncripto_strategy.feeds.history.store import CandleStore

    count, months = resample_stored(CandleStore(store), symbol, interval, target)
    if as_json:
        document = {"symbol": symbol, "interval": target, "made": count}
        click.echo(json.dumps({**document, "months_changed": list(months)}))
        return
    Console(highlight=False).print(
        f"{count:,} candles of {symbol} {target} made; {len(months)} months changed."
    )


def _series(
    store: CandleStore, symbols: tuple[str, ...], interval: str | None
) -> list[tuple[str, str]]:
    """The series asked for; all of the store's when nothing was."""
    held = store.series()
    chosen = [
        one
        for one in held
        if (not symbols or one[0] in symbols) and (interval is None or one[1] == interval)
    ]
    absent = [symbol for symbol in symbols if symbol not in {one[0] for one in chosen}]
    if absent or not chosen:
        there = ", ".join(f"{symbol} {length}" for symbol, length in held) or "nothing"
        what = ", ".join(absent) or "such a series"
        raise click.ClickException(f"{what} is not in the store at {store.root}; it holds {there}")
    return chosen


def _coverage_fields(held: Coverage) -> dict[str, object]:
    return {
        "start_ms": held.span.start_ms,
        "end_ms": held.span.end_ms,
        "count": held.count,
        "expected": held.expected,
        "gaps": [[gap.start_ms, gap.end_ms] for gap in held.gaps],
    }


def _check_fields(check: SeriesCheck) -> dict[str, object]:
    return {
        "symbol": check.symbol,
        "interval": check.interval,
        "ok": check.ok,
        "start_ms": check.span.start_ms,
        "end_ms": check.span.end_ms,
        "count": check.count,
        "expected": check.expected,
        "damaged": [{"month": month, "problem": why} for month, why in check.damaged],
        "unrecorded": list(check.unrecorded),
        "missing": [
            {"start_ms": e.start_ms, "end_ms": e.end_ms, "reason": e.reason} for e in check.missing
        ],
        "exchange_down": [[e.start_ms, e.end_ms] for e in check.exchange_down],
        "flat": [[span.start_ms, span.end_ms] for span in check.flat],
        "refused": dict(check.refused),
        "restated": None if check.restated is None else list(check.restated),
        "ledger_problem": check.ledger_problem,
    }


def _print_series(held: list[Coverage]) -> None:
    table = Table("symbol", "interval", "from (UTC)", "to (UTC)", box=None)
    for name in ("candles", "gaps", "held"):
        table.add_column(name, justify="right")
    for one in held:
        table.add_row(
            one.symbol,
            one.interval,
            short_time(one.span.start_ms),
            short_time(one.span.end_ms),
            f"{one.count:,}",
            f"{len(one.gaps):,}",
            f"{100 * one.fraction:.2f} %",
        )
    Console(highlight=False).print(table)


def _print_checks(checks: list[SeriesCheck]) -> None:
    from cppncripto_strategy.feeds.history.verify import describe

    console = Console(highlight=False)
    table = Table("series", "from (UTC)", "to (UTC)", box=None, padding=(0, 1, 0, 0))
    for name in ("candles", "of", "down", "missing", "ok"):
        table.add_column(name, justify="right")
    for one in checks:
        table.add_row(
            *(f"{one.symbol} {one.interval}", short_time(one.span.start_ms)),
            *(short_time(one.span.end_ms), f"{one.count:,}", f"{one.expected:,}"),
            *(f"{len(one.exchange_down):,}", f"{len(one.missing):,}"),
            "[green]yes[/]" if one.ok else "[red]no[/]",
        )
    console.print(table)
    for one in checks:
        for entry in one.exchange_down:
            console.print(f"{one.symbol} {one.interval}: exchange down {entry.span}")
        if one.flat:
            console.print(
                f"{one.symbol} {one.interval}: {len(one.flat)} stretches of flat candles without"
                f" volume, the first {one.flat[0]}",
                soft_wrap=True,
            )
        for rule, count in one.refused:
            console.print(f"{one.symbol} {one.interval}: {count} candles refused: {rule}")
        for line in describe(one):
            console.print(f"[red]{one.symbol} {one.interval}: {line}[/]", soft_wrap=True)
