"""The loopback exchange against real payloads, the real client and a plain HTTP client."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import main
from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.feeds.loopback import rest
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import Halt, RandomFaults, RestFault, StreamFault
from cppncripto_strategy.feeds.loopback.market import ManualClock, SpeedClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.feeds.loopback.wire import as_served

INTERVAL_MS = 300_000
START_MS = utc_to_ms("2024-12-30")
REAL = os.environ.get("CPPN_BT_REAL_MARKET")
real = pytest.mark.skipif(not REAL, reason="CPPN_BT_REAL_MARKET is not set")


def some_candles(count: int, seed: int = 1, start_ms: int = START_MS) -> Candles:
    """A random walk with every column."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, count)))
    open_ = np.concatenate([[100.0], close[:-1]])
    volume = rng.uniform(1, 9, count)
    return Candles.from_columns(
        open_time=start_ms + INTERVAL_MS * np.arange(count),
        open=open_,
        high=np.maximum(open_, close) * 1.001,
        low=np.minimum(open_, close) * 0.999,
        close=close,
        volume=volume,
        quote_volume=volume * close,
        trades=rng.integers(1, 500, count),
        taker_buy_volume=volume * 0.4,
        taker_buy_quote_volume=volume * 0.4 * close,
    )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine with a bound on its time."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, 30)

    return asyncio.run(bounded())


def get(url: str) -> tuple[int, dict[str, str], bytes]:
    """A plain HTTP client's GET: status, headers, body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def from_rows(rows: list[list[Any]]) -> Candles:
    """Candles of klines rows: the test's own reading of the twelve fields."""
    places = dict(zip(COLUMNS, (0, 1, 2, 3, 4, 5, 7, 8, 9, 10), strict=True))
    return Candles.from_columns(
        **{
            name: np.array([float(row[place]) for row in rows])
            if name != "open_time"
            else np.array([row[place] for row in rows])
            for name, place in places.items()
        }
    )


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "interval"),
    [("klines_BTCUSDT_15m_2025-01-06.json", "15m"), ("klines_BTCUSDT_1h_2024-01-01.json", "1h")],
)
def test_real_klines_come_back_letter_for_letter(name: str, interval: str) -> None:
    """Any field in the wrong place, type or number of decimals differs from the real answer."""
    rows = json.loads((Path(str(REAL)) / "payloads/rest" / name).read_text())
    exchange = LoopbackExchange(
        {"BTCUSDT": from_rows(rows)}, settings=ExchangeSettings(interval=interval)
    )
    with ExchangeThread(exchange) as host:
        start = rows[0][0]
        url = f"{host.rest_url}/api/v3/klines?symbol=BTCUSDT&interval={interval}"
        _, _, body = get(f"{url}&startTime={start}&limit=1000")
    ours = json.loads(body)
    assert len(ours) == len(rows)
    for told, recorded in zip(ours, rows, strict=True):
        for mine, theirs in zip(told, recorded, strict=True):
            # From 2**29 a double no longer holds seven decimals; the text must still read equal.
            huge = isinstance(theirs, str) and float(theirs) > 2**29
            assert (
                (float(mine), len(mine)) == (float(theirs), len(theirs))
                if huge
                else (mine == theirs)
            )


def shape(value: Any) -> Any:
    """Keys in order and types; numbers in strings told from other strings."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, str):
        decimals = value.partition(".")[2]
        return ("number", len(decimals)) if value.replace(".", "").isdigit() else "text"
    return type(value).__name__


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "combined"),
    [
        ("kline_5m_raw_real_2025-09-10.jsonl", False),
        ("kline_1m_raw_real_2026-08-22.jsonl", False),
        ("kline_1m_combined_real_2021-10-12.jsonl", True),
    ],
)
def test_frames_have_the_real_frames_fields_in_order(name: str, combined: bool) -> None:
    """A missing, renamed or retyped field of a kline event differs from the recorded frames."""
    lines = (Path(str(REAL)) / "payloads/ws" / name).read_text().splitlines()
    recorded = [json.loads(line) for line in lines if line]
    path = "/stream?streams=btcusdt@kline_5m" if combined else "/ws/btcusdt@kline_5m"

    async def work() -> list[Any]:
        clock = ManualClock(START_MS + 1)
        async with LoopbackExchange({"BTCUSDT": some_candles(4)}, clock=clock) as exchange:
            return await frames(exchange, path, 3, INTERVAL_MS)

    ours = run(work())
    for real_frame in recorded:
        assert all(shape(real_frame) == shape(frame) for frame in ours)


async def frames(exchange: LoopbackExchange, path: str, count: int, advance_ms: int) -> list[Any]:
    """Connect, let the market move, read `count` frames."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(exchange.stream_url + path) as socket,
    ):
        while not exchange.connections:
            await asyncio.sleep(0.001)
        await exchange.advance(advance_ms)
        return [json.loads((await socket.receive(timeout=5)).data) for _ in range(count)]


