"""AdaptiveThreshold: trailing score quantiles as a Backtrader indicator.

One state class (`models.scoring.threshold.ScoreThreshold`) serves `once` in batches and `next` one
bar at a time, so that a backtest and a live session agree to the last bit.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import num_to_ms, nums_to_ms
from cppncripto_strategy.indicators.bulk import QuickIndicator, put
from cppncripto_strategy.models.scoring.threshold import ScoreThreshold, ThresholdSettings


class AdaptiveThreshold(QuickIndicator):
    """Thresholds of a score line, made of the symbol's own scores strictly before each bar.

    Use as `AdaptiveThreshold(score_line)` or `AdaptiveThreshold(score_indicator)` (its first line).

    Lines: upper, lower. NaN where the score is NaN or too few scores have been seen.

    Params
    ------
    window, quantile, mode, band, min_scores, lookback_sessions, step, quantile_range : see
        `models.scoring.threshold.ThresholdSettings`. min_scores=None means a seventh of the window.
    seeds : list of (valid_from_close_ms, scores), ascending: at the first bar whose close time is
        at or after valid_from_close_ms the history is replaced by these scores (a new bundle's
        validation scores).

    Examples
    --------
    A signal is a score beyond a quantile of its own past:

    >>> import backtrader as bt
    >>> from cppncripto_strategy import AdaptiveThreshold, ReplayFeed
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> class Momentum(bt.Strategy):
    ...     def __init__(self):
    ...         self.score = bt.indicators.RateOfChange(self.data.close, period=12)
    ...         self.threshold = AdaptiveThreshold(self.score, window=288, quantile=0.05)
    ...         self.buys = self.bars = 0
    ...     def next(self):
    ...         self.bars += 1
    ...         self.buys += self.score[0] >= self.threshold.upper[0]
    >>> market = generate(PlantedSettings(days=10, interval="5m"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=300_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(Momentum)
    >>> [strategy] = cerebro.run()
    >>> 0.01 < strategy.buys / strategy.bars < 0.1
    True
    """

    lines: Any = ("upper", "lower")
    params: Any = (
        ("window", 2016),
        ("quantile", 0.15),
        ("mode", "adaptive"),
        ("band", None),
        ("min_scores", None),
        ("lookback_sessions", 5),
        ("step", 1.15),
        ("quantile_range", (0.01, 0.4)),
        ("seeds", ()),
    )
    plotinfo: Any = {"plot": True, "subplot": True}

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    def _build(self) -> None:
        self._state = ScoreThreshold(self._settings())
        self._seeds = [(int(start), np.asarray(scores, float)) for start, scores in self.p.seeds]
        starts = [start for start, _ in self._seeds]
        if starts != sorted(starts):
            raise RecipeError(f"threshold seeds must be ordered by their start, got {starts}")
        self._next_seed = 0
        self._done = 0  # bars already judged: `next` runs again when another symbol ticks
        self._stamps = _datetime_line(self.data)

    def _settings(self) -> ThresholdSettings:
        p = self.p
        return ThresholdSettings(
            window=p.window,
            quantile=p.quantile,
            mode=p.mode,
            band=None if p.band is None else (float(p.band[0]), float(p.band[1])),
            min_scores=p.min_scores,
            lookback_sessions=p.lookback_sessions,
            step=p.step,
            quantile_range=tuple(p.quantile_range),
        )

    def add_seed(self, valid_from_ms: int, scores: Sequence[float]) -> None:
        """Announce a later bundle's scores while running (a live session that retrained).

        Raises
        ------
        RecipeError
            When it would start before a seed that is already known.
        """
        if self._seeds and valid_from_ms < self._seeds[-1][0]:
            raise RecipeError(
                f"a seed from {valid_from_ms} cannot follow one from {self._seeds[-1][0]}"
            )
        self._seeds.append((int(valid_from_ms), np.asarray(scores, float)))

    def snapshot(self) -> dict[str, Any]:
        """The state between two bars, and how many bundles' scores were taken over."""
        return {"threshold": self._state.snapshot(), "seeded": self._next_seed}

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where an indicator of the same settings and seeds was."""
        self._state.restore(kept["threshold"])
        self._next_seed = kept["seeded"]

    def _judge(self, score: float, stamp: float) -> tuple[float, float]:
        close_time_ms = num_to_ms(stamp)
        self._take_seeds(close_time_ms)
        return self._state.update(score, close_time_ms)

    def _take_seeds(self, close_time_ms: int) -> None:
        """Start afresh with each bundle's scores that is active by now."""
        while self._next_seed < len(self._seeds) and (
            close_time_ms >= self._seeds[self._next_seed][0]
        ):
            self._state.seed(self._seeds[self._next_seed][1])
            self._next_seed += 1

    def next(self) -> None:
        """Judge the present bar, once."""
        lines: list[Any] = self.lines.lines
        bars = lines[0].lencount
        if bars == self._done:
            return
        self._done = bars
        score, stamps = self.data.lines[0], self._stamps
        put(lines, self._judge(score.array[score._idx], stamps.array[stamps._idx]))

    def once(self, start: int, end: int) -> None:
        """Judge bars [start, end), all between two seeds at once, by the state of `next`."""
        scores = np.array(self.data.lines[0].array[start:end], dtype=np.float64)
        close_ms = nums_to_ms(np.array(self._stamps.array[start:end], dtype=np.float64))
        first = 0
        while first < len(scores):
            self._take_seeds(int(close_ms[first]))
            last = self._next_start(close_ms, first)
            part = self._state.update_all(scores[first:last], close_ms[first:last])
            for line, values in zip((self.lines.upper, self.lines.lower), part, strict=True):
                line.array[start + first : start + last] = array("d", values.tobytes())
            first = last
        self._done = end

    def _next_start(self, close_ms: IntArray, first: int) -> int:
        """The first bar after `first` at which another seed is due, or how many bars there are."""
        if self._next_seed >= len(self._seeds):
            return len(close_ms)
        due = np.flatnonzero(close_ms[first:] >= self._seeds[self._next_seed][0])
        return first + int(due[0]) if len(due) else len(close_ms)


def _datetime_line(source: Any) -> Any:
    """The datetime line of the feed that clocks a line or an indicator."""
    seen: set[int] = set()
    while source is not None and id(source) not in seen:
        seen.add(id(source))
        if "datetime" in source.lines.getlinealiases() and hasattr(source, "_timeframe"):
            return source.lines.datetime
        owner = getattr(source, "_clock", None)
        source = owner if owner is not None else getattr(source, "_owner", None)
    raise RecipeError("AdaptiveThreshold: the score line hangs on no data feed with stamps")
