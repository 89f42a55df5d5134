"""Rows and queries of candles: what is written is read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.feeds.binance.klines import (
    DEFAULT_ROWS,
    PAGE_ROWS,
    Kline,
    KlinesQuery,
    decimal_text,
    query_problem,
    read_klines,
)
from cppncripto_strategy.feeds.candles import COLUMNS

AMOUNT = st.integers(0, 10**15).map(lambda units: units / 10**8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=st.lists(AMOUNT, min_size=8, max_size=8), trades=st.integers(0, 10**6))
def test_a_row_that_is_written_is_read_back_column_by_column(values, trades):
    """Base and quote volume, or the taker's two, exchanged between writer and reader."""
    opened, high, low, close, volume, quote, taker, taker_quote = values
    texts = map(decimal_text, (opened, high, low, close, volume, quote))
    takers = map(decimal_text, (taker, taker_quote))
    kline = Kline(300_000, 599_999, *texts, trades, *takers, first_trade_id=7)
    candles = read_klines(json.loads(json.dumps([kline.row()])))
    read = [float(getattr(candles, name)[0]) for name in COLUMNS]
    assert [300_000, *values[:6], trades, *values[6:]] == read


@pytest.mark.parametrize(
    "query",
    [
        KlinesQuery("BTCUSDT", "5m"),
        KlinesQuery("BTCUSDT", "5m", 1, 2, 3),
        KlinesQuery("BTCUSDT", "1h", last_open_ms=7),
    ],
)
def test_a_query_that_is_sent_is_understood(query):
    """The end of a span read as its start, or a limit that is lost."""
    sent = {name: str(value) for name, value in query.parameters().items()}
    assert query_problem(sent) is None
    assert query == KlinesQuery.read(sent)


def test_a_page_is_never_longer_than_the_exchange_allows():
    """A client that relies on pages the real exchange does not send."""
    asked = {"symbol": "X", "interval": "5m"}
    assert KlinesQuery.read(asked).limit == DEFAULT_ROWS
    assert KlinesQuery.read({**asked, "limit": str(PAGE_ROWS + 1)}).limit == PAGE_ROWS


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ({"symbol": ""}, "'symbol'"),
        ({"interval": ""}, "'interval'"),
        ({"startTime": "soon"}, "'startTime'"),
        ({"limit": "-1"}, "'limit'"),
    ],
)
def test_a_bad_query_is_refused_by_the_parameter(lost, named):
    """A mistyped time taken for none."""
    problem = query_problem({"symbol": "X", "interval": "5m", **lost})
    assert problem is not None
    assert named in problem["msg"]