@real
@pytest.mark.real
def test_exchange_info_states_all_the_real_fields() -> None:
    """A broker that reads a filter would find the field missing or of another type."""
    path = Path(str(REAL)) / "payloads/rest/exchangeInfo_spot_2021-10-12_trimmed.json"
    recorded = json.loads(path.read_text())
    # Renamed by the exchange since the recording.
    renamed = {"PERCENT_PRICE": "PERCENT_PRICE_BY_SIDE", "MIN_NOTIONAL": "NOTIONAL"}
    with ExchangeThread(LoopbackExchange({"BTCUSDT": some_candles(3)})) as host:
        ours = json.loads(get(f"{host.rest_url}/api/v3/exchangeInfo")[2])
    assert set(recorded) <= set(ours)
    assert [set(limit) for limit in recorded["rateLimits"]] == [
        set(limit) for limit in ours["rateLimits"]
    ]
    symbol = ours["symbols"][0]
    filters = {entry["filterType"]: entry for entry in symbol["filters"]}
    for real_symbol in recorded["symbols"]:
        for key, value in real_symbol.items():
            assert type(value) is type(symbol[key]), key
        for entry in real_symbol["filters"]:
            kind = entry["filterType"]
            mine = filters[renamed.get(kind, kind)]
            if kind not in renamed:
                assert set(entry) <= set(mine), kind


@real
@pytest.mark.real
def test_error_bodies_read_like_the_real_ones() -> None:
    """A client that parses code and message of 418, 429 or -1121 would meet another text."""
    recorded = json.loads((Path(str(REAL)) / "payloads/real_error_bodies.json").read_text())
    bodies = {(entry["http_status"], entry["body"]["msg"][:24]) for entry in recorded}
    with ExchangeThread(LoopbackExchange({"BTCUSDT": some_candles(3)})) as host:
        url = f"{host.rest_url}/api/v3/klines?symbol=NOPE&interval=5m"
        wrong = get(url)
        host.script(RestFault("429", retry_after_s=0))
        limited = get(url)
        host.script(RestFault("418", retry_after_s=0))
        banned = get(url)
    for status, headers, body in (wrong, limited, banned):
        told = json.loads(body)
        assert (status, told["msg"][:24]) in bodies
        assert ("Retry-After" in headers) == (status in (418, 429))
        assert told["code"] == {400: -1121}.get(status, -1003)


