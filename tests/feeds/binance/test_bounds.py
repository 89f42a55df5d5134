"""Hostile archives and answers: bounded in size and time, and never more than damage."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cppncripto_strategy.errors import CppnError, SourceError
from cppncripto_strategy.feeds.binance import archive_text, rest
from cppncripto_strategy.feeds.binance.answers import LONGEST_BAN_S, read_pause_s, read_server_time
from cppncripto_strategy.feeds.binance.archive import (
    ArchiveFile,
    archive_csv,
    archive_zip,
    check_digest,
    checksum_line,
    read_archive,
)
from cppncripto_strategy.feeds.binance.archive_client import DAMAGED_ATTEMPTS, ArchiveClient
from cppncripto_strategy.feeds.binance.bounds import (
    BROKEN_ROWS,
    CHECKSUM_BYTES,
    PACKED_ROW_BYTES,
    REDIRECTS,
    ROW_BYTES,
    archive_bounds,
    rest_bytes,
)
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.receiving import TooLargeError, unpack
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span, utc_to_ms
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.loopback.damage import (
    CHECKSUMS,
    REST_TEXTS,
    RETRY_AFTERS,
    ZIPS,
    gzip_bomb,
)
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import (
    ARCHIVE_FAULTS,
    BREAKS,
    CHECKSUM_FAULTS,
    FORGERIES,
    ODD_WAITS,
    REST_FAULTS,
    ZIP_FAULTS,
    RestFault,
)
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.feeds.loopback.wire import whole_kline

HOUR_MS = 3_600_000
DAY = utc_to_ms("2025-01-02")
SPAN = Span(DAY, DAY + DAY_MS)
FILE = ArchiveFile("BTCUSDT", "1h", "2025-01-02")
# What is not given up by then never will be.
PATIENCE_S = 60.0
FAST = Retry(attempts=3, base_s=0.01, cap_s=0.02, timeout_s=0.5)


def one_day(interval_ms: int = HOUR_MS) -> Candles:
    price = 100.0 + np.arange(DAY_MS // interval_ms) % 7
    return Candles.from_columns(
        open_time=DAY + interval_ms * np.arange(len(price)),
        open=price,
        high=price + 1,
        low=price - 1,
        close=price,
        volume=price,
        quote_volume=price * price,
        trades=np.full(len(price), 9.0),
        taker_buy_volume=price / 2,
        taker_buy_quote_volume=price * price / 2,
    )


TRUTH = one_day()
TEXT = archive_csv([whole_kline(TRUTH, row, HOUR_MS) for row in range(len(TRUTH))])
HONEST = archive_zip(FILE.name, TEXT)


@pytest.fixture
def host() -> Iterator[ExchangeThread]:
    """A loopback exchange with one day of hourly candles, all past."""
    exchange = LoopbackExchange(
        {"BTCUSDT": TRUTH},
        clock=ManualClock(DAY + 2 * DAY_MS),
        settings=ExchangeSettings(interval="1h", hang_s=5.0, slow_s=0.2),
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def fetch(host: ExchangeThread, root: Path, count: int = 1):
    async def work():
        sources = Sources(archive_url=host.archive_url)
        keep_damaged = Quarantine(root).keep_file
        client = ArchiveClient(sources, keep_damaged, FAST, rng=random.Random(1))
        async with asyncio.timeout(PATIENCE_S), client:
            return [await client.fetch(FILE) for _ in range(count)][-1]

    return asyncio.run(work())


def read(host: ExchangeThread, retry: Retry = FAST):
    async def work():
        client = RestClient(Sources(rest_url=host.rest_url), retry, gate=RestGate(), settle_ms=0)
        async with asyncio.timeout(PATIENCE_S), client:
            return await client.read("BTCUSDT", "1h", SPAN)

    return asyncio.run(work())


def test_every_named_fault_can_be_made():
    """A fault with a name that strikes nothing, and a test that passes because of it."""
    assert set(ZIPS) == set(ZIP_FAULTS)
    assert set(CHECKSUMS) == set(CHECKSUM_FAULTS)
    assert set(RETRY_AFTERS) == set(ODD_WAITS)
    assert set(REST_TEXTS) < set(REST_FAULTS)
    assert len(set(ARCHIVE_FAULTS)) == len(ARCHIVE_FAULTS)
    assert len(set(REST_FAULTS)) == len(REST_FAULTS)


@pytest.mark.parametrize("kind", [kind for kind in ZIP_FAULTS if kind != "truncated_zip"])
def test_a_hostile_zip_is_damage_and_nothing_else(kind):
    """An encrypted flag, a method nobody has or a directory of an exabyte that ends the fetch."""
    content = ZIPS[kind](HONEST, FILE.name)
    checksum = checksum_line(FILE.name, content)
    if kind == "infinite_taker_zip":  # its rows are refused, not the file
        found = read_archive(FILE, content, checksum)
        rules = {row.rule for row in found.rejected}
        assert (len(found.candles), rules) == (0, {"taker_buy_volume is infinite or above 1e+18"})
        return
    with pytest.raises(SourceError, match=FILE.name) as error:
        read_archive(FILE, content, checksum)
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_hostile_zip_with_its_own_checksum_is_fetched_again(host, tmp_path, kind):
    """Damage that is believed because its checksum is right, or that costs the month."""
    host.script(RestFault(kind, path=".CHECKSUM", times=1))
    found = fetch(host, tmp_path)
    if kind == "forged_infinite_taker_zip":  # rows for the quarantine, not the file
        assert len(found.rejected) == len(TRUTH)
        return
    assert found.candles.equals(TRUTH)
    [kept] = Quarantine(tmp_path).files()
    assert f"{FILE.name}.zip" in kept.name


@pytest.mark.parametrize("kind", CHECKSUM_FAULTS)
def test_a_checksum_of_another_kind_is_damage(host, tmp_path, kind):
    """Another file's checksum, an error page or ten kilobytes of blanks, taken for ours."""
    host.script(RestFault(kind, path=".CHECKSUM", times=1))
    assert fetch(host, tmp_path).candles.equals(TRUTH)
    assert Quarantine(tmp_path).files()


