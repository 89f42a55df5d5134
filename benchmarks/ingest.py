"""A year of 1-minute archives to queryable Parquet: ours against pandas, polars and DuckDB.

Twelve monthly zips become twelve zstd Parquet files. Ours checks each sha256, validates every
candle, writes with fsync and records all in the coverage ledger besides; the others unzip, parse
and write, each in the way its own documentation shows, those that are installed. Prints one JSON
line: name, ours_s, baseline (the fastest of the others), baseline_s, speedup (baseline over ours),
peers (processor seconds of each), by_the_clock (seconds that passed, of each), cores, versions.
Processor seconds count, the least of several interleaved repeats: on a busy machine times by the
clock cannot be compared.

    python benchmarks/ingest.py [--repeats N]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cppncripto_strategy.feeds.clock import MINUTE_MS, month_span
from cppncripto_strategy.feeds.history.imports import import_files
from cppncripto_strategy.feeds.history.store import CandleStore

SYMBOL, INTERVAL = "BTCUSDT", "1m"
CANDLES = 365 * 24 * 60
_NAMES = "open_time open high low close volume close_time quote_volume trades taker taker_quote"
COLUMNS = [*_NAMES.split(), "unused"]


def month_text(month: str, rng: np.random.Generator) -> str:
    """A month as the exchange writes it: twelve columns, eight decimals, microseconds."""
    span = month_span(month)
    opens = np.arange(span.start_ms, span.end_ms, MINUTE_MS)
    close = np.round(66_000 * np.exp(np.cumsum(rng.normal(0, 5e-4, len(opens)))), 2)
    begin = np.round(close * np.exp(rng.normal(0, 3e-4, len(opens))), 2)
    volume = rng.lognormal(2.3, 1.0, len(opens))
    taken = volume * rng.uniform(0.3, 0.7, len(opens))
    frame = pd.DataFrame(
        {
            "open_time": opens * 1000,
            "open": begin,
            "high": np.maximum(begin, close) + 5,
            "low": np.minimum(begin, close) - 5,
            "close": close,
            "volume": volume,
            "close_time": (opens + MINUTE_MS) * 1000 - 1,
            "quote_volume": volume * close,
            "trades": rng.integers(100, 9_000, len(opens)),
            "taker": taken,
            "taker_quote": taken * close,
            "unused": 0,
        }
    )
    text: str = frame.to_csv(header=False, index=False, float_format="%.8f")
    return text


def make_year(folder: Path) -> list[Path]:
    """Twelve zips with their checksums."""
    rng, zips = np.random.default_rng(0), []
    for number in range(1, 13):
        name = f"{SYMBOL}-{INTERVAL}-2025-{number:02d}"
        text = folder / f"{name}.csv"
        text.write_text(month_text(name[-7:], rng))
        packed = folder / f"{name}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            target.write(text, text.name)
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        packed.with_name(packed.name + ".CHECKSUM").write_text(f"{digest}  {packed.name}\n")
        text.unlink()
        zips.append(packed)
    return zips


Times = tuple[float, float]
"""Processor seconds of all threads together, and seconds by the clock."""


def seconds_of(work: Callable[[], object]) -> Times:
    """What a piece of work takes."""
    began, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began, time.perf_counter() - clock


def ours(zips: list[Path], folder: Path) -> None:
    """From zips to a store with its ledger."""
    import_files(CandleStore(folder), SYMBOL, INTERVAL, zips)


def with_pandas(zips: list[Path], folder: Path) -> None:
    """pandas reads the zip itself."""
    for path in zips:
        frame = pd.read_csv(path, header=None, names=COLUMNS)
        frame.to_parquet(folder / f"{path.stem}.parquet", compression="zstd", index=False)


def with_polars(zips: list[Path], folder: Path) -> None:
    """polars reads the bytes that zipfile unpacks."""
    import polars

    for path in zips:
        with zipfile.ZipFile(path) as packed:
            text = packed.read(packed.namelist()[0])
        frame = polars.read_csv(io.BytesIO(text), has_header=False, new_columns=COLUMNS)
        frame.write_parquet(folder / f"{path.stem}.parquet", compression="zstd")


def with_duckdb(zips: list[Path], folder: Path) -> None:
    """DuckDB copies from the text that zipfile unpacks."""
    import duckdb

    for path in zips:
        with zipfile.ZipFile(path) as packed:
            text = Path(packed.extract(packed.namelist()[0], folder))
        duckdb.sql(
            f"COPY (FROM read_csv('{text}', header=false, names={COLUMNS})) TO"
            f" '{folder / path.stem}.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )


PEERS = {"pandas": with_pandas, "polars": with_polars, "duckdb": with_duckdb}


def measured(work: Callable[[list[Path], Path], None], zips: list[Path], folder: Path) -> Times:
    """Seconds of one ingestion into an empty folder."""
    target = folder / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    seconds = seconds_of(lambda: work(zips, target))
    rows = [pq.read_metadata(path).num_rows for path in target.rglob("*.parquet")]
    if sum(rows) != CANDLES:
        raise SystemExit(f"{work.__name__} wrote {sum(rows):,} candles, expected {CANDLES:,}")
    return seconds


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    works = {"ours": ours} | {name: work for name, work in PEERS.items() if find_spec(name)}
    taken: dict[str, list[Times]] = {name: [] for name in works}
    with tempfile.TemporaryDirectory() as name:
        zips = make_year(Path(name))
        for _ in range(repeats):
            for who, work in works.items():
                taken[who].append(measured(work, zips, Path(name)))
    best, clock = (
        {name: round(min(times[i] for times in every), 4) for name, every in taken.items()}
        for i in (0, 1)
    )
    ours_s = best.pop("ours")
    fastest = min(best, key=lambda name: best[name])
    line = {
        "name": "ingest",
        "ours_s": ours_s,
        "baseline": fastest,
        "baseline_s": best[fastest],
        "speedup": round(best[fastest] / ours_s, 2),
        "peers": best,
        "by_the_clock": clock,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in best},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
