"""Files that people have: every dialect read back equal, what is ambiguous refused, rows named."""

from __future__ import annotations

import csv
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import HOUR_MS, utc_to_ms
from cppncripto_strategy.feeds.history.foreign import Choices, read_file, read_foreign

NAMES = ("open", "high", "low", "close", "volume")
START_MS = utc_to_ms("2024-03-28 20:00")  # the 13th and later tell day from month


def candle_rows(draws: list[tuple[int, int, int, int, int]]) -> list[tuple[int, list[str]]]:
    """(open time, o h l c v as decimal text) of candles that keep every rule."""
    rows = []
    for k, (base, up, down, body, volume) in enumerate(draws):
        low, high = base, base + up + down + body
        numbers = [low + down, high, low, low + down + body, volume]
        rows.append((START_MS + k * HOUR_MS, [f"{n // 10_000}.{n % 10_000:04d}" for n in numbers]))
    return rows


def candles_of(rows: list[tuple[int, list[str]]]) -> Candles:
    """The independent reading of those texts: Python's own float."""
    columns = {name: [float(cells[k]) for _, cells in rows] for k, name in enumerate(NAMES)}
    return Candles.from_columns(open_time=[stamp for stamp, _ in rows], **columns)


def moment(stamp: int, notation: str) -> str:
    return datetime.fromtimestamp(stamp / 1000, UTC).strftime(notation)


def separated(rows, mark=",", notation="%Y-%m-%d %H:%M", header="date,open,high,low,close,volume"):
    lines = [header.replace(",", mark)] if header else []
    lines += [mark.join([moment(stamp, notation), *cells]) for stamp, cells in rows]
    return "\n".join(lines) + "\n"


def comma(text: str) -> str:
    return text.replace(".", ",")


def json_text(rows, seconds=False):
    return json.dumps([[stamp, *map(float, cells)] for stamp, cells in rows])


def rest_text(rows):
    """The exchange's own twelve fields, numbers as text."""
    return json.dumps(
        [[s, *cells, s + HOUR_MS - 1, "1.5", 7, cells[4], "0.125", "0"] for s, cells in rows]
    )


def two_volumes(rows):
    lines = ["https://www.CryptoDataDownload.com"]
    lines.append("unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount")
    for k, (stamp, cells) in enumerate(reversed(rows)):
        date = moment(stamp, "%Y-%m-%d %I-%p" if k % 2 else "%Y-%m-%d %H:%M:%S")
        lines.append(",".join([f"{stamp // 1000}.0", date, "BTC/USDT", *cells, "1.5", "NULL"]))
    return "\n".join(lines)


def metatrader(rows):
    lines = ["<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"]
    for stamp, cells in rows:
        lines.append(
            "\t".join([moment(stamp, "%Y.%m.%d"), moment(stamp, "%H:%M:%S"), *cells, "0", "3"])
        )
    return "\r\n".join(lines)


def excel(rows):
    return separated([(s, [comma(c) for c in cells]) for s, cells in rows], ";", "%d.%m.%Y %H:%M")


def joined(rows):
    half = len(rows) // 2
    return separated(rows[:half]) + "\n" + separated(rows[half:])


