"""`cppn-bt data`: what a person types, and what comes back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli, main
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import CandleStore

START_MS = utc_to_ms("2024-05-31 23:00")
FIVE_MS = 300_000


@pytest.fixture
def csv_file(tmp_path):
    """Thirty candles with a hole of two, crossing a month."""
    slots = np.array([k for k in range(30) if k not in (20, 21)])
    frame = pd.DataFrame({"time": START_MS + FIVE_MS * slots})
    frame = frame.assign(open=1.0, high=2.0, low=0.5, close=1.5, volume=3.0)
    frame.to_csv(tmp_path / "in.csv", index=False)
    return tmp_path / "in.csv"


def run_json(*arguments):
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_import_and_list_agree_on_what_is_held(tmp_path, csv_file):
    """A summary that does not describe the store."""
    store = tmp_path / "store"
    options = ("--symbol", "BTCUSDT", "--interval", "5m", "--store", store)
    first = run_json("data", "import", csv_file, *options)
    assert first["imported"] == first["count"] == 28
    assert first["months_changed"] == ["2024-05", "2024-06"]
    assert first["gaps"] == [[START_MS + 20 * FIVE_MS, START_MS + 22 * FIVE_MS]]
    assert run_json("data", "import", csv_file, *options)["months_changed"] == []
    listed = run_json("data", "list", "--store", store)["series"]
    fields = ("symbol", "interval", "start_ms", "end_ms", "count", "expected", "gaps", "filters")
    assert [{name: first[name] for name in fields}] == listed


def test_the_table_shows_the_series(tmp_path, csv_file):
    """Human output that fails where JSON works."""
    store = str(tmp_path / "store")
    arguments = ["--symbol", "BTCUSDT", "--interval", "5m", "--store", store]
    imported = CliRunner().invoke(cli, ["data", "import", str(csv_file), *arguments])
    assert "28 candles of BTCUSDT 5m" in imported.stdout
    shown = CliRunner().invoke(cli, ["data", "list", "--store", store])
    assert "BTCUSDT" in shown.stdout
    assert "93.33 %" in shown.stdout
    assert "BTCUSDT 5m: step none, tick none, minimum notional 5" in shown.stdout
    assert "28 candles are too few to derive from" in shown.stdout


def test_a_bad_file_ends_in_one_red_line_and_status_one(tmp_path, csv_file, capsys):
    """A traceback for the user's mistake, or a store that was touched all the same."""
    frame = pd.read_csv(csv_file)
    frame.loc[9, "low"] = 9.0
    frame.to_csv(csv_file, index=False)
    store = tmp_path / "store"
    arguments = ["--symbol", "BTCUSDT", "--interval", "5m", "--store", str(store)]
    with pytest.raises(SystemExit) as stopped:
        main(["data", "import", str(csv_file), *arguments])
    assert stopped.value.code == 1
    assert "row 9 (open_time" in capsys.readouterr().err
    assert CandleStore(store).list() == []


def test_an_empty_store_says_what_to_do_next(tmp_path):
    """An empty table that leaves a newcomer stuck."""
    result = CliRunner().invoke(cli, ["data", "list", "--store", str(tmp_path)])
    assert "cppn-bt fetch" in result.stdout.replace("\n", " ")


def test_import_says_what_was_recognised_and_what_was_left_out(tmp_path):
    """A file read in a way nobody was told, or rows gone without a word."""
    file, store = tmp_path / "mine.csv", tmp_path / "store"
    file.write_text(
        "Date;Open;High;Low;Close;Volume\n13.05.2024 00:00;1,5;2;1;1,5;3\n"
        "13.05.2024 01:00;;;;;\n13.05.2024 02:00;oops;2;1;1,5;3\n13.05.2024 03:00;1,5;2;1;1,5;3\n"
    )
    options = ("--symbol", "BTCUSDT", "--interval", "1h", "--store", store)
    report = run_json("data", "import", file, *options, "--drop-empty", "--set-aside")
    [said] = report["files"]
    assert "semicolon, decimal comma" in said["dialect"]
    assert "%d.%m.%Y %H:%M" in said["dialect"]
    assert (said["candles"], said["empty"], said["set_aside"]) == (2, 1, 1)
    [kept] = Quarantine(store).candles("BTCUSDT", "1h")
    assert kept["rule"] == "open is not a number"
    assert "line 4" in kept["values"]
