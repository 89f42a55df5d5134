"""Fetching into the store: faults, kills and true holes, always the same bytes in the end."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, SourceError, StoreError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.filters import (
    exchange_info,
    filters_from_exchange_info,
    symbol_info,
)
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, utc_to_ms
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings, SeriesReport
from cppncripto_strategy.feeds.history.ledger import Ledger, job_lock
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.series_fetch import gaps_to_read
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.stored_filters import stored_filters
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import (
    ARCHIVE_FAULTS,
    ODD_WAITS,
    REST_FAULTS,
    Halt,
    RandomFaults,
    RestFault,
)
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

HOUR_MS = 3_600_000
# Across the change from milliseconds to microseconds, a leap day, and months that are too recent
# for a monthly file.
LISTED_MS = utc_to_ms("2024-11-20")
END_MS = utc_to_ms("2025-03-10 07:00")
ALL_HALTED = Halt(utc_to_ms("2024-12-31 20:00"), utc_to_ms("2025-01-01 05:00"))
ONE_HALTED = Halt(utc_to_ms("2025-02-20"), utc_to_ms("2025-02-21 03:00"), "ETHUSDT")
HALTS = (ALL_HALTED, ONE_HALTED)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
# A long run asks for more: CPPN_BT_FAULT_SCHEDULES=200 CPPN_BT_KILLS=50 pytest ...
SCHEDULES = int(os.environ.get("CPPN_BT_FAULT_SCHEDULES", "4"))
KILLS = int(os.environ.get("CPPN_BT_KILLS", "5"))
FAST = Retry(attempts=8, base_s=0.01, cap_s=0.02, timeout_s=1.0)


def make_candles(seed: int, start_ms: int = LISTED_MS, end_ms: int = END_MS) -> Candles:
    rng, opens = np.random.default_rng(seed), np.arange(start_ms, end_ms, HOUR_MS)
    count = len(opens)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.1, count)), 2)
    begin = np.round(close + rng.normal(0, 0.1, count), 2)
    amounts = {}
    for whole, taker in (
        ("volume", "taker_buy_volume"),
        ("quote_volume", "taker_buy_quote_volume"),
    ):
        amounts[whole] = np.round(rng.exponential(50, count), 8)
        amounts[taker] = np.round(amounts[whole] * rng.random(count), 8)
    return Candles.from_columns(
        open_time=opens,
        open=begin,
        high=np.maximum(begin, close) + 0.01,
        low=np.minimum(begin, close) - 0.01,
        close=close,
        trades=rng.integers(1, 99, count),
        **amounts,
    )


MARKET = {"BTCUSDT": make_candles(1), "ETHUSDT": make_candles(2)}


def exchange_of(**options) -> LoopbackExchange:
    settings = ExchangeSettings(interval="1h", halts=options.pop("halts", HALTS), hang_s=3.0)
    options.setdefault("clock", ManualClock(END_MS))
    return LoopbackExchange(options.pop("market", MARKET), settings=settings, **options)


def settings_for(host: ExchangeThread, **changes) -> FetchSettings:
    sources = Sources(archive_url=host.archive_url, rest_url=host.rest_url)
    defaults = {"retry": FAST, "absence_wait_s": 0.02, "proof_age_ms": 0, "settle_ms": 0}
    return FetchSettings(sources=sources, **{**defaults, **changes})


def run_fetch(
    host: ExchangeThread, root: Path, symbols=SYMBOLS, start="2020-01-01", end=None, **changes
) -> list[SeriesReport]:
    return fetch(
        CandleStore(root),
        symbols,
        "1h",
        utc_to_ms(start),
        None if end is None else utc_to_ms(end),
        settings_for(host, **changes),
        gate=RestGate(),
        rng=random.Random(7),
    )


def digests(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*.parquet"))
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, str]:
    """The digests of a fetch that nothing disturbed."""
    root = tmp_path_factory.mktemp("clean")
    with ExchangeThread(exchange_of()) as host:
        reports = run_fetch(host, root)
    assert all(report.complete for report in reports)
    return digests(root)


@pytest.fixture
def host() -> Iterator[ExchangeThread]:
    with ExchangeThread(exchange_of()) as thread:
        yield thread


def holes_of(report: SeriesReport) -> list[Span]:
    return [entry.span for entry in report.exchange_down]


TRUE_HOLES = {
    "BTCUSDT": [Span(ALL_HALTED.start_ms, ALL_HALTED.end_ms)],
    "ETHUSDT": [
        Span(ALL_HALTED.start_ms, ALL_HALTED.end_ms),
        Span(ONE_HALTED.start_ms, ONE_HALTED.end_ms),
    ],
}


def test_history_arrives_complete_with_every_hole_named(host, tmp_path):
    """A candle lost between monthly, daily and REST, or a hole nobody mentions."""
    reports = run_fetch(host, tmp_path)
    store = CandleStore(tmp_path)
    for report in reports:
        truth = host.exchange.candles[report.symbol]
        assert store.read(report.symbol, "1h").equals(truth)
        assert TRUE_HOLES[report.symbol] == holes_of(report)
        assert report.missing == ()
        assert report.span == Span(LISTED_MS, END_MS)
        assert report.held == len(truth) == report.from_archives + report.from_rest
        # Only the seven hours of the last day are in no archive.
        assert report.from_rest == 7
        sources = {e.source for e in Ledger.load(store, report.symbol, "1h").entries()}
        assert f"archive:{report.symbol}-1h-2024-12" in sources
        assert f"archive:{report.symbol}-1h-2025-03-09" in sources
        assert "rest" in sources


def test_a_fetched_store_is_still_a_plain_parquet_folder(host, tmp_path):
    """Our own bookkeeping in the way of everybody else's readers."""
    host.script(RestFault("corrupt_zip", path="BTCUSDT-1h-2024-12.zip", times=1))
    run_fetch(host, tmp_path)
    assert len(Quarantine(tmp_path).files()) == 1
    total = sum(len(candles) for candles in host.exchange.candles.values())
    dataset = pyarrow.dataset.dataset(tmp_path, format="parquet", partitioning="hive")
    assert dataset.count_rows() == total
    assert len(pd.read_parquet(tmp_path)) == total