def test_python_binance_reads_every_candle_and_the_forming_one_last() -> None:
    """The real client must be able to page the history by milliseconds, as from the exchange."""
    from binance import AsyncClient

    candles = some_candles(1201)

    async def work() -> tuple[list[Any], list[Any], Any]:
        clock = ManualClock(START_MS + 1200 * INTERVAL_MS + INTERVAL_MS // 2)
        async with LoopbackExchange({"BTCUSDT": candles}, clock=clock) as exchange:
            local = type("Local", (AsyncClient,), {"API_URL": exchange.rest_url + "/api"})
            client = await local.create()
            try:
                default = await client.get_klines(symbol="BTCUSDT", interval="5m")
                pages: list[Any] = []
                start = START_MS
                while True:
                    page = await client.get_klines(
                        symbol="BTCUSDT", interval="5m", startTime=start, limit=5000
                    )
                    pages += page
                    if len(page) < 1000:
                        break
                    start = page[-1][0] + 1
                used = client.response.headers["X-MBX-USED-WEIGHT-1M"]
            finally:
                await client.close_connection()
            return default, pages, int(used)

    default, pages, used = run(work())
    assert len(default) == 500
    assert default[-1] == pages[-1]
    assert used == 1 + 1 + 3 * 2
    served = as_served(candles)
    assert from_rows(pages[:-1]).equals(served[:-1])
    forming = from_rows(pages[-1:])
    assert forming.volume[0] < served.volume[-1]
    assert forming.low[0] <= min(forming.open[0], forming.close[0])
    assert forming.high[0] >= max(forming.open[0], forming.close[0])


def test_python_binance_socket_gets_one_closed_frame_per_candle() -> None:
    """Supervised ReconnectingWebsocket generations rely on the combined stream's x flag."""
    from binance.ws.reconnecting_websocket import ReconnectingWebsocket

    symbols = {"BTCUSDT": some_candles(5), "ETHUSDT": some_candles(5, seed=2)}

    async def work() -> list[Any]:
        async with LoopbackExchange(symbols, clock=ManualClock(START_MS)) as exchange:
            socket = ReconnectingWebsocket(
                url=exchange.stream_url + "/",
                path="streams=btcusdt@kline_5m/ethusdt@kline_5m",
                prefix="stream?",
            )
            socket.TIMEOUT = 1
            async with socket:
                await exchange.advance(5 * INTERVAL_MS)
                return [await socket.recv() for _ in range(5 * 2 * 3)]

    told = [frame["data"] for frame in run(work())]
    closed = [(f["s"], f["k"]["t"]) for f in told if f["k"]["x"]]
    expected = [(s, int(t)) for t in symbols["BTCUSDT"].open_time for s in symbols]
    assert expected == closed


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("interval=5m", -1102),
        ("symbol=BTCUSDT", -1102),
        ("symbol=btcusdt&interval=5m", -1121),
        ("symbol=BTCUSDT&interval=7m", -1120),
        ("symbol=BTCUSDT&interval=5m&startTime=yesterday", -1100),
    ],
)
def test_bad_question_is_answered_with_the_exchanges_code(query: str, code: int) -> None:
    """A client error must be told as 400 with a code, not as an empty list."""
    with ExchangeThread(LoopbackExchange({"BTCUSDT": some_candles(3)})) as host:
        status, _, body = get(f"{host.rest_url}/api/v3/klines?{query}")
    assert (status, json.loads(body)["code"]) == (400, code)


def test_archives_are_monthly_daily_checked_and_change_unit_in_2025() -> None:
    """The ingestion tells ms from us by these files; a wrong boundary would hide its bugs."""
    candles = some_candles(5 * 288)
    clock = ManualClock(START_MS + 4 * DAY_MS)
    with ExchangeThread(LoopbackExchange({"BTCUSDT": candles}, clock=clock)) as host:
        base = f"{host.archive_url}/data/spot"
        month = get(f"{base}/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-12.zip")
        month_sum = get(f"{base}/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-12.zip.CHECKSUM")
        day = get(f"{base}/daily/klines/BTCUSDT/5m/BTCUSDT-5m-2025-01-01.zip")
        absent = [
            get(f"{base}/{path}")[0]
            for path in (
                "monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2025-01.zip",  # not over yet
                "daily/klines/BTCUSDT/5m/BTCUSDT-5m-2025-01-03.zip",  # not over yet
                "daily/klines/BTCUSDT/5m/BTCUSDT-5m-2024-12.zip",
                "daily/klines/BTCUSDT/5m/BTCUSDT-5m-2024-02-30.zip",
                "daily/klines/ETHUSDT/5m/ETHUSDT-5m-2025-01-01.zip",
            )
        ]
    assert absent == [404] * 5
    digest, _, name = month_sum[2].decode().strip().partition("  ")
    assert (digest, name) == (hashlib.sha256(month[2]).hexdigest(), "BTCUSDT-5m-2024-12.zip")
    old, new = unzip(month[2]), unzip(day[2])
    assert len(old) == 2 * 288
    assert (int(old[0][0]), int(old[0][6])) == (START_MS, START_MS + INTERVAL_MS - 1)
    second = START_MS + 2 * DAY_MS
    assert (int(new[0][0]), int(new[0][6])) == (
        second * 1000,
        (second + INTERVAL_MS) * 1000 - 1,
    )
    assert [float(row[4]) for row in old] == as_served(candles).close[: 2 * 288].tolist()


