"""Resampling: complete buckets only, and sums as exact as decimals."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.binance.archive import read_archive_file
from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history.files import open_source
from cppncripto_strategy.feeds.history.imports import import_files
from cppncripto_strategy.feeds.history.ledger import Ledger, write_recorded
from cppncripto_strategy.feeds.history.resample import resample, resample_stored
from cppncripto_strategy.feeds.history.store import CandleStore

MINUTE_MS = 60_000
START_MS = utc_to_ms("2024-05-01")


def make(slots, texts=None) -> Candles:
    rng, count = np.random.default_rng(1), len(slots)
    close = 100 + np.cumsum(rng.normal(0, 1, count))
    amounts = rng.exponential(50, count) if texts is None else np.array([float(t) for t in texts])
    return Candles.from_columns(
        open_time=START_MS + MINUTE_MS * np.asarray(slots, dtype=np.int64),
        open=close + 0.5,
        high=close + 1,
        low=close - 1,
        close=close,
        volume=amounts,
        quote_volume=amounts,
        trades=np.arange(count),
        taker_buy_volume=amounts,
        taker_buy_quote_volume=amounts,
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(slots=st.sets(st.integers(0, 60), min_size=1).map(sorted))
def test_a_bucket_exists_exactly_where_all_its_minutes_do(slots):
    """A bucket made from four minutes of five, its volume a fifth short."""
    short = make(slots)
    held = resample(short, "1m", "5m")
    complete = [b for b in range(13) if set(range(5 * b, 5 * b + 5)) <= set(slots)]
    assert [START_MS + 5 * b * MINUTE_MS for b in complete] == held.open_time.tolist()
    for row, bucket in enumerate(complete):
        part = short.between(
            START_MS + 5 * bucket * MINUTE_MS, START_MS + 5 * (bucket + 1) * MINUTE_MS
        )
        assert (held.open[row], held.close[row]) == (part.open[0], part.close[-1])
        assert (held.high[row], held.low[row]) == (max(part.high), min(part.low))
        assert held.trades[row] == sum(part.trades)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    units=st.lists(
        st.one_of(st.integers(0, 10**10), st.integers(0, 4 * 10**15)), min_size=5, max_size=5
    )
)
# A real candle whose sum rounds the wrong way through an 80-bit detour.
@example(units=[68630780838420, 30740878273740, 80342518339560, 27928640727890, 64473267085190])
def test_sums_are_those_of_the_decimal_numbers(units):
    """Float sums: 0.1 + 0.2, and a resampled candle that is not the exchange's own."""
    texts = [str(Decimal(unit) / 10**8) for unit in units]
    held = resample(make(range(5), texts), "1m", "5m")
    assert float(sum(Decimal(text) for text in texts)) == held.volume[0]
    assert held.volume[0] == held.quote_volume[0] == held.taker_buy_quote_volume[0]


def test_numbers_with_more_than_eight_decimals_are_not_rounded():
    """Tiny volumes of another exchange rounded to nothing."""
    held = resample(make(range(5), ["1e-12"] * 5), "1m", "5m")
    assert held.volume[0] == pytest.approx(5e-12, rel=1e-12)


def test_a_missing_optional_number_makes_the_sum_missing():
    """NaN counted as zero: taker volume that is too small."""
    short = make(range(10))
    taker = short.taker_buy_volume.copy()
    taker[3] = np.nan
    held = resample(short.replace(taker_buy_volume=taker), "1m", "5m")
    assert np.isnan(held.taker_buy_volume[0])
    assert np.isfinite(held.taker_buy_volume[1])


def minutes_of(first: int, last: int) -> Candles:
    """A candle for each minute in [first, last)."""
    return make(range(first, last))


