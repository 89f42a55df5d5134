"""Candle stores as a table of coverage."""

from __future__ import annotations

from cppncripto_strategy.desk import stores
from cppncripto_strategy.desk.listing import Listing


def test_coverage_counts_the_holes(results):
    """A hole in the candles that no page shows."""
    [series] = stores.store(Listing(results).of("candles")[0]).series
    assert (series.symbol, series.interval, series.problem) == ("AUSDT", "1h", "")
    assert (series.candles, series.expected, series.holes) == (24 * 24 - 2, 24 * 24, 1)


def test_damaged_month_is_a_row_with_its_reason(copy_of):
    """One damaged month that hides the whole store."""
    [entry] = Listing(copy_of).of("candles")
    month = next(entry.path.rglob("*.parquet"))
    month.write_bytes(month.read_bytes()[:100])
    [series] = stores.store(entry).series
    assert series.problem
    assert str(copy_of) not in series.problem


def test_a_changed_month_is_read_again(copy_of, toy):
    """Coverage of before the last fetch."""
    [entry] = Listing(copy_of).of("candles")
    before = stores.store(entry).series[0].candles
    stores.CandleStore(entry.path).write("AUSDT", "1h", toy.candles(days=24))
    assert stores.store(entry).series[0].candles == before + 2