def unzip(content: bytes) -> list[list[str]]:
    """The rows of the only file in a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        (name,) = packed.namelist()
        return [line.split(",") for line in packed.read(name).decode().splitlines()]


@real
@pytest.mark.real
def test_archive_text_equals_the_real_archives() -> None:
    """A blank, a decimal or a unit that differs from a real file is a bad rehearsal."""
    folder = Path(str(REAL)) / "archives"
    for name, rows in (("BTCUSDT-1m-2020-01-01.zip", 1440), ("BTCUSDT-1m-2026-03.zip", 2000)):
        theirs = unzip((folder / name).read_bytes())[:rows]
        scale = 1000 if int(theirs[0][0]) > 10**14 else 1
        parsed = [[int(row[0]) // scale, *row[1:]] for row in theirs]
        exchange = LoopbackExchange(
            {"BTCUSDT": from_rows(parsed)}, settings=ExchangeSettings(interval="1m")
        )
        period, stem = ("daily", name) if rows == 1440 else ("daily", "BTCUSDT-1m-2026-03-01.zip")
        with ExchangeThread(exchange) as host:
            url = f"{host.archive_url}/data/spot/{period}/klines/BTCUSDT/1m/{stem}"
            ours = unzip(get(url)[2])
        assert theirs[:1440] == ours


@pytest.mark.parametrize("kind", ["bad_checksum", "truncated_zip", "corrupt_zip"])
def test_spoilt_archive_fails_its_checksum_once(kind: str) -> None:
    """Archive faults must be visible to a client that checks, and gone at the next attempt."""
    candles = some_candles(2 * 288)
    clock = ManualClock(START_MS + 2 * DAY_MS)
    path = "daily/klines/BTCUSDT/5m/BTCUSDT-5m-2024-12-30.zip"
    with ExchangeThread(LoopbackExchange({"BTCUSDT": candles}, clock=clock)) as host:
        host.script(RestFault(kind, path="/data/"))
        outcomes = []
        for _ in range(2):
            content = get(f"{host.archive_url}/data/spot/{path}")[2]
            told = get(f"{host.archive_url}/data/spot/{path}.CHECKSUM")[2].decode().split()[0]
            outcomes.append(hashlib.sha256(content).hexdigest() == told)
    assert outcomes == [False, True]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("429", "BinanceAPIException 429"),
        ("418", "BinanceAPIException 418"),
        ("403", "BinanceAPIException 403"),
        ("500", "BinanceAPIException 500"),
        ("503", "BinanceAPIException 503"),
        ("502_html", "BinanceAPIException 502"),
        ("200_html", "ContentTypeError 200"),
        ("bad_json", "BinanceRequestException None"),
        ("truncated", "ClientPayloadError None"),
        ("hang", "TimeoutError None"),
    ],
)
def test_rest_fault_reaches_the_real_client_as_its_documents_say(kind: str, expected: str) -> None:
    """A fault that does not strike as it does in reality would test nothing."""

    async def work() -> tuple[str, list[Any]]:
        from binance import AsyncClient

        async with LoopbackExchange({"BTCUSDT": some_candles(9)}) as exchange:
            local = type("Local", (AsyncClient,), {"API_URL": exchange.rest_url + "/api"})
            client = await local.create(requests_params={"timeout": 0.5})
            exchange.script(RestFault(kind, retry_after_s=0))
            try:
                try:
                    await client.get_klines(symbol="BTCUSDT", interval="5m")
                    told = "nothing"
                except Exception as error:
                    status = getattr(error, "status_code", getattr(error, "status", None))
                    told = f"{type(error).__name__} {status}"
                again = await client.get_klines(symbol="BTCUSDT", interval="5m")
            finally:
                await client.close_connection()
            return told, again

    told, again = run(work())
    assert expected == told
    assert len(again) == 9


@pytest.mark.parametrize("kind", ["empty", "reset"])
def test_quiet_rest_faults_show_as_no_rows_or_a_silent_retry(kind: str) -> None:
    """An empty 200 becomes {}, a reset is retried by the client: both must really happen."""

    async def work() -> tuple[Any, int]:
        from binance import AsyncClient

        async with LoopbackExchange({"BTCUSDT": some_candles(9)}) as exchange:
            local = type("Local", (AsyncClient,), {"API_URL": exchange.rest_url + "/api"})
            client = await local.create()
            exchange.script(RestFault(kind))
            try:
                answer = await client.get_klines(symbol="BTCUSDT", interval="5m")
            finally:
                await client.close_connection()
            asked = sum(record.path.endswith("/klines") for record in exchange.requests)
            return answer, asked

    answer, asked = run(work())
    assert (len(answer), asked) == ((0, 1) if kind == "empty" else (9, 2))


def test_requests_during_a_ban_are_refused_and_counted() -> None:
    """A gate that ignores Retry-After must be caught by the exchange itself."""
    exchange = LoopbackExchange({"BTCUSDT": some_candles(3)})
    with ExchangeThread(exchange) as host:
        url = f"{host.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=5m"
        host.script(RestFault("418", retry_after_s=60))
        assert get(url)[0] == 418
        since, until, status = exchange.rest.blocked
        exchange.rest.blocked = (since - 2, until, status)
        assert get(f"{host.rest_url}/api/v3/ping")[0] == 418
    assert exchange.violations == 1


def test_what_was_under_way_when_a_ban_came_is_no_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine's late request counted as one that ignores Retry-After, or the reverse."""
    clock = [100.0]
    monkeypatch.setattr(rest, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    exchange = LoopbackExchange({"BTCUSDT": some_candles(3)})
    with ExchangeThread(exchange) as host:
        address = host.rest_url.removeprefix("http://")
        told, other = http.client.HTTPConnection(address), http.client.HTTPConnection(address)

        def ask(connection: http.client.HTTPConnection, now_s: float) -> int:
            clock[0] = now_s
            connection.request("GET", "/api/v3/klines?symbol=BTCUSDT&interval=5m")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 418
            return exchange.violations

        host.script(RestFault("418", retry_after_s=60))
        assert ask(told, 100.0) == 0
        assert ask(other, 100.9) == 0  # sent before it could know
        assert ask(told, 101.0) == 1  # knew for a second
        assert ask(other, 101.5) == 2  # knows, too
        told.close()
        other.close()


def test_spent_weight_is_refused_until_the_window_ends() -> None:
    """The used-weight header and the limit must agree, or a gate cannot be tested."""
    settings = ExchangeSettings(weight_limit=5, weight_window_s=3600.0)
    with ExchangeThread(LoopbackExchange({"BTCUSDT": some_candles(3)}, settings=settings)) as host:
        url = f"{host.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=5m"
        answers = [get(url) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert [headers["X-MBX-USED-WEIGHT-1M"] for _, headers, _ in answers] == ["2", "4", "6"]
    assert int(answers[2][1]["Retry-After"]) > 0


def test_halt_removes_candles_and_says_so() -> None:
    """A maintenance gap must be a hole in REST, in the archives and a status in exchangeInfo."""
    halt = Halt(START_MS + 3 * INTERVAL_MS, START_MS + 5 * INTERVAL_MS)
    exchange = LoopbackExchange(
        {"BTCUSDT": some_candles(8)},
        clock=ManualClock(START_MS + 4 * INTERVAL_MS),
        settings=ExchangeSettings(halts=(halt,)),
    )
    with ExchangeThread(exchange) as host:
        info = f"{host.rest_url}/api/v3/exchangeInfo?symbol=BTCUSDT"
        rows = f"{host.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=5m"
        during = json.loads(get(info)[2])["symbols"][0]["status"]
        host.advance_to(exchange.end_ms)
        after = json.loads(get(info)[2])["symbols"][0]["status"]
        times = [row[0] for row in json.loads(get(rows)[2])]
    assert (during, after) == ("HALT", "TRADING")
    assert [START_MS + INTERVAL_MS * n for n in (0, 1, 2, 5, 6, 7)] == times


def close_codes(kind: str) -> tuple[Any, list[str]]:
    """How a connection ends when `kind` strikes after one candle, and the texts before."""

    async def work() -> tuple[Any, list[str]]:
        async with LoopbackExchange(
            {"BTCUSDT": some_candles(9)}, clock=ManualClock(START_MS)
        ) as exchange:
            exchange.script(StreamFault(kind, START_MS + INTERVAL_MS))
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(exchange.stream_url + "/ws/btcusdt@kline_5m") as socket,
            ):
                while not exchange.connections:
                    await asyncio.sleep(0.001)
                await exchange.advance(INTERVAL_MS)
                texts = []
                while (message := await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                    texts.append(message.data)
                return message.data if message.type is aiohttp.WSMsgType.CLOSE else None, texts

    return run(work())


@pytest.mark.parametrize(
    ("kind", "code"),
    [("close_1000", 1000), ("close_1001", 1001), ("shutdown", 1001), ("abort", None)],
)
def test_connection_faults_end_the_stream_as_named(kind: str, code: int | None) -> None:
    """A supervisor distinguishes these endings; each must arrive as what it is called."""
    told, texts = close_codes(kind)
    assert code == told
    assert any("serverShutdown" in text for text in texts) == (kind == "shutdown")


def test_connection_is_cut_after_a_market_day() -> None:
    """Without the 24-hour cut no test would ever see it."""

    async def work() -> int:
        async with (
            LoopbackExchange(
                {"BTCUSDT": some_candles(600)}, clock=ManualClock(START_MS)
            ) as exchange,
            aiohttp.ClientSession() as session,
            session.ws_connect(exchange.stream_url + "/ws/btcusdt@kline_5m") as socket,
        ):
            while not exchange.connections:
                await asyncio.sleep(0.001)
            await exchange.advance(DAY_MS + INTERVAL_MS)
            count = 0
            while (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                count += 1
            return count

    assert 285 * 3 < run(work()) <= 289 * 3


def read_closed(
    *faults: StreamFault, count: int = 12, random: RandomFaults | None = None
) -> list[Any]:
    """Everything a connection hears while `count` candles pass, parsed where it parses."""

    async def work() -> list[Any]:
        candles = {"BTCUSDT": some_candles(count), "ETHUSDT": some_candles(count, 2)}
        async with LoopbackExchange(
            candles, clock=ManualClock(START_MS), faults=random
        ) as exchange:
            exchange.script(*faults)
            heard: list[Any] = []
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(
                    exchange.stream_url + "/stream?streams=btcusdt@kline_5m/ethusdt@kline_5m"
                ) as socket,
            ):
                while not exchange.connections:
                    await asyncio.sleep(0.001)
                await exchange.advance_to(exchange.end_ms + 50 * INTERVAL_MS)
                exchange.say('"end"')
                while (text := (await socket.receive(timeout=5)).data) != '"end"':
                    try:
                        heard.append(json.loads(text))
                    except ValueError:
                        heard.append(text)
            return heard

    return list(run(work()))


def closes(heard: list[Any], symbol: str) -> list[int]:
    """Open candle numbers whose closing frame was heard, in order."""
    found = []
    for frame in heard:
        data = frame.get("data") if isinstance(frame, dict) else None
        if isinstance(data, dict) and data.get("s") == symbol and data["k"]["x"]:
            found.append((data["k"]["t"] - START_MS) / INTERVAL_MS)
    return found


AT = START_MS + 5 * INTERVAL_MS  # the fifth candle (number 4) closes


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (StreamFault("duplicate", AT, symbol="BTCUSDT"), [*range(5), 4, *range(5, 12)]),
        (StreamFault("stale", AT, symbol="BTCUSDT"), [*range(5), 3, *range(5, 12)]),
        (
            StreamFault("missed_close", AT, AT + 2 * INTERVAL_MS, symbol="BTCUSDT"),
            [*range(4), *range(6, 12)],
        ),
        (
            StreamFault("silence", AT, AT + 3 * INTERVAL_MS, symbol="BTCUSDT"),
            [*range(4), *range(7, 12)],
        ),
        (
            StreamFault("late", AT, AT + 2, symbol="BTCUSDT", delay_ms=2 * INTERVAL_MS),
            [*range(4), 5, 4, *range(6, 12)],
        ),
        (
            StreamFault("misaligned", AT, symbol="BTCUSDT"),
            [*range(4), 4 + 1234 / INTERVAL_MS, *range(4, 12)],
        ),
    ],
)
def test_frame_faults_change_only_what_they_name(fault: StreamFault, expected: list[int]) -> None:
    """Each row of the matrix must really be in the stream, for one symbol alone."""
    heard = read_closed(fault)
    assert expected == closes(heard, "BTCUSDT")
    assert list(range(12)) == closes(heard, "ETHUSDT")


