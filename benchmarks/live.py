"""How long a closed candle takes from the socket to the decision, and what an idle session costs.

A loopback exchange in a process of its own serves planted symbols at speed (five, or `--symbols`);
a paper session with networks of the default shapes trades them. The clock starts when the last
symbol's closing frame has been parsed, and stops when all decisions are made and recorded: journal
with fsync, watermark, Backtrader, both networks, thresholds, orders included; the network is not.
`own_p50_ms` and `own_p99_ms` are the processor's time of the session's thread for a round, from its
opening until everything is recorded: that does not wait for the disk or for other processes.
MicroNet's time is one symbol's share of a round of all of them, and that of one symbol alone.
Time to live counts from the first candle that closes after the exchange's start to the end of
catching up, from which on every symbol may be traded; from the session's start, it includes the
wait for that candle. Then the exchange falls silent and the processor time of the idle session is
taken. `--real` keeps to wall time and real patience: a candle every five minutes.
Prints one JSON line, with the load of the machine, which tells how far to believe it.
"""

from __future__ import annotations

import argparse
import json
import os
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
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.outcome import micro_latency_s
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import create_session
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options, todays_bundle
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.recipe import Recipe, parse_recipe

DAYS, START_DAY, SEED = 50, 42, 7
CANDLE_S = 300.0
LEARN_FROM = 3
# Of five symbols; of fifty a decision may take longer.
DECISION_LIMIT_MS, MICRO_LIMIT_US, IDLE_LIMIT = 10.0, 100.0, 0.05
MANY, MANY_LIMIT_MS, LIVE_LIMIT_S = 50, 250.0, 90.0


def names(count: int) -> tuple[str, ...]:
    """That many symbols."""
    return tuple(f"S{number:03d}USDT" for number in range(count))


def recipe(symbols: tuple[str, ...]) -> Recipe:
    """Networks of the default shapes; one epoch, since only their cost matters."""
    return parse_recipe(
        {
            "name": "live",
            "symbols": symbols,
            "macro": {"epochs": 1},
            "micro": {"epochs": 1, "initialisations": 1},
            "walkforward": {"train_days": 14, "validate_days": 4, "retrain_days": 7},
            "strategy": {"hold_candles": 6},
        }
    )


def start_exchange(
    symbols: tuple[str, ...], speed: float, folder: Path, days: int = DAYS
) -> tuple[Any, dict[str, Any]]:
    """The exchange as a process, and its addresses."""
    command = [sys.executable, "-m", "cppncripto_strategy.cli", "exchange", "--planted", "--json"]
    command += ["--days", str(days), "--seed", str(SEED), "--port", "0", "--speed", str(speed)]
    command += ["--history-days", str(START_DAY + 0.25)]
    for symbol in symbols:
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


def networks() -> BundleTimeline:
    """Trained on a few of the symbols: what they cost does not depend on it."""
    symbols = names(LEARN_FROM)
    candles = planted_candles(symbols, START_DAY + 1, "5m", SEED)
    start_ms = int(candles[symbols[0]].open_time[0]) + START_DAY * DAY_MS
    known = {s: c[c.open_time + 300_000 <= start_ms] for s, c in candles.items()}
    return todays_bundle(recipe(symbols), Market(known), start_ms, None, None)


