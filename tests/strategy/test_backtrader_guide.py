"""docs/backtrader.md runs as it is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from backtrader.btrun.btrun import btrun

GUIDE = Path(__file__).parents[2] / "docs" / "backtrader.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


def test_the_printed_run_trades(capsys: pytest.CaptureFixture[str]) -> None:
    """An example that no longer runs, or trades nothing, dies here."""
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    assert len(names["strategy"].trades) > 10
    assert "BTCUSDT" in capsys.readouterr().out


def test_the_printed_pieces_work_alone() -> None:
    """An indicator or a broker that needs our strategy dies here."""
    names: dict[str, Any] = {}
    for block in blocks("python")[:3]:
        exec(block, names)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = names["broker"]
    feed = names["ReplayFeed"](candles=names["candles"], interval_ms=300_000, name="BTCUSDT")
    cerebro.adddata(feed)
    cerebro.addstrategy(names["Mine"])
    fills = cerebro.run()[0].broker.fills
    assert {"filled"} == {fill.status for fill in fills}
    assert len(fills) > 10


def test_the_printed_btrun_command_trades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that Backtrader's own runner cannot load dies here."""
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.003, 1500)))
    stamps = pd.date_range("2024-01-01 00:05", periods=len(close), freq="5min")
    rows = [f"{t:%Y.%m.%d},{t:%H:%M},{c},{c},{c},{c},1" for t, c in zip(stamps, close, strict=True)]
    (tmp_path / "candles.csv").write_text("\n".join(["date,time,o,h,l,c,v", *rows]))
    program = next(block for block in blocks("python") if "def spot" in block)
    (tmp_path / "mine.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    ran: list[Any] = []
    run = bt.Cerebro.run
    monkeypatch.setattr(bt.Cerebro, "run", lambda self: ran.extend(run(self)) or ran)
    (command,) = blocks("bash")
    btrun(shlex.split(command.replace("\\\n", " "))[1:])
    (strategy,) = ran
    assert strategy.broker.startingcash == 50_000
    assert len(strategy.trades) > 10
    assert {"int64"} == {str(strategy.signals["close_time_ms"].dtype)}