def test_the_rules_of_each_symbol_are_kept_beside_its_candles(host, tmp_path):
    """A backtest of fetched candles that has to guess what the exchange had just stated."""
    run_fetch(host, tmp_path)
    for symbol in SYMBOLS:
        known = stored_filters(tmp_path, symbol)
        assert known is not None
        assert (
            known.filters
            == filters_from_exchange_info(
                exchange_info(0, 1, [symbol_info(symbol, known.filters)])
            )[symbol]
        )
        assert (known.quote, known.filters.market_max_qty) == ("USDT", 100)
        assert known.stated_ms == END_MS


def test_rest_alone_gives_the_same_bytes_as_archives(host, tmp_path, clean):
    """Numbers that depend on the source: text parsed in two ways."""
    run_fetch(host, tmp_path, archives=False)
    assert digests(tmp_path) == clean


def test_a_second_fetch_changes_nothing_and_asks_little(host, tmp_path, clean):
    """A fetch that starts from scratch every night."""
    run_fetch(host, tmp_path)
    files = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    asked = len(host.exchange.requests)
    again = run_fetch(host, tmp_path)
    assert all(r.complete and r.months_changed == () for r in again)
    assert files == {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    # The time, and for each symbol the limit and the first candle.
    assert len(host.exchange.requests) - asked == 1 + 2 * len(SYMBOLS)


def test_a_fetch_in_pieces_gives_the_same_bytes(host, tmp_path, clean):
    """Month files that remember how often they were written."""
    for start, end in (
        ("2024-12-15 03:00", "2025-01-10"),
        ("2024-12-01", "2024-12-20"),
        ("2025-01-05", None),
        ("2020-01-01", None),
    ):
        run_fetch(host, tmp_path, start=start, end=end)
    assert digests(tmp_path) == clean


def test_the_market_moving_on_is_followed(tmp_path, clean):
    """A last month that is never completed, or a forming candle kept."""
    clock = ManualClock(utc_to_ms("2025-02-10 10:30"))
    with ExchangeThread(exchange_of(clock=clock)) as host:
        for until in (
            "2025-02-10 10:30",
            "2025-02-10 11:00",
            "2025-02-28 23:59",
            "2025-03-10 07:00",
        ):
            host.advance_to(utc_to_ms(until))
            reports = run_fetch(host, tmp_path)
            last_ms = utc_to_ms(until) // HOUR_MS * HOUR_MS
            assert [last_ms] * 2 == [report.span.end_ms for report in reports]
            assert all(report.complete for report in reports)
    assert digests(tmp_path) == clean


# A wait that nobody states is guessed to be a minute: too long for a test.
STATED = [kind for kind in REST_FAULTS if kind not in ODD_WAITS or kind == "429_now"]
EVERY_REST = dict.fromkeys(STATED, 0.6 / len(STATED)) | {"hang": 0.01, "429": 0.02, "418": 0.02}
EVERY_ARCHIVE = dict.fromkeys(ARCHIVE_FAULTS, 0.6 / len(ARCHIVE_FAULTS)) | {"hang": 0.01}


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_random_faults_change_no_byte_and_make_no_false_hole(seed, tmp_path, clean):
    """Any row of the fault table that leaks into the store or the ledger."""
    faults = RandomFaults(seed=seed, rest=EVERY_REST, archive=EVERY_ARCHIVE)
    exchange = exchange_of(faults=faults)
    with ExchangeThread(exchange) as host:
        reports = run_fetch(host, tmp_path)
    assert sum(exchange.faults.struck.values()) >= 8
    assert [report.error for report in reports] == [""] * len(reports)
    assert digests(tmp_path) == clean
    for report in reports:
        assert report.complete
        assert TRUE_HOLES[report.symbol] == holes_of(report)
    assert exchange.violations == 0


KILLED_FETCH = """
import os, random, signal, sys
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.history.store import CandleStore

root, archive_url, rest_url, start_ms, calls = sys.argv[1:6]
left = int(calls)

def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

for name in ("fsync", "replace", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
settings = FetchSettings(
    sources=Sources(archive_url=archive_url, rest_url=rest_url),
    retry=Retry(attempts=8, base_s=0.01, cap_s=0.02, timeout_s=5.0),
    absence_wait_s=0.02, proof_age_ms=0, settle_ms=0,
)
fetch(CandleStore(root), ["BTCUSDT", "ETHUSDT"], "1h", int(start_ms), None, settings,
      gate=RestGate(), rng=random.Random(7))
print("counted", int(calls) - left)
"""


def killed_fetch(host: ExchangeThread, root: Path, calls: int) -> subprocess.CompletedProcess[str]:
    """A fetch in a process of its own, killed at the given file operation (0: never)."""
    start_ms = str(utc_to_ms("2020-01-01"))
    urls = [host.archive_url, host.rest_url]
    return subprocess.run(
        [sys.executable, "-c", KILLED_FETCH, str(root), *urls, start_ms, str(calls)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def operations(tmp_path_factory) -> int:
    """How many file operations an undisturbed fetch makes."""
    with ExchangeThread(exchange_of()) as host:
        whole = killed_fetch(host, tmp_path_factory.mktemp("counted"), 10**6)
    assert whole.returncode == 0, whole.stderr
    return int(whole.stdout.split()[-1])


@pytest.mark.posix
@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_nine_leaves_a_store_that_reads_and_the_next_fetch_ends_it(
    host, tmp_path, clean, operations, seed
):
    """A torn month, a lock that outlives its owner, or a ledger ahead of its files."""
    calls = random.Random(seed).randint(1, operations)
    killed = killed_fetch(host, tmp_path, calls)
    assert killed.returncode == -9, killed.stderr
    store = CandleStore(tmp_path)
    for symbol, interval in store.series():
        if store.months(symbol, interval):
            held = store.read(symbol, interval)
            assert np.isin(held.open_time, MARKET[symbol].open_time).all()
        Ledger.load(store, symbol, interval)
    reports = run_fetch(host, tmp_path)
    assert all(report.complete for report in reports)
    assert digests(tmp_path) == clean
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_hole_is_proved_by_two_reads_apart(host, tmp_path):
    """A slow exchange's empty answer taken for an outage after one look."""
    [report] = run_fetch(host, tmp_path, ["BTCUSDT"], absence_wait_s=0.3)
    entries = Ledger.load(CandleStore(tmp_path), "BTCUSDT", "1h").entries()
    [first_ms, second_ms] = next(e for e in entries if e.status == "exchange-down").reads_ms
    assert second_ms - first_ms >= 300
    assert report.complete


def test_a_hole_that_is_too_young_is_missing_not_down(host, tmp_path):
    """The exchange's lag written down as an outage for ever."""
    age_ms = END_MS - ALL_HALTED.end_ms + 2 * HOUR_MS
    [report] = run_fetch(host, tmp_path, ["BTCUSDT"], proof_age_ms=age_ms)
    cut_ms = report.missing[0].start_ms
    assert [Span(ALL_HALTED.start_ms, cut_ms)] == holes_of(report)
    assert [Span(cut_ms, ALL_HALTED.end_ms)] == [e.span for e in report.missing]
    assert not report.complete
    [mended] = run_fetch(host, tmp_path, ["BTCUSDT"])
    assert TRUE_HOLES["BTCUSDT"] == holes_of(mended)
    assert mended.complete


def test_a_candle_that_appears_late_is_not_declared_absent(host, tmp_path, monkeypatch):
    """A candle the second read brings, thrown away because the first had none."""
    from cppncripto_strategy.feeds.binance import rest

    hidden_ms, honest, hides = utc_to_ms("2025-03-10 03:00"), rest.read_klines, [1]

    def read(answer, span=None):
        candles = honest(answer, span)
        here = candles.open_time == hidden_ms
        if here.any() and hides:
            hides.pop()
            return candles[~here]
        return candles

    monkeypatch.setattr(rest, "read_klines", read)
    [report] = run_fetch(host, tmp_path, ["BTCUSDT"])
    assert report.complete
    assert TRUE_HOLES["BTCUSDT"] == holes_of(report)
    held = CandleStore(tmp_path).read("BTCUSDT", "1h")
    assert held.equals(host.exchange.candles["BTCUSDT"])


def test_an_archive_with_a_hole_is_completed_from_rest(tmp_path, clean):
    """A truncated but self-consistent archive, taken for the whole truth."""
    short = {
        symbol: candles[(np.arange(len(candles)) < 600) | (np.arange(len(candles)) > 640)]
        for symbol, candles in exchange_of().candles.items()
    }
    with ExchangeThread(exchange_of(archive_candles=short)) as host:
        reports = run_fetch(host, tmp_path)
    assert all(report.complete for report in reports)
    assert digests(tmp_path) == clean


def test_bad_candles_in_an_archive_are_quarantined_and_fetched_from_rest(tmp_path, clean):
    """A candle with high below low from an old archive, stored; or its whole month lost."""
    spoilt = {}
    for symbol, candles in exchange_of().candles.items():
        high = candles.high.copy()
        high[500] = candles.low[500] / 2
        spoilt[symbol] = candles.replace(high=high)
    with ExchangeThread(exchange_of(archive_candles=spoilt)) as host:
        reports = run_fetch(host, tmp_path)
    assert digests(tmp_path) == clean
    assert [report.rejected for report in reports] == [1, 1]
    [kept] = Quarantine(tmp_path).candles("BTCUSDT", "1h")
    assert MARKET["BTCUSDT"].open_time[500] == kept["open_time"]
    assert "high is below low" in str(kept["rule"])


def test_a_damaged_archive_is_quarantined_and_the_month_comes_from_rest(host, tmp_path, clean):
    """A bad checksum that stops the fetch, or is ignored."""
    host.script(RestFault("corrupt_zip", path="BTCUSDT-1h-2024-12.zip", times=None))
    run_fetch(host, tmp_path)
    assert digests(tmp_path) == clean
    assert len(Quarantine(tmp_path).files()) == 1
    entries = Ledger.load(CandleStore(tmp_path), "BTCUSDT", "1h").months["2024-12"].entries
    assert {"rest", ""} == {entry.source for entry in entries}


def test_a_damaged_month_is_moved_aside_and_fetched_again(host, tmp_path, clean):
    """A torn file that stops every later fetch."""
    run_fetch(host, tmp_path)
    path = CandleStore(tmp_path).month_path("BTCUSDT", "1h", "2025-01")
    path.write_bytes(path.read_bytes()[:500])
    [report, _] = run_fetch(host, tmp_path)
    assert report.months_changed == ("2025-01",)
    assert digests(tmp_path) == clean
    assert len(Quarantine(tmp_path).files()) == 1


def test_a_month_changed_by_somebody_else_is_fetched_again(host, tmp_path, clean):
    """A ledger trusted over the file it describes."""
    run_fetch(host, tmp_path)
    store = CandleStore(tmp_path)
    wrong = MARKET["BTCUSDT"][700:720]
    store.write("BTCUSDT", "1h", wrong.replace(volume=wrong.volume + 1))
    assert digests(tmp_path) != clean
    run_fetch(host, tmp_path)
    assert digests(tmp_path) == clean


def test_a_lost_ledger_is_made_again(host, tmp_path, clean):
    """A store that cannot be fetched into without its ledger."""
    run_fetch(host, tmp_path)
    Ledger.path_of(CandleStore(tmp_path), "ETHUSDT", "1h").unlink()
    [_, report] = run_fetch(host, tmp_path)
    assert report.complete
    assert TRUE_HOLES["ETHUSDT"] == holes_of(report)
    assert digests(tmp_path) == clean


def test_a_fetch_that_rest_stopped_goes_on_where_it_was(host, tmp_path):
    """An error that leaves the series locked, or marked as done."""
    host.script(RestFault("500", symbol="BTCUSDT", path="/klines", times=None))

    [report] = run_fetch(host, tmp_path, ["BTCUSDT"], start="2025-03-01")
    assert "no usable answer" in report.error
    host.call(host.exchange.faults.clear)
    [report] = run_fetch(host, tmp_path, ["BTCUSDT"], start="2025-03-01")
    assert report.complete


def test_a_failed_read_is_no_proof_of_absence(host, tmp_path, clean, monkeypatch):
    """`REST did not answer` written down as `the exchange had no candle`."""
    honest = RestClient.read

    async def failing(client, symbol, interval, span, anchor_ms):
        raise SourceError("no answer today")

    monkeypatch.setattr(RestClient, "read", failing)
    for report in run_fetch(host, tmp_path):
        assert report.exchange_down == ()
        lost = [*TRUE_HOLES[report.symbol], Span(END_MS - 7 * HOUR_MS, END_MS)]
        assert sorted(lost, key=lambda span: span.start_ms) == [e.span for e in report.missing]
        assert {"no answer today"} == {entry.reason for entry in report.missing}
    monkeypatch.setattr(RestClient, "read", honest)
    assert all(report.complete for report in run_fetch(host, tmp_path))
    assert digests(tmp_path) == clean


def test_a_dead_exchange_leaves_the_store_alone_and_says_so(tmp_path):
    """Hours of retries, or a store marked as checked although nobody answered."""
    sources = Sources(archive_url="http://127.0.0.1:9", rest_url="http://127.0.0.1:9")
    settings = FetchSettings(sources=sources, retry=Retry(attempts=2, base_s=0.01, cap_s=0.01))
    with pytest.raises(SourceError, match="9 gave no usable answer"):
        fetch(CandleStore(tmp_path), ["BTCUSDT"], "1h", 0, None, settings, gate=RestGate())
    assert list(tmp_path.rglob("*.json")) == []


def test_a_full_disk_ends_in_a_sentence_and_the_old_months_stay(host, tmp_path, clean, monkeypatch):
    """A traceback of exception groups, or a month half written, after ENOSPC."""
    run_fetch(host, tmp_path, end="2025-01-20")
    before = digests(tmp_path)
    real, left = os.fsync, [3]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    reports = run_fetch(host, tmp_path)
    assert any("No space left" in report.error for report in reports)
    monkeypatch.setattr(os, "fsync", real)
    after = digests(tmp_path)
    assert {name for name in before if before[name] != after[name]} <= {
        name for name in clean if clean[name] == after.get(name)
    }
    assert all(report.complete for report in run_fetch(host, tmp_path))
    assert digests(tmp_path) == clean


def test_a_misspelt_symbol_is_an_error_and_leaves_no_trace(host, tmp_path):
    """A typing mistake that becomes an empty series which never verifies."""
    [wrong, right] = run_fetch(host, tmp_path, ["BTCUSD", "ETHUSDT"])
    assert "does not know BTCUSD" in wrong.error
    assert not wrong.complete
    assert right.complete
    assert CandleStore(tmp_path).series() == [("ETHUSDT", "1h")]


def test_a_delisted_symbol_still_has_its_archives(tmp_path):
    """History thrown away because REST no longer knows the name."""
    with ExchangeThread(exchange_of()) as host:
        host.exchange.market.archived["OLDUSDT"] = host.exchange.candles["BTCUSDT"]
        [report] = run_fetch(host, tmp_path, ["OLDUSDT"], start="2024-12-01", end="2025-02-01")
    assert report.held == len(
        host.exchange.candles["BTCUSDT"].between(utc_to_ms("2024-12-01"), utc_to_ms("2025-02-01"))
    )
    # What archives lack cannot be proved absent: it is missing, not exchange-down.
    assert [TRUE_HOLES["BTCUSDT"][0]] == [entry.span for entry in report.missing]
    assert report.exchange_down == ()


def test_two_fetches_at_once_are_refused_and_corrupt_nothing(host, tmp_path):
    """Two writers of one ledger."""
    store = CandleStore(tmp_path)
    with job_lock(store), pytest.raises(StoreError, match="is in use by this process"):
        run_fetch(host, tmp_path)
    assert all(report.complete for report in run_fetch(host, tmp_path))


@pytest.mark.parametrize("interval", ["7m", "1M", "5 m"])
def test_an_interval_the_exchange_lacks_is_refused_at_once(host, tmp_path, interval):
    """Two hundred 404s instead of a sentence."""
    with pytest.raises((SourceError, CandleError), match="has no candles of"):
        fetch(CandleStore(tmp_path), ["BTCUSDT"], interval, 0, None, settings_for(host))


def test_progress_reaches_its_end_for_every_symbol(host, tmp_path):
    """A bar that stops at 90 per cent."""
    seen: dict[str, list[tuple[int, int]]] = {}
    fetch(
        CandleStore(tmp_path),
        SYMBOLS,
        "1h",
        LISTED_MS,
        None,
        settings_for(host),
        lambda symbol, done, total: seen.setdefault(symbol, []).append((done, total)),
        gate=RestGate(),
    )
    expected = (END_MS - LISTED_MS) // HOUR_MS
    for steps in seen.values():
        assert [step[0] for step in steps] == sorted(step[0] for step in steps)
        assert steps[-1] == (expected, expected)


@examples(max_examples=60, deadline=None, derandomize=True)
@given(slots=st.sets(st.integers(0, 80)), join=st.integers(1, 20))
def test_joined_reads_cover_every_hole_and_stay_apart(slots, join):
    """A hole that is never read, or a read for every single slot."""
    holes = [Span(k, k + 1) for k in sorted(slots)]
    reads = gaps_to_read(holes, join)
    assert all(any(r.start_ms <= h.start_ms < r.end_ms for r in reads) for h in holes)
    assert all(b.start_ms - a.end_ms >= join for a, b in itertools.pairwise(reads))
    assert {r.start_ms for r in reads} <= slots
    assert {r.end_ms - 1 for r in reads} <= slots
