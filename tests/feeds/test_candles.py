"""Candles: choosing among them, and the one rule book by which every door judges them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.feeds.binance.archive import ArchiveFile, archive_zip, read_archive
from cppncripto_strategy.feeds.binance.frames import KlineEvent, read_frame
from cppncripto_strategy.feeds.binance.klines import read_klines
from cppncripto_strategy.feeds.candles import (
    COLUMNS,
    Candles,
    first_violation,
    inside,
    row_problem,
    split_valid,
)
from cppncripto_strategy.feeds.clock import HOUR_MS, Span, utc_to_ms
from cppncripto_strategy.feeds.history.files import StoreSource
from cppncripto_strategy.feeds.history.foreign import read_file
from cppncripto_strategy.feeds.history.store import CandleStore

OPEN_MS = utc_to_ms("2024-05-01 03:00")
# The columns of a row on the wire after the open time, in the exchange's order.
WIRE = ("open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
WIRE = (*WIRE, "taker_buy_volume", "taker_buy_quote_volume")
LETTERS = dict(zip(COLUMNS, "tohlcvqnVQ", strict=True))
GOOD = {
    "open_time": str(OPEN_MS),
    **{"open": "100.5", "high": "102", "low": "99", "close": "101.25", "volume": "7.5"},
    **{"quote_volume": "755.25", "trades": "12", "taker_buy_volume": "3.5"},
    "taker_buy_quote_volume": "352.5",
}


def test_inside_keeps_only_what_was_asked_for():
    """Candles of a month's file overwriting neighbours that were not asked for."""
    first = utc_to_ms("2025-01-02")
    price = np.full(24, 100.0)
    candles = Candles.from_columns(
        open_time=first + np.arange(24) * HOUR_MS,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), price),
    )
    spans = [Span(first, first + 2 * HOUR_MS), Span(first + 5 * HOUR_MS, first + 6 * HOUR_MS)]
    assert ((inside(candles, spans).open_time - first) // HOUR_MS).tolist() == [0, 1, 5]


def keeps_every_rule(row: dict[str, str]) -> bool:
    """The rule book again, with exact numbers and in other words."""
    if any("_" in text for text in row.values()):  # a number to Python, and to nobody else
        return False
    try:
        number = {name: Decimal(text) for name, text in row.items() if name != "open_time"}
    except InvalidOperation:
        return False
    if not all(value.is_finite() for value in number.values()):
        return False
    prices = [number[name] for name in ("open", "high", "low", "close")]
    amounts = [value for name, value in number.items() if name not in ("open", "high", "low")]
    taker, quote_taker = number["taker_buy_volume"], number["taker_buy_quote_volume"]
    open_ms = int(row["open_time"])
    return (
        open_ms % HOUR_MS == 0
        and utc_to_ms("2000-01-01") <= open_ms < utc_to_ms("2200-01-01")
        and min(prices) == number["low"] >= Decimal("1e-18")
        and max(prices) == number["high"]
        and all(0 <= value <= Decimal("1e18") for value in (*amounts, number["high"]))
        and number["trades"] == int(number["trades"]) < 10**9
        and taker <= number["volume"]
        and quote_taker <= number["quote_volume"]
    )


def stream(row: dict[str, str]) -> Candles:
    kline = {LETTERS[name]: text for name, text in row.items()} | {"t": int(row["open_time"])}
    frame = {"e": "kline", "E": 1, "s": "BTCUSDT", "k": {**kline, "i": "1h", "x": True}}
    event = read_frame(frame)
    if not isinstance(event, KlineEvent) or event.row is None:
        raise ValueError("no candle")
    if row_problem(event.row, HOUR_MS):
        raise ValueError(row_problem(event.row, HOUR_MS))
    columns = {name: [value] for name, value in zip(COLUMNS, event.row, strict=True)}
    return Candles.from_columns(**columns)


def valid(candles: Candles) -> Candles:
    kept, rejected = split_valid(candles, HOUR_MS)
    if rejected:
        raise ValueError(rejected[0].rule)
    return kept


def rest(row: dict[str, str]) -> Candles:
    fields = [row.get(name, 0) for name in WIRE]
    return valid(read_klines(json.loads(json.dumps([[int(row["open_time"]), *fields, "0"]]))))


def archive(row: dict[str, str]) -> Candles:
    file = ArchiveFile("BTCUSDT", "1h", "2024-05")
    text = ",".join([row["open_time"], *(row.get(name, "0") for name in WIRE), "0"])
    read = read_archive(file, archive_zip(file.name, text + "\n"), None)
    if read.rejected:
        raise ValueError(read.rejected[0].rule)
    return read.candles


def imported(row: dict[str, str]) -> Candles:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "BTCUSDT-1h.csv"
        with path.open("w", newline="") as sheet:
            writer = csv.writer(sheet)
            writer.writerows([COLUMNS, [row[name] for name in COLUMNS]])
        return read_file(path, "1h")


def stored(row: dict[str, str]) -> Candles:
    if any("_" in text for text in row.values()):
        raise ValueError("numbers reach the store as numbers, not as Python's literals")
    columns = {name: [float(row[name])] for name in COLUMNS[1:]}
    candles = Candles.from_columns(open_time=[int(row["open_time"])], **columns)
    with TemporaryDirectory() as folder:
        store = CandleStore(folder)
        store.write("BTCUSDT", "1h", candles)
        return StoreSource(store).read("BTCUSDT", "1h")


DOORS: tuple[Callable[[dict[str, str]], Candles], ...] = (stream, rest, archive, imported, stored)
NUMBERS = st.one_of(
    st.sampled_from(
        [
            *("0", "-1", "1", "0.5", "100.5", "7.5", "7.50000001", "12.5", "755.25", "1_0", "abc"),
            *("1e18", "1.1e18", "1e-18", "9e-19", "1e400", "-1e400", "inf", "-inf"),
            "1000000000",
            "999999999",
        ]
    ),
    st.decimals(0, 200, places=3).map(str),
)
CHANGES = st.dictionaries(st.sampled_from(COLUMNS[1:]), NUMBERS, max_size=3)


@examples(max_examples=120, deadline=None, derandomize=True)
@given(changes=CHANGES, shift_ms=st.sampled_from([0, 0, 0, 1, HOUR_MS]))
@example(changes={"taker_buy_volume": "inf"}, shift_ms=0)
@example(changes={"taker_buy_volume": "7.6"}, shift_ms=0)
@example(changes={"taker_buy_quote_volume": "756"}, shift_ms=0)
@example(changes={"trades": "2.5"}, shift_ms=0)
@example(changes={"quote_volume": "1e400"}, shift_ms=0)
@example(changes={"low": "1_0"}, shift_ms=0)
def test_what_one_door_accepts_all_accept(changes, shift_ms):
    """A row the stream journals and the report refuses, or an archive stores and no run reads."""
    row = GOOD | changes | {"open_time": str(OPEN_MS + shift_ms)}
    said = {}
    for door in DOORS:
        try:
            candles = door(row)
        except (CppnError, ValueError) as refusal:
            said[door.__name__] = str(refusal) or "refused"
        else:
            said[door.__name__] = ""
            expected = {name: [float(row[name])] for name in COLUMNS}
            assert {name: values.tolist() for name, values in candles.columns()} == expected
    accepted = keeps_every_rule(row)
    assert {name: not problem for name, problem in said.items()} == dict.fromkeys(said, accepted)


@examples(max_examples=300, deadline=None, derandomize=True)
@given(
    values=st.lists(
        st.one_of(
            st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e18, 2e18, 5e-324, 2.5]),
            st.floats(0, 200),
        ),
        min_size=9,
        max_size=9,
    ),
    open_ms=st.sampled_from([OPEN_MS, OPEN_MS + 1, 0, OPEN_MS * 1000, -HOUR_MS]),
)
def test_one_row_and_many_are_judged_by_the_same_words(values, open_ms):
    """A stream and a store that refuse the same candle for different reasons, or only one does."""
    columns = {name: [value] for name, value in zip(COLUMNS[1:], values, strict=True)}
    found = first_violation(Candles.from_columns(open_time=[open_ms], **columns), HOUR_MS)
    assert (found and found[1]) == row_problem((open_ms, *values), HOUR_MS)


def test_a_null_of_an_optional_column_breaks_no_rule():
    """Files without trade counts or taker volumes, refused."""
    row = (OPEN_MS, 100.5, 102.0, 99.0, 101.25, 7.5, *[math.nan] * 4)
    assert row_problem(row, HOUR_MS) is None


@pytest.mark.parametrize("folder", ["candles", "universe"])
def test_no_real_candle_breaks_a_rule(folder):
    """A rule of our own invention that throws the market's candles away."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    for file in sorted((Path(market) / folder).glob("*-5m.parquet")):
        candles = Candles.from_arrow(pq.read_table(file))
        assert first_violation(candles, 300_000) is None, file
