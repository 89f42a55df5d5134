"""REST through python-binance against the loopback exchange: every fault, the gate, the paging."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.rest import (
    RestClient,
    RestGate,
    UnknownSymbolError,
    gate_for,
    read_klines,
)
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, utc_to_ms
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import Halt, RestFault
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

FIVE_MS = 300_000
START_MS = utc_to_ms("2024-05-01")
COUNT = 2_500
FAST = Retry(attempts=4, base_s=0.01, cap_s=0.02, timeout_s=0.4, longest_pause_s=5.0)
WHOLE = Span(START_MS, START_MS + COUNT * FIVE_MS)
HALT = Halt(START_MS + 1_200 * FIVE_MS, START_MS + 1_230 * FIVE_MS)


def make_candles(count: int = COUNT) -> Candles:
    rng = np.random.default_rng(5)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.1, count)), 2)
    begin = np.round(close + rng.normal(0, 0.1, count), 2)
    columns = {}
    for whole, taker in (
        ("volume", "taker_buy_volume"),
        ("quote_volume", "taker_buy_quote_volume"),
    ):
        columns[whole] = np.round(rng.exponential(50, count), 8)
        columns[taker] = np.round(columns[whole] * rng.random(count), 8)
    return Candles.from_columns(
        open_time=START_MS + FIVE_MS * np.arange(count),
        open=begin,
        high=np.maximum(begin, close) + 0.01,
        low=np.minimum(begin, close) - 0.01,
        close=close,
        trades=rng.integers(1, 99, count),
        **columns,
    )


@pytest.fixture
def host():
    """A loopback exchange whose market has ended, with thirty candles halted away."""
    exchange = LoopbackExchange(
        {"BTCUSDT": make_candles()}, settings=ExchangeSettings(halts=(HALT,), hang_s=5.0)
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def ask(host: ExchangeThread, question, *, retry: Retry = FAST, gate: RestGate | None = None):
    """Run `question(client)` in a client of its own."""

    async def work():
        sources = Sources(rest_url=host.rest_url)
        client = RestClient(
            sources, retry, gate=gate or RestGate(), rng=random.Random(1), settle_ms=0
        )
        async with client:
            await client.server_time_ms()
            return await question(client)

    return asyncio.run(work())


def read_whole(client: RestClient):
    return client.read("BTCUSDT", "5m", WHOLE)


def test_pages_are_joined_into_exactly_the_exchanges_candles(host):
    """A candle lost or doubled at a page's edge, or at a hole longer than nothing."""
    read = ask(host, read_whole)
    assert read.candles.equals(host.exchange.candles["BTCUSDT"])
    assert len(read.candles) == COUNT - 30
    assert read.span == WHOLE


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_what_is_shown_is_joined_whatever_the_pages_hold(host, monkeypatch, rows):
    """A candle lost or doubled where a page ends, or a read that never does."""
    monkeypatch.setattr("cppncripto_strategy.feeds.binance.rest.PAGE_ROWS", max(2, rows))
    span = Span(WHOLE.start_ms, WHOLE.start_ms + 50 * FIVE_MS)
    shown = ask(host, lambda client: client.shown("BTCUSDT", "5m", span))
    truth = host.exchange.candles["BTCUSDT"]
    assert shown.equals(truth.between(span.start_ms, span.end_ms))


def test_a_candle_that_a_newer_one_follows_was_shown_together_with_it(monkeypatch):
    """The last of a page, still forming, taken as closed because the next page begins after it."""
    monkeypatch.setattr("cppncripto_strategy.feeds.binance.rest.PAGE_ROWS", 2)
    closed = make_candles()[:3]
    forming = closed.replace(volume=closed.volume / 2)

    async def page(_client, _symbol, _interval, span, rows=2):
        source = forming if span.start_ms == closed.open_time[0] else closed
        return source.between(span.start_ms, span.end_ms)[:rows]

    monkeypatch.setattr(RestClient, "_page", page)
    client = RestClient(Sources(rest_url="http://127.0.0.1:1"))
    span = Span(int(closed.open_time[0]), int(closed.open_time[-1]) + FIVE_MS)
    shown = asyncio.run(client.shown("BTCUSDT", "5m", span))
    assert closed.volume[1:].tolist() == shown.volume[1:].tolist()


@pytest.mark.parametrize(
    "kind",
    ["500", "503", "403", "502_html", "200_html", "empty", "bad_json", "truncated", "reset"],
)
def test_a_passing_fault_is_retried_and_changes_nothing(host, kind):
    """An odd answer taken for candles, for the end of the data, or for a reason to give up."""
    host.script(RestFault(kind, times=3))
    read = ask(host, read_whole)
    assert read.candles.equals(host.exchange.candles["BTCUSDT"])
    assert host.exchange.faults.struck[f"rest:{kind}"] >= 1


