"""`cppn-bt data`: import, list, verify, repair and draw the candle store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from cppncripto_strategy.commands._examples import examples
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
    from cppncripto_strategy.feeds.filters import KnownFilters
    from cppncripto_strategy.feeds.history.imports import ImportReport
    from cppncripto_strategy.feeds.history.store import CandleStore, Coverage
    from cppncripto_strategy.feeds.history.verify import SeriesCheck


@click.group(epilog=examples("data"))
def command() -> None:
    """Import, list, verify, repair and draw the candle store."""


@command.command("import", epilog=examples("data import"))
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--symbol", required=True, help="Name of the series, such as BTCUSDT.")
@click.option("--interval", required=True, help="Length of a candle, such as 5m.")
@click.option("--sort", is_flag=True, help="Order the rows by time first.")
@click.option("--drop-empty", is_flag=True, help="Leave out rows without prices and volume.")
@click.option(
    "--set-aside", is_flag=True, help="Leave out rows that break a rule; keep them in quarantine."
)
@click.option(
    "--first", "duplicates", flag_value="first", help="Of rows of one time keep the first."
)
@click.option("--last", "duplicates", flag_value="last", help="Of rows of one time keep the last.")
@click.option(
    "--dates",
    type=click.Choice(["day-first", "month-first"]),
    help="What 03/04/2024 means, where no date in the file tells.",
)
@click.option("--replace", is_flag=True, help="Replace stored candles that differ.")
@click.option("--dialect", help="Which of several dialects that fit; the error names them.")
@store_option
@json_option
def import_files(
    files: tuple[Path, ...],
    symbol: str,
    interval: str,
    store: Path,
    as_json: bool,
    replace: bool,
    **choices: Any,
) -> None:
    """Bring Parquet, feather, text or JSON FILES (.gz too) with candles into the store.

    How a file is written is recognised and said; where that is ambiguous, it is refused. Candles
    that are stored already are kept, and what differs is said, unless --replace is given.
    Times are numbers (s, ms, us, ns), text or timestamps, in UTC. Binance's own archives
    (BTCUSDT-1m-2026-03.zip) are taken too, against the .CHECKSUM beside them. Every row is checked
    first; a bad one is named and the store stays as it was.
    """
    from dataclasses import asdict

    from cppncripto_strategy.feeds.history.foreign import Choices
    from cppncripto_strategy.feeds.history.imports import import_files as bring
    from cppncripto_strategy.feeds.history.store import CandleStore

    target = CandleStore(store)
    chosen = Choices(**{name: value for name, value in choices.items() if value})
    report = bring(target, symbol, interval, files, choices=chosen, replace=replace)
    coverage = target.coverage(symbol, interval)
    if as_json:
        document = {
            "symbol": symbol,
            "interval": interval,
            "imported": report.candles,
            "months_changed": list(report.months),
            "overlap": asdict(report.overlap),
            "replaced": report.replaced,
            "files": [asdict(file) for file in report.files],
            **_coverage_fields(coverage),
            "filters": _known_filters(target, coverage).to_plain(),
        }
        click.echo(json.dumps(document))
        return
    _print_import(report, coverage)


@command.command("list", epilog=examples("data list"))
@store_option
@json_option
def list_series(store: Path, as_json: bool) -> None:
    """List the series in the store: span, candles, gaps, and the symbol's steps.

    Steps are those the exchange stated when the symbol was fetched, else derived from the decimals
    of the newest candles.
    """
    from cppncripto_strategy.feeds.history.store import CandleStore

    source = CandleStore(store)
    coverages = [source.coverage(series.symbol, series.interval) for series in source.list()]
    if as_json:
        rows = [
            {
                "symbol": c.symbol,
                "interval": c.interval,
                **_coverage_fields(c),
                "filters": _known_filters(source, c).to_plain(),
            }
            for c in coverages
        ]
        click.echo(json.dumps({"store": str(store), "series": rows}))
        return
    if not coverages:
        Console().print(f"{store} holds no candles: try `cppn-bt fetch` or `cppn-bt data import`.")
        return
    _print_series(coverages, [_known_filters(source, c) for c in coverages])


@command.command("verify", epilog=examples("data verify"))
@click.argument("symbols", nargs=-1)
@interval_option
@click.option(
    "--restated", is_flag=True, help="Compare every candle with what the exchange states now."
)
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
        for index, check in enumerate(checks):
            if not check.damaged:
                fresh = find_restated(source, check.symbol, check.interval, settings)
                checks[index] = replace(check, restated=tuple(fresh.open_time.tolist()))
    if as_json:
        document = {"store": str(store), "ok": all(check.ok for check in checks)}
        click.echo(json.dumps({**document, "series": [_check_fields(check) for check in checks]}))
    else:
        _print_checks(checks)
    if not all(check.ok for check in checks):
        click.get_current_context().exit(1)


@command.command("repair", epilog=examples("data repair"))
@click.argument("symbols", nargs=-1)
@interval_option
@click.option(
    "--restated", is_flag=True, help="Also replace candles that the exchange has restated."
)
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
    """Move damaged files to quarantine and fetch what is missing; exit status 1 if any stays so."""
    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.history.verify import repair, verify_series

    source = CandleStore(store)
    series = _series(source, symbols, interval)
    if not restated:
        series = [pair for pair in series if not verify_series(source, *pair).ok]
    settings = fetch_settings(archive_url, rest_url, no_archives)
    with progress_bars("candles", quiet=as_json) as progress:
        reports = repair(source, series, settings, progress, restated=restated)
    if as_json:
        document = {"store": str(store), "series": [report_fields(report) for report in reports]}
        click.echo(json.dumps(document))
    elif reports:
        print_reports(reports)
    else:
        Console().print("Nothing to repair.")
    if not all(report.complete for report in reports):
        click.get_current_context().exit(1)


@command.command("coverage", epilog=examples("data coverage"))
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
    """Draw each series' months as a heat map: per cent of slots stored or proved absent."""
    from dataclasses import asdict

    from cppncripto_strategy.feeds.history.store import CandleStore
    from cppncripto_strategy.feeds.history.verify import month_coverage
    from cppncripto_strategy.reports.coverage_map import html_map, terminal_map

    source = CandleStore(store)
    by_series = {pair: month_coverage(source, *pair) for pair in _series(source, symbols, interval)}
    if html is not None:
        html_map(by_series, html)
    if as_json:
        rows = [
            {
                "symbol": series[0],
                "interval": series[1],
                "months": [asdict(month) for month in months],
            }
            for series, months in by_series.items()
        ]
        click.echo(json.dumps({"store": str(store), "series": rows}))
        return
    console = Console(highlight=False)
    for series, months in by_series.items():
        console.print(terminal_map(series, months))
    if html is not None:
        console.print(f"Written: {html}", soft_wrap=True)