def measure(
    symbols: tuple[str, ...], count: int, speed: float, idle_s: float, folder: Path
) -> dict[str, Any]:
    """Run the session over `count` live candles, then idle."""
    settings, timeline = recipe(symbols), networks()
    process, told = start_exchange(symbols, speed, folder)
    first_close_s = time.perf_counter() + CANDLE_S / speed  # its clock starts at an opening
    sources = Sources(told["archive_url"], told["rest_url"], told["stream_url"])
    retry = Retry(attempts=6, base_s=0.05, cap_s=1.0, timeout_s=5.0)
    connection = Connection(sources, StreamSettings.for_speed(speed), retry)
    if speed == 1.0:
        connection = Connection(sources, StreamSettings(), Retry())
    memory: list[float] = []
    own_s: list[float] = []
    opened_s = 0.0
    live: dict[str, float] = {}
    try:
        with create_session(folder / "session", settings, timeline, connection) as session:
            paper = PaperSession(
                session,
                strategy_options(settings, SessionTimeline.of_session(folder / "session")),
                connection,
                before_round=lambda one: watch(one),
                after_round=lambda _strategy: work(),
            )

            def work() -> None:
                if paper.queue.allowed and not paper.source.replaying:
                    own_s.append(time.thread_time() - opened_s)

            def watch(one: Round) -> None:
                nonlocal opened_s
                opened_s = time.thread_time()
                if not paper.queue.allowed:
                    return
                live.setdefault("first_s", time.perf_counter() - began_s)
                if len(paper.queue.allowed) == len(symbols):
                    live.setdefault("all_s", time.perf_counter() - began_s)
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

            began_s = time.perf_counter()
            paper.run()
    finally:
        process.kill()
        process.wait()
    if "share" not in idling:
        raise SystemExit(f"ended after {len(memory)} of {count} live candles: nothing is measured")
    # The first round ends the catching up.
    latency_ms = 1e3 * np.array(list(paper.recorder.latency_s)[1:])
    micro_us = 1e6 * np.array(micro_latency_s(timeline.bundles[-1], symbols=len(symbols)))
    alone_us = 1e6 * np.array(micro_latency_s(timeline.bundles[-1]))
    own_ms = 1e3 * np.array(own_s[1:])
    half = memory[len(memory) // 4 :]
    return {
        "name": "live",
        "symbols": len(symbols),
        "load": os.getloadavg()[0],
        "live_s": live.get("all_s"),
        "first_live_s": live.get("first_s"),
        "live_after_first_close_s": live["all_s"] - (first_close_s - began_s)
        if "all_s" in live
        else None,
        "candles": len(latency_ms),
        "micronet_alone_p50_us": float(np.median(alone_us)),
        "micronet_p50_us": float(np.median(micro_us)),
        "micronet_p99_us": float(np.quantile(micro_us, 0.99)),
        "decision_p50_ms": float(np.median(latency_ms)),
        "decision_p99_ms": float(np.quantile(latency_ms, 0.99)),
        "decision_max_ms": float(latency_ms.max()),
        "own_p50_ms": float(np.median(own_ms)),
        "own_p99_ms": float(np.quantile(own_ms, 0.99)),
        "own_max_ms": float(own_ms.max()),
        "idle_cpu_share": idling["share"],
        "memory_mb": half[-1],
        "memory_growth": half[-1] / half[0] - 1,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=5)
    parser.add_argument("--candles", type=int, help="live candles; 300, fewer of many symbols")
    parser.add_argument("--speed", type=float, help="market s per wall s; 3000, less for many")
    parser.add_argument("--real", action="store_true", help="wall time and real patience")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of idling measured")
    arguments = parser.parse_args()
    symbols, many = names(arguments.symbols), arguments.symbols / MANY
    speed = arguments.speed or 3000.0 / max(1.0, 20.0 * many)
    speed = 1.0 if arguments.real else speed
    candles = arguments.candles or (5 if arguments.real else 300 if many < 1 else 60)
    with tempfile.TemporaryDirectory() as name:
        line = measure(symbols, candles, speed, arguments.idle, Path(name))
    limit_ms = DECISION_LIMIT_MS if many < 1 else MANY_LIMIT_MS
    line["passed"] = (
        line["decision_p99_ms"] < limit_ms
        and line["micronet_p50_us"] < MICRO_LIMIT_US
        and line["idle_cpu_share"] < IDLE_LIMIT
        and (speed != 1.0 or line["live_after_first_close_s"] < LIVE_LIMIT_S)
    )
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
