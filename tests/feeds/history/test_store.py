"""The candle store: round trips, the merge law, refusals, and writes that are killed half-way."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, StoreError
from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import Span, interval_to_ms, utc_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore, StoredSeries

FIVE_MS = interval_to_ms("5m")
# A day before a month ends, so that nearly every example crosses from one file into the next.
START_MS = utc_to_ms("2024-01-31")


def make_candles(slots: list[int], seed: int = 0, start_ms: int = START_MS) -> Candles:
    """Plausible candles at the given grid slots, a third of the optional values missing."""
    rng, count = np.random.default_rng(seed), len(slots)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    open_ = close * np.exp(rng.normal(0, 0.01, count))
    volume, quote_volume = rng.exponential(5.0, count), rng.integers(0, 10**6, count)
    optional = {
        "quote_volume": quote_volume,
        "trades": rng.integers(0, 10**6, count),
        "taker_buy_volume": volume * rng.random(count),
        "taker_buy_quote_volume": quote_volume * rng.random(count),
    }
    absent = rng.random((len(optional), count)) < 1 / 3
    return Candles.from_columns(
        open_time=start_ms + FIVE_MS * np.asarray(slots, dtype=np.int64),
        open=open_,
        high=np.maximum(open_, close) * 1.01,
        low=np.minimum(open_, close) * 0.99,
        close=close,
        volume=volume,
        **{
            name: np.where(gone, np.nan, values)
            for (name, values), gone in zip(optional.items(), absent, strict=True)
        },
    )


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file that is part of the store (locks and temporary files are not)."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*.parquet"))
    }


def as_rows(candles: Candles) -> dict[int, tuple[str, ...]]:
    """Open time -> the other columns as text, which compares NaN as equal."""
    columns = [getattr(candles, name) for name in COLUMNS[1:]]
    return {
        int(stamp): tuple(repr(float(column[row])) for column in columns)
        for row, stamp in enumerate(candles.open_time)
    }


slot_lists = st.lists(st.integers(0, 700), min_size=1, max_size=60, unique=True).map(sorted)
quick = settings(max_examples=40, deadline=None, derandomize=True)


@quick
@given(slots=slot_lists, seed=st.integers(0, 99))
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, slots, seed):
    """A lossy encoding, a lost null or a candle in the wrong month's file."""
    store = CandleStore(tmp_path_factory.mktemp("store"))
    candles = make_candles(slots, seed)
    store.write("BTCUSDT", "5m", candles, sparse=True)
    assert store.read("BTCUSDT", "5m").equals(candles)
    for month in store.months("BTCUSDT", "5m"):
        held = pq.read_table(store.month_path("BTCUSDT", "5m", month))["open_time"].to_numpy()
        assert {str(m) for m in held.astype("datetime64[ms]").astype("datetime64[M]")} == {month}


@quick
@given(older=slot_lists, newer=slot_lists)
def test_a_second_write_overlays_the_first_like_a_dictionary_update(tmp_path_factory, older, newer):
    """A merge that drops, doubles or keeps stale candles. The oracle is dict.update."""
    store = CandleStore(tmp_path_factory.mktemp("store"))
    first, second = make_candles(older, seed=1), make_candles(newer, seed=2)
    store.write("BTCUSDT", "5m", first, sparse=True)
    store.write("BTCUSDT", "5m", second, sparse=True)
    expected = as_rows(first)
    expected.update(as_rows(second))
    held = store.read("BTCUSDT", "5m")
    assert dict(sorted(expected.items())) == as_rows(held)
    assert (np.diff(held.open_time) > 0).all()


