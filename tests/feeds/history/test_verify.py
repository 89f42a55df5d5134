"""Verify and repair: each kind of damage is named, and mended to the same bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import RestGate
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, utc_to_ms
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings
from cppncripto_strategy.feeds.history.ledger import Ledger, write_recorded
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.verify import (
    MonthCoverage,
    describe,
    find_restated,
    month_coverage,
    repair,
    verify_series,
)
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import Halt
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

HOUR_MS = 3_600_000
START_MS, END_MS = utc_to_ms("2024-12-20"), utc_to_ms("2025-02-10 05:00")
HALT = Halt(utc_to_ms("2025-01-05"), utc_to_ms("2025-01-05 06:00"))
SERIES = ("BTCUSDT", "1h")
FLAT_ROWS = slice(100, 103)


def make_candles() -> Candles:
    opens = np.arange(START_MS, END_MS, HOUR_MS)
    close = 100 + np.round(np.sin(np.arange(len(opens)) / 9), 2)
    volume, width = np.full(len(opens), 2.5), np.full(len(opens), 1.0)
    volume[FLAT_ROWS] = width[FLAT_ROWS] = 0.0
    return Candles.from_columns(
        open_time=opens,
        open=close,
        high=close + width,
        low=close - width,
        close=close,
        volume=volume,
        quote_volume=volume * 100,
        trades=np.sign(volume) * 3,
        taker_buy_volume=volume / 2,
        taker_buy_quote_volume=volume * 50,
    )


@pytest.fixture
def host() -> Iterator[ExchangeThread]:
    """A loopback exchange with one outage and three flat candles."""
    exchange = LoopbackExchange(
        {"BTCUSDT": make_candles()},
        clock=ManualClock(END_MS),
        settings=ExchangeSettings(interval="1h", halts=(HALT,)),
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def settings_for(host: ExchangeThread) -> FetchSettings:
    return FetchSettings(
        sources=Sources(archive_url=host.archive_url, rest_url=host.rest_url),
        retry=Retry(attempts=4, base_s=0.01, cap_s=0.02, timeout_s=2.0),
        absence_wait_s=0.02,
        proof_age_ms=0,
        settle_ms=0,
    )


@pytest.fixture
def store(host, tmp_path) -> CandleStore:
    """A store that a fetch has filled."""
    filled = CandleStore(tmp_path / "store")
    fetch(filled, ["BTCUSDT"], "1h", 0, None, settings_for(host), gate=RestGate())
    return filled


def repaired(host: ExchangeThread, store: CandleStore, **options):
    rng = random.Random(3)
    [report] = repair(store, [SERIES], settings_for(host), gate=RestGate(), rng=rng, **options)
    return report


def digests(store: CandleStore) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(store.root.rglob("*.parquet"))
    }


def test_a_fetched_store_verifies_with_its_outage_and_flat_candles_named(store):
    """A healthy store called broken, or an outage and dead candles passed over."""
    check = verify_series(store, *SERIES)
    assert check.ok
    assert describe(check) == []
    assert [Span(HALT.start_ms, HALT.end_ms)] == [entry.span for entry in check.exchange_down]
    flat_ms = START_MS + 100 * HOUR_MS
    assert check.flat == (Span(flat_ms, flat_ms + 3 * HOUR_MS),)
    assert (check.count, check.expected) == (len(make_candles()) - 6, len(make_candles()))


def delete_month(store: CandleStore) -> None:
    store.month_path(*SERIES, "2025-01").unlink()


def truncate_month(store: CandleStore) -> None:
    path = store.month_path(*SERIES, "2025-01")
    path.write_bytes(path.read_bytes()[:-100])


def flip_byte(store: CandleStore) -> None:
    path = store.month_path(*SERIES, "2025-01")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


def break_rule(store: CandleStore) -> None:
    path = store.month_path(*SERIES, "2025-01")
    candles = Candles.from_arrow(pq.read_table(path))
    high = candles.high.copy()
    high[7] = 1.0
    pq.write_table(candles.replace(high=high).to_arrow(), path)


def shift_rows(store: CandleStore) -> None:
    path = store.month_path(*SERIES, "2025-01")
    candles = Candles.from_arrow(pq.read_table(path))
    pq.write_table(candles.replace(open_time=candles.open_time + 1).to_arrow(), path)


def drop_rows(store: CandleStore) -> None:
    path = store.month_path(*SERIES, "2025-01")
    candles = Candles.from_arrow(pq.read_table(path))
    pq.write_table(candles[np.arange(len(candles)) != 300].to_arrow(), path)


def change_row(store: CandleStore) -> None:
    candles = store.read(*SERIES)[500:502]
    store.write(*SERIES, candles.replace(volume=candles.volume + 1))


def delete_ledger(store: CandleStore) -> None:
    Ledger.path_of(store, *SERIES).unlink()


def spoil_ledger(store: CandleStore) -> None:
    Ledger.path_of(store, *SERIES).write_text('{"format": 1')


DAMAGE = {
    delete_month: "missing 2025-01-01 00:00 to 2025-01-05 00:00: lost from the file",
    truncate_month: "2025-01: .*damaged",
    flip_byte: "2025-01: .*damaged",
    break_rule: "2025-01: row 7 .*high is below low",
    shift_rows: "2025-01: row 0 .*misaligned",
    drop_rows: "missing .*lost from the file",
    change_row: "2025-01: its file is not the one the ledger describes",
    delete_ledger: "its file is not the one the ledger describes",
    spoil_ledger: "not a readable coverage ledger",
}


@pytest.mark.parametrize("damage", list(DAMAGE), ids=lambda f: f.__name__)
def test_damage_is_named_and_repaired_to_the_same_bytes(host, store, damage):
    """A verify that is blind to a kind of damage, or a repair that does not repair it."""
    import re

    before = digests(store)
    damage(store)
    check = verify_series(store, *SERIES)
    assert not check.ok
    assert re.search(DAMAGE[damage], "\n".join(describe(check)))
    report = repaired(host, store)
    assert report.complete
    assert digests(store) == before
    assert verify_series(store, *SERIES).ok


def test_verifying_changes_nothing(store):
    """A check that repairs behind the reader's back."""
    delete_month(store)
    files = {f: f.read_bytes() for f in store.root.rglob("*") if f.is_file()}
    verify_series(store, *SERIES)
    month_coverage(store, *SERIES)
    assert files == {f: f.read_bytes() for f in store.root.rglob("*") if f.is_file()}


