"""`cppn-bt embed`: write the embedding of every day to Parquet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cppncripto_strategy.commands._candle_options import candles_option, market_option
from cppncripto_strategy.commands._examples import examples
from cppncripto_strategy.paths import EMBEDDINGS

if TYPE_CHECKING:
    from cppncripto_strategy.evaluation.statistics import Estimate
    from cppncripto_strategy.feeds.candles import Candles
    from cppncripto_strategy.forecasts import JudgedEmbedding
    from cppncripto_strategy.models.bundle import BundleTimeline
    from cppncripto_strategy.models.judging.quality import QualityCard


@click.command(epilog=examples("embed"))
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@candles_option
@click.option("--symbols", help="BTCUSDT,ETHUSDT: default, the symbols the bundle learned from.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=EMBEDDINGS,
    show_default=True,
    help="File to write.",
)
@click.option(
    "--in-sample", is_flag=True, help="Add the days the bundle learned from, marked as such."
)
@click.option(
    "--card", is_flag=True, help="Judge the embedding, too: print and write its quality card."
)
@market_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document only.")
def command(
    bundle: Path,
    candles: Path,
    symbols: str | None,
    out: Path,
    in_sample: bool,
    card: bool,
    market: str | None,
    as_json: bool,
) -> None:
    """Write the embedding of every day to Parquet: one row per symbol and day.

    BUNDLE is the folder of a run, of bundles that follow one another, or of one bundle. Only days
    after a bundle's training span are embedded unless --in-sample is given. `cppn-bt days` and
    DuckDB read the file.
    """
    # Small matrices: threads that wait for each other cost ten times what they bring. Numpy reads
    # this when it is first imported, which is below.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import pyarrow as pa
    import torch

    from cppncripto_strategy.embeddings import embed_candles, write_embeddings
    from cppncripto_strategy.errors import StoreError
    from cppncripto_strategy.feeds.clock import ms_to_utc
    from cppncripto_strategy.locks import LOCK_FILE, FileLock
    from cppncripto_strategy.models.bundle import BundleTimeline
    from cppncripto_strategy.results import write_json

    torch.set_num_threads(1)
    lock = out.with_name(f".{out.name}{LOCK_FILE}")
    advice = "wait for it to end, or give this one another --out"
    click.get_current_context().with_resource(FileLock.take(lock, str(out), StoreError, advice))
    timeline = BundleTimeline.load(bundle, in_sample)
    if card and len(timeline.bundles) > 1:
        raise click.UsageError(
            f"--card judges one bundle and {bundle} holds {len(timeline.bundles)}: name one of them"
        )
    series = _read(candles, symbols, timeline)
    read = _read_market(candles, timeline)
    console = Console(stderr=True, highlight=False, quiet=as_json)
    with console.status("embedding"):
        parts = [embed_candles(symbol, mine, timeline, read) for symbol, mine in series.items()]
    table = pa.concat_tables(parts)
    if len(table) == 0:
        raise click.ClickException(
            f"no day can be embedded: the bundle learned until"
            f" {ms_to_utc(timeline.first_session_ms)}, and the candles reach no later day with a"
            " full macro window before it (--in-sample adds earlier days)"
        )
    write_embeddings(table, out)
    known = series if read is None else {**series, str(timeline.session.market): read}
    asked = market or timeline.session.market
    judged = _judge(timeline, series, known, in_sample, candles, asked, console) if card else None
    if judged is not None:
        write_json(out.with_name(f"{out.name}.card.json"), judged.to_json())
    days = {symbol: len(part) for symbol, part in zip(series, parts, strict=True)}
    _show(out, days, judged, as_json)


def _show(out: Path, days: dict[str, int], judged: JudgedEmbedding | None, as_json: bool) -> None:
    """What was written, and how it was judged."""
    if as_json:
        card = judged.to_json() if judged is not None else None
        rows = sum(days.values())
        click.echo(json.dumps({"out": str(out), "rows": rows, "days": days, "card": card}))
        return
    text = ", ".join(f"{count:,} days of {symbol}" for symbol, count in days.items())
    Console(highlight=False).print(f"{out}: {text}", soft_wrap=True)
    if judged is not None:
        _print_card(judged.card)
        _print_forecasts(judged)


def _read(folder: Path, symbols: str | None, timeline: BundleTimeline) -> dict[str, Candles]:
    """Candles of each symbol asked for."""
    from cppncripto_strategy.embeddings import interval_text
    from cppncripto_strategy.feeds.history.files import open_source

    source, interval = open_source(folder), interval_text(timeline.session.interval_ms)
    requested = symbols.split(",") if symbols else timeline.bundles[0].info.symbols
    names = [name.strip() for name in requested]
    return {name: source.read(name, interval) for name in names if name}


def _read_market(folder: Path, timeline: BundleTimeline) -> Candles | None:
    """Candles of the market symbol that the bundles read; None where they read none."""
    session = timeline.session
    if not session.reads_market or session.market is None:
        return None
    return _read(folder, session.market, timeline)[session.market]


def _judge(
    timeline: BundleTimeline,
    series: dict[str, Candles],
    known: dict[str, Candles],
    in_sample: bool,
    folder: Path,
    market: str | None,
    console: Console,
) -> JudgedEmbedding:
    """The bundle's quality card and its forecasts beside HAR-X; `known`: candles read already."""
    from cppncripto_strategy.commands._candle_options import market_candles
    from cppncripto_strategy.embeddings import interval_text
    from cppncripto_strategy.feeds.history.files import open_source
    from cppncripto_strategy.forecasts import judge_embedding

    interval = interval_text(timeline.session.interval_ms)
    with console.status("judging the embedding"):
        name, candles = market_candles(open_source(folder), market, interval, known)
        return judge_embedding(timeline.bundles[0], series, name, candles, in_sample)