@command.command("resample", epilog=examples("data resample"))
@click.argument("symbol")
@click.option("--interval", required=True, help="The short candles, such as 1m.")
@click.option("--to", "target", required=True, help="The long candles to make, such as 5m.")
@click.option("--opens-on", help="A day on which a 3d candle opens, where none is stored.")
@store_option
@json_option
def resample_series(
    symbol: str, interval: str, target: str, opens_on: str | None, store: Path, as_json: bool
) -> None:
    """Make longer candles from SYMBOL's shorter ones, complete buckets only."""
    from cppncripto_strategy.feeds.clock import utc_to_ms
    from cppncripto_strategy.feeds.history.resample import resample_stored
    from cppncripto_strategy.feeds.history.store import CandleStore

    day_ms = None if opens_on is None else utc_to_ms(opens_on)
    count, months = resample_stored(CandleStore(store), symbol, interval, target, day_ms)
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
    stored = store.series()
    chosen = [
        pair
        for pair in stored
        if (not symbols or pair[0] in symbols) and (interval is None or pair[1] == interval)
    ]
    absent = [symbol for symbol in symbols if symbol not in {pair[0] for pair in chosen}]
    if absent or not chosen:
        there = ", ".join(f"{symbol} {length}" for symbol, length in stored) or "nothing"
        what = ", ".join(absent) or "such a series"
        raise click.ClickException(f"{what} is not in the store at {store.root}; it holds {there}")
    return chosen


def _known_filters(store: CandleStore, coverage: Coverage) -> KnownFilters:
    """What fetch kept for the symbol, else what its newest candles tell."""
    from cppncripto_strategy.feeds.clock import month_span
    from cppncripto_strategy.feeds.history.derived_filters import derived_filters
    from cppncripto_strategy.feeds.history.stored_filters import stored_filters

    kept = stored_filters(store.root, coverage.symbol)
    if kept is not None:
        return kept
    newest = store.months(coverage.symbol, coverage.interval)[-2:]
    candles = store.read(coverage.symbol, coverage.interval, month_span(newest[0]).start_ms)
    return derived_filters(coverage.symbol, candles)


