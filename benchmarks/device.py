"""Learning and batch scoring on an accelerator against the processor, over a universe of symbols.

Scoring is a backtest's: every session embedded, every candle scored with and without macro.

Prints one JSON line per part (pretraining, micronet, scoring): cpu_s, device_s, speedup (cpu over
device), device (its name), max_difference (largest difference of the losses by epoch, relative; of
scores, absolute) and the sizes. Both sides do the same work from the same seed, alternating, in
this process; the median of the repeats counts. Without an accelerator the processor's seconds alone
are printed, and `speedup` is null. The package needs no Backtrader for it.

    python benchmarks/device.py [--symbols N] [--days N] [--epochs N] [--repeats N]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.bundle import Bundle, BundleInfo, BundleTimeline
from cppncripto_strategy.models.device import CPU
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import (
    SessionSet,
    SessionSettings,
    SessionTable,
    build_sessions,
)
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.training import MicroData, train_micronet
from cppncripto_strategy.models.macronet import build_macronet
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
from cppncripto_strategy.models.settings import MicroNetSettings, PretrainSettings, TrainSettings

SEED = 1
SESSION = SessionSettings(long_window=1440)
SHAPE = MicroNetSettings(n_features=len(SESSION.names))
LABEL = LabelSettings(horizon=6)
VALIDATE_DAYS = 30
Work = Callable[[torch.device], tuple[float, NDArray[np.float64]]]


def universe(symbols: int, days: int) -> list[SessionTable]:
    """Session tables of synthetic symbols."""
    tables = []
    for number in range(symbols):
        candles = generate(PlantedSettings(days=days, seed=number)).candles
        grid = CandleGrid.from_candles(candles, SESSION.interval_ms)
        tables.append(build_sessions(f"S{number}", grid, SESSION))
    return tables


def halves(tables: Sequence[SessionTable]) -> tuple[SessionSet, SessionSet]:
    """Training and validation sessions."""
    end = max(int(table.start_ms[-1]) for table in tables)
    split = end - VALIDATE_DAYS * 86_400_000
    return SessionSet.between(tables, 0, split), SessionSet.between(tables, split, end)


def micro_data(tables: Sequence[SessionTable], sessions: SessionSet) -> MicroData:
    """MicroNet's inputs under random embeddings: their numbers do not matter, their shapes do."""
    day = SESSION.day_candles
    target = np.ones((len(sessions), day), dtype=np.int64)
    forward = np.zeros((len(sessions), day), dtype=np.float32)
    labels = [LABEL.compute(table.grid) for table in tables]
    for place, (number, session) in enumerate(sessions.members):
        rows = tables[number].session_rows(int(session))
        found = labels[number].target[rows] + 1
        target[place, : len(found)] = found
        forward[place, : len(found)] = np.nan_to_num(labels[number].forward_return[rows])
    context = torch.randn(len(sessions), 128, generator=torch.Generator().manual_seed(SEED))
    return MicroData(
        inputs=sessions.micro_inputs(np.arange(len(sessions)), SHAPE.receptive_field),
        context=context,
        mirror_context=-context,
        target=torch.from_numpy(target),
        value=torch.from_numpy(np.tanh(forward)),
        forward_return=torch.from_numpy(forward),
        odd_columns=SESSION.table.odd,
    )


def pretraining(train: SessionSet, validation: SessionSet, epochs: int, batch: int) -> Work:
    """Pretrain the default encoder; the losses by epoch come back."""
    settings = PretrainSettings(epochs=epochs, patience=epochs, batch_size=batch)

    def work(device: torch.device) -> tuple[float, NDArray[np.float64]]:
        torch.manual_seed(SEED)
        macro = build_macronet("tcn", len(SESSION.names), SESSION.n_statistics)
        objective = build_objective("contrastive", macro.encoder, SESSION.table)
        began = time.perf_counter()
        curve = pretrain(macro.encoder, objective, train, validation, settings, SEED, device=device)
        return time.perf_counter() - began, np.array(curve.validation)

    return work