def bare(columns):
    def write(rows):
        lines = []
        for stamp, cells in rows:
            named = {
                "time": str(stamp // 1000),
                "trades": "3",
                **dict(zip(NAMES, cells, strict=True)),
            }
            lines.append(",".join(named[name] for name in columns.split()))
        return "\n".join(lines)

    return write


# One writer for each dialect: (suffix, text or bytes of rows).
WRITERS = {
    "comma": (".csv", separated),
    "freqtrade JSON": (".json", json_text),
    "freqtrade JSON gzipped": (".json.gz", lambda rows: gzip.compress(json_text(rows).encode())),
    "raw REST list": (".json", rest_text),
    "list of objects": (
        ".json",
        lambda rows: json.dumps([{"t": s, **dict(zip("ohlcv", c, strict=True))} for s, c in rows]),
    ),
    "CryptoDataDownload": (".csv", two_volumes),
    "MetaTrader": (".csv", metatrader),
    "Excel, decimal comma": (".csv", excel),
    "semicolon, decimal point": (".csv", lambda rows: separated(rows, ";")),
    "tab": (".txt", lambda rows: separated(rows, "\t")),
    "pipe": (".csv", lambda rows: separated(rows, "|")),
    "two files, one header each": (".csv", joined),
    "BOM": (".csv", lambda rows: b"\xef\xbb\xbf" + separated(rows).encode()),
    "UTF-16": (".csv", lambda rows: separated(rows).encode("utf-16")),
    "UTF-16 without BOM": (".csv", lambda rows: separated(rows).encode("utf-16-le")),
    "no header, 6 columns": (".csv", bare("time open high low close volume")),
    "no header, 7 columns": (".csv", bare("time open high low close volume trades")),
    "month first": (".csv", lambda rows: separated(rows, notation="%m/%d/%Y %H:%M")),
    "day first": (".csv", lambda rows: separated(rows, notation="%d/%m/%Y %H:%M:%S")),
    "twelve hours": (".csv", lambda rows: separated(rows, notation="%m/%d/%Y %I:%M %p")),
    "old Mac's line ends": (".csv", lambda rows: separated(rows).replace("\n", "\r")),
    "Windows' line ends": (".csv", lambda rows: separated(rows).replace("\n", "\r\n")),
}
DRAWS = st.lists(
    st.tuples(
        st.integers(1, 9_999_999_999),
        *[st.integers(0, 99_999)] * 3,
        st.integers(0, 9_999_999_999),
    ),
    min_size=2,
    max_size=12,
)


@pytest.mark.parametrize("dialect", list(WRITERS))
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draws=DRAWS)
def test_candles_written_in_each_dialect_are_read_back_equal(tmp_path, dialect, draws):
    """A digit, a row or an hour lost between another tool's file and our candles."""
    rows = candle_rows(draws)
    suffix, write = WRITERS[dialect]
    content = write(rows)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    read, expected = read_file(file, "1h"), candles_of(rows)
    assert np.array_equal(expected.open_time, read.open_time)
    for name in NAMES:
        assert np.array_equal(getattr(expected, name), getattr(read, name)), name


def test_letters_of_a_western_code_page_do_not_stop_a_file(tmp_path):
    """A cp1252 file refused, or read with other columns, for one letter."""
    rows = candle_rows([(100_000, 5, 5, 5, 7)] * 3)
    text = separated(rows).replace("volume\n", "volume,Börse\n", 1)
    lines = [line + ",Zürich" * (k > 0) for k, line in enumerate(text.strip().split("\n"))]
    (tmp_path / "x.csv").write_bytes("\n".join(lines).encode("cp1252"))
    reading = read_foreign(tmp_path / "x.csv", "1h", Choices())
    assert reading.candles.equals(candles_of(rows))
    assert "cp1252" in reading.dialect


# What is written, and what the refusal says.
AMBIGUOUS = {
    "03/04/2024 throughout": (
        separated(
            [
                (utc_to_ms("2024-03-04") + k * HOUR_MS, ["1", "2", "0.5", "1", "9"])
                for k in range(5)
            ],
            notation="%d/%m/%Y %H:%M",
        ),
        "dates are ambiguous.*04 March 2024.*03 April 2024.*--dates day-first",
    ),
    "1,234 throughout": (
        "time;open;high;low;close;volume\n1711656000;1,234;1,240;1,230;1,235;2,000\n",
        "several ways.*semicolon-decimal-comma.*semicolon-thousands-comma.*--dialect",
    ),
    "columns in an order that the prices do not tell": (
        "1711656000,5,6,6,5,9\n1711659600,5,6,6,5,9\n",
        "several ways|high is below|low is above",
    ),
    "one volume named by a coin of neither side": (
        "time,open,high,low,close,Volume ABC\n1711656000,1,2,0.5,1,9\n",
        "base or the quote volume",
    ),
    "seven columns, the last an average price": (
        "1711656000,1,2,0.5,1,9,1.25\n1711659600,1,2,0.5,1,9,1.5\n",
        "no header row and 7 columns that are in no known order",
    ),
    "another header in the middle": (
        "time,open,high,low,close,volume\n1711656000,1,2,0.5,1,9\n"
        "time,close,high,low,open,volume\n1711659600,1,2,0.5,1,9\n",
        r"row 1: another header.*line 3.*Split the file",
    ),
    "thousands or decimals": (
        "time;open;high;low;close;volume\n1711656000;59.112;59.265;59.109;59.141;263\n",
        r"'semicolon' \(open 59.112.*'semicolon-thousands-point' \(open 59112",
    ),
    "two columns of one name": (
        "time,open,high,low,close,close,volume\n1711656000,1,2,0.5,1,1,9\n",
        "several columns for close",
    ),
}


@pytest.mark.parametrize("case", list(AMBIGUOUS))
def test_what_may_mean_two_things_is_refused_with_both(tmp_path, case):
    """A wrong guess: prices a thousand times too small, April for March."""
    text, said = AMBIGUOUS[case]
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises((SourceError, CandleError), match=said):
        read_file(tmp_path / "x.csv", "1h")