@quick
@given(slots=slot_lists, cut=st.integers(0, 60))
def test_the_same_candles_give_the_same_bytes_however_they_arrive(tmp_path_factory, slots, cut):
    """Files that depend on the order of writes: nobody could compare two stores."""
    whole, parts = (CandleStore(tmp_path_factory.mktemp(name)) for name in ("whole", "parts"))
    candles = make_candles(slots)
    whole.write("BTCUSDT", "5m", candles, sparse=True)
    parts.write("BTCUSDT", "5m", candles[cut:], sparse=True)
    parts.write("BTCUSDT", "5m", candles[: cut + 3], sparse=True)
    assert digests(whole.root) == digests(parts.root)


def test_writing_the_same_candles_again_touches_no_file(tmp_path):
    """A rewrite of unchanged months, which would make every fetch look like a change."""
    store, candles = CandleStore(tmp_path), make_candles(list(range(600)))
    assert store.write("BTCUSDT", "5m", candles) == ("2024-01", "2024-02")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert store.write("BTCUSDT", "5m", candles) == ()
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}


def set_value(candles: Candles, column: str, row: int, value: float) -> Candles:
    values = getattr(candles, column).copy()
    values[row] = value
    return candles.replace(**{column: values})


RULES = {
    "duplicate": lambda c, r: set_value(c, "open_time", r, int(c.open_time[r - 1])),
    "unsorted": lambda c, r: set_value(c, "open_time", r, int(c.open_time[r - 1]) - FIVE_MS),
    "misaligned": lambda c, r: set_value(c, "open_time", r, int(c.open_time[r]) + 1),
    "NaN": lambda c, r: set_value(c, "volume", r, np.nan),
    "infinite": lambda c, r: set_value(c, "high", r, np.inf),
    "zero or negative": lambda c, r: set_value(c, "low", r, -1.0),
    "high is below low": lambda c, r: set_value(c, "high", r, c.low[r] * 0.5),
    "low is above": lambda c, r: set_value(c, "low", r, min(c.open[r], c.close[r]) * 1.001),
    "high is below open or close": lambda c, r: set_value(
        c, "high", r, max(c.open[r], c.close[r]) * 0.999
    ),
    "volume is negative": lambda c, r: set_value(c, "volume", r, -0.5),
    "trades is negative": lambda c, r: set_value(c, "trades", r, -1.0),
}


@pytest.mark.parametrize("rule", list(RULES))
def test_a_broken_rule_is_named_with_its_row_and_the_store_stays(tmp_path, rule):
    """A bad candle let in, or a refusal that has already changed a month."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles(list(range(400)), seed=3))
    before = digests(tmp_path)
    rng = np.random.default_rng(sum(map(ord, rule)))
    for row in rng.integers(1, 500, size=5):
        broken = RULES[rule](make_candles(list(range(500)), seed=4), int(row))
        with pytest.raises(CandleError, match=f"row {row} .*{rule}"):
            store.write("BTCUSDT", "5m", broken)
        with pytest.raises(CandleError, match=f"row {row} .*{rule}"):
            store.write("BTCUSDT", "5m", broken, sparse=True)
    assert before == digests(tmp_path)


def test_fifteen_minute_candles_offered_as_five_minute_ones_are_refused(tmp_path):
    """A wrong interval stored as a series that is two thirds gaps."""
    store = CandleStore(tmp_path)
    with pytest.raises(CandleError, match="wrong interval"):
        store.write("BTCUSDT", "5m", make_candles(list(range(0, 300, 3))))
    assert store.list() == []


@pytest.mark.parametrize("factor", [1 / 1000, 1000])
def test_times_in_seconds_or_microseconds_are_refused(tmp_path, factor):
    """A unit mistake that files candles under the year 1970 or 56000."""
    candles = make_candles(list(range(10)))
    stamps = (candles.open_time * factor).astype(np.int64)
    with pytest.raises(CandleError, match="wrong unit"):
        CandleStore(tmp_path).write("BTCUSDT", "5m", candles.replace(open_time=stamps))


@pytest.mark.parametrize("symbol", ["btcusdt", "", "BTC/USDT", "../BTC", "A" * 51, ".BTC"])
def test_symbols_that_cannot_name_a_folder_are_refused(tmp_path, symbol):
    """A symbol that escapes the store's folder or makes two folders for one series."""
    with pytest.raises(StoreError, match="symbol"):
        CandleStore(tmp_path).write(symbol, "5m", make_candles([1, 2]))