def _coverage_fields(coverage: Coverage) -> dict[str, object]:
    return {
        "start_ms": coverage.span.start_ms,
        "end_ms": coverage.span.end_ms,
        "count": coverage.count,
        "expected": coverage.expected,
        "gaps": [[gap.start_ms, gap.end_ms] for gap in coverage.gaps],
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
        "imported": [
            {"start_ms": e.start_ms, "end_ms": e.end_ms, "source": e.source} for e in check.imported
        ],
        "flat": [[span.start_ms, span.end_ms] for span in check.flat],
        "refused": dict(check.refused),
        "restated": None if check.restated is None else list(check.restated),
        "ledger_problem": check.ledger_problem,
    }


def _print_import(report: ImportReport, coverage: Coverage) -> None:
    console = Console(highlight=False)
    for file in report.files:
        left_out = [
            f"{count:,} rows {what}"
            for count, what in (
                (file.empty, "without numbers left out"),
                (file.repeated, "of a time already there left out"),
                (file.set_aside, "set aside in quarantine"),
            )
            if count
        ]
        said = "; ".join([f"{file.candles:,} candles", *left_out])
        console.print(f"{file.name}: {file.dialect}. {said}.", soft_wrap=True, markup=False)
    series = f"{coverage.symbol} {coverage.interval}"
    console.print(
        f"{report.candles:,} candles of {series} read; {report.outcome}."
        f" {len(report.months)} months changed. The store holds {coverage.count:,}"
        f" ({coverage.span}), {len(coverage.gaps)} gaps.",
        soft_wrap=True,
    )


def _print_series(coverages: list[Coverage], filters: list[KnownFilters]) -> None:
    from cppncripto_strategy.reports.values import filters_line

    table = Table("symbol", "interval", "from (UTC)", "to (UTC)", box=None)
    for name in ("candles", "gaps", "held"):
        table.add_column(name, justify="right")
    for coverage in coverages:
        table.add_row(
            coverage.symbol,
            coverage.interval,
            short_time(coverage.span.start_ms),
            short_time(coverage.span.end_ms),
            f"{coverage.count:,}",
            f"{len(coverage.gaps):,}",
            f"{100 * coverage.fraction:.2f} %",
        )
    console = Console(highlight=False)
    console.print(table)
    for coverage, known in zip(coverages, filters, strict=True):
        line = filters_line(f"{coverage.symbol} {coverage.interval}", known.to_plain())
        console.print(line, soft_wrap=True)


def _print_checks(checks: list[SeriesCheck]) -> None:
    from cppncripto_strategy.feeds.history.verify import describe

    console = Console(highlight=False)
    table = Table("series", "from (UTC)", "to (UTC)", box=None, padding=(0, 1, 0, 0))
    for name in ("candles", "of", "down", "missing", "ok"):
        table.add_column(name, justify="right")
    for check in checks:
        table.add_row(
            *(f"{check.symbol} {check.interval}", short_time(check.span.start_ms)),
            *(short_time(check.span.end_ms), f"{check.count:,}", f"{check.expected:,}"),
            *(f"{len(check.exchange_down):,}", f"{len(check.missing):,}"),
            "[green]yes[/]" if check.ok else "[red]no[/]",
        )
    console.print(table)
    for check in checks:
        for entry in check.exchange_down:
            console.print(f"{check.symbol} {check.interval}: exchange down {entry.span}")
        for entry in check.imported:
            console.print(
                f"{check.symbol} {check.interval}: {entry.span} is from {entry.source}, not checked"
                " against the exchange",
                soft_wrap=True,
            )
        if check.flat:
            console.print(
                f"{check.symbol} {check.interval}: {len(check.flat)} stretches of flat candles"
                f" without volume, the first {check.flat[0]}",
                soft_wrap=True,
            )
        for rule, count in check.refused:
            console.print(f"{check.symbol} {check.interval}: {count} candles refused: {rule}")
        for line in describe(check):
            console.print(f"[red]{check.symbol} {check.interval}: {line}[/]", soft_wrap=True)
