"""Streaming score thresholds: trailing quantiles of a symbol's own past scores.

The threshold at a candle is made of scores strictly before it. A controller widens or narrows the
quantile, once per session, while the number of signals stays outside its band. The quantiles are
those of `numpy.quantile` (linear interpolation), kept up to date in a sorted list.

Left out: a threshold shared by several symbols; decay of old scores inside the window.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.scoring.sliding import largest_of_windows

NAN_PAIR = (math.nan, math.nan)
Values = TypeVar("Values", float, FloatArray)


@dataclass(frozen=True, slots=True)
class ThresholdSettings:
    """How scores become signals.

    Parameters
    ----------
    window : trailing scores kept, count, at least 2 (2016 is a week of 5-minute candles).
    quantile : share of scores on each side that count as signals, in (0, 0.5).
    mode : "adaptive" (trailing quantiles) or "static" (the quantiles of the last seed, fixed).
    band : least and most signals per session (buy and sell together), or None for no controller.
    min_scores : scores needed before there is a threshold at all, from 2 to window; None means a
        seventh of the window, a day of a week.
    lookback_sessions : completed sessions over which signals are averaged, at least 1.
    step : factor by which the controller moves the quantile once per session, above 1.
    quantile_range : bounds that the controller never leaves, inside (0, 0.5).

    Raises
    ------
    RecipeError
        When a value lies outside its range.
    """

    window: int = 2016
    quantile: float = 0.15
    mode: Literal["adaptive", "static"] = "adaptive"
    band: tuple[float, float] | None = None
    min_scores: int | None = None
    lookback_sessions: int = 5
    step: float = 1.15
    quantile_range: tuple[float, float] = (0.01, 0.4)

    @property
    def least_scores(self) -> int:
        """`min_scores`, or what None means."""
        return max(2, self.window // 7) if self.min_scores is None else self.min_scores

    def __post_init__(self) -> None:
        low, high = self.quantile_range
        rules = [
            (self.window >= 2, f"window must be at least 2, got {self.window}"),
            (0 < self.quantile < 0.5, f"quantile must lie in (0, 0.5), got {self.quantile}"),
            (
                self.mode in ("adaptive", "static"),
                f"mode must be 'adaptive' or 'static', got {self.mode!r}",
            ),
            (
                2 <= self.least_scores <= self.window,
                f"min_scores must lie from 2 to window={self.window}, got {self.min_scores}",
            ),
            (
                self.lookback_sessions >= 1,
                f"lookback_sessions must be at least 1, got {self.lookback_sessions}",
            ),
            (self.step > 1, f"step must be above 1, got {self.step}"),
            (
                0 < low <= high < 0.5,
                f"quantile_range must be ordered and inside (0, 0.5), got {self.quantile_range}",
            ),
            (
                self.band is None or 0 <= self.band[0] <= self.band[1],
                f"band must be (least, most) signals per session, got {self.band}",
            ),
        ]
        for holds, message in rules:
            if not holds:
                raise RecipeError(f"threshold: {message}")


def signal_of(score: float, upper: float, lower: float) -> int:
    """+1 (buy) at or above upper, -1 (sell) at or below lower, else 0.

    NaN anywhere gives 0, and so do thresholds that leave no middle (upper <= lower): scores that
    do not vary carry no decision.
    """
    if not upper > lower:
        return 0
    if score >= upper:
        return 1
    return -1 if score <= lower else 0


def signals_of(score: FloatArray, upper: FloatArray, lower: FloatArray) -> IntArray:
    """`signal_of` of whole arrays, (T,) each."""
    apart = upper > lower
    buy, sell = apart & (score >= upper), apart & (score <= lower)
    return np.where(buy, 1, np.where(sell, -1, 0)).astype(np.int64)


def sorted_quantile(ordered: list[float], quantile: float) -> float:
    """Quantile of an ascending, non-empty list; equal to `numpy.quantile(..., method="linear")`."""
    rank = _Rank(len(ordered), quantile)
    return rank.between(ordered[rank.below], ordered[rank.above])


class _Rank:
    """Where a quantile lies in ascending lists of one length, at least 1.

    Attributes
    ----------
    below, above : the places between which it lies; share : how far, in [0, 1).
    """

    def __init__(self, length: int, quantile: float) -> None:
        position = (length - 1) * quantile
        self.below = math.floor(position)
        self.above = min(self.below + 1, length - 1)
        self.share = position - self.below

    def between(self, low: Values, high: Values) -> Values:
        """The quantile from the values at both places, of one list or (N,) of as many."""
        width = high - low
        # Both ends of the interpolation are anchored, as numpy does, so that bits agree.
        if self.share >= 0.5:
            return high - width * (1.0 - self.share)
        return low + width * self.share


class ScoreThreshold:
    """The threshold state of one symbol; lives as long as the symbol's run or live session.

    `update` must be called once per candle, in order of time, or `update_all` for a batch of them.
    """

    def __init__(self, settings: ThresholdSettings | None = None) -> None:
        self.settings = settings or ThresholdSettings()
        self.reset()

    def reset(self) -> None:
        """Forget all scores, signals and movements of the quantile."""
        self.quantile = self.settings.quantile
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []
        self._fixed = NAN_PAIR
        self._session: int | None = None
        self._counts_sessions = False  # the first session usually begins in the middle of a day
        self._signals = 0
        self._counts: deque[int] = deque(maxlen=self.settings.lookback_sessions)

    def seed(self, scores: Iterable[float]) -> None:
        """Replace the history by these scores (a bundle's validation scores), oldest first.

        NaN is dropped; of more than `window` scores the last are kept. The controller's quantile
        and counts stay: they describe the market, not the bundle.
        """
        kept = [float(s) + 0.0 for s in scores if not math.isnan(s)][-self.settings.window :]
        self._recent = deque(kept)
        self._ordered = sorted(kept)
        self._fixed = self._thresholds() if len(kept) >= 2 else NAN_PAIR

    def snapshot(self) -> dict[str, Any]:
        """All that later thresholds depend on, copied."""
        return {
            "quantile": self.quantile,
            "recent": np.array(self._recent, dtype=np.float64),
            "fixed": list(self._fixed),
            "session": self._session,
            "counts_sessions": self._counts_sessions,
            "signals": self._signals,
            "counts": list(self._counts),
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where a state of the same settings was."""
        self.quantile = kept["quantile"]
        self._recent = deque(kept["recent"].tolist())
        self._ordered = sorted(self._recent)
        low, high = kept["fixed"]
        self._fixed = (low, high)
        self._session, self._signals = kept["session"], kept["signals"]
        self._counts_sessions = kept["counts_sessions"]
        self._counts = deque(kept["counts"], maxlen=self.settings.lookback_sessions)

    def update(self, score: float, close_time_ms: int) -> tuple[float, float]:
        """Thresholds (upper, lower) for this candle; then the score joins the history.

        Parameters
        ----------
        score : the candle's score. NaN gives NaN thresholds and never joins the history.
        close_time_ms : UTC milliseconds of the candle's close; its day is the session.
        """
        session = close_time_ms // DAY_MS
        if session != self._session:
            self._begin_session(session)
        if score != score:
            return NAN_PAIR
        static = self.settings.mode == "static"
        pair = self._fixed if static else self._thresholds()
        self._signals += abs(signal_of(score, *pair))
        if not static:
            self._insert(score + 0.0)  # no -0.0, which a sorted list may put on either side of 0.0
        return pair

    def update_all(
        self, scores: FloatArray, close_times_ms: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Thresholds (upper, lower) of many candles at once, (N,) each; as `update` of each.

        The same bits, and the same state afterwards: the sorted list is the same, and only the
        interpolation is done for a whole session at a time.

        Parameters
        ----------
        scores : (N,), in order of time; NaN as in `update`.
        close_times_ms : int64 (N,), UTC milliseconds of the closes.
        """
        upper, lower = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
        sessions = close_times_ms // DAY_MS
        edges = [*np.flatnonzero(np.diff(sessions, prepend=-1)).tolist(), len(scores)]
        judged = 0
        for first, last in pairwise(edges):
            if sessions[first] != self._session:
                self._begin_session(int(sessions[first]))
            if first == judged:  # without a band the quantile does not move: all are judged at once
                judged = len(scores) if self.settings.band is None else last
                known = first + np.flatnonzero(~np.isnan(scores[first:judged]))
                upper[known], lower[known] = self._judge_all(scores[known] + 0.0)
            signals = signals_of(scores[first:last], upper[first:last], lower[first:last])
            self._signals += int(np.abs(signals).sum())
        return upper, lower

    def _judge_all(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Thresholds at each of some scores without NaN, under one quantile; then they join."""
        if self.settings.mode == "static":
            high, low = self._fixed
            return np.full(len(scores), high), np.full(len(scores), low)
        growing = min(max(self.settings.window - len(self._recent), 0), len(scores))
        parts = self._grow(scores[:growing]), self._slide(scores[growing:])
        upper, lower = (np.concatenate(side) for side in zip(*parts, strict=True))
        return upper, lower

    def _grow(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Thresholds while the window is not full: the history grows by each score."""
        upper, lower = np.empty(len(scores)), np.empty(len(scores))
        for place, score in enumerate(scores.tolist()):
            upper[place], lower[place] = self._thresholds()
            self._insert(score)
        return upper, lower

    def _slide(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Thresholds at scores of which each replaces the oldest one of a full window."""
        if not len(scores):
            return np.empty(0), np.empty(0)
        window = self.settings.window
        history = np.concatenate([np.array(self._recent), scores])
        upper, lower = _Rank(window, 1.0 - self.quantile), _Rank(window, self.quantile)
        from_top = (window - 1 - upper.below, window - 1 - upper.above)
        high = upper.between(*largest_of_windows(history, window, from_top))
        mirrored = largest_of_windows(0.0 - history, window, (lower.below, lower.above))
        low = lower.between(*(0.0 - values for values in mirrored))
        self._recent = deque(history[-window:].tolist())
        self._ordered = sorted(self._recent)
        return high, low

    def _thresholds(self) -> tuple[float, float]:
        ordered = self._ordered
        if len(ordered) < self.settings.least_scores and self.settings.mode == "adaptive":
            return NAN_PAIR
        quantile = self.quantile
        return sorted_quantile(ordered, 1.0 - quantile), sorted_quantile(ordered, quantile)

    def _insert(self, score: float) -> None:
        recent, ordered = self._recent, self._ordered
        if len(recent) >= self.settings.window:
            del ordered[bisect_left(ordered, recent.popleft())]
        recent.append(score)
        insort(ordered, score)

    def _begin_session(self, session: int) -> None:
        """Count the session that ended, unless it was the first, and move the quantile."""
        if self._counts_sessions:
            self._counts.append(self._signals)
        self._counts_sessions = self._session is not None
        self._session, self._signals = session, 0
        band = self.settings.band
        if band is None or len(self._counts) < self.settings.lookback_sessions:
            return
        rate = sum(self._counts) / len(self._counts)
        if rate > band[1]:
            self._move(self.quantile / self.settings.step)
        elif rate < band[0]:
            self._move(self.quantile * self.settings.step)

    def _move(self, quantile: float) -> None:
        low, high = self.settings.quantile_range
        self.quantile = min(max(quantile, low), high)