@pytest.mark.parametrize("path", [".zip$", ".CHECKSUM"])
@pytest.mark.parametrize("kind", BREAKS)
def test_a_body_without_end_is_given_up(host, tmp_path, kind, path):
    """A gigabyte, or an hour, spent on a file of two kilobytes."""
    host.script(RestFault(kind, path=path, times=None))
    assert fetch(host, tmp_path) is None
    asked = len(host.exchange.requests)
    assert asked <= 2 * FAST.attempts * DAMAGED_ATTEMPTS
    if kind == "redirect":  # the other host is the same exchange under another name: nobody asked
        assert asked == FAST.attempts + (path == ".zip$")
    kept = sum(file.stat().st_size for file in Quarantine(tmp_path).files())
    assert kept <= 2 * archive_bounds(FILE.span, HOUR_MS).zip_bytes


def test_a_file_that_moved_on_its_own_host_is_found(host, tmp_path):
    """An honest redirect taken for an attack."""
    host.script(RestFault("moved", path=".zip$", times=REDIRECTS))
    assert fetch(host, tmp_path).candles.equals(TRUTH)
    assert len(host.exchange.requests) == 1 + REDIRECTS + 1


@pytest.mark.parametrize("kind", [kind for kind in REST_FAULTS if kind not in ODD_WAITS])
def test_every_fault_of_rest_passes(host, kind):
    """An answer that makes a parser raise what nobody foresaw, and ends the read."""
    host.script(RestFault(kind, times=2))
    assert read(host).candles.equals(TRUTH)