def test_a_person_decides_what_the_file_does_not_tell(tmp_path):
    """A refusal whose way out does not work."""
    (tmp_path / "d.csv").write_text(AMBIGUOUS["03/04/2024 throughout"][0])
    (tmp_path / "n.csv").write_text(AMBIGUOUS["1,234 throughout"][0])
    for order, first in (("day-first", "2024-03-04"), ("month-first", "2024-04-03")):
        read = read_file(tmp_path / "d.csv", "1h", Choices(dates=order))
        assert utc_to_ms(first) == read.open_time[0]
    for dialect, close in (("decimal", 1.235), ("thousands", 1235.0)):
        chosen = Choices(dialect=f"semicolon-{dialect}-comma")
        assert read_file(tmp_path / "n.csv", "1h", chosen).close.tolist() == [close]
    with pytest.raises(SourceError, match="not in the dialect 'tab'; it may be 'semicolon-dec"):
        read_file(tmp_path / "n.csv", "1h", Choices(dialect="tab"))


def test_prices_tell_the_order_of_columns_without_names(tmp_path):
    """Bitfinex' or Coinbase's rows read as open, high, low, close."""
    rows = candle_rows([(100_000, 50, 70, 30, 7), (100_000, 10, 20, 30, 7)])
    for columns in ("open close high low volume", "low high open close volume"):
        (tmp_path / "x.csv").write_text(bare(f"time {columns}")(rows))
        assert read_file(tmp_path / "x.csv", "1h").equals(candles_of(rows))


LINES = separated(candle_rows([(100_000, 50, 70, 30, 7)] * 9)).strip().split("\n")


def changed(row: int, column: int, value: str) -> str:
    cells = LINES[row + 1].split(",")
    cells[column] = value
    return "\n".join([*LINES[: row + 1], ",".join(cells), *LINES[row + 2 :]])


def test_a_stray_text_is_blamed_on_its_own_row_line_column_and_value(tmp_path):
    """A stray text in row 7 blamed on row 0, because its whole column became text."""
    for column, name in ((0, "time"), (4, "close"), (5, "volume")):
        (tmp_path / "x.csv").write_text("https://x.example\n\n" + changed(7, column, "oops"))
        with pytest.raises(CandleError, match=rf"row 7: {name} .*'oops'.*line 11 .*--set-aside"):
            read_file(tmp_path / "x.csv", "1h")
        rows = [*range(7), 8]
        reading = read_foreign(tmp_path / "x.csv", "1h", Choices(set_aside=True))
        assert len(rows) == len(reading.candles)
        assert ["line 11" in bad.values and "oops" in bad.values for bad in reading.rejected] == [
            True
        ]


def test_a_row_with_a_cell_too_few_is_named(tmp_path):
    """A short row that shifts, or is dropped without a word."""
    text = "\n".join([*LINES[:4], LINES[4].rpartition(",")[0], *LINES[5:]])
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(CandleError, match=r"row 3: 5 columns, expected 6.*line 5"):
        read_file(tmp_path / "x.csv", "1h")
    assert len(read_file(tmp_path / "x.csv", "1h", Choices(set_aside=True))) == 8


def test_rows_are_named_by_their_place_in_the_file_after_sorting_too(tmp_path):
    """A row number of the sorted rows, which nobody can look up."""
    lines = changed(2, 2, "0.0001").split("\n")
    (tmp_path / "x.csv").write_text("\n".join([lines[0], *lines[4:], *lines[1:4]]))
    with pytest.raises(CandleError, match=r"row 8 .*high is below.*line 10"):
        read_file(tmp_path / "x.csv", "1h", Choices(sort=True))


def test_errors_name_the_option_that_solves_them_and_it_does(tmp_path):
    """A dead end: a refusal without the way out, or a way that leads to the next refusal."""
    again = LINES[5].rpartition(",")[0] + ",8.0000"
    cases = {
        "--sort`": ("\n".join([LINES[0], *LINES[5:], *LINES[1:5]]), Choices(sort=True), 9),
        "--drop-empty`": (
            changed(3, 1, "NaN").replace("NaN" + LINES[4][LINES[4].index(",", 17) :], "NaN,,,,", 1),
            Choices(drop_empty=True),
            8,
        ),
        "--first` or `--last`": (
            "\n".join([*LINES[:6], again, *LINES[6:]]),
            Choices(duplicates="last"),
            9,
        ),
        "--set-aside`": (changed(3, 2, "0.0001"), Choices(set_aside=True), 8),
    }
    for option, (text, choice, count) in cases.items():
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(CandleError, match=f"data import {option}"):
            read_file(tmp_path / "x.csv", "1h")
        read = read_file(tmp_path / "x.csv", "1h", choice)
        assert count == len(read), option
        if choice.duplicates:
            assert read.volume[4] == 8.0


