"""Where candles open: weeks on Mondays, candles of several days on the symbol's own days."""

from __future__ import annotations

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles, first_violation, row_problem, split_valid
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    WEEK_MS,
    interval_to_ms,
    month_names,
    utc_to_ms,
)
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings
from cppncripto_strategy.feeds.history.foreign import read_file
from cppncripto_strategy.feeds.history.imports import import_files
from cppncripto_strategy.feeds.history.ledger import Ledger
from cppncripto_strategy.feeds.history.resample import resample, resample_stored
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.verify import verify_series
from cppncripto_strategy.feeds.live.rounds import rows_of
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

# The archive's own name of a 3-day candle of BTCUSDT, and what that day is from the epoch.
RECORDED = utc_to_ms("2023-12-08")
THREE_MS = 3 * DAY_MS
MONDAY = utc_to_ms("2024-01-01")


def candles_at(opens) -> Candles:
    values = np.arange(len(opens)) % 7 + 1.0
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), values)
    more = dict.fromkeys(("quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), values)
    return Candles.from_columns(open_time=np.asarray(opens), trades=values, **columns, **more)


def three_days(remainder: int, count: int = 40) -> Candles:
    first = RECORDED + (remainder - RECORDED // DAY_MS) % 3 * DAY_MS
    return candles_at(first + THREE_MS * np.arange(count))


def test_the_recorded_days_are_what_the_facts_say():
    """A grid built on a wrong premise."""
    assert RECORDED // DAY_MS % 3 == 1


@pytest.mark.parametrize("remainder", [0, 1, 2])
def test_candles_of_several_days_open_on_the_symbols_own_days(tmp_path, remainder):
    """Every 3-day candle of BTCUSDT refused as misaligned, or a stray one let in."""
    candles = three_days(remainder)
    assert first_violation(candles, THREE_MS) is None
    stray = candles.open_time.copy()
    stray[7] += DAY_MS
    row, rule = first_violation(candles.replace(open_time=stray), THREE_MS)
    assert (row, f"congruent to {remainder} modulo 3" in rule) == (7, True)
    kept, rejected = split_valid(candles.replace(open_time=stray), THREE_MS)
    assert (len(kept), len(rejected)) == (39, 1)
    file = tmp_path / "x.csv"
    candles.to_arrow().to_pandas().to_csv(file, index=False)
    assert read_file(file, "3d").equals(candles)
    store = CandleStore(tmp_path / "store")
    import_files(store, "BTCUSDT", "3d", [file])
    assert remainder * DAY_MS == store.anchor_ms("BTCUSDT", "3d")
    check = verify_series(store, "BTCUSDT", "3d")
    assert (check.ok, check.count, check.expected) == (True, 40, 40)


def test_a_series_keeps_the_grid_it_began_with(tmp_path):
    """Two grids in one series: overlapping candles, each counted as a whole one."""
    store, file = CandleStore(tmp_path / "store"), tmp_path / "other.csv"
    store.write("BTCUSDT", "3d", three_days(1))
    three_days(2).to_arrow().to_pandas().to_csv(file, index=False)
    with pytest.raises(CandleError, match="congruent to 1 modulo 3"):
        import_files(store, "BTCUSDT", "3d", [file])
    with pytest.raises(CandleError, match="congruent to 1 modulo 3"):
        store.write("BTCUSDT", "3d", three_days(2))
    store.write("OTHER", "3d", three_days(2))  # the anchor belongs to the symbol
    assert store.anchor_ms("OTHER", "3d") == 2 * DAY_MS


def fetched(root, market, interval, now_ms, symbols, archives=False):
    exchange = LoopbackExchange(
        market, clock=ManualClock(now_ms), settings=ExchangeSettings(interval=interval)
    )
    store = CandleStore(root)
    with ExchangeThread(exchange) as host:
        from cppncripto_strategy.feeds.binance.endpoints import Sources

        settings = FetchSettings(
            sources=Sources(archive_url=host.archive_url, rest_url=host.rest_url),
            absence_wait_s=0.02,
            proof_age_ms=0,
            settle_ms=0,
            archives=archives,
        )
        reports = fetch(store, symbols, interval, utc_to_ms("2023-01-01"), None, settings)
    assert [""] * len(symbols) == [report.error for report in reports]
    return store, reports


def test_each_symbols_grid_is_learned_from_its_first_candle(tmp_path):
    """A fetch that asks for another grid: everything refused, or every slot a gap."""
    market = {"BTCUSDT": three_days(1), "OTHERUSDT": three_days(2)}
    last = int(market["BTCUSDT"].open_time[-1])
    store, reports = fetched(tmp_path, market, "3d", last + THREE_MS + 5, list(market))
    for report, (symbol, candles) in zip(reports, market.items(), strict=True):
        closed = candles.between(0, last + 5 + 1)
        assert store.read(symbol, "3d").equals(closed)
        assert (report.complete, report.held) == (True, len(closed))
        check = verify_series(store, symbol, "3d")
        assert (check.ok, check.count) == (True, len(closed))


def test_archives_of_several_days_lie_on_the_symbols_grid(tmp_path):
    """Every 3-day archive refused as misaligned, or its candles taken for verified off the grid."""
    market = {"BTCUSDT": three_days(1), "OTHERUSDT": three_days(2)}
    # Long after the last candle, so that every month has its archive.
    now_ms = int(market["BTCUSDT"].open_time[-1]) + 60 * DAY_MS
    store, reports = fetched(tmp_path, market, "3d", now_ms, list(market), archives=True)
    for report, (symbol, candles) in zip(reports, market.items(), strict=True):
        assert store.read(symbol, "3d").equals(candles)
        assert report.from_archives == len(candles)
        assert report.rejected == 0
        ledger = Ledger.load(store, symbol, "3d")
        sources = {e.source for e in ledger.entries() if e.status == "verified"}
        months = {f"archive:{symbol}-3d-{month}" for month in month_names(candles.open_time)}
        assert sources == months
        assert verify_series(store, symbol, "3d").count == len(candles)


@pytest.mark.parametrize("day", range(7))
def test_a_week_that_is_still_forming_is_never_stored(tmp_path, day):
    """Weeks counted from Thursdays: from Thursday to Sunday the open week passed for closed."""
    weeks = candles_at(MONDAY + WEEK_MS * np.arange(9))
    now_ms = int(weeks.open_time[-1]) + day * DAY_MS + 3_600_000
    store, [report] = fetched(tmp_path, {"BTCUSDT": weeks}, "1w", now_ms, ["BTCUSDT"])
    assert store.read("BTCUSDT", "1w").equals(weeks[:-1])
    assert report.complete


def test_longer_candles_lie_on_the_symbols_grid_or_are_not_made(tmp_path):
    """3-day candles joined from days on a grid that the exchange does not have."""
    store = CandleStore(tmp_path)
    days = candles_at(RECORDED + DAY_MS * np.arange(30))
    store.write("BTCUSDT", "1d", days)
    with pytest.raises(CandleError, match=r"belongs to the symbol.*--opens-on"):
        resample_stored(store, "BTCUSDT", "1d", "3d")
    count, _ = resample_stored(store, "BTCUSDT", "1d", "3d", RECORDED + 5 * THREE_MS)
    assert count == 10
    assert verify_series(store, "BTCUSDT", "3d").ok
    made = resample(days, "1d", "3d", store.anchor_ms("BTCUSDT", "3d"))
    assert np.array_equal(RECORDED + THREE_MS * np.arange(10), made.open_time)
    # What is stored decides from then on.
    assert resample_stored(store, "BTCUSDT", "1d", "3d", RECORDED + DAY_MS)[1] == ()
    assert len(resample(days, "1d", "1w")) == 3


def test_the_stream_judges_rows_by_the_same_grid():
    """A live candle refused that the store would take."""
    good, stray = rows_of(three_days(1)[:1])[0], rows_of(three_days(2)[:1])[0]
    assert row_problem(good, THREE_MS, RECORDED) is None
    assert "misaligned" in str(row_problem(stray, THREE_MS, RECORDED))
    week = rows_of(candles_at([MONDAY]))[0]
    assert row_problem(week, interval_to_ms("1w")) is None
