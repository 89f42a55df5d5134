"""Archives: units, headers, checksums, and every way a zip can be broken."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance import archive_text
from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    archive_at,
    parse_name,
    read_archive,
    read_archive_file,
)
from cppncripto_strategy.feeds.binance.archive_client import ArchiveClient
from cppncripto_strategy.feeds.binance.archive_text import parse_csv
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span, utc_to_ms
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import RestFault
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

HOUR_MS = 3_600_000
FILE = ArchiveFile("BTCUSDT", "1h", "2025-01-02")
FAST = Retry(attempts=4, base_s=0.01, cap_s=0.02, timeout_s=0.4)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore\n"
)


def lines(unit: int = 1_000, start: str = "2025-01-02", count: int = 24) -> str:
    """Hourly rows as the exchange writes them; `unit` ticks a millisecond."""
    first = utc_to_ms(start)
    return "".join(
        f"{(first + k * HOUR_MS) * unit},{100 + k}.50000000,{102 + k}.00000000,{99 + k}.00000000,"
        f"{101 + k}.25000000,{k}.12500000,{(first + (k + 1) * HOUR_MS) * unit - 1},"
        f"{k}7.75000000,{k + 3},{k}.06250000,{k}3.37500000,0\n"
        for k in range(count)
    )


def packed(text: str, name: str = FILE.name, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        target.writestr(f"{name}.csv", text)
    return buffer.getvalue()


def checksum(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {FILE.name}.zip\n"


@pytest.mark.parametrize("unit", [1, 1_000])
@pytest.mark.parametrize("header", ["", HEADER])
def test_units_and_headers_are_sniffed(unit, header):
    """Microseconds read as milliseconds (the year 57000), or a first candle eaten as a header."""
    candles = parse_csv((header + lines(unit)).encode(), "x")
    first = utc_to_ms("2025-01-02")
    assert [first + k * HOUR_MS for k in range(24)] == candles.open_time.tolist()
    assert [100.5 + k for k in range(24)] == candles.open.tolist()
    assert [102.0 + k for k in range(24)] == candles.high.tolist()
    assert [99.0 + k for k in range(24)] == candles.low.tolist()
    assert [101.25 + k for k in range(24)] == candles.close.tolist()
    assert [k + 0.125 for k in range(24)] == candles.volume.tolist()
    assert [float(f"{k}7.75") for k in range(24)] == candles.quote_volume.tolist()
    assert [k + 3 for k in range(24)] == candles.trades.tolist()
    assert [k + 0.0625 for k in range(24)] == candles.taker_buy_volume.tolist()
    assert [float(f"{k}3.375") for k in range(24)] == candles.taker_buy_quote_volume.tolist()


def test_a_file_may_change_its_unit_on_the_way():
    """One unit guessed for the whole file: the file that spans the change is half wrong."""
    text = lines(1, "2024-12-31", 24) + lines(1_000, "2025-01-01", 24)
    opens = parse_csv(text.encode(), "x").open_time
    assert [utc_to_ms("2024-12-31") + k * HOUR_MS for k in range(48)] == opens.tolist()


def test_a_sound_zip_is_read_with_and_without_libdeflate(monkeypatch):
    """The quick way and the way without its wheel disagree."""
    content = packed(lines())
    quick = read_archive(FILE, content, checksum(content))
    monkeypatch.setattr(archive_text, "deflate", None)
    slow = read_archive(FILE, content, checksum(content))
    stored = packed(lines(), method=zipfile.ZIP_STORED)
    assert quick.candles.equals(slow.candles)
    assert quick.candles.equals(read_archive(FILE, stored, None).candles)
    assert hashlib.sha256(content).hexdigest() == quick.sha256


def test_a_checksum_that_does_not_match_is_refused():
    """Bytes of another version taken on trust."""
    content = packed(lines())
    with pytest.raises(SourceError, match="CHECKSUM"):
        read_archive(FILE, content, checksum(content + b"x"))
    with pytest.raises(SourceError, match="CHECKSUM"):
        read_archive(FILE, content, "")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_cut_or_flipped_zip_never_gives_other_candles(data):
    """Damage that unzips to fewer candles, or to other ones, without a word (no checksum known)."""
    content = packed(lines())
    whole = read_archive(FILE, content, None).candles
    where = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    damaged = (
        content[:where]
        if cut
        else content[:where] + bytes([content[where] ^ 0x10]) + content[where + 1 :]
    )
    try:
        read = read_archive(FILE, damaged, None)
    except SourceError:
        return
    # Flips in names of no importance (dates, attributes) may pass; the candles may not differ.
    assert whole.equals(read.candles)


@pytest.mark.parametrize("name", ["BTCUSDT-1h-2025-01-03", "../evil"])
def test_a_zip_of_another_name_is_refused(name):
    """A mislabelled archive, or a path that climbs out."""
    with pytest.raises(SourceError, match="expected only"):
        read_archive(FILE, packed(lines(), name), None)


@pytest.mark.parametrize(
    "text", ["<html>sorry</html>", "1,2\n", lines().replace("101.25000000", "n/a"), "17,1\n"]
)
def test_text_that_is_no_candles_is_refused(text):
    """An error page inside a zip stored as candles."""
    with pytest.raises(SourceError):
        parse_csv(text.encode(), "x")


def test_candles_of_another_day_are_refused():
    """A file whose rows belong elsewhere."""
    content = packed(lines(start="2025-02-02"))
    with pytest.raises(SourceError, match="outside"):
        read_archive(FILE, content, checksum(content))


def test_bad_rows_are_set_apart_and_the_rest_is_kept():
    """One misaligned candle that costs a month, or that gets in."""
    rows = lines().splitlines(keepends=True)
    opened = str((utc_to_ms("2025-01-02") + 5 * HOUR_MS) * 1_000)
    rows[5] = rows[5].replace(opened, str(int(opened) + 7_000_000))
    rows[9] = rows[9].replace(",111.00000000,", ",1.00000000,")
    content = packed("".join(rows))
    read = read_archive(FILE, content, checksum(content))
    assert [(one.open_time - utc_to_ms("2025-01-02")) // HOUR_MS for one in read.rejected] == [5, 9]
    assert "misaligned" in read.rejected[0].rule
    assert "high" in read.rejected[1].rule
    assert len(read.candles) == 22


def test_names_urls_and_spans_belong_together():
    """A daily file looked for among the monthly ones, or a month that is a day short."""
    monthly = parse_name("BTCUSDT-1m-2026-03.zip")
    assert (monthly.symbol, monthly.interval, monthly.period) == ("BTCUSDT", "1m", "2026-03")
    assert monthly.span == Span(utc_to_ms("2026-03-01"), utc_to_ms("2026-04-01"))
    base = "https://data.binance.vision"
    assert monthly.url(base) == f"{base}/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-03.zip"
    assert "/daily/" in FILE.url(base)
    assert FILE.span == Span(utc_to_ms("2025-01-02"), utc_to_ms("2025-01-03"))
    with pytest.raises(SourceError, match="not named like"):
        parse_name("candles.zip")


@pytest.mark.parametrize("period", ["2026-03", "2026-03-07"])
@pytest.mark.parametrize("suffix", ["", ".CHECKSUM"])
def test_an_archive_is_found_where_it_is_published(period, suffix):
    """A checksum served as a zip, or a month where a day was asked for."""
    file = ArchiveFile("BTCUSDT", "1m", period)
    assert (file, bool(suffix)) == archive_at(file.path + suffix)


@pytest.mark.parametrize(
    "path",
    [
        "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-03.zip",
        "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-13.zip",
        "/data/spot/monthly/klines/ETHUSDT/1m/BTCUSDT-1m-2026-03.zip",
        "/data/spot/monthly/klines/BTCUSDT/1m/notes.txt",
        "/",
    ],
)
def test_no_other_path_is_an_archive(path):
    """A file that the exchange does not publish, served all the same."""
    assert archive_at(path) is None


def day_of_candles() -> Candles:
    return parse_csv(lines().encode(), "x")


@pytest.fixture
def host():
    """A loopback exchange with one day of hourly candles, all past."""
    exchange = LoopbackExchange(
        {"BTCUSDT": day_of_candles()},
        clock=ManualClock(utc_to_ms("2025-01-02") + 2 * DAY_MS),
        settings=ExchangeSettings(interval="1h", hang_s=5.0),
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def fetch(host: ExchangeThread, root: Path, file: ArchiveFile = FILE, count: int = 1):
    async def work():
        sources = Sources(archive_url=host.archive_url)
        keep_damaged = Quarantine(root).keep_file
        async with ArchiveClient(sources, keep_damaged, FAST, rng=random.Random(1)) as client:
            return [await client.fetch(file) for _ in range(count)][-1]

    return asyncio.run(work())


@pytest.mark.parametrize("kind", ["503", "truncated", "hang", "reset"])
def test_a_passing_fault_is_retried(host, tmp_path, kind):
    """A download given up at the first hiccup."""
    host.script(RestFault(kind, path=".zip", times=1))
    assert fetch(host, tmp_path).candles.equals(day_of_candles())


@pytest.mark.parametrize("kind", ["truncated_zip", "corrupt_zip", "bad_checksum"])
def test_damage_is_quarantined_and_fetched_again(host, tmp_path, kind):
    """A damaged file stored, or thrown away without a trace."""
    path = ".CHECKSUM" if kind == "bad_checksum" else ".zip"
    host.script(RestFault(kind, path=path, times=1))
    assert fetch(host, tmp_path).candles.equals(day_of_candles())
    [kept] = Quarantine(tmp_path).files()
    assert f"{FILE.name}.zip" in kept.name
    assert "CHECKSUM" in kept.with_name(kept.name + ".reason").read_text()


def test_lasting_damage_leaves_the_candles_to_rest(host, tmp_path):
    """Endless downloads of a file that stays bad."""
    host.script(RestFault("corrupt_zip", path=".zip", times=None))
    assert fetch(host, tmp_path) is None
    assert len(Quarantine(tmp_path).files()) == 1


def test_a_file_that_is_not_published_costs_one_request(host, tmp_path):
    """Retrying a 404 as if it were a fault."""
    absent = ArchiveFile("BTCUSDT", "1h", "2025-01-01")
    assert fetch(host, tmp_path, absent) is None
    assert len(host.exchange.requests) == 1


def test_an_archive_out_of_reach_is_left_alone_after_three_files(host, tmp_path):
    """Every month of ten years waiting for the same dead host."""
    host.script(RestFault("503", path=".zip", times=None))
    assert fetch(host, tmp_path, count=9) is None
    assert len(host.exchange.requests) == 3 * FAST.attempts


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "count", "start"),
    [
        ("BTCUSDT-1m-2020-01-01", 1_440, "2020-01-01"),
        ("BTCUSDT-1m-2020-01-02", 1_440, "2020-01-02"),
        ("BTCUSDT-1m-2020-01-03", 1_440, "2020-01-03"),
        ("BTCUSDT-1m-2026-03", 44_640, "2026-03-01"),
    ],
)
def test_real_archives_are_complete_and_in_their_time(name, count, start):
    """Milliseconds of 2020 or microseconds of 2026 misread."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    read = read_archive_file(Path(market) / "archives" / f"{name}.zip")
    assert read.rejected == ()
    assert np.array_equal(utc_to_ms(start) + 60_000 * np.arange(count), read.candles.open_time)