def test_a_read_ends_before_its_end_and_an_empty_span_is_empty(tmp_path):
    """An inclusive end: the first candle of the next span read twice."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles(list(range(600))))
    middle = store.read("BTCUSDT", "5m", START_MS + FIVE_MS, START_MS + 4 * FIVE_MS)
    assert [START_MS + k * FIVE_MS for k in (1, 2, 3)] == middle.open_time.tolist()
    assert len(store.read("BTCUSDT", "5m", 0, START_MS)) == 0


def test_list_and_coverage_name_counts_spans_and_gaps(tmp_path):
    """A gap hidden by the month boundary, or an end that forgets the last candle's length."""
    store = CandleStore(tmp_path)
    slots = [k for k in range(600) if not 280 <= k < 300]  # midnight of the month is slot 288
    store.write("ETHUSDT", "5m", make_candles(slots))
    store.write("BTCUSDT", "5m", make_candles([0, 1]))
    end_ms = START_MS + 600 * FIVE_MS
    assert store.list() == [
        StoredSeries("BTCUSDT", "5m", START_MS, START_MS + 2 * FIVE_MS, 2),
        StoredSeries("ETHUSDT", "5m", START_MS, end_ms, 580),
    ]
    held = store.coverage("ETHUSDT", "5m")
    assert (held.gaps, held.count, held.expected) == (
        (Span(START_MS + 280 * FIVE_MS, START_MS + 300 * FIVE_MS),),
        580,
        600,
    )
    wider = store.coverage("ETHUSDT", "5m", Span(START_MS - FIVE_MS, end_ms))
    assert wider.gaps[0] == Span(START_MS - FIVE_MS, START_MS)