@pytest.mark.parametrize("kind", ["bomb", "many_rows", "endless", "lying_length", "deep_json"])
def test_rest_that_stays_hostile_is_an_error_in_words(host, kind):
    """An endless answer that is read to its end, or an error that prints a megabyte."""
    host.script(RestFault(kind, times=None))
    with pytest.raises(SourceError, match="no usable answer") as error:
        read(host)
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("kind", ODD_WAITS)
def test_a_refusal_that_does_not_say_how_long_still_waits(host, monkeypatch, kind):
    """Two hundred requests in twenty seconds, each answered by 429."""
    monkeypatch.setattr(rest, "PAUSE_S", {429: 0.4, 418: 0.4})
    monkeypatch.setattr(rest, "LEAST_PAUSE_S", 0.2)
    host.script(RestFault(kind, times=3))
    began = time.monotonic()
    assert read(host).candles.equals(TRUTH)
    # 429_now waits 0.2, 0.4 and again 0.4 s; the others three times what is guessed.
    assert time.monotonic() - began >= (1.0 if kind == "429_now" else 1.2)


@pytest.mark.parametrize(
    ("header", "message", "expected"),
    [
        ("0", "", 0.0),
        ("17", "", 17.0),
        ("2.5", "", 2.5),
        ("-5", "", None),
        ("soon", "", None),
        ("", "", None),
        ("9" * 30, "", None),
        (str(int(LONGEST_BAN_S) + 1), "", None),
        ("Thu, 02 Jan 2025 00:00:30 GMT", "", 30.0),
        ("Wed, 01 Jan 2025 00:00:30 GMT", "", None),
        ("Xxx, 99 GMT", "", None),
        ("", f"IP banned until {DAY + 5_000}.", 5.0),
        ("", f"IP banned until {DAY - 5_000}.", 0.0),
        ("", f"IP banned until {DAY + 400 * DAY_MS}.", None),
    ],
)
def test_how_long_to_wait_is_read_or_not_said(header, message, expected):
    """A negative, absurd or written-out Retry-After obeyed, or taken for no wait at all."""
    assert read_pause_s({"Retry-After": header}, message, DAY) == expected


@pytest.mark.parametrize("stamp", [0, -1, 10**18, 1.5, "1735776000000", True, None])
def test_an_absurd_server_time_is_none(stamp):
    """A clock in the year 56000, by which every forming candle has closed."""
    with pytest.raises(ValueError, match="serverTime is"):
        read_server_time({"serverTime": stamp})


def test_bounds_hold_what_is_honest():
    """A bound below a real file: every month of seconds would come from REST."""
    month = archive_bounds(ArchiveFile("BTCUSDT", "1s", "2025-01").span, 1_000)
    assert month.rows >= 31 * 86_400
    longest = max(len(line) + 1 for line in TEXT.splitlines())
    widest = "1735689600000000," + ",".join(["9999999999.99999999"] * 4) + ","
    widest += "1735689600999999,".join(["99999999999999.99999999,"] * 2) + "9999999,"
    widest += "99999999999999.99999999," * 2 + "0\n"
    assert longest < len(widest) <= ROW_BYTES
    assert len(HONEST) < archive_bounds(FILE.span, HOUR_MS).zip_bytes
    # Random digits, which pack worst.
    digits = "".join(random.Random(1).choices("0123456789", k=200 * 1_000))
    packed = len(archive_zip("x", digits)) / 1_000
    assert packed < PACKED_ROW_BYTES
    assert len(checksum_line("X" * 50 + "-1m-2020-01-01", b"")) < CHECKSUM_BYTES
    assert rest_bytes("/api/v3/exchangeInfo", "symbols=" + ",".join(["X"] * 200)) > 200 * 12_000


def test_an_answer_is_unpacked_no_further_than_its_bound():
    """Three megabytes of gzip that become three gigabytes of memory."""
    with pytest.raises(TooLargeError):
        unpack(gzip_bomb(), "gzip", 1_000_000)
    body = b'{"serverTime":1}'
    assert body == unpack(gzip.compress(body), "gzip", len(body))
    assert body == unpack(zlib.compress(body), "deflate", len(body))
    assert body == unpack(body, "identity", len(body))
    for broken, encoding in (
        (gzip.compress(body)[:-9], "gzip"),
        (body, "gzip"),
        (body, "br"),
    ):
        with pytest.raises(ValueError, match="its "):
            unpack(broken, encoding, 1_000)