def test_a_hanging_answer_is_given_up_and_asked_again(host):
    """A request without a time limit: the fetch would stand still for ever."""
    host.script(RestFault("hang"))
    assert ask(host, read_whole).candles.equals(host.exchange.candles["BTCUSDT"])


@pytest.mark.parametrize("kind", ["429", "418"])
def test_retry_after_silences_every_request_until_it_has_passed(host, kind):
    """A request sent during a ban lengthens the ban."""
    host.script(RestFault(kind, retry_after_s=1))

    async def several(client: RestClient):
        parts = [
            Span(START_MS + k * 500 * FIVE_MS, START_MS + (k + 1) * 500 * FIVE_MS) for k in range(5)
        ]
        reads = [asyncio.create_task(client.read("BTCUSDT", "5m", part)) for part in parts]
        return await asyncio.gather(*reads)

    reads = ask(host, several)
    assert sum(len(read.candles) for read in reads) == COUNT - 30
    assert host.exchange.violations == 0


def test_a_ban_longer_than_patience_is_reported_with_its_length(host):
    """A fetch that sleeps for three days without a word."""
    host.script(RestFault("418", retry_after_s=3600))
    with pytest.raises(SourceError, match="banned"):
        ask(host, read_whole)
    assert host.exchange.violations == 0


def test_a_fault_that_does_not_pass_ends_in_an_error_that_names_it(host):
    """Endless retries, or an error that hides what the exchange said."""
    host.script(RestFault("502_html", times=None))
    with pytest.raises(SourceError, match=r"4 attempts.*status 502"):
        ask(host, read_whole)


def test_an_unknown_symbol_is_not_retried(host):
    """Eight patient retries of a typing mistake."""
    with pytest.raises(UnknownSymbolError):
        ask(host, lambda client: client.read("BTCUSD", "5m", WHOLE))
    assert len([r for r in host.exchange.requests if "klines" in r.path]) == 1


def test_a_refused_request_says_what_the_exchange_said(host):
    """A wrong interval blamed on the network."""
    with pytest.raises(SourceError, match="-1120"):
        ask(host, lambda client: client.read("BTCUSDT", "15m", WHOLE))


def test_the_first_candle_and_the_weight_limit_are_learnt(host):
    """A limit of the wrong kind (orders) or unit taken for the request weight."""
    gate = RestGate(limit=1)
    gate.share = 10_000.0

    async def learn(client: RestClient):
        await client.read_limit("BTCUSDT")
        return await client.first_open_ms("BTCUSDT", "5m")

    assert ask(host, learn, gate=gate) == START_MS
    assert gate.limit == 6000


@pytest.mark.parametrize("elapsed_ms", [0, 1, FIVE_MS - 1])
def test_the_forming_candle_is_never_returned(elapsed_ms):
    """`drop the last row`: right by luck, wrong at the very moment of the close."""
    now_ms = START_MS + 100 * FIVE_MS + elapsed_ms
    exchange = LoopbackExchange({"BTCUSDT": make_candles()}, clock=ManualClock(now_ms))
    with ExchangeThread(exchange) as host:
        read = ask(host, read_whole)
    assert len(read.candles) == 100
    assert read.candles.equals(exchange.candles["BTCUSDT"][:100])
    assert read.span.end_ms == START_MS + 100 * FIVE_MS


def test_a_candle_that_has_just_closed_waits_until_it_has_settled():
    """REST lags behind the clock: the last row can still be forming after its close."""
    exchange = LoopbackExchange(
        {"BTCUSDT": make_candles()},
        clock=ManualClock(START_MS + 100 * FIVE_MS + 500),
        settings=ExchangeSettings(rest_lag_ms=1_000),
    )

    async def patient(host):
        client = RestClient(Sources(rest_url=host.rest_url), FAST, gate=RestGate(), settle_ms=2_000)
        async with client:
            return await read_whole(client)

    with ExchangeThread(exchange) as host:
        read = asyncio.run(patient(host))
    assert read.candles.equals(exchange.candles["BTCUSDT"][:99])


def test_broken_candles_are_asked_for_again_and_then_refused(monkeypatch, host):
    """A candle with high below low stored because it came twice."""
    from cppncripto_strategy.feeds.binance import rest

    bad_ms, honest, seen = START_MS + 7 * FIVE_MS, rest.read_klines, []

    def tampering(always: bool):
        def read(answer, span=None):
            candles = honest(answer, span)
            here = candles.open_time == bad_ms
            if here.any() and (always or not seen):
                seen.append(1)
                return candles.replace(high=np.where(here, 1e-9, candles.high))
            return candles

        return read

    monkeypatch.setattr(rest, "read_klines", tampering(always=False))
    cured = ask(host, read_whole)
    assert cured.rejected == ()
    assert cured.candles.equals(host.exchange.candles["BTCUSDT"])
    monkeypatch.setattr(rest, "read_klines", tampering(always=True))
    refused = ask(host, read_whole)
    assert [bad_ms] == [one.open_time for one in refused.rejected]
    assert "high is below low" in refused.rejected[0].rule
    assert len(refused.candles) == COUNT - 31


