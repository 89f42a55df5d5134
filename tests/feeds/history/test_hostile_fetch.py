"""Fetching from a hostile exchange: one symbol stops alone, and memory stays bounded."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import RestGate
from cppncripto_strategy.feeds.candles import Candles, Rejected
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history.fetch import fetch, months_at_once
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings
from cppncripto_strategy.feeds.history.ledger import Ledger
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.series_fetch import SeriesFetch
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import RestFault
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

MONTHS = ("2024-05", "2024-06", "2024-07", "2024-08")
START_MS, END_MS = utc_to_ms("2024-05-01"), utc_to_ms("2024-09-01")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
FAST = Retry(attempts=3, base_s=0.01, cap_s=0.02, timeout_s=1.0)
MEMORY_MB = 600
# Every attack in a process of its own: CPPN_BT_ATTACKS=1 pytest ...
EACH_ATTACK = bool(os.environ.get("CPPN_BT_ATTACKS"))


def some_hours() -> Candles:
    """The first twenty hours of four months."""
    opens = np.concatenate([utc_to_ms(f"{m}-01") + 3_600_000 * np.arange(20) for m in MONTHS])
    price = 100.0 + np.arange(len(opens)) % 7
    return Candles.from_columns(
        open_time=opens, open=price, high=price + 1, low=price - 1, close=price, volume=price
    )


@pytest.fixture
def host() -> Iterator[ExchangeThread]:
    exchange = LoopbackExchange(
        dict.fromkeys(SYMBOLS, some_hours()),
        clock=ManualClock(utc_to_ms("2024-12-01")),
        settings=ExchangeSettings(interval="1h", hang_s=5.0),
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def run_fetch(host: ExchangeThread, root: Path):
    sources = Sources(archive_url=host.archive_url, rest_url=host.rest_url)
    settings = FetchSettings(sources, FAST, absence_wait_s=0.02, proof_age_ms=0, settle_ms=0)
    store, rng = CandleStore(root), random.Random(7)
    return fetch(store, SYMBOLS, "1h", START_MS, END_MS, settings, gate=RestGate(), rng=rng)


def test_a_damaged_ledger_stops_its_symbol_alone(host, tmp_path):
    """Twenty symbols that are not fetched because of one file of the first."""
    path = Ledger.path_of(CandleStore(tmp_path), "BTCUSDT", "1h")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"[" * 100_000)
    [broken, other] = run_fetch(host, tmp_path)
    assert "_ledger.json is not a readable coverage ledger" in broken.error
    assert "nested too deeply" in broken.error
    assert other.complete
    assert CandleStore(tmp_path).read("ETHUSDT", "1h").equals(host.exchange.candles["ETHUSDT"])


def test_an_error_of_our_own_stops_its_symbol_alone(host, tmp_path, monkeypatch):
    """A bug met by one symbol that throws away what the others fetched."""
    honest = SeriesFetch._months

    async def months(self, span):
        if self.symbol == "BTCUSDT":
            raise ZeroDivisionError("a bug")
        await honest(self, span)

    monkeypatch.setattr(SeriesFetch, "_months", months)
    [broken, other] = run_fetch(host, tmp_path)
    assert "ZeroDivisionError: a bug" in broken.error
    assert not broken.complete
    assert other.complete


def test_a_changed_record_of_refused_candles_does_not_stop_a_fetch(tmp_path):
    """A file in the quarantine, saved by an editor in another encoding, that ends every fetch."""
    quarantine = Quarantine(tmp_path)
    quarantine.keep_candles("BTCUSDT", "1h", "rest", [Rejected(1, "a rule", "open=1")])
    file = tmp_path / ".quarantine" / "BTCUSDT-1h.jsonl"
    file.write_bytes(file.read_bytes() + b"\xff\xfe not JSON\n")
    quarantine.keep_candles("BTCUSDT", "1h", "rest", [Rejected(2, "a rule", "open=2")])
    assert b'"open_time": 2' in file.read_bytes()
    assert b'"open_time": 1' in file.read_bytes()


def test_the_json_document_is_printed_whatever_happens(tmp_path, monkeypatch):
    """A script that waits for a document, and gets nothing to read."""

    def failing(*_, **__):
        raise SourceError("nobody answers")

    monkeypatch.setattr("cppncripto_strategy.feeds.history.fetch.fetch", failing)
    result = CliRunner().invoke(cli, ["fetch", "BTCUSDT", "--store", str(tmp_path), "--json"])
    assert isinstance(result.exception, SourceError)
    document = {"store": str(tmp_path), "series": [], "error": "nobody answers"}
    assert json.loads(result.stdout) == document


@pytest.mark.parametrize(
    ("interval", "months"), [("1s", 1), ("1m", 4), ("5m", 4), ("1h", 4), ("1w", 4)]
)
def test_months_of_seconds_are_fetched_one_at_a_time(interval, months):
    """Four times two million candles in memory."""
    assert months_at_once(interval, 4) == months


FETCH = """
import random, sys
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import RestGate
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings
from cppncripto_strategy.feeds.history.store import CandleStore

root, url, start_ms, end_ms = sys.argv[1:5]
retry = Retry(attempts=9, base_s=0.01, cap_s=0.02, timeout_s=1.0)
sources = Sources(archive_url=url, rest_url=url)
settings = FetchSettings(sources, retry, absence_wait_s=0.02, proof_age_ms=0, settle_ms=0)
reports = fetch(CandleStore(root), ["BTCUSDT", "ETHUSDT"], "1h", int(start_ms), int(end_ms),
                settings, gate=RestGate(), rng=random.Random(7))
with open("/proc/self/status") as status:
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(sum(report.held for report in reports), peak_kb // 1024)
"""
# (what strikes, where it strikes)
ATTACKS = [
    ("endless", ".zip$"),
    ("endless", ".CHECKSUM"),
    ("slow", ".zip$"),
    ("lying_length", ".zip$"),
    ("forged_bomb_zip", ".CHECKSUM"),
    ("forged_lying_bomb_zip", ".CHECKSUM"),
    ("forged_zip64_zip", ".CHECKSUM"),
    ("forged_many_members_zip", ".CHECKSUM"),
    ("forged_many_rows_zip", ".CHECKSUM"),
    ("endless", "/klines"),
    ("bomb", "/klines"),
    ("many_rows", "/klines"),
    ("deep_json", "/klines"),
    ("bomb", "/exchangeInfo"),
]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "attacks", [[attack] for attack in ATTACKS] if EACH_ATTACK else [ATTACKS], ids=str
)
def test_no_answer_takes_more_memory_than_its_bound(host, tmp_path, attacks):
    """A machine brought down by three megabytes from somebody else's server."""
    # Each month meets others of them.
    for number, (kind, path) in enumerate(attacks):
        month = f"{MONTHS[number % len(MONTHS)]}.zip{path.removeprefix('.zip')}"
        where = path if EACH_ATTACK or path.startswith("/") else month
        host.script(RestFault(kind, path=where, times=1))
    arguments = [str(tmp_path), host.rest_url, str(START_MS), str(END_MS)]
    run = subprocess.run(
        [sys.executable, "-c", FETCH, *arguments], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    held, peak_mb = map(int, run.stdout.split())
    assert sum(host.exchange.faults.struck.values()) >= len(attacks)
    assert peak_mb < MEMORY_MB
    assert held == sum(len(candles) for candles in host.exchange.candles.values())
