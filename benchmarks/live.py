"""How long a closed candle takes from the socket to the decision, and what an idle session costs.

A loopback exchange in a process of its own serves five planted symbols at speed; a paper session
with networks of the default shapes trades them. The clock starts when the last symbol's closing
frame has been parsed, and stops when all five decisions are made and recorded: journal with fsync,
watermark, Backtrader, both networks, thresholds, orders included; the network is not. Then the
exchange falls silent and the processor time of the idle session is taken. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from cppncripto_strategy.commands.exchange import planted_candles
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.market import Market
from cppncripto_strategy.outcome import micro_latency_s
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import create_session
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options, todays_bundle
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe, parse_recipe

SYMBOLS = ("AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT")
DAYS, START_DAY, SEED = 50, 42, 7
DECISION_LIMIT_MS, MICRO_LIMIT_US, IDLE_LIMIT = 10.0, 100.0, 0.05


def recipe() -> Recipe:
    """Networks of the default shapes; one epoch, since only their cost matters."""
    return parse_recipe(
        {
            "name": "live",
            "symbols": SYMBOLS,
            "macro": {"epochs": 1},
            "micro": {"epochs": 1, "initialisations": 1},
            "walkforward": {"train_days": 14, "validate_days": 4, "retrain_days": 7},
            "strategy": {"hold_candles": 6},
        }
    )


def start_exchange(speed: float, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The exchange as a process, and its addresses."""
    command = [sys.executable, "-m", "cppncripto_strategy.cli", "exchange", "--planted", "--json"]
    command += ["--days", str(DAYS), "--seed", str(SEED), "--port", "0", "--speed", str(speed)]
    command += ["--history-days", str(START_DAY + 0.25)]
    for symbol in SYMBOLS:
        command += ["--symbol", symbol]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def processor_s() -> float:
    """Processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(count: int, speed: float, idle_s: float, folder: Path) -> dict[str, Any]:
    """Run the session over `count` live candles, then idle."""
    settings = recipe()
    candles = planted_candles(SYMBOLS, DAYS, "5m", SEED)
    start_ms = int(candles[SYMBOLS[0]].open_time[0]) + START_DAY * DAY_MS
    known = {s: c[c.open_time + 300_000 <= start_ms] for s, c in candles.items()}
    timeline = todays_bundle(settings, Market(known), start_ms, None, None)
    process, told = start_exchange(speed, folder)
    sources = Sources(told["archive_url"], told["rest_url"], told["stream_url"])
    retry = Retry(attempts=6, base_s=0.05, cap_s=1.0, timeout_s=5.0)
    connection = Connection(sources, StreamSettings.for_speed(speed), retry)
    memory: list[float] = []
    try:
        with create_session(folder / "session", settings, timeline, connection) as session:
            paper = PaperSession(
                session,
                strategy_options(settings, SessionTimeline.of_session(folder / "session")),
                connection,
                before_round=lambda one: watch(one),
            )

            def watch(one: Round) -> None:
                if not paper.queue.allowed:
                    return
                memory.append(memory_mb())
                if len(memory) == count:
                    threading.Thread(target=idle).start()

            idling: dict[str, float] = {}

            def idle() -> None:
                time.sleep(1.0)
                process.kill()  # nothing arrives any more; the session waits and reconnects
                time.sleep(1.0)
                before, began = processor_s(), time.perf_counter()
                time.sleep(idle_s)
                idling["share"] = (processor_s() - before) / (time.perf_counter() - began)
                paper.stop()

            paper.run()
    finally:
        process.kill()
        process.wait()
    latency_ms = 1e3 * np.array(paper.recorder.latency_s)
    micro_us = 1e6 * np.array(micro_latency_s(timeline.bundles[-1]))
    half = memory[len(memory) // 4 :]
    return {
        "name": "live",
        "symbols": len(SYMBOLS),
        "candles": len(latency_ms),
        "micronet_p50_us": float(np.median(micro_us)),
        "micronet_p99_us": float(np.quantile(micro_us, 0.99)),
        "decision_p50_ms": float(np.median(latency_ms)),
        "decision_p99_ms": float(np.quantile(latency_ms, 0.99)),
        "decision_max_ms": float(latency_ms.max()),
        "idle_cpu_share": idling.get("share"),
        "memory_mb": half[-1],
        "memory_growth": half[-1] / half[0] - 1,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candles", type=int, default=300)
    parser.add_argument("--speed", type=float, default=3000.0, help="market s per wall s")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of idling measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        line = measure(arguments.candles, arguments.speed, arguments.idle, Path(name))
    line["passed"] = (
        line["decision_p99_ms"] < DECISION_LIMIT_MS
        and line["micronet_p50_us"] < MICRO_LIMIT_US
        and line["idle_cpu_share"] < IDLE_LIMIT
    )
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