def test_overlapping_files_joined_need_both_decisions(tmp_path):
    """Two exports of overlapping months in one file, whose error names only half the way out."""
    (tmp_path / "x.csv").write_text("\n".join([*LINES[:7], *LINES]))
    with pytest.raises(CandleError, match=r"--sort.*--first.*--last"):
        read_file(tmp_path / "x.csv", "1h")
    assert len(read_file(tmp_path / "x.csv", "1h", Choices(sort=True, duplicates="first"))) == 9


def test_what_is_no_table_of_candles_is_refused_in_a_sentence(tmp_path):
    """A traceback, or candles made of something else."""
    cases = {
        "x.json": (b"{}", "no list of candles"),
        "y.json": (b"[[1, 2, 3]]", "no header row and 3 columns"),
        "z.json": (b"[1, 2]", "expected a list"),
        "bad.json": (b"[[1, 2", "not JSON"),
        "x.csv": (b"some words\nand others\n", "no dialect fits"),
        "y.csv": (bytes(range(256)), "no text|no dialect fits"),
        "x.csv.gz": (b"\x1f\x8bbroken", "cannot be read"),
        "x.feather": (b"broken", "cannot be read"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises((SourceError, CandleError), match=said):
            read_file(tmp_path / name, "1h")


# interval, rows of the header, choices, and where an independent reader finds time, prices, volume
FOREIGN = {
    "BINANCE_BTCUSDT, 5.csv": ("5m", 1, Choices(), "0 1 2 3 4 5"),
    "Binance_BTCUSDT_1h_2017_tail.csv": ("1h", 2, Choices(), "0 3 4 5 6 7"),
    "Binance_BTCUSDT_1h_url_newest_first.csv": ("1h", 2, Choices(), "0 3 4 5 6 7"),
    "EURUSD_M5.csv": ("5m", 0, Choices(), "0 1 2 3 4 5"),
    "XBTUSD_60.csv": ("1h", 0, Choices(), "0 1 2 3 4 5"),
    "bitstampUSD_1-min_NaN_layout_DERIVED.csv": (
        *("1m", 1, Choices(drop_empty=True)),
        "0 1 2 3 4 5",
    ),
    "btcusd_1-min_data.csv": ("1m", 1, Choices(), "0 1 2 3 4 5"),
    "BTC_USDT-5m.json": ("5m", 0, Choices(), "0 1 2 3 4 5"),
    "ETH_USDT-5m.json.gz": ("5m", 0, Choices(), "0 1 2 3 4 5"),
    "SOL_USDT-5m.feather": ("5m", 0, Choices(), "0 1 2 3 4 5"),
}


def independent_rows(file: Path) -> list[list[object]]:
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            return list(csv.reader(lines))
    if file.suffix == ".feather":
        return [list(row) for row in pd.read_feather(file).itertuples(index=False)]
    content = file.read_bytes()
    return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)


def independent_ms(value: object) -> int:
    if isinstance(value, pd.Timestamp):
        return value.value // 10**6
    if isinstance(value, str) and "-" in value:
        return utc_to_ms(value)
    number = float(value)
    return int(number if number > 1e11 else number * 1000)


@pytest.mark.real
@pytest.mark.parametrize("name", list(FOREIGN))
def test_every_foreign_file_gives_what_an_independent_reader_finds(name):
    """A file as another tool leaves it: rows lost, columns confused, hours shifted."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    interval, above, choices, places = FOREIGN[name]
    file = Path(market) / "foreign" / name
    index = [int(place) for place in places.split()]
    rows = [[row[k] for k in index] for row in independent_rows(file)[above:]]
    rows = [row for row in rows if not np.isnan(float(row[1]))]
    expected = sorted((independent_ms(row[0]), *map(float, row[1:])) for row in rows)
    read = read_file(file, interval, choices)
    found = zip(read.open_time.tolist(), *(getattr(read, n).tolist() for n in NAMES), strict=True)
    assert expected == list(found)


@pytest.mark.real
def test_empty_minutes_of_a_foreign_file_are_refused_with_the_way_out():
    """Rows of NaN dropped in silence, or refused without saying what to do."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    file = Path(market) / "foreign" / "bitstampUSD_1-min_NaN_layout_DERIVED.csv"
    with pytest.raises(CandleError, match=r"row 0 .*NaN.*line 2 .*--drop-empty"):
        read_file(file, "1m")
