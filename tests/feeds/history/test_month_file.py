"""A month's file: the same bytes however its candles come, and never a month in memory twice."""

from __future__ import annotations

import errno
import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history import month_file
from cppncripto_strategy.feeds.history.month_file import read_month, write_month
from cppncripto_strategy.feeds.history.store import CandleStore

MONTH, START_MS = "2024-02", utc_to_ms("2024-02-01")
SECOND_MS = 1_000
ROW_BYTES = 10 * 8
GROUP = 64
quick = settings(max_examples=60, deadline=None, derandomize=True)


def seconds(slots: np.ndarray, seed: int = 0) -> Candles:
    """Plausible candles of these seconds of the month, some optional values missing."""
    rng, count = np.random.default_rng(seed), len(slots)
    close = 100 + rng.random(count)
    volume = rng.random(count)
    return Candles.from_columns(
        open_time=START_MS + SECOND_MS * np.asarray(slots, dtype=np.int64),
        open=close,
        high=close + 1,
        low=close - 1,
        close=close,
        volume=volume,
        trades=np.where(rng.random(count) < 0.3, np.nan, rng.integers(0, 99, count)),
        taker_buy_volume=np.where(rng.random(count) < 0.3, np.nan, volume / 2),
    )


def in_one_go(candles: Candles) -> bytes:
    """The oracle: pyarrow, given the whole month at once."""
    sink = io.BytesIO()
    pq.write_table(
        candles.to_arrow(),
        sink,
        row_group_size=min(len(candles), GROUP),
        compression="zstd",
        compression_level=month_file.ZSTD_LEVEL,
        use_dictionary=False,
        column_encoding=month_file._ENCODINGS,
        write_page_checksum=True,
        write_statistics=["open_time"],
    )
    return sink.getvalue()


@quick
@given(
    slots=st.lists(st.integers(0, 400), min_size=1, max_size=300, unique=True).map(sorted),
    seed=st.integers(0, 99),
    parts=st.integers(1, 4),
    half_stored=st.booleans(),
)
def test_a_month_in_parts_gives_the_bytes_of_the_month_in_one(
    tmp_path_factory, slots, seed, parts, half_stored
):
    """A row group cut elsewhere, a candle lost at its edge, or one that is stored and wins."""
    whole, stored = seconds(np.array(slots), seed), None
    owner = np.random.default_rng(seed).integers(0, parts, len(whole))
    newer = [whole[owner == part] for part in range(parts)]
    if half_stored:
        # What the store has of the last part is older, and other, than what comes.
        first, last = newer[0], newer[-1].replace(volume=newer[-1].volume + 1)
        before = first if parts == 1 else Candles.from_arrow(
            pa.concat_tables([first.to_arrow(), last.to_arrow()]).sort_by("open_time")
        )  # fmt: skip
        stored = tmp_path_factory.mktemp("month") / f"{MONTH}.parquet"
        if len(before):
            stored.write_bytes(in_one_go(before))
            newer = newer[1:] or [Candles.empty()]
        else:
            stored = None
    sink = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(month_file, "ROW_GROUP_ROWS", GROUP)
        open_time = write_month(sink, stored, newer)
    assert sink.getvalue() == in_one_go(whole)
    assert open_time.tolist() == whole.open_time.tolist()


def test_a_half_stored_month_is_merged_without_holding_it(tmp_path, monkeypatch):
    """A month of seconds of which half is stored, read whole, joined, sorted and written: 1.2 GB.

    Beside what the caller holds, a merge may take some row groups, however many a month has.
    """
    rows = 4_096
    monkeypatch.setattr(month_file, "ROW_GROUP_ROWS", rows)
    whole = seconds(np.arange(40 * rows))
    store = CandleStore(tmp_path)
    store.write("BTCUSDT", "1s", whole[::2], sparse=True)
    newer = [whole[1 : 30 * rows : 2], whole[30 * rows + 1 :: 2]]
    honest = pa.default_memory_pool()
    arrow = pa.proxy_memory_pool(honest)
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        store.write_months("BTCUSDT", "1s", newer, sparse=True)
        peak = tracemalloc.get_traced_memory()[1] + arrow.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(honest)
    assert peak < 0.6 * len(whole) * ROW_BYTES
    assert store.read("BTCUSDT", "1s").equals(whole)


def test_a_candle_in_two_parts_is_refused(tmp_path):
    """Which of two sources counted would be decided by the order in which they answered."""
    candles, store = seconds(np.arange(20)), CandleStore(tmp_path)
    with pytest.raises(CandleError, match=r"2024-02-01 00:00:09.*came from two sources"):
        store.write_months("BTCUSDT", "1s", [candles[:10], candles[9:]])
    assert store.months("BTCUSDT", "1s") == []


def test_a_disk_that_fills_up_while_merging_is_not_called_a_damaged_month(tmp_path):
    """Good candles moved to quarantine because there was no room for more of them."""

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    stored = tmp_path / f"{MONTH}.parquet"
    stored.write_bytes(in_one_go(seconds(np.arange(50))))
    with pytest.raises(OSError, match="No space left"):
        write_month(Full(), stored, [seconds(np.arange(50, 60))])


def test_a_damaged_month_is_named_whether_read_or_merged(tmp_path):
    """A page that fails its checksum, read as candles because it was read by row group."""
    whole, file = seconds(np.arange(GROUP * 5)), tmp_path / f"{MONTH}.parquet"
    sound, named = in_one_go(whole), 0
    for place in np.linspace(0.05, 0.99, 15):
        content = bytearray(sound)
        content[int(len(content) * place)] ^= 0x55
        file.write_bytes(content)
        try:
            found = read_month(file)
        except StoreError:
            named += 1
            with pytest.raises(StoreError, match=f"{MONTH}.parquet is damaged"):
                read_month(file)
            with pytest.raises(StoreError, match=f"{MONTH}.parquet is damaged"):
                write_month(io.BytesIO(), file, [whole[:1]])
        else:  # a byte that no value depends on, such as a statistic in a page's header
            for column, expected in zip(found.columns(), whole.columns(), strict=True):
                np.testing.assert_array_equal(column[1], expected[1])
    assert named >= 10