def test_a_file_of_nothing_but_bad_rows_is_damage():
    """A million refused rows, each kept with a sentence about it."""
    file = ArchiveFile("BTCUSDT", "1s", "2025-01-02")
    seconds = one_day(1_000)
    seconds = seconds.replace(high=seconds.low / 2)
    rows = [whole_kline(seconds, row, 1_000) for row in range(BROKEN_ROWS + 1)]
    content = archive_zip(file.name, archive_csv(rows))
    with pytest.raises(SourceError, match=f"{BROKEN_ROWS + 1:,} of .* rows break a rule"):
        read_archive(file, content, None)


def test_large_archives_are_read_in_pieces_to_the_same_candles(monkeypatch):
    """A row lost, doubled or halved where two pieces meet."""
    monkeypatch.setattr(archive_text, "WHOLE_BYTES", 0)
    for piece in (len(HONEST), len(HONEST) + 37, len(TEXT) // 2, len(TEXT), len(TEXT) + 1):
        monkeypatch.setattr(archive_text, "_PIECE_BYTES", piece)
        assert read_archive(FILE, HONEST, None).candles.equals(TRUTH)


@pytest.mark.parametrize(
    "line",
    ["{0}", "{0}  {1}.zip", "{0} *{1}.zip\n", "{2}  {1}.zip\r\n"],
)
def test_checksums_as_tools_write_them_are_understood(line):
    """sha256sum's own spellings refused."""
    digest = "ab" * 32
    check_digest(digest, line.format(digest, FILE.name, digest.upper()), FILE.name)


CHANGE = st.one_of(
    st.tuples(st.just("set"), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 400)),
    st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 400)),
)


@examples(max_examples=400, deadline=None, derandomize=True)
@given(
    changes=st.lists(CHANGE, min_size=1, max_size=4),
    method=st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]),
    near_end=st.booleans(),
)
def test_a_changed_zip_is_the_same_candles_or_damage(changes, method, near_end):
    """A header that makes a library raise something new, or a candle that nobody sent."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        packed.writestr(f"{FILE.name}.csv", TEXT)
    content = bytearray(buffer.getvalue())
    for kind, where, what in changes:
        # The directory lies in the last 150 bytes: there a change matters most.
        low = max(0, len(content) - 150) if near_end else 0
        place = low + int(where * (len(content) - low))
        if kind == "set":
            content[place : place + len(what)] = what
        elif kind == "insert":
            content[place:place] = what
        elif kind == "cut":
            del content[place : place + what]
        else:
            content[place:place] = content[place : place + what]
    try:
        found = read_archive(FILE, bytes(content), None)
    except CppnError:
        return
    assert found.candles.equals(TRUTH)
    assert found.rejected == ()


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["nan", "inf", "-1", "1e400", "0x10", "", " ", "\0", "é", '"1"', "1;2"]),
        st.integers(-(10**20), 10**20).map(str),
        st.decimals(allow_nan=True, allow_infinity=True).map(str),
    ),
    min_size=12,
    max_size=12,
)


@examples(max_examples=200, deadline=None, derandomize=True)
@given(fields=TEXTS, row=st.integers(0, 23), column=st.integers(0, 11), whole=st.booleans())
def test_any_text_in_an_archive_is_candles_or_damage(fields, row, column, whole):
    """A number, a time or a byte in a row that raises past the one door, or becomes a candle."""
    rows = [line.split(",") for line in TEXT.splitlines()]
    rows[row] = fields if whole else [*rows[row]]
    rows[row][column] = fields[column]
    content = archive_zip(FILE.name, "\n".join(",".join(line) for line in rows) + "\n")
    try:
        found = read_archive(FILE, content, None)
    except SourceError:
        return
    others = np.delete(np.arange(24), row)
    mine = np.isin(found.candles.open_time, TRUTH.open_time[others])
    assert found.candles[mine].equals(TRUTH[others])
