"""A year of 1-minute archives into the store, against pandas.read_csv of the same unzipped files.

Ours reads twelve monthly zips, checks each sha256, unzips, parses, validates every candle, writes
the month as Parquet with fsync, and records it in the coverage ledger. The baseline only parses the
text, already unzipped; since 3.1 pandas does that on every core, before on one, so its version is
shown. Prints one JSON line; speedup is baseline over ours, best of several interleaved repeats. The
processor seconds of both and the number of cores stand beside the wall times, because on a busy
machine only they can be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cppncripto_strategy.feeds.clock import MINUTE_MS, month_span
from cppncripto_strategy.feeds.history.imports import import_files
from cppncripto_strategy.feeds.history.store import CandleStore

SYMBOL, INTERVAL = "BTCUSDT", "1m"


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


def make_year(folder: Path) -> tuple[list[Path], list[Path]]:
    """Twelve zips with their checksums, and the twelve unzipped files."""
    rng, zips, texts = np.random.default_rng(0), [], []
    for number in range(1, 13):
        name = f"{SYMBOL}-{INTERVAL}-2025-{number:02d}"
        text = folder / f"{name}.csv"
        text.write_text(month_text(name[-7:], rng))
        packed = folder / f"{name}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            target.write(text, text.name)
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        packed.with_name(packed.name + ".CHECKSUM").write_text(f"{digest}  {packed.name}\n")
        zips.append(packed)
        texts.append(text)
    return zips, texts


Times = tuple[float, float]


def timed(work: Callable[[], object]) -> Times:
    """Wall and processor seconds of a piece of work."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def time_ours(zips: list[Path], folder: Path) -> Times:
    """From zips to a store that verifies."""
    root = folder / "store"
    shutil.rmtree(root, ignore_errors=True)
    taken = timed(lambda: import_files(CandleStore(root), SYMBOL, INTERVAL, zips))
    held = CandleStore(root).coverage(SYMBOL, INTERVAL)
    if held.count != 365 * 24 * 60 or held.gaps:
        raise SystemExit(f"the store holds {held.count} candles, expected a year without gaps")
    return taken


def time_baseline(texts: list[Path]) -> Times:
    """What pandas takes to parse the same text."""
    return timed(lambda: [pd.read_csv(text, header=None) for text in texts])


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zips, texts = make_year(folder)
        ours, baseline = [], []
        for _ in range(repeats):
            ours.append(time_ours(zips, folder))
            baseline.append(time_baseline(texts))
    (ours_s, ours_cpu_s), (baseline_s, baseline_cpu_s) = best(ours), best(baseline)
    line = {
        "name": "ingest",
        "ours_s": round(ours_s, 4),
        "baseline_s": round(baseline_s, 4),
        "speedup": round(baseline_s / ours_s, 3),
        "ours_cpu_s": round(ours_cpu_s, 4),
        "baseline_cpu_s": round(baseline_cpu_s, 4),
        "cores": os.cpu_count(),
        "pandas": pd.__version__,
    }
    print(json.dumps(line))


def best(times: list[Times]) -> Times:
    """The least wall and the least processor seconds."""
    return min(wall for wall, _ in times), min(processor for _, processor in times)


if __name__ == "__main__":
    main()