def test_repaired_damage_stays_in_quarantine_with_its_reason(host, store):
    """Evidence thrown away."""
    flip_byte(store)
    repaired(host, store)
    [kept] = Quarantine(store.root).files()
    assert "2025-01" in kept.name
    assert "damaged" in kept.with_name(kept.name + ".reason").read_text()


def test_restated_candles_are_found_and_taken_over_only_when_asked(host, store):
    """Archive and REST disagree, and nobody ever hears of it."""
    candles = store.read(*SERIES)
    rows = [5, 700]
    other = candles[np.array(rows)]
    write_recorded(*(store, *SERIES, concat_pairs(candles, rows)), "archive:old", digest="0" * 64)
    settings = settings_for(host)
    fresh = find_restated(store, *SERIES, settings, gate=RestGate())
    assert fresh.equals(other)
    assert repaired(host, store).from_rest == 0
    assert len(find_restated(store, *SERIES, settings, gate=RestGate())) == 2
    assert repaired(host, store, restated=True).from_rest == 2
    assert store.read(*SERIES).equals(candles)
    assert verify_series(store, *SERIES).ok
    assert len(find_restated(store, *SERIES, settings, gate=RestGate())) == 0


def concat_pairs(candles: Candles, rows: list[int]) -> Candles:
    """Each row and its neighbour, the row's volume changed (as an older archive had it)."""
    chosen = candles[np.array([row + step for row in rows for step in (0, 1)])]
    volume = chosen.volume.copy()
    volume[::2] += 0.25
    return chosen.replace(volume=volume)


def test_columns_the_store_lacks_are_not_called_restated(host, tmp_path):
    """Imported OHLCV reported as different because the exchange also knows the turnover."""
    store = CandleStore(tmp_path)
    bare = make_candles()[:50]
    nothing = np.full(50, np.nan)
    write_recorded(store, *SERIES, bare.replace(quote_volume=nothing, trades=nothing), "import:x")
    assert len(find_restated(store, *SERIES, settings_for(host), gate=RestGate())) == 0


def test_month_coverage_counts_every_slot_once(store):
    """A month called complete although its end was never asked for."""
    drop_rows(store)
    hours = {"2024-12": 12 * 24, "2025-01": 31 * 24, "2025-02": 9 * 24 + 5}
    months = month_coverage(store, *SERIES)
    assert months == [
        MonthCoverage("2024-12", hours["2024-12"], hours["2024-12"], 0),
        MonthCoverage("2025-01", hours["2025-01"], hours["2025-01"] - 7, 6),
        MonthCoverage("2025-02", hours["2025-02"], hours["2025-02"], 0),
    ]
    assert months[0].fraction == 1.0
    assert months[1].fraction == (hours["2025-01"] - 1) / hours["2025-01"]


def test_a_series_that_is_not_there_is_an_error(tmp_path):
    """`Verified: nothing` taken for good news."""
    with pytest.raises(StoreError, match="not in the store"):
        verify_series(CandleStore(Path(tmp_path)), *SERIES)