def statuses(store: CandleStore, interval: str) -> dict[str, list[tuple[int, int]]]:
    """Status -> [(first minute, minute after the last)] of a series of BTCUSDT."""
    found: dict[str, list[tuple[int, int]]] = {}
    for entry in Ledger.load(store, "BTCUSDT", interval).entries():
        minutes = [(ms - START_MS) // MINUTE_MS for ms in (entry.start_ms, entry.end_ms)]
        found.setdefault(entry.status, []).append((minutes[0], minutes[1]))
    return found


def test_candles_made_of_imported_ones_are_not_called_verified(tmp_path):
    """A file that nobody checked, which is the exchange's word once it was resampled."""
    store, file = CandleStore(tmp_path / "store"), tmp_path / "minutes.csv"
    minutes_of(12, 30).to_arrow().to_pandas().to_csv(file, index=False)
    write_recorded(store, "BTCUSDT", "1m", minutes_of(0, 12), "rest")
    import_files(store, "BTCUSDT", "1m", [file])
    assert statuses(store, "1m") == {"verified": [(0, 12)], "imported": [(12, 30)]}
    resample_stored(store, "BTCUSDT", "1m", "5m")
    # The bucket of minutes 10 to 14 has two verified minutes and three that are not.
    assert statuses(store, "5m") == {"verified": [(0, 10)], "imported": [(10, 30)]}
    resample_stored(store, "BTCUSDT", "5m", "10m")
    assert statuses(store, "10m") == {"verified": [(0, 10)], "imported": [(10, 30)]}
    # Once the exchange has confirmed the minutes, so are the candles made of them.
    write_recorded(store, "BTCUSDT", "1m", minutes_of(0, 30), "rest")
    resample_stored(store, "BTCUSDT", "1m", "5m")
    assert statuses(store, "5m") == {"verified": [(0, 30)]}


def test_candles_made_of_an_altered_month_are_not_called_verified(tmp_path):
    """A month changed by another program, whose old record still says verified."""
    store = CandleStore(tmp_path)
    write_recorded(store, "BTCUSDT", "1m", minutes_of(0, 30), "rest")
    store.write("BTCUSDT", "1m", minutes_of(30, 40))  # behind the ledger's back
    resample_stored(store, "BTCUSDT", "1m", "5m")
    assert statuses(store, "5m") == {"imported": [(0, 40)]}


@pytest.mark.parametrize("target", ["1m", "30s", "90s"])
def test_only_larger_whole_multiples_are_made(target):
    """Buckets that do not fit the candles."""
    with pytest.raises(CandleError, match="larger whole multiple"):
        resample(make(range(5)), "1m", target)


@pytest.fixture(scope="module")
def real_folder() -> Path:
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    return Path(market)


@pytest.mark.real
def test_real_minutes_make_the_recorded_five_minute_candles(real_folder):
    """Any column aggregated wrongly.

    The recorded file's sums are float sums rounded to eight decimals. Above 5e7, where a double has
    no eighth decimal, 7 of them are not the exchange's number in the last bits; ours are, as the
    next test shows on the archive's own text. In which order the floats were added decides these
    bits, so it is written out: pandas 3.1 adds the others to the first, pandas 2.2 one by one and
    compensated.
    """
    minutes = read_archive_file(real_folder / "archives" / "BTCUSDT-1m-2026-03.zip").candles
    held = resample(minutes, "1m", "5m")
    known = (
        open_source(real_folder / "candles")
        .read("BTCUSDT", "5m")
        .between(utc_to_ms("2026-03-01"), utc_to_ms("2026-04-01"))
    )
    assert len(held) == 8_928
    for name in COLUMNS:
        mine, theirs = getattr(held, name), getattr(known, name)
        if name in ("quote_volume", "taker_buy_quote_volume"):
            first, second, third, fourth, fifth = getattr(minutes, name).reshape(-1, 5).T
            added = first + (second + third + fourth + fifth)
            assert np.array_equal(np.round(added, 8), theirs), name
            assert (mine != theirs).sum() <= 6
            assert (np.abs(mine - theirs) <= 2 * np.spacing(theirs)).all()
        else:
            assert np.array_equal(mine, theirs), name


@pytest.mark.real
def test_real_sums_equal_decimal_sums_of_the_archives_text(real_folder):
    """One sum in ten thousand rounded the wrong way."""
    path = real_folder / "archives" / "BTCUSDT-1m-2026-03.zip"
    held = resample(read_archive_file(path).candles, "1m", "5m")
    with zipfile.ZipFile(path) as packed:
        rows = list(csv.reader(io.StringIO(packed.read(packed.namelist()[0]).decode())))
    places = {"volume": 5, "quote_volume": 7, "taker_buy_volume": 9, "taker_buy_quote_volume": 10}
    for name, place in places.items():
        exact = [
            float(sum(Decimal(row[place]) for row in rows[k : k + 5]))
            for k in range(0, len(rows), 5)
        ]
        assert exact == getattr(held, name).tolist(), name
