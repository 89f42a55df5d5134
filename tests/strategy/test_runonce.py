"""The shorter step after a bar: taken when nobody listens, and only then."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.analyzers import AtStop
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.runonce import QuickStep, quick_step

STEP_MS = 300_000
START_MS = 1_704_067_200_000


class Plain(bt.Strategy):
    """Asks at the start whether the shorter step would do."""

    def __init__(self) -> None:
        self.average = bt.ind.SMA(self.data.close, period=2)

    def start(self) -> None:
        self.quick = quick_step(self, Plain, [])


class HearsCash(Plain):
    def notify_cashvalue(self, cash: float, value: float) -> None:
        self.heard = cash


class EveryBar(bt.Analyzer):
    """An analyzer that may look at every bar."""


class Judges(AtStop):
    """An analyzer that looks at the end."""

    def analyse(self) -> dict[str, Any]:
        return {}


class Carries(bt.ind.SMA):
    """An indicator that takes something along when it moves."""

    def advance(self, size: int = 1) -> None:
        super().advance(size)


class Carrying(Plain):
    def __init__(self) -> None:
        self.average = Carries(self.data.close, period=2)


def asked(cls: type = Plain, stdstats: bool = False, analyzer: type | None = None) -> Any:
    count = 12
    price = np.linspace(100.0, 101.0, count)
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    stamps = START_MS + STEP_MS * np.arange(count, dtype=np.int64)
    candles = Candles.from_columns(open_time=stamps, volume=np.ones(count), **columns)
    cerebro = bt.Cerebro(stdstats=stdstats)
    cerebro.adddata(ReplayFeed(candles=candles, interval_ms=STEP_MS, name="A"))
    cerebro.addstrategy(cls)
    if analyzer is not None:
        cerebro.addanalyzer(analyzer)
    return cerebro.run()[0].quick


@pytest.mark.parametrize("analyzer", [None, Judges])
def test_the_shorter_step_is_taken_when_nobody_listens(analyzer: type | None) -> None:
    """A shortcut that is never taken, and a run that takes twice as long unseen, dies here."""
    assert isinstance(asked(analyzer=analyzer), QuickStep)


@pytest.mark.parametrize(
    "listener",
    [
        {"cls": HearsCash},
        {"cls": Carrying},
        {"stdstats": True},
        {"analyzer": EveryBar},
    ],
    ids=str,
)
def test_a_listener_gets_the_whole_step(listener: dict[str, Any]) -> None:
    """A hook, an observer or an analyzer that is never called dies here."""
    assert asked(**listener) is None
