"""docs/tutorials/: what a newcomer types does what the page says; reduced where it is long.

That every command line is understood is tested in `test_commands`; what a whole `run` and `paper`
do, in the tests of those commands.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy import plugins
from cppncripto_strategy.cli import cli
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.market import ManualClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.recipe import load_recipe
from cppncripto_strategy.registry import forget_everywhere

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
CANDLE_MS = 15 * 60_000


def text(name: str) -> str:
    return (TUTORIALS / f"{name}.md").read_text("utf-8")


def calls(name: str) -> list[list[str]]:
    """Words after `cppn-bt` of every command of a page, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", text(name), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("cppn-bt ")]


def invoke(words: list[str]) -> str:
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, (words, result.output)
    return result.output


@pytest.fixture
def feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the page on an own feature has its reader write."""
    files = re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text("first-feature"), re.S)
    for name, code in files:
        (tmp_path / name).write_text(code)
    assert {name for name, _ in files} == {"close_location.py", "check.py", "mine.toml"}
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    path = (tmp_path / "close_location.py").resolve()
    forget_everywhere(str(path))
    plugins._LOADED.pop(path, None)


def test_first_run_begins_with_an_installation_that_is_ready() -> None:
    """A first command that fails on a machine where all is well."""
    first, *rest = calls("first-run")
    assert first == ["doctor", "--offline"]
    assert "ready" in invoke(first)
    assert ["run"] in rest


def test_own_feature_keeps_the_contract(feature: Path) -> None:
    """A feature taught to newcomers that leaks, or a check that does not run as it is printed."""
    done = subprocess.run(
        [sys.executable, "check.py"], capture_output=True, text=True, cwd=feature, check=False
    )
    assert done.stdout == "close_location keeps the contract\n", done.stderr


def test_own_feature_is_where_the_candle_closed(feature: Path) -> None:
    """A feature that is not what its sentence says."""
    names: dict[str, Any] = {}
    exec((feature / "close_location.py").read_text().replace("@", "# @"), names)
    grid = type("Grid", (), {})()
    grid.high, grid.low = np.array([121.0, 121.0, 121.0, 100.0]), np.full(4, 100.0)
    grid.close = np.array([121.0, 100.0, 110.0, 100.0])  # 110 is the middle of 100 and 121, in logs
    assert names["close_location"](grid) == pytest.approx([1.0, -1.0, 0.0, 0.0], abs=1e-12)


@pytest.mark.slow
def test_own_feature_is_in_a_run(feature: Path) -> None:
    """A recipe of the page that is refused, or whose networks never see the feature."""
    recipe = feature / "mine.toml"
    recipe.write_text(re.sub(r"epochs = \d+", "epochs = 1", recipe.read_text()))
    assert calls("first-feature") == [["run", "mine.toml"]]
    invoke(["run", "mine.toml"])
    [bundle] = feature.glob("mine/2*/bundles/with-macro/*/bundle.json")
    assert '"close_location"' in bundle.read_text()
    assert list(feature.glob("mine/2*/report.html"))


def test_first_candles_come_from_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch, a store or a recipe that do not belong together as the page has them."""
    monkeypatch.chdir(tmp_path)
    init, fetch, listing, run, check = calls("first-candles")
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end_ms = int(end.timestamp()) * 1000
    opens = np.arange(end_ms - 40 * 96 * CANDLE_MS, end_ms, CANDLE_MS)
    ones = np.ones(len(opens))
    candles = Candles.from_columns(
        open_time=opens, open=ones, high=ones, low=ones, close=ones, volume=ones
    )
    market = {"BTCUSDT": candles, "ETHUSDT": candles}
    exchange = LoopbackExchange(
        market, clock=ManualClock(end_ms), settings=ExchangeSettings(interval="15m")
    )
    printed = invoke(init)
    with ExchangeThread(exchange) as host:
        urls = ["--rest-url", host.rest_url, "--archive-url", host.archive_url]
        since = f"{end - timedelta(days=40):%Y-%m-%d}"
        invoke([*(since if word == "2025-01-01" else word for word in fetch), *urls])
    assert "BTCUSDT" in invoke(listing)
    recipe = load_recipe(Path(run[1]))
    stored = CandleStore(recipe.candles.folder).read(recipe.symbols[0], recipe.interval)
    assert ms_to_utc(int(stored.open_time[0])) == ms_to_utc(int(opens[0]))
    assert check[1] == run[1]
    # What `init` prints is what the page has, but for the date and the quotes of a path.
    suggested = [line.split() for line in printed.splitlines() if line.startswith("  cppn-bt ")]
    assert suggested[0][:6] == ["cppn-bt", *fetch[:5]]
    assert suggested[1] == ["cppn-bt", *run]