def _print_card(card: QualityCard) -> None:
    """A table of the probes, one row per symbol and target, one column per input."""
    from rich.table import Table

    from cppncripto_strategy.feeds.clock import ms_to_utc
    from cppncripto_strategy.models.judging.quality import INPUTS

    span = f"{ms_to_utc(card.judged_from_ms)[:10]} to {ms_to_utc(card.judged_until_ms)[:10]}"
    where = "in-sample" if card.in_sample else "out of sample"
    table = Table(title=f"Quality card, {span} ({where})", title_justify="left", box=None)
    for name in ("symbol", "next day's", "by", "days"):
        table.add_column(name)
    for name in ("nothing", *INPUTS):
        table.add_column(name.replace("_", " "), justify="right")
    kinds = [("ridge", card.probes), ("nearest days", card.retrieval)]
    for kind, probes in kinds:
        for symbol, target in dict.fromkeys((p.symbol, p.target) for p in probes):
            row = [p for p in probes if (p.symbol, p.target) == (symbol, target)]
            values = {p.inputs: p.value for p in row}
            table.add_row(
                symbol,
                f"{target.replace('_', ' ')} ({row[0].metric})",
                kind,
                str(row[0].days),
                f"{row[0].benchmark:.3f}",
                *(f"{values[name]:.3f}" for name in INPUTS),
            )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"alignment {card.alignment:.3f}, uniformity {card.uniformity:.3f},"
        f" effective rank {card.effective_rank:.1f}",
        soft_wrap=True,
    )


def _print_forecasts(judged: JudgedEmbedding) -> None:
    """A table of the pooled forecasts, one row per input, HAR-X being what others are held to."""
    from rich.table import Table

    table = Table(
        title=f"Next day's log variance, {judged.forecasts[0].symbol_days:,} symbol-days,"
        f" market {judged.market or 'none'}; differences from {judged.forecasts[0].anchor}",
        title_justify="left",
        box=None,
    )
    table.add_column("by")
    for name in ("R2", "R2 by symbol", "MSE", "QLIKE", "R2 gained", "MSE ratio", "DM", "p"):
        table.add_column(name.replace("_", " "), justify="right")
    for score in judged.forecasts:
        test = score.diebold_mariano
        table.add_row(
            score.name.replace("_", " "),
            *(f"{v:.3f}" for v in (score.r2, score.r2_by_symbol, score.mse, score.qlike)),
            _with_interval(score.r2_gain, "+.3f"),
            _with_interval(score.mse_ratio, ".3f"),
            *((f"{test.statistic:.2f}", f"{test.p_value:.2g}") if test else ("-", "-")),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "R2 counts from the mean of the 30 days before. A negative DM means less error than"
        f" {judged.forecasts[0].anchor}; symbols of one day are averaged first.",
        soft_wrap=True,
    )


def _with_interval(estimate: Estimate, form: str) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
