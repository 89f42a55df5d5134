"""AdaptiveThreshold: once and next agree to the last bit, and seeds start on their bar."""

from __future__ import annotations

import itertools
from array import array
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.indicators.threshold import AdaptiveThreshold
from cppncripto_strategy.models.scoring.threshold import ScoreThreshold, ThresholdSettings

STEP_MS = 300_000
START_MS = 1_704_067_200_000 - 40 * STEP_MS  # the run crosses a midnight
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product(
        (True, False), (True, False), (False, 1, -1, -2)
    )
]
WINDOW = 20
BARS = 90


class Given(bt.Indicator):
    """A score line whose values are handed in."""

    lines = ("score",)
    params = (("values", ()),)

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.score[0] = self.p.values[len(self) - 1]

    def once(self, start: int, end: int) -> None:
        self.lines.score.array[start:end] = array("d", self.p.values[start:end])


def feed(name: str, slots: list[int]) -> ReplayFeed:
    opens = START_MS + STEP_MS * np.array(slots, dtype=np.int64)
    ones = {n: np.ones(len(slots)) for n in ("open", "high", "low", "close", "volume")}
    candles = Candles.from_columns(open_time=opens, **ones)
    return ReplayFeed(candles=candles, interval_ms=STEP_MS, name=name)


def scores(count: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    values = np.tanh(rng.normal(0, 0.5, count))
    values[rng.random(count) < 0.1] = np.nan
    return values.tolist()


class Watch(bt.Strategy):
    """Keeps (stamp, upper, lower) per symbol at each new bar."""

    params = (("scores", {}), ("settings", {}))

    def __init__(self) -> None:
        self.seen: dict[str, dict[int, tuple[float, float]]] = {d._name: {} for d in self.datas}
        self.marks = {}
        for d in self.datas:
            given = Given(d, values=self.p.scores[d._name])
            self.marks[d._name] = AdaptiveThreshold(given.lines.score, **self.p.settings)

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for d in self.datas:
            if len(d):
                pair = (self.marks[d._name].upper[0], self.marks[d._name].lower[0])
                self.seen[d._name].setdefault(bar_close_ms(d), pair)


def watch(slots: dict[str, list[int]], settings: dict[str, Any], **mode: Any) -> Any:
    values = {name: scores(len(part), seed) for seed, (name, part) in enumerate(slots.items())}
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for name, part in slots.items():
        cerebro.adddata(feed(name, part))
    cerebro.addstrategy(Watch, scores=values, settings=settings)
    return cerebro.run()[0].seen, values


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_equals_the_state_class_bar_by_bar(mode: dict[str, Any]) -> None:
    """A second update when the other symbol ticks, a skipped bar, or a seed a bar late dies."""
    slots = {"A": [s for s in range(BARS) if s % 7], "B": [s for s in range(BARS) if s % 5 != 2]}
    settings = {"window": WINDOW, "min_scores": 5, "band": (2, 9), "lookback_sessions": 1}
    starts = START_MS + 50 * STEP_MS + 1, START_MS + 70 * STEP_MS
    seeds = [(starts[0], np.linspace(-1, 1, 30)), (starts[1], np.linspace(0, 1, 9))]
    seen, values = watch(slots, {**settings, "seeds": seeds}, **mode)
    for name, part in slots.items():
        state = ScoreThreshold(ThresholdSettings(**settings))
        waiting = list(seeds)
        for slot, score in zip(part, values[name], strict=True):
            close_ms = START_MS + (slot + 1) * STEP_MS
            while waiting and close_ms >= waiting[0][0]:
                state.seed(waiting.pop(0)[1])
            expected = state.update(score, close_ms)
            np.testing.assert_array_equal(expected, seen[name][close_ms], f"{name} {slot}")


def test_min_scores_defaults_to_a_seventh_of_the_window() -> None:
    """Thresholds that start on one score, or only after the whole window, die here."""
    seen, values = watch({"A": list(range(BARS))}, {"window": 70})
    stamps = sorted(seen["A"])
    ready = [i for i, ms in enumerate(stamps) if not np.isnan(seen["A"][ms][0])]
    finite = np.cumsum(~np.isnan(values["A"]))
    assert finite[ready[0] - 1] == 70 // 7


def test_a_whole_indicator_or_a_smoothed_line_may_be_given() -> None:
    """A threshold that only works on one class of score, or miscounts its warm-up, dies here."""

    class Two(bt.Strategy):
        def __init__(self) -> None:
            given = Given(self.data, values=[float(i % 9) for i in range(BARS)])
            self.whole = AdaptiveThreshold(given, window=WINDOW, min_scores=3)
            self.line = AdaptiveThreshold(given.lines.score, window=WINDOW, min_scores=3)
            smooth = bt.indicators.SMA(given, period=4)
            self.smooth = AdaptiveThreshold(smooth, window=WINDOW, min_scores=3)
            self.pairs: list[tuple[float, float, float]] = []

        def next(self) -> None:
            self.pairs.append((self.whole.upper[0], self.line.upper[0], self.smooth.upper[0]))

    rows = []
    for runonce in (True, False):
        cerebro = bt.Cerebro(stdstats=False, runonce=runonce)
        cerebro.adddata(feed("A", list(range(BARS))))
        cerebro.addstrategy(Two)
        rows.append(np.array(cerebro.run()[0].pairs))
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0][:, 0], rows[0][:, 1])
    # SMA(4) gives its first value on the strategy's first bar: three of them are needed.
    assert np.isnan(rows[0][:3, 2]).all()
    assert not np.isnan(rows[0][3:, 2]).any()


def test_seeds_out_of_order_and_misspelt_parameters_are_refused() -> None:
    """A bundle's seed that is silently never used dies here."""
    late_first = [(START_MS + STEP_MS, [0.1]), (START_MS, [0.2])]
    with pytest.raises(RecipeError, match="ordered"):
        watch({"A": [0, 1]}, {"seeds": late_first})
    with pytest.raises(TypeError):
        watch({"A": [0, 1]}, {"quantil": 0.2})
    with pytest.raises(RecipeError, match="window"):
        watch({"A": [0, 1]}, {"window": 1, "min_scores": 2})


def test_a_seed_announced_while_running_counts_from_its_bar() -> None:
    """A live retraining whose threshold never starts over, or starts at once, dies here."""
    at = 30

    class Retrains(Watch):
        def next(self) -> None:
            super().next()
            if len(self.data) == at - 5:
                self.marks["A"].add_seed(START_MS + (at + 1) * STEP_MS, [5.0, 6.0])
                with pytest.raises(RecipeError, match="cannot follow"):
                    self.marks["A"].add_seed(START_MS, [0.0])

    values = {"A": [0.1] * BARS}
    cerebro = bt.Cerebro(stdstats=False, runonce=False)
    cerebro.adddata(feed("A", list(range(BARS))))
    cerebro.addstrategy(Retrains, scores=values, settings={"window": WINDOW, "min_scores": 2})
    seen = cerebro.run()[0].seen["A"]
    uppers = [seen[START_MS + (slot + 1) * STEP_MS][0] for slot in (at - 1, at)]
    assert uppers == [0.1, np.quantile([5.0, 6.0], 0.85)]