def test_malformed_and_odd_frames_are_heard() -> None:
    """A parser is only tested when what cannot be parsed really arrives."""
    heard = read_closed(StreamFault("malformed", AT, symbol="BTCUSDT"))
    assert any(isinstance(frame, str) for frame in heard)
    assert list(range(12)) == closes(heard, "BTCUSDT")


def test_broken_candle_replaces_the_close() -> None:
    """Quarantine needs a closing frame whose numbers break the rules."""
    heard = read_closed(StreamFault("broken_candle", AT, symbol="BTCUSDT"))
    broken = [f["data"]["k"] for f in heard if isinstance(f, dict) and f["data"]["k"]["c"] == "NaN"]
    assert [k["t"] for k in broken] == [AT - INTERVAL_MS]
    assert float(broken[0]["h"]) < float(broken[0]["l"])


def test_one_seed_is_one_schedule_of_random_faults() -> None:
    """Random faults that depend on task order could never be repeated."""
    rates = {"duplicate": 0.2, "stale": 0.2, "missed_close": 0.1}
    first = read_closed(count=60, random=RandomFaults(5, stream=rates))
    again = read_closed(count=60, random=RandomFaults(5, stream=rates))
    other = read_closed(count=60, random=RandomFaults(6, stream=rates))
    assert first == again
    assert first != other
    assert len(closes(first, "BTCUSDT")) != 60 * 3


