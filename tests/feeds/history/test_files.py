"""Importing other people's files: every spelling of time, usual column names, clear refusals."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history.dates import times_to_ms
from cppncripto_strategy.feeds.history.files import FolderSource, StoreSource, open_source
from cppncripto_strategy.feeds.history.foreign import Choices, read_file
from cppncripto_strategy.feeds.history.store import CandleStore

FIVE_MS = 300_000
START_MS = utc_to_ms("2024-12-31 23:00")
COUNT = 30
STAMPS = START_MS + FIVE_MS * np.arange(COUNT, dtype=np.int64)
PRICES = 100 + np.arange(COUNT) % 7


def plain_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "open": PRICES + 0.25,
            "high": PRICES + 1.0,
            "low": PRICES - 1.0,
            "close": PRICES - 0.5,
            "volume": np.arange(COUNT) / 3,
        }
    )


def expected_candles() -> Candles:
    frame = plain_frame()
    return Candles.from_columns(open_time=STAMPS, **{name: frame[name] for name in frame})


TIMES = {
    "seconds": lambda: STAMPS // 1000,
    "milliseconds": lambda: STAMPS,
    "microseconds": lambda: STAMPS * 1000,
    "nanoseconds": lambda: STAMPS * 1_000_000,
    "float milliseconds": lambda: STAMPS.astype(float),
    "milliseconds, then microseconds": lambda: np.where(np.arange(COUNT) < 9, 1, 1000) * STAMPS,
    "naive timestamps": lambda: pd.to_datetime(STAMPS, unit="ms"),
    "zoned timestamps": lambda: pd.to_datetime(STAMPS, unit="ms", utc=True),
    "timestamps of another zone": lambda: pd.to_datetime(STAMPS, unit="ms", utc=True).tz_convert(
        "America/New_York"
    ),
    "ISO text": lambda: pd.to_datetime(STAMPS, unit="ms").strftime("%Y-%m-%dT%H:%M:%S"),
    "ISO text with Z": lambda: pd.to_datetime(STAMPS, unit="ms").strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO text with an offset": lambda: [
        (pd.Timestamp(stamp, unit="ms", tz="UTC").tz_convert("Asia/Kolkata")).isoformat()
        for stamp in STAMPS
    ],
    "numbers as text": lambda: STAMPS.astype(str),
}


def save(frame: pd.DataFrame, path: Path) -> Path:
    if path.name.endswith(".parquet"):
        frame.to_parquet(path)
    elif path.name.endswith(".feather"):
        frame.to_feather(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".feather"])
@pytest.mark.parametrize("spelling", list(TIMES))
def test_every_spelling_of_time_in_every_format_gives_the_same_candles(tmp_path, spelling, suffix):
    """A unit or zone misread, which moves every candle."""
    frame = plain_frame()
    frame.insert(0, "timestamp", TIMES[spelling]())
    file = save(frame, tmp_path / f"x{suffix}")
    assert read_file(file, "5m").equals(expected_candles())


@pytest.mark.parametrize(
    "name", ["open_time", "Open Time", "time", "Timestamp", "DATE", "datetime", "ts", "unix"]
)
def test_usual_time_and_column_names_are_understood_in_any_case(tmp_path, name):
    """A well-known export that cannot be imported because of a capital letter."""
    frame = plain_frame().set_axis(["O", "High", "LOW", "c", "Vol"], axis=1)
    frame[name] = STAMPS
    assert read_file(save(frame, tmp_path / "x.csv"), "5m").equals(expected_candles())


def test_a_pandas_time_index_counts_as_the_time_column(tmp_path):
    """A frame saved with its index, the most common Parquet file there is, refused."""
    frame = plain_frame().set_index(pd.to_datetime(STAMPS, unit="ms", utc=True))
    frame.to_parquet(tmp_path / "x.parquet")
    assert read_file(tmp_path / "x.parquet", "5m").equals(expected_candles())


def test_the_exchanges_own_file_without_a_header_keeps_all_columns(tmp_path):
    """The first candle eaten as a header, or quote volume and close time swapped."""
    rows = [
        f"{stamp},{p + 0.25},{p + 1.0},{p - 1.0},{p - 0.5},{k + 1},{stamp + FIVE_MS - 1},{k}.5,"
        f"{k + 7},0.25,0.125,0"
        for k, (stamp, p) in enumerate(zip(STAMPS, PRICES, strict=True))
    ]
    file = tmp_path / "x.csv.gz"
    file.write_bytes(gzip.compress("\n".join(rows).encode()))
    candles = read_file(file, "5m")
    assert np.array_equal(STAMPS, candles.open_time)
    assert np.array_equal(np.arange(COUNT) + 0.5, candles.quote_volume)
    assert np.array_equal(np.arange(COUNT) + 7.0, candles.trades)
    assert set(candles.taker_buy_volume) == {0.25}
    assert set(candles.taker_buy_quote_volume) == {0.125}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    stamps=st.lists(st.integers(946_684_800, 4_102_444_800), min_size=1, max_size=20),
    units=st.lists(st.sampled_from([1, 10**3, 10**6, 10**9]), min_size=20, max_size=20),
)
def test_integers_of_any_unit_between_2000_and_2100_are_told_apart(stamps, units):
    """An overlap between the magnitudes of two units."""
    column = pa.chunked_array([[stamp * unit for stamp, unit in zip(stamps, units, strict=False)]])
    assert [stamp * 1000 for stamp in stamps] == times_to_ms(column, "test").tolist()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (20240101, "not a time"),
        (STAMPS[4] * 1000 + 1, "whole millisecond"),
        (float("nan"), "missing|whole number"),
        (STAMPS[4] + 0.5, "whole number"),
    ],
)
def test_a_time_that_cannot_be_one_names_its_row(tmp_path, value, said):
    """A guess at a time, or a fraction cut off in silence."""
    frame = plain_frame()
    frame["time"] = pd.Series(STAMPS, dtype=object)
    frame.loc[4, "time"] = value
    frame["time"] = pd.to_numeric(frame["time"])
    with pytest.raises(CandleError, match=f"row 4: .*({said})"):
        read_file(save(frame, tmp_path / "x.parquet"), "5m")


def test_text_that_is_no_time_or_no_number_names_its_row(tmp_path):
    """A parse that turns rubbish into NaN and goes on."""
    frame = plain_frame()
    frame.insert(0, "time", TIMES["ISO text"]())
    for column, value in (("time", "yesterday"), ("close", "n/a?")):
        broken = frame.astype(object)
        broken.loc[5, column] = value
        with pytest.raises(CandleError, match=f"row 5: .*{value[:3]}"):
            read_file(save(broken, tmp_path / "x.csv"), "5m")


BROKEN = {
    "unsorted": lambda f, r: f.iloc[[*range(r - 1), r, r - 1, *range(r + 1, COUNT)]],
    "duplicate": lambda f, r: f.iloc[[*range(r), r - 1, *range(r, COUNT)]],
    "misaligned": lambda f, r: f.assign(time=f["time"].where(f.index != r, f["time"] + 1000)),
    "NaN": lambda f, r: f.assign(close=f["close"].where(f.index != r)),
    "zero or negative": lambda f, r: f.assign(low=f["low"].where(f.index != r, -1.0)),
    "high is below": lambda f, r: f.assign(high=f["high"].where(f.index != r, f["low"] - 1)),
    "volume is negative": lambda f, r: f.assign(volume=f["volume"].where(f.index != r, -1.0)),
}


@pytest.mark.parametrize("rule", list(BROKEN))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_broken_row_is_named_by_row_and_rule(tmp_path, rule, suffix):
    """Bad input repaired or let in without a word."""
    rng = np.random.default_rng(len(rule))
    for row in rng.integers(2, COUNT - 1, size=4):
        frame = plain_frame().assign(time=STAMPS)
        file = save(BROKEN[rule](frame, int(row)).reset_index(drop=True), tmp_path / f"x{suffix}")
        with pytest.raises(CandleError, match=f"row {row} .*{rule}"):
            read_file(file, "5m")


def test_newest_first_throughout_is_an_order_anything_else_needs_to_be_asked_for(tmp_path):
    """Silent sorting, which would also hide a damaged file."""
    newest_first = plain_frame().assign(time=STAMPS).iloc[::-1]
    file = save(newest_first, tmp_path / "x.csv")
    assert read_file(file, "5m").equals(expected_candles())
    order = [0, 2, 1, *range(3, COUNT)]
    file = save(newest_first.iloc[order], tmp_path / "x.csv")
    with pytest.raises(CandleError, match="unsorted"):
        read_file(file, "5m")
    assert read_file(file, "5m", Choices(sort=True)).equals(expected_candles())


def test_close_times_are_never_taken_for_open_times(tmp_path):
    """Close-stamped candles shifted by one interval: a look into the future."""
    file = save(plain_frame().assign(close_time=STAMPS + FIVE_MS - 1), tmp_path / "x.csv")
    with pytest.raises(SourceError, match="close times only"):
        read_file(file, "5m")


def test_missing_columns_and_unknown_files_are_named(tmp_path):
    """A KeyError where a sentence belongs."""
    frame = plain_frame().assign(time=STAMPS)
    with pytest.raises(SourceError, match="lacks volume"):
        read_file(save(frame.drop(columns="volume"), tmp_path / "x.csv"), "5m")
    with pytest.raises(SourceError, match="no time column"):
        read_file(save(frame.drop(columns="time"), tmp_path / "x.csv"), "5m")
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    with pytest.raises(SourceError, match="unknown kind"):
        read_file(tmp_path / "x.xlsx", "5m")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match="cannot be read"):
        read_file(tmp_path / "x.parquet", "5m")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be read"):
        read_file(tmp_path / "empty.csv", "5m")
    with pytest.raises(SourceError, match="no rows"):
        read_file(save(frame.iloc[:0], tmp_path / "none.csv"), "5m")


def test_a_store_and_a_plain_folder_give_the_same_candles(tmp_path):
    """Two ways of reading candles that disagree."""
    plain = tmp_path / "plain"
    plain.mkdir()
    save(plain_frame().assign(time=STAMPS), plain / "BTCUSDT-5m.csv")
    CandleStore(tmp_path / "store").write("BTCUSDT", "5m", expected_candles())
    sources = [open_source(plain), open_source(tmp_path / "store")]
    assert [FolderSource, StoreSource] == [type(source) for source in sources]
    bounds = int(STAMPS[3]), int(STAMPS[-3])
    for source in sources:
        assert source.symbols("5m") == ["BTCUSDT"]
        assert source.symbols("1m") == []
        assert source.read("BTCUSDT", "5m").equals(expected_candles())
        assert source.read("BTCUSDT", "5m", *bounds).equals(expected_candles()[3:-3])
        with pytest.raises((SourceError, CandleError), match="Did you mean 'BTCUSDT 5m'"):
            source.read("BTCUSDT", "15m")


def test_a_stored_candle_that_breaks_a_rule_is_refused_on_read(tmp_path):
    """A store changed by another tool, trusted without a look."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", expected_candles())
    file = store.month_path("BTCUSDT", "5m", "2024-12")
    candles = store.read("BTCUSDT", "5m").between(0, utc_to_ms("2025-01-01"))
    high = candles.high.copy()
    high[7] = 1.0
    pa.parquet.write_table(candles.replace(high=high).to_arrow(), file)
    with pytest.raises(CandleError, match=r"row 7 .*high is below"):
        open_source(tmp_path).read("BTCUSDT", "5m")


def test_a_folder_without_candles_is_refused(tmp_path):
    """A run that starts on nothing."""
    with pytest.raises(SourceError, match="holds no candles"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="no folder"):
        open_source(tmp_path / "absent")


@pytest.mark.real
def test_the_real_candles_are_read_as_they_are_described():
    """A real file misread: counts, the outage and the span are known."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    source = open_source(Path(market) / "candles")
    assert source.symbols("5m") == ["BTCUSDT", "ETHUSDT"]
    candles = source.read("BTCUSDT", "5m")
    assert len(candles) == 203_024
    outage = candles.between(utc_to_ms("2023-03-24 12:40"), utc_to_ms("2023-03-24 14:00"))
    assert len(outage) == 0
    assert (
        len(source.read("BTCUSDT", "5m", *map(utc_to_ms, ("2023-03-24 12:35", "2023-03-24 12:40"))))
        == 1
    )
