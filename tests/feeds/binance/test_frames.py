"""Kline events and commands: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.binance.frames import (
    ODD_FRAMES,
    KlineEvent,
    StreamEnd,
    combined_path,
    kline_frame,
    obey,
    read_frame,
    shutdown_frame,
    stream_name,
    wrapped,
)
from cppncripto_strategy.feeds.binance.klines import Kline, decimal_text

# One event as the exchange sent it, 2025-09-10.
RECORDED = """{"e":"kline","E":1757523280021,"s":"BTCUSDT","k":{"t":1757523000000,
"T":1757523299999,"s":"BTCUSDT","i":"5m","f":5225377132,"L":5225383094,"o":"113647.98000000",
"c":"113670.12000000","h":"113708.45000000","l":"113627.74000000","v":"46.64096000","n":5963,
"x":false,"q":"5302412.42715770","V":"14.72666000","Q":"1674287.91322410","B":"0"}}"""
ROW = (
    *(1757523000000, 113647.98, 113708.45, 113627.74, 113670.12, 46.64096),
    *(5302412.4271577, 5963.0, 14.72666, 1674287.9132241),
)
KLINE = Kline(
    *(1757523000000, 1757523299999, "113647.98000000", "113708.45000000", "113627.74000000"),
    *("113670.12000000", "46.64096000", "5302412.42715770", 5963, "14.72666000"),
    *("1674287.91322410", 5225377132),
)


def test_a_recorded_event_is_read_column_by_column():
    """High and low, or base and quote volume, exchanged."""
    event = read_frame(json.loads(RECORDED))
    assert event == KlineEvent(
        "BTCUSDT",
        "5m",
        1757523000000,
        1757523299999,
        1757523280021,
        False,
        ROW,
        5225377132,
        5225383094,
    )


def test_the_recorded_event_is_written_letter_by_letter():
    """A loopback exchange that sends what the real one does not."""
    frame = kline_frame(KLINE, "BTCUSDT", "5m", 1757523280021, closed=False)
    assert RECORDED.replace("\n", "") == json.dumps(frame, separators=(",", ":"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(0, 10**15), min_size=8, max_size=8),
    trades=st.integers(0, 10**6),
    closed=st.booleans(),
)
def test_what_is_written_is_read_back(values, trades, closed):
    """A candle that changes between the loopback exchange and the stream."""
    opened, high, low, close, volume, quote, taker, taker_quote = (v / 10**8 for v in values)
    texts = map(decimal_text, (opened, high, low, close, volume, quote))
    takers = map(decimal_text, (taker, taker_quote))
    kline = Kline(300_000, 599_999, *texts, trades, *takers, first_trade_id=7)
    event = read_frame(json.loads(json.dumps(kline_frame(kline, "XUSDT", "5m", 1, closed))))
    row = (300_000, opened, high, low, close, volume, quote, trades, taker, taker_quote)
    ids = (7, 7 + trades - 1) if trades else (None, None)
    assert event == KlineEvent("XUSDT", "5m", 300_000, 599_999, 1, closed, row, *ids)


@pytest.mark.parametrize("text", ODD_FRAMES)
def test_odd_messages_say_nothing(text):
    """A stream that dies of a message it does not know."""
    assert read_frame(json.loads(text)) is None


@pytest.mark.parametrize(
    "broken",
    [
        *({"h": None}, {"v": "many"}, {"o": 10**400}, {"o": "1_0"}, {"o": "\u0661"}),
        *({"o": True}, {"o": []}, {"o": {}}),
    ],
)
def test_a_candle_without_its_numbers_has_no_row(broken):
    """A missing high read as zero, or an exception in the stream's loop."""
    frame = json.loads(RECORDED)
    frame["k"].update(broken)
    assert read_frame(frame).row is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(changes=st.dictionaries(st.sampled_from("tTsifLochlvnxqVQ"), JSON, max_size=4), event=JSON)
def test_no_message_raises(changes, event):
    """A message of the right form and of senseless values that ends the stream."""
    frame = json.loads(RECORDED)
    frame["k"].update(changes)
    for message in (frame, event, {"data": event}, {"e": "kline", "k": event}, {"e": event}):
        read = read_frame(message)
        assert read is None or isinstance(read, KlineEvent | StreamEnd)


@pytest.mark.parametrize("stamp", ["1757523000000", 1.5, None])
def test_an_open_time_that_is_no_whole_number_is_odd(stamp):
    """Text compared with integers."""
    frame = json.loads(RECORDED)
    frame["k"]["t"] = stamp
    assert read_frame(frame) is None


def test_the_end_is_announced():
    """A shutdown taken for a message without meaning: the stream waits for its watchdog."""
    assert isinstance(read_frame(shutdown_frame(1)), StreamEnd)
    assert read_frame({"e": "error", "type": "Closed"}) == StreamEnd("Closed")


def test_a_combined_connection_wraps_what_it_sends():
    """Frames of several symbols told apart by nothing, or not read because they are wrapped."""
    assert combined_path(["BTCUSDT", "ETHUSDT"], "5m") == (
        "stream?",
        "streams=btcusdt@kline_5m/ethusdt@kline_5m",
    )
    text = wrapped(stream_name("BTCUSDT", "5m"), RECORDED)
    assert read_frame(json.loads(text)) == read_frame(json.loads(RECORDED))


def test_commands_change_the_subscriptions_and_nothing_else_does():
    """UNSUBSCRIBE of one stream that ends all, or a bad command that ends the connection."""
    streams = {"a"}
    asked = {"method": "SUBSCRIBE", "params": ["b"], "id": 1}
    assert json.loads(obey(lambda: asked, streams)) == {"result": None, "id": 1}
    asked = {"method": "UNSUBSCRIBE", "params": ["a"], "id": 2}
    obey(lambda: asked, streams)
    listed = json.loads(obey(lambda: {"method": "LIST_SUBSCRIPTIONS", "id": 3}, streams))
    assert listed == {"result": ["b"], "id": 3}
    assert "error" in json.loads(obey(lambda: [], streams))
    assert streams == {"b"}
