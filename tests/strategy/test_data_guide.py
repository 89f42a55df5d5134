"""docs/data.md is executed: its commands against a loopback exchange, its Python as it stands."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.history import fetch_job as ingest
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange

GUIDE = Path(__file__).parents[2] / "docs" / "data.md"
HOUR_MS = 3_600_000
START_MS, END_MS = utc_to_ms("2024-12-20"), utc_to_ms("2025-02-10 05:00")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), flags=re.S)


def make_candles() -> Candles:
    opens = np.arange(START_MS, END_MS, HOUR_MS)
    ones = np.ones(len(opens))
    return Candles.from_columns(
        open_time=opens, open=ones, high=ones, low=ones, close=ones, volume=ones
    )


def test_the_guide_does_what_it_says(tmp_path, monkeypatch, capsys):
    """A renamed option or a changed name that the guide still teaches."""
    monkeypatch.chdir(tmp_path)
    quick = partial(ingest.FetchSettings, absence_wait_s=0.02, settle_ms=0)
    monkeypatch.setattr(ingest, "FetchSettings", quick)
    Path("mine.csv").write_text(
        "time,open,high,low,close,volume\n"
        "2024-05-01T00:00:00Z,1,2,0.5,1.5,7\n2024-05-01T01:00:00Z,1,2,0.5,1.5,7\n"
    )
    market = {"BTCUSDT": make_candles(), "ETHUSDT": make_candles()}
    exchange = LoopbackExchange(
        market, clock=ManualClock(END_MS), settings=ExchangeSettings(interval="1h")
    )
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 8
    with ExchangeThread(exchange) as host:
        for command in commands:
            words = shlex.split(command)
            assert words[0] == "cppn-bt"
            if words[1] == "fetch" or "repair" in words or "--restated" in words:
                words += ["--rest-url", host.rest_url, "--archive-url", host.archive_url]
            result = CliRunner().invoke(cli, words[1:], catch_exceptions=False)
            assert result.exit_code == 0, (command, result.output)
    assert Path("coverage.html").exists()
    [python] = blocks("python")
    exec(compile(python, str(GUIDE), "exec"), {})
    printed = capsys.readouterr().out
    assert f"{22 * 24} 1.0 ()" in printed
    assert "MYCOIN 1h 2" in printed


def test_the_query_in_the_guide_reads_the_store(tmp_path, monkeypatch):
    """A layout that DuckDB does not read."""
    duckdb = pytest.importorskip("duckdb")
    from cppncripto_strategy.feeds.history.store import CandleStore

    monkeypatch.chdir(tmp_path)
    CandleStore("candles").write("BTCUSDT", "1h", make_candles())
    [query] = blocks("sql")
    assert [("BTCUSDT", len(make_candles()))] == duckdb.sql(query).fetchall()
