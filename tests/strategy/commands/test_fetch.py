"""`cppn-bt fetch` and the commands that look after the store, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history import fetch_job as ingest
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import Halt
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

HOUR_MS = 3_600_000
START_MS, END_MS = utc_to_ms("2024-12-20"), utc_to_ms("2025-02-10 05:00")
HALT = Halt(utc_to_ms("2025-01-05"), utc_to_ms("2025-01-05 06:00"))
EXPECTED = (END_MS - START_MS) // HOUR_MS


def make_candles() -> Candles:
    opens = np.arange(START_MS, END_MS, HOUR_MS)
    close = 100 + np.round(np.sin(np.arange(len(opens)) / 9), 2)
    ones = np.ones(len(opens))
    return Candles.from_columns(
        open_time=opens,
        open=close,
        high=close + 1,
        low=close - 1,
        close=close,
        volume=ones,
        quote_volume=ones,
        trades=ones,
        taker_buy_volume=ones,
        taker_buy_quote_volume=ones,
    )


@pytest.fixture
def host(monkeypatch) -> Iterator[ExchangeThread]:
    """A loopback exchange; the command's own waits are cut short, nothing else."""
    quick = partial(ingest.FetchSettings, absence_wait_s=0.02, settle_ms=0)
    monkeypatch.setattr(ingest, "FetchSettings", quick)
    exchange = LoopbackExchange(
        {"BTCUSDT": make_candles()},
        clock=ManualClock(END_MS),
        settings=ExchangeSettings(interval="1h", halts=(HALT,)),
    )
    with ExchangeThread(exchange) as thread:
        yield thread


def run(host: ExchangeThread, *arguments: object, code: int = 0) -> str:
    """Run `cppn-bt`; source options are added where the command takes them."""
    words = [str(argument) for argument in arguments]
    if words[0] == "fetch" or words[1] in ("repair",) or "--restated" in words:
        words += ["--rest-url", host.rest_url, "--archive-url", host.archive_url]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def store(host, tmp_path):
    """A store filled by the command itself."""
    folder = tmp_path / "candles"
    run(host, "fetch", "BTCUSDT", "--interval", "1h", "--from", "2024-01-01", "--store", folder)
    return folder


def test_fetch_says_what_it_did_and_names_the_outage(host, tmp_path):
    """A summary that hides the hole."""
    shown = run(host, "fetch", "BTCUSDT", "--interval", "1h", "--store", tmp_path / "c")
    assert "BTCUSDT: exchange down 2025-01-05 00:00 to 2025-01-05 06:00" in shown
    assert f"{EXPECTED - 6:,}" in shown
    assert (
        CandleStore(tmp_path / "c").read("BTCUSDT", "1h").equals(host.exchange.candles["BTCUSDT"])
    )


def test_fetch_as_json_prints_one_document(host, tmp_path):
    """A progress bar in the middle of the JSON."""
    arguments = ("fetch", "BTCUSDT", "--interval", "1h", "--store", tmp_path / "c", "--json")
    [series] = json.loads(run(host, *arguments))["series"]
    assert series["complete"]
    assert (series["held"], series["expected"]) == (EXPECTED - 6, EXPECTED)
    assert series["exchange_down"] == [[HALT.start_ms, HALT.end_ms]]
    [again] = json.loads(run(host, *arguments))["series"]
    assert (again["months_changed"], again["from_archives"], again["from_rest"]) == ([], 0, 0)


def test_fetch_of_a_misspelt_symbol_fails(host, tmp_path):
    """Exit status 0 for nothing fetched."""
    shown = run(host, "fetch", "BTCUSD", "--interval", "1h", "--store", tmp_path / "c", code=1)
    assert "does not know BTCUSD" in shown.replace("\n", " ")


def test_fetch_needs_its_end_after_its_start(host, tmp_path):
    """An empty span fetched with success."""
    result = CliRunner().invoke(
        cli, ["fetch", "BTCUSDT", "--from", "2024-02-01", "--to", "2024-01-01"]
    )
    assert result.exit_code == 2
    assert "not after" in result.output


def test_verify_and_repair_end_with_the_status_of_the_store(host, store):
    """A failed check that a script cannot see."""
    assert json.loads(run(host, "data", "verify", "--store", store, "--json"))["ok"]
    assert "Nothing to repair" in run(host, "data", "repair", "--store", store)
    CandleStore(store).month_path("BTCUSDT", "1h", "2025-01").unlink()
    broken = json.loads(run(host, "data", "verify", "--store", store, "--json", code=1))
    assert not broken["ok"]
    assert broken["series"][0]["missing"][0]["reason"] == "lost from the file"
    assert "missing 2025-01-01" in run(host, "data", "verify", "--store", store, code=1)
    [report] = json.loads(run(host, "data", "repair", "--store", store, "--json"))["series"]
    assert report["months_changed"] == ["2025-01"]
    assert "yes" in run(host, "data", "verify", "--store", store, "--restated")


def test_coverage_is_drawn_in_the_terminal_and_as_one_html_file(host, store, tmp_path):
    """A picture that needs the network, or a month that is not in it."""
    page = tmp_path / "coverage.html"
    shown = run(host, "data", "coverage", "--store", store, "--html", page)
    assert "2024" in shown
    assert shown.count("100") == 3
    text = page.read_text()
    assert "BTCUSDT 1h 2025" in text
    assert "738 of 744 candles" in text
    assert 'src="http' not in text
    CandleStore(store).month_path("BTCUSDT", "1h", "2025-01").unlink()
    document = json.loads(run(host, "data", "coverage", "--store", store, "--json"))
    months = {month["month"]: month for month in document["series"][0]["months"]}
    assert months["2025-01"] == {
        "month": "2025-01",
        "expected": 744,
        "held": 0,
        "exchange_down": 6,
    }


def test_resample_makes_longer_candles_in_the_same_store(host, store):
    """Longer candles across the outage, or ones the ledger does not know."""
    arguments = ("data", "resample", "BTCUSDT", "--interval", "1h", "--to", "4h")
    document = json.loads(run(host, *arguments, "--store", store, "--json"))
    # The outage of six hours leaves its second bucket half empty: two buckets are not made.
    assert document["made"] == EXPECTED // 4 - 2
    held = CandleStore(store).read("BTCUSDT", "4h")
    assert set(held.volume) == {4.0}
    arguments = ("data", "verify", "--interval", "4h", "--store", store, "--json")
    [series] = json.loads(run(host, *arguments))["series"]
    assert series["exchange_down"] == [[HALT.start_ms, HALT.start_ms + 8 * HOUR_MS]]


def test_a_series_that_is_not_there_is_named(host, store):
    """An empty report for a typing mistake."""
    result = CliRunner().invoke(cli, ["data", "verify", "ETHUSDT", "--store", str(store)])
    assert result.exit_code == 1
    assert "ETHUSDT is not in the store" in result.output
    assert "BTCUSDT 1h" in result.output