ROW = [START_MS, "1.0", "2.0", "0.5", "1.5", "3.0", START_MS + FIVE_MS - 1, "4.0", 5, "1.0", "2.0"]
LATER = [START_MS + FIVE_MS, *ROW[1:]]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        None,
        "[]",
        [ROW[:8]],
        [[str(START_MS), *ROW[1:]]],
        [[True, *ROW[1:]]],
        [LATER, ROW],
        [ROW, ROW],
        [[START_MS - FIVE_MS, *ROW[1:]]],
        [[START_MS, "n/a", *ROW[2:]]],
        [5],
    ],
)
def test_an_answer_of_another_shape_is_never_taken_for_candles(answer):
    """`{}` for an empty answer read as `no candles`: a false gap."""
    with pytest.raises((ValueError, TypeError)):
        read_klines(answer, Span(START_MS, START_MS + 10 * FIVE_MS))


def test_an_empty_list_is_no_candles():
    """A true gap refused as an odd answer."""
    assert len(read_klines([], WHOLE)) == 0
    assert len(read_klines([ROW, LATER], WHOLE)) == 2


@pytest.mark.real
def test_real_klines_are_read_field_by_field():
    """Two columns of the exchange's answer swapped."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    payload = Path(market) / "payloads" / "rest" / "klines_BTCUSDT_15m_2025-01-06.json"
    document = json.loads(payload.read_text())
    rows = document if isinstance(document, list) else document["rows"]
    candles = read_klines(rows)
    places = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "quote_volume": 7}
    places |= {"trades": 8, "taker_buy_volume": 9, "taker_buy_quote_volume": 10}
    assert [row[0] for row in rows] == candles.open_time.tolist()
    for name, place in places.items():
        assert [float(row[place]) for row in rows] == getattr(candles, name).tolist()


class FakeClock:
    """Monotonic seconds that move when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["ask", "report", "pause"]), st.integers(1, 60)), max_size=80
    )
)
def test_the_gate_never_lets_more_weight_through_than_its_share(events):
    """A burst past the limit, or a request during an ordered pause."""
    clock = FakeClock()
    gate = RestGate(limit=100, window_s=60.0, share=0.8, clock=clock)
    spent: list[tuple[float, int]] = []
    paused_until = 0.0
    for kind, amount in events:
        if kind == "report":
            gate.report(amount)
        elif kind == "pause":
            gate.pause(amount)
            paused_until = max(paused_until, clock.now_s + amount)
        else:
            while (wait_s := gate.reserve(amount)) > 0:
                assert wait_s <= 60.0
                clock.now_s += wait_s
            assert clock.now_s >= paused_until
            spent.append((clock.now_s, amount))
    # Windows begin with their first request; no window holds more than the share.
    window_end, used = 0.0, 0
    for at_s, amount in spent:
        if at_s >= window_end:
            window_end, used = at_s + 60.0, 0
        used += amount
        assert used <= 80


def test_the_gate_believes_the_exchange_when_others_spend_too():
    """Counting only our own requests behind a shared address."""
    clock = FakeClock()
    gate = RestGate(limit=100, share=0.8, clock=clock)
    assert gate.reserve(10) == 0.0
    gate.report(75)
    assert gate.reserve(10) == 60.0
    clock.now_s += 60.0
    assert gate.reserve(10) == 0.0


def test_a_long_read_stays_under_the_exchanges_limit():
    """A gate that counts, but not the way the exchange does."""
    exchange = LoopbackExchange(
        {"BTCUSDT": make_candles()},
        settings=ExchangeSettings(weight_limit=40, weight_window_s=0.4),
    )

    async def one_by_one(client: RestClient):
        spans = [Span(START_MS + k * FIVE_MS, START_MS + (k + 1) * FIVE_MS) for k in range(30)]
        return [await client.read("BTCUSDT", "5m", span) for span in spans]

    with ExchangeThread(exchange) as host:
        reads = ask(host, one_by_one, gate=RestGate(limit=40, window_s=0.4))
    assert [len(read.candles) for read in reads] == [1] * 30
    assert {request.status for request in exchange.requests} == {200}


def test_one_process_has_one_gate_for_an_address():
    """Two feeds that each believe the whole limit is theirs."""
    assert gate_for("http://a") is gate_for("http://a")
    assert gate_for("http://a") is not gate_for("http://b")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(attempt=st.integers(0, 40), seed=st.integers(0, 9))
def test_waits_grow_are_jittered_and_are_capped(attempt, seed):
    """A thundering herd, or a wait of hours."""
    retry = Retry(base_s=0.5, cap_s=30.0)
    wait_s = retry.wait_s(attempt, random.Random(seed))
    ceiling = min(30.0, 0.5 * 2**attempt)
    assert ceiling / 2 <= wait_s <= ceiling