def test_outage_refuses_upgrades_and_blackout_rest_too() -> None:
    """An outage must outlast the library's four attempts; REST is up, unless it is a blackout."""

    async def status(exchange: LoopbackExchange, url: str) -> int:
        async with aiohttp.ClientSession() as session:
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            async with session.get(url, headers=headers if "/ws/" in url else {}) as answer:
                return answer.status

    async def work() -> list[int]:
        async with LoopbackExchange(
            {"BTCUSDT": some_candles(50)}, clock=ManualClock(START_MS)
        ) as exchange:
            exchange.script(
                StreamFault("outage", START_MS, START_MS + INTERVAL_MS),
                StreamFault("blackout", START_MS + INTERVAL_MS, START_MS + 2 * INTERVAL_MS),
            )
            http = exchange.rest_url
            told = []
            for _ in range(3):
                told.append(await status(exchange, f"{http}/ws/btcusdt@kline_5m"))
                told.append(await status(exchange, f"{http}/api/v3/ping"))
                await exchange.advance(INTERVAL_MS)
            return told

    assert run(work())[:4] == [503, 200, 503, 503]


def test_half_open_peer_says_nothing_and_answers_no_ping() -> None:
    """A watchdog is only tested by a socket that stays open and dead."""

    async def work() -> tuple[bool, int]:
        import websockets

        async with LoopbackExchange(
            {"BTCUSDT": some_candles(9)}, clock=ManualClock(START_MS)
        ) as exchange:
            url = exchange.stream_url + "/ws/btcusdt@kline_5m"
            async with websockets.connect(url, ping_interval=None, close_timeout=0.1) as socket:
                await asyncio.wait_for(await socket.ping(), 2)
                exchange.strike("half_open")
                await exchange.advance(INTERVAL_MS)
                silent = False
                try:
                    await asyncio.wait_for(await socket.ping(), 0.2)
                except TimeoutError:
                    silent = True
                return silent, exchange.connections

    assert run(work()) == (True, 1)