def training(train: MicroData, validation: MicroData, epochs: int, batch: int) -> Work:
    """Train one MicroNet; the losses by epoch come back."""
    settings = TrainSettings(
        epochs=epochs, patience=epochs, initialisations=1, batch_sessions=batch
    )

    def work(device: torch.device) -> tuple[float, NDArray[np.float64]]:
        began = time.perf_counter()
        trained = train_micronet(train, validation, SHAPE, settings, SEED, device=device)
        return time.perf_counter() - began, np.array(trained.curves[0]["validation"])

    return work


def untrained(sessions: SessionSet) -> BundleTimeline:
    """Networks as they are before learning: their numbers do not matter, their shapes do."""
    torch.manual_seed(SEED)
    macro = build_macronet("tcn", len(SESSION.names), SESSION.n_statistics).eval()
    macro.calibrate(embed_set(macro, sessions, raw=True))
    info = BundleInfo(
        session=SESSION,
        encoder="tcn",
        encoder_options=macro.encoder.options.to_json(),
        objective="contrastive",
        micro=SHAPE,
        label=LABEL.to_json(),
        symbols=("S0",),
        trained_from_ms=0,
        trained_until_ms=0,
        seed=SEED,
        data_fingerprint="",
    )
    bank = embed_set(macro, sessions)
    net = MicroNet(SHAPE).eval()
    net.fit_context(bank)
    bundle = Bundle(info, macro, net, np.zeros(1), bank.numpy(), sessions.start_ms())
    return BundleTimeline((bundle,))


def scoring(tables: Sequence[SessionTable], sessions: SessionSet) -> Work:
    """Embed every session and score every candle, as a backtest does; the scores come back."""
    timeline = untrained(sessions)

    def work(device: torch.device) -> tuple[float, NDArray[np.float64]]:
        began, parts = time.perf_counter(), []
        for table in tables:
            states = embed_sessions(table, timeline, device)
            score = score_sessions(table, timeline, states, device).score
            parts.append(score[np.isfinite(score)])
        return time.perf_counter() - began, np.concatenate(parts)

    return work


def compare(name: str, work: Work, repeats: int, **sizes: Any) -> dict[str, Any]:
    """The JSON line of one part."""
    devices = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]
    seconds: dict[str, list[float]] = {device.type: [] for device in devices}
    results: dict[str, NDArray[np.float64]] = {}
    for _ in range(repeats):
        for device in devices:
            spent, results[device.type] = work(device)
            seconds[device.type].append(spent)
    cpu_s = statistics.median(seconds["cpu"])
    device_s = statistics.median(seconds["cuda"]) if "cuda" in seconds else None
    difference = None
    if "cuda" in results:
        scale = np.maximum(np.abs(results["cpu"]), 1e-6) if name != "scoring" else 1.0
        difference = float(np.max(np.abs(results["cuda"] - results["cpu"]) / scale))
    return {
        "name": name,
        "cpu_s": round(cpu_s, 3),
        "device_s": None if device_s is None else round(device_s, 3),
        "speedup": None if device_s is None else round(cpu_s / device_s, 2),
        "max_difference": difference,
        "device": torch.cuda.get_device_name() if "cuda" in seconds else None,
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        **sizes,
        "repeats": repeats,
    }


def parts(tables: Sequence[SessionTable], epochs: int, repeats: int) -> Iterator[dict[str, Any]]:
    """The JSON lines, learning at the default and at a large batch."""
    train, validation = halves(tables)
    data, checked = micro_data(tables, train), micro_data(tables, validation)
    sizes = {"symbols": len(tables), "sessions": len(train), "epochs": epochs}
    for batch in (64, 256):
        work = pretraining(train, validation, epochs, batch)
        yield compare("pretraining", work, repeats, batch=batch, **sizes)
    for batch in (8, 64):
        work = training(data, checked, epochs, batch)
        yield compare("micronet", work, repeats, batch=batch, **sizes)
    yield compare("scoring", scoring(tables, train), repeats, **sizes)


def main() -> None:
    """Warm up on a small universe, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=4)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for _ in parts(universe(1, 70), epochs=1, repeats=1):
        pass  # libraries load, and caches fill, at first use
    for line in parts(universe(options.symbols, options.days), options.epochs, options.repeats):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