def test_an_unknown_series_says_what_there_is(tmp_path):
    """An error that leaves the reader guessing what the store is called."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles([0, 1]))
    with pytest.raises(StoreError, match="Did you mean 'BTCUSDT 5m'"):
        store.read("BTCUSD", "5m")


def test_files_of_another_kind_are_refused_with_a_clear_error(tmp_path):
    """Somebody else's columns, or half a file, taken for candles."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles([0, 1, 2]))
    file = store.month_path("BTCUSDT", "5m", "2024-01")
    whole = file.read_bytes()
    pq.write_table(pq.read_table(file).drop_columns(["trades"]), file)
    with pytest.raises(StoreError, match="not a month of the candle store"):
        store.read("BTCUSDT", "5m")
    for damage in (whole[: len(whole) // 2], b"", flip_bit(whole, 200)):
        file.write_bytes(damage)
        with pytest.raises(StoreError, match="damaged"):
            store.read("BTCUSDT", "5m")
        with pytest.raises(StoreError, match="damaged"):
            store.write("BTCUSDT", "5m", make_candles([0, 1]))


def flip_bit(data: bytes, where: int) -> bytes:
    return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]


def test_a_month_under_another_months_name_is_refused(tmp_path):
    """A file copied to the wrong name, whose candles a span read would silently miss."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles([0, 1, 2]))
    file = store.month_path("BTCUSDT", "5m", "2024-01")
    file.rename(file.with_name("2024-03.parquet"))
    with pytest.raises(StoreError, match="inside 2024-03"):
        store.read("BTCUSDT", "5m")


def test_other_tools_read_the_folder_as_hive_partitions(tmp_path):
    """A layout that only our own reader understands."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles(list(range(400))))
    table = pyarrow.dataset.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert len(table) == 400
    assert table["symbol"].unique().to_pylist() == ["BTCUSDT"]
    assert table["interval"].unique().to_pylist() == ["5m"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_every_month_as_it_was(tmp_path, monkeypatch, function):
    """A half-written month, or one month of two replaced, after ENOSPC."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles(list(range(600)), seed=1))
    before = digests(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(StoreError, match="disk full"):
        store.write("BTCUSDT", "5m", make_candles(list(range(600)), seed=2))
    assert before == digests(tmp_path)
    assert list(tmp_path.rglob("*.tmp")) == []


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.history.store import CandleStore
import pyarrow.parquet as pq

root, newer, function, calls = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
real, seen = getattr(os, function), []

def killing(*arguments):
    seen.append(1)
    if len(seen) == calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(os, function, killing)
CandleStore(root).write("BTCUSDT", "5m", Candles.from_arrow(pq.read_table(newer)))
"""


@pytest.mark.posix
@pytest.mark.parametrize(("function", "calls"), [("fsync", 2), ("replace", 1), ("replace", 2)])
def test_kill_nine_in_a_write_leaves_each_month_old_or_new(tmp_path, function, calls):
    """A torn file after a kill, or leftovers that stop the next writer."""
    older, newer = (make_candles(list(range(600)), seed=seed) for seed in (1, 2))
    store, ready = CandleStore(tmp_path / "store"), CandleStore(tmp_path / "ready")
    store.write("BTCUSDT", "5m", older)
    before = digests(store.root)
    ready.write("BTCUSDT", "5m", newer)
    pq.write_table(newer.to_arrow(), tmp_path / "newer.parquet")
    arguments = [str(store.root), str(tmp_path / "newer.parquet"), function, str(calls)]
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, *arguments], timeout=60)
    assert killed.returncode == -9
    after, wanted = digests(store.root), digests(ready.root)
    # Months are renamed in order: `calls - 1` of them are new, the others still the old ones.
    renamed = calls - 1 if function == "replace" else 0
    names = sorted(before)
    assert after == {n: (wanted if k < renamed else before)[n] for k, n in enumerate(names)}
    store.write("BTCUSDT", "5m", newer)
    assert digests(store.root) == wanted
    assert list(store.root.rglob("*.tmp")) == []


def test_a_locked_series_is_refused_with_a_clear_message(tmp_path):
    """Two writers that merge into the same old month: the slower one undoes the other."""
    store = CandleStore(tmp_path, lock_timeout_s=0.05)
    store.write("BTCUSDT", "5m", make_candles([0, 1]))
    with (
        store.writing("BTCUSDT", "5m"),
        pytest.raises(StoreError, match=f"in use by this process, {os.getpid()}"),
    ):
        store.write("BTCUSDT", "5m", make_candles([2, 3]))
    store.write("ETHUSDT", "5m", make_candles([2, 3]))


def test_concurrent_writers_lose_no_candle(tmp_path):
    """A read-merge-write race: with the lock taken away, this test goes red."""
    start = threading.Barrier(6)

    def write(part: int) -> None:
        start.wait()
        for k in range(part, 240, 6):
            CandleStore(tmp_path).write("BTCUSDT", "5m", make_candles([k]))

    threads = [threading.Thread(target=write, args=(part,)) for part in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert CandleStore(tmp_path).coverage("BTCUSDT", "5m").count == 240


def test_nothing_to_write_makes_no_folder(tmp_path):
    """An empty series that then shows up in the list."""
    assert CandleStore(tmp_path / "new").write("BTCUSDT", "5m", Candles.empty()) == ()
    assert not (tmp_path / "new").exists()


def test_the_schema_on_disk_is_the_published_one(tmp_path):
    """Timestamps or dictionary columns creeping in, which other readers see differently."""
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "5m", make_candles([0, 1]))
    schema = pq.read_schema(store.month_path("BTCUSDT", "5m", "2024-01"))
    assert schema.field("open_time").type == pa.int64()
    assert schema.field("trades").type == pa.int64()
    assert {
        str(schema.field(name).type) for name in COLUMNS if name not in ("open_time", "trades")
    } == {"double"}
