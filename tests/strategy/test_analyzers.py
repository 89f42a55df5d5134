"""The analyzers in anybody's Cerebro, against counts made by hand."""

from __future__ import annotations

from array import array
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.analyzers import EmbeddingDrift, Latency, SignalQuality
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.strategy import MacroMicroStrategy

STEP_MS = 300_000
START_MS = 1_704_067_200_000 - 5 * STEP_MS
COUNT = 12
# Ten percent up after slots 0 and 4, ten percent down after slot 7.
CLOSES = [100.0, 110.0, 110.0, 110.0, 110.0, 121.0, 121.0, 121.0, 108.9, 108.9, 108.9, 108.9]
SCORES = [0.9, 0.0, 0.0, 0.9, 0.9, 0.0, 0.0, -0.9, 0.0, -0.9, 0.0, 0.9]
DRIFT = [np.nan] * 4 + [0.5, 0.7] + [2.0] * 6


class Macro(bt.Indicator):
    lines = ("drift", "age")

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.drift[0] = DRIFT[len(self) - 1]
        self.lines.age[0] = 10.0 * len(self)


class Score(bt.Indicator):
    lines = ("score",)

    def __init__(self) -> None:
        super().__init__()
        self.macro = Macro(self.data)

    def next(self) -> None:
        self.lines.score[0] = SCORES[len(self) - 1]

    def once(self, start: int, end: int) -> None:
        self.lines.score.array[start:end] = array("d", SCORES[start:end])


class Level(bt.Indicator):
    lines = ("upper", "lower")

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.upper[0], self.lines.lower[0] = 0.5, -0.5


def feed(name: str = "A", slots: np.ndarray | None = None) -> ReplayFeed:
    rows = np.arange(COUNT) if slots is None else slots
    price = np.array(CLOSES)[rows]
    return ReplayFeed(
        candles=Candles.from_columns(
            open_time=START_MS + STEP_MS * rows,
            open=price,
            high=price,
            low=price,
            close=price,
            volume=np.ones(len(rows)),
        ),
        interval_ms=STEP_MS,
        name=name,
    )


def run(*analyzers: Any, feeds: int = 1, **mode: Any) -> Any:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.broker = SpotBroker()
    for i in range(feeds):
        cerebro.adddata(feed(f"S{i}"))
    cerebro.addstrategy(
        MacroMicroStrategy,
        score_factory=Score,
        threshold_factory=lambda line, data, score: Level(data),
    )
    for cls, kwargs in analyzers:
        cerebro.addanalyzer(cls, **kwargs)
    return cerebro.run()[0]


@pytest.mark.parametrize("mode", [{"runonce": True}, {"runonce": False}, {"exactbars": 1}], ids=str)
def test_signal_quality_counts_what_a_person_counts(mode: dict[str, Any]) -> None:
    """Hits judged on the wrong candle, or recall over the wrong total, dies here."""
    analysis = run((SignalQuality, {"horizon": 1, "resamples": 50}), **mode)
    found = analysis.analyzers.signalquality.get_analysis()
    # Buys at 0 (up), 3 (flat), 4 (up) and 11 (the end: not judged); sells at 7 (down), 9 (flat).
    assert (found["buy"]["signals"], found["buy"]["judged"]) == (4, 3)
    assert found["buy"]["precision"]["value"] == pytest.approx(2 / 3)
    assert found["buy"]["recall"]["value"] == pytest.approx(2 / 2)
    assert found["buy"]["hit_ratio"]["value"] == pytest.approx(2 / 3)
    assert found["sell"]["precision"]["value"] == pytest.approx(1 / 2)
    assert found["excluded_signals"] == 1


class Foreign(bt.Strategy):
    """Somebody else's strategy: buys when the close rose."""

    def __init__(self) -> None:
        self.rise = self.data.close - self.data.close(-1)


def foreign(signal: Any, **mode: Any) -> Any:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.adddata(feed())
    cerebro.addstrategy(Foreign)
    cerebro.addanalyzer(SignalQuality, horizon=2, signal=signal, resamples=20)
    return cerebro.run()[0].analyzers.signalquality.get_analysis()


@pytest.mark.parametrize("runonce", [True, False])
def test_signal_quality_of_a_foreign_strategy(runonce: bool) -> None:
    """An analyzer that only knows our own strategy dies here."""
    found = foreign(lambda strategy, data: strategy.rise, runonce=runonce)
    assert [found[side]["signals"] for side in ("buy", "sell")] == [2, 1]


def test_signal_quality_says_what_it_lacks() -> None:
    """An empty analysis in place of an error dies here."""
    with pytest.raises(RecipeError, match="no signals table"):
        foreign(None)
    with pytest.raises(RecipeError, match="exactbars"):
        foreign(lambda strategy, data: strategy.rise, exactbars=1)


@pytest.mark.parametrize("runonce", [True, False])
def test_embedding_drift_per_session(runonce: bool) -> None:
    """Drift averaged over bars instead of sessions, or a missing one read as zero, dies here."""
    ran = run((EmbeddingDrift, {"alarm": 1.0}), runonce=runonce)
    # Slots 0 to 3 close before midnight (no embedding); slot 4 closes at 00:00 with drift 0.5.
    assert ran.analyzers.embeddingdrift.get_analysis()["S0"] == {
        "sessions": 2,
        "sessions_without": 1,
        "mean": 0.5,
        "p95": 0.5,
        "max": 0.5,
        "last": 0.5,
        "above_alarm": 0,
        "max_age_ms": 10.0 * COUNT,
    }


def ticking() -> Any:
    """A clock whose n-th reading is n squared: every interval has another length."""
    state = {"n": 0}

    def clock() -> float:
        state["n"] += 1
        return float(state["n"] ** 2)

    return clock


def test_latency_of_a_batch_run() -> None:
    """Bars counted per call, or a batch reported as streaming calls, dies here."""
    found = run((Latency, {"clock": ticking()})).analyzers.latency.get_analysis()
    assert (found["score_calls"], found["batch_bars"]) == (0, COUNT)
    assert found["bars_per_second"] == pytest.approx(COUNT / found["batch_s"])
    assert found["score_p50_s"] is None
    assert found["macro_s"] > 0


def test_latency_of_a_streaming_run_counts_each_bar_once() -> None:
    """The repeated calls on other symbols' ticks, which halve the median, die here."""
    ran = run((Latency, {"clock": ticking()}), feeds=2, runonce=False)
    found = ran.analyzers.latency.get_analysis()
    assert found["score_calls"] == 2 * COUNT
    assert found["score_p50_s"] <= found["score_p99_s"] <= found["score_max_s"]
    assert found["batch_s"] is None


def test_the_stopwatch_changes_no_score() -> None:
    """A stopwatch that swallows a call dies here."""
    for runonce in (True, False):
        ran = run((Latency, {}), runonce=runonce)
        assert ran.signals["score"].tolist() == SCORES
