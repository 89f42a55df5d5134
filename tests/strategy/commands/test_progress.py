"""Progress bars on stderr: one per phase, and none that says nothing beside an error."""

from __future__ import annotations

import pytest
from rich.console import Console

from cppncripto_strategy.commands import _progress
from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.errors import CandleError


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, as a terminal would keep it."""
    console = Console(record=True, force_terminal=True, width=120, quiet=False)
    monkeypatch.setattr(_progress, "Console", lambda **_: console)
    return console


def test_error_takes_the_bars_away_that_never_moved(drawn):
    """An empty bar at 0 % above the sentence that no candles are there."""
    bars = ProgressBars()

    def work():
        with bars:
            bars("features", 3, 4, "BTCUSDT")
            bars("candles", 0, 1, "")
            bars.phase("training")
            raise CandleError("no candles")

    with pytest.raises(CandleError):
        work()
    assert [task.description for task in bars._progress.tasks] == ["features"]


def test_bars_stay_where_nothing_failed(drawn):
    """A phase without steps, missing from the display of a run that went well."""
    with ProgressBars() as bars:
        bars("candles", 0, 1, "")
        bars("features", 3, 4, "BTCUSDT")
    assert [task.description for task in bars._progress.tasks] == ["candles", "features"]