def test_chatty_client_is_disconnected() -> None:
    """More than five incoming messages a second end the connection, pings included."""

    async def work() -> int | None:
        async with (
            LoopbackExchange({"BTCUSDT": some_candles(9)}) as exchange,
            aiohttp.ClientSession() as session,
            session.ws_connect(exchange.stream_url + "/ws") as socket,
        ):
            for number in range(7):
                await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            while (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                pass
            return socket.close_code

    assert run(work()) == 1008


def test_subscribe_adds_a_stream() -> None:
    """A client may subscribe after it has connected; the acknowledgement is no candle."""

    async def work() -> list[Any]:
        async with (
            LoopbackExchange({"BTCUSDT": some_candles(9)}, clock=ManualClock(START_MS)) as exchange,
            aiohttp.ClientSession() as session,
            session.ws_connect(exchange.stream_url + "/ws") as socket,
        ):
            await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_5m"], "id": 3})
            first = json.loads((await socket.receive(timeout=5)).data)
            await exchange.advance(INTERVAL_MS)
            second = json.loads((await socket.receive(timeout=5)).data)
            return [first, second["e"]]

    assert run(work()) == [{"result": None, "id": 3}, "kline"]


def test_speed_clock_delivers_every_close_and_finishes() -> None:
    """At 300 s of market per 5 ms no candle may be skipped when the loop is late."""

    async def work() -> list[int]:
        clock = SpeedClock(START_MS, speed=60_000)
        settings = ExchangeSettings(wait_for_subscriber=True, updates_per_candle=1)
        async with LoopbackExchange(
            {"BTCUSDT": some_candles(100)}, clock=clock, settings=settings
        ) as exchange:
            assert exchange.now_ms() == START_MS
            found = []
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(exchange.stream_url + "/ws/btcusdt@kline_5m") as socket,
            ):
                while len(found) < 100:
                    kline = (await socket.receive_json(timeout=5))["k"]
                    if kline["x"]:
                        found.append((kline["t"] - START_MS) // INTERVAL_MS)
            await exchange.finished.wait()
            return found

    assert list(range(100)) == run(work())


def test_nothing_to_serve_is_refused() -> None:
    """An exchange without a candle would answer every question with an empty list."""
    with pytest.raises(SourceError, match="no candle"):
        LoopbackExchange({"BTCUSDT": Candles.empty()})


def test_taken_port_is_named() -> None:
    """A second exchange on the same port must say so, not raise a bare OSError."""
    with ExchangeThread(LoopbackExchange({"BTCUSDT": some_candles(3)})) as host:
        settings = ExchangeSettings(port=host.exchange.port)
        second = LoopbackExchange({"BTCUSDT": some_candles(3)}, settings=settings)
        with pytest.raises(SourceError, match="is taken"), ExchangeThread(second):
            pass


def test_missing_columns_are_served_with_stand_ins() -> None:
    """Candles without the optional columns must still give twelve fields a client can parse."""
    bare = some_candles(3).replace(**{name: np.full(3, np.nan) for name in COLUMNS[6:]})
    with ExchangeThread(LoopbackExchange({"BTCUSDT": bare})) as host:
        rows = json.loads(get(f"{host.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=5m")[2])
    assert all(np.isfinite([float(field) for field in row]).all() for row in rows)
    assert [row[8] for row in rows] == [1, 1, 1]


def test_command_prints_its_addresses_as_json() -> None:
    """Scripts start the exchange and read where it listens."""
    from cppncripto_strategy.commands.exchange import command

    arguments = ["--planted", "--days", "2", "--history-days", "1", "--port", "0"]
    result = CliRunner().invoke(command, [*arguments, "--for", "0.1", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["rest_url"].startswith("http://127.0.0.1:")
    assert told["symbols"] == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interval": "7m"}, "interval is '7m', expected one of 1s"),
        ({"port": 70_000}, "port is 70000, expected 0 to 65,535"),
        ({"updates_per_candle": -1}, "updates_per_candle is -1"),
        ({"weight_limit": 0}, "weight_limit is 0"),
        ({"rest_lag_ms": -1}, "rest_lag_ms is -1"),
        ({"hang_s": float("nan")}, "hang_s is nan"),
        ({"halts": [Halt(9, 9)]}, "a halt from 9 to 9 ends before it starts"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], words: str) -> None:
    """An exchange that answers nonsense, to the bewilderment of whoever tests against it."""
    with pytest.raises(SourceError, match=words):
        ExchangeSettings(**settings)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_that_is_none_is_refused(speed: float) -> None:
    """A market that stands still, or that is over at once."""
    with pytest.raises(SourceError, match="speed is"):
        SpeedClock(START_MS, speed)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_rates_that_are_no_probabilities_are_refused(rate: float) -> None:
    """A fault that always strikes where one in a hundred was meant."""
    with pytest.raises(ValueError, match="rates of rest faults are probabilities"):
        RandomFaults(1, rest={"429": rate})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "0"], "0.0 is not in the range x>0"),
        (["--speed", "nan"], "the market's speed is nan"),
        (["--port", "70000"], "not in the range 0<=x<=65535"),
        (["--days", "0"], "0 is not in the range x>=1"),
        (["--for", "-1"], "not in the range x>0"),
        (["--interval", "7m"], "7m"),
        (["--symbol", "btcusdt"], "did you mean 'BTCUSDT'?"),
        (["--symbol", "X", "--symbol", "X"], "--symbol names X more than once"),
        (["--days", "3"], "the candles are over after 3.0 days: lower --history-days"),
    ],
)
def test_command_says_what_is_impossible(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or an exchange that serves nothing."""
    with pytest.raises(SystemExit) as ended:
        main(["exchange", "--for", "0.1", "--port", "0", *arguments])
    assert ended.value.code in (1, 2)
    complaint = " ".join(capsys.readouterr().err.split())
    assert words in complaint
    assert "Traceback" not in complaint
