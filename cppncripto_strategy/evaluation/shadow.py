"""Shadow signals: every signal judged by what followed, whether or not it was traded.

A signal's result is its signed return from its close to the close `horizon` candles later, less a
round trip's costs. It counts on the day on which its outcome is known. Left out, and counted: a
signal whose outcome closes on a later UTC day, because a part of that day's result would be known
before the day begins; and one of whose candles any is missing, has no price above 0, or came after
its day was over.

What it assumes: an order that the signal sends fills at the next open, and one that leaves after
the horizon at the open after that, which are the two closes but for the slippage in the costs.
Stops, signals that leave earlier, and positions that were never flat between two signals are not
followed: what is judged is the signal.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.account import BPS
from cppncripto_strategy.feeds.clock import DAY_MS

NEVER_MS = 2**62
"""Due time of a symbol without a signal that waits for its outcome."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How one symbol's signals are judged.

    Parameters
    ----------
    horizon : candles from a signal's close to the close that judges it, at least 1.
    interval_ms : of the candles, milliseconds.
    cost_bps : round trip, both fees and both slippages, basis points.
    sells : whether sell signals are judged too.
    """

    horizon: int
    interval_ms: int
    cost_bps: float
    sells: bool = True

    @property
    def span_ms(self) -> int:
        """Milliseconds from a signal to its outcome."""
        return self.horizon * self.interval_ms


@dataclass(slots=True)
class DayResults:
    """What one UTC day made of the signals that were decided on it.

    Parameters
    ----------
    net_bps : result of each signal whose outcome is known, basis points of the price.
    crossed : signals left out because their outcome closes on a later day.
    incomplete : signals left out because a candle was missing or too late.
    """

    net_bps: list[float] = field(default_factory=list)
    crossed: int = 0
    incomplete: int = 0

    @property
    def mean_bps(self) -> float:
        """Mean result, NaN without one; rounded once, so the order of the signals is no matter."""
        return math.fsum(self.net_bps) / len(self.net_bps) if self.net_bps else math.nan

    def judge(self, net_bps: float) -> None:
        """Take in one signal's result; what is not a finite number is not a whole outcome."""
        if math.isfinite(net_bps):
            self.net_bps.append(net_bps)
        else:
            self.incomplete += 1

    def add(self, other: DayResults) -> None:
        """Take in another symbol's day."""
        self.net_bps += other.net_bps
        self.crossed += other.crossed
        self.incomplete += other.incomplete

    def __bool__(self) -> bool:
        return bool(self.net_bps or self.crossed or self.incomplete)


class ShadowSignals:
    """One symbol's signals of one day, judged as their outcomes come; lives as long as a run.

    Attributes
    ----------
    due_ms : stamp of the next outcome, UTC ms; until then only signals need to be seen.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.due_ms = NEVER_MS
        self._waiting: deque[tuple[int, int, float, int]] = deque()  # bar, due ms, close, side
        self._day = DayResults()

    def see(self, bar: int, stamp_ms: int, close: float, side: int, session_ms: int) -> None:
        """Judge the signals whose outcome this close is, and take in a new one.

        Parameters
        ----------
        bar : number of the bar; stamp_ms : its close, UTC ms.
        side : +1 or -1 for a signal, 0 for none. session_ms : 00:00 UTC of the day that is not
            over yet.
        """
        self._settle(bar, stamp_ms, close)
        if side:
            self._signal(bar, stamp_ms, close, side, session_ms)

    def _signal(self, bar: int, stamp_ms: int, close: float, side: int, session_ms: int) -> None:
        if side < 0 and not self.measure.sells:
            return
        due_ms = stamp_ms + self.measure.span_ms
        if stamp_ms < session_ms:
            self._day.incomplete += 1  # of a day that is over: this candle came too late
        elif due_ms >= session_ms + DAY_MS:
            self._day.crossed += 1
        else:
            self._waiting.append((bar, due_ms, close, side))
            self.due_ms = self._waiting[0][1]

    def _settle(self, bar: int, stamp_ms: int, close: float) -> None:
        waiting, measure = self._waiting, self.measure
        while waiting and waiting[0][1] <= stamp_ms:
            since, due_ms, entry, side = waiting.popleft()
            whole = due_ms == stamp_ms and bar - since == measure.horizon
            priced = entry > 0 and close > 0
            forward = close / entry - 1.0 if whole and priced else math.nan
            self._day.judge(side * forward / BPS - measure.cost_bps)
        self.due_ms = waiting[0][1] if waiting else NEVER_MS

    def end_day(self) -> DayResults:
        """The day's results, now that no further outcome can come; the next day starts empty."""
        day, self._day = self._day, DayResults()
        day.incomplete += len(self._waiting)
        self._waiting.clear()
        self.due_ms = NEVER_MS
        return day

    def is_fresh(self) -> bool:
        """Whether nothing of the day was seen yet."""
        return not (self._waiting or self._day)

    def take(self, results: DayResults) -> None:
        """Take in what is known of a whole day, instead of seeing its bars."""
        self._day.add(results)

    def snapshot(self, bar: int) -> dict[str, Any]:
        """The whole state as plain values; bars are counted back from `bar`, the present one."""
        return {
            "waiting": [[bar - since, *rest] for since, *rest in self._waiting],
            "net_bps": list(self._day.net_bps),
            "crossed": self._day.crossed,
            "incomplete": self._day.incomplete,
        }

    def restore(self, plain: dict[str, Any], bar: int) -> None:
        """Continue from what `snapshot` gave, where the present bar now has the number `bar`."""
        self._waiting = deque(
            (bar - int(back), int(due), float(close), int(side))
            for back, due, close, side in plain["waiting"]
        )
        self.due_ms = self._waiting[0][1] if self._waiting else NEVER_MS
        results = [float(value) for value in plain["net_bps"]]
        self._day = DayResults(results, int(plain["crossed"]), int(plain["incomplete"]))


class KnownOutcomes:
    """One symbol's signals judged at once, where all of its candles lie there; read day by day.

    The same results as `ShadowSignals` has of a whole day that it saw bar by bar.

    Parameters
    ----------
    stamps_ms : int64 (N,), closes of the bars, ascending, UTC ms. closes : float64 (N,).
    sides : int64 (N,), +1 or -1 for a signal, 0 for none.
    """

    def __init__(
        self, measure: Measure, stamps_ms: IntArray, closes: FloatArray, sides: IntArray
    ) -> None:
        bars = np.flatnonzero((sides > 0) | ((sides < 0) & measure.sells))
        since, later = stamps_ms[bars], np.minimum(bars + measure.horizon, len(closes) - 1)
        crossed = since + measure.span_ms >= since // DAY_MS * DAY_MS + DAY_MS
        entry, close = closes[bars], closes[later]
        # The last bar stands in for one that never comes: its stamp is too early.
        whole = (stamps_ms[later] - since == measure.span_ms) & (later - bars == measure.horizon)
        whole &= (entry > 0) & (close > 0)
        forward = np.divide(close, entry, out=np.full(len(bars), np.nan), where=whole) - 1.0
        net = sides[bars] * forward / BPS - measure.cost_bps
        judged = ~crossed & np.isfinite(net)
        self._bars: list[int] = bars.tolist()
        self._net_bps: list[float] = net[judged].tolist()
        # How many of the signals before each are of a kind.
        self._judged, self._crossed = (
            np.concatenate([[0], np.cumsum(kind)]).tolist() for kind in (judged, crossed)
        )

    def between(self, first: int, last: int) -> DayResults:
        """What the signals of the bars [first, last) made, all of them of one UTC day."""
        low, high = bisect_left(self._bars, first), bisect_left(self._bars, last)
        judged, crossed = self._judged, self._crossed
        results = DayResults(
            self._net_bps[judged[low] : judged[high]], crossed[high] - crossed[low]
        )
        results.incomplete = high - low - len(results.net_bps) - results.crossed
        return results


def pooled(days: Iterable[DayResults]) -> DayResults:
    """Several symbols' results of one day as one."""
    pool = DayResults()
    for day in days:
        pool.add(day)
    return pool


def daily_results(
    signals: pd.DataFrame, measures: dict[str, Measure], end_ms: int | None = None
) -> dict[int, DayResults]:
    """Results per day of whole tables at once; what `ShadowSignals` gives bar by bar.

    Parameters
    ----------
    signals : table with symbol, close_time_ms (ascending per symbol), close and signal.
    measures : symbol -> how it is judged; other symbols are left out.
    end_ms : days that begin at or after it are not over; None is the day of the last candle.

    Returns
    -------
    00:00 UTC of each day with a signal (UTC ms, ascending) -> its results.
    """
    days: dict[int, DayResults] = {}
    last_ms = int(signals["close_time_ms"].max()) if len(signals) else 0
    until_ms = last_ms // DAY_MS * DAY_MS if end_ms is None else end_ms
    for symbol, measure in measures.items():
        rows = signals[signals["symbol"] == symbol]
        for day_ms, results in _of_symbol(rows, measure).items():
            if day_ms < until_ms:
                days.setdefault(day_ms, DayResults()).add(results)
    return dict(sorted(days.items()))


def _of_symbol(rows: pd.DataFrame, measure: Measure) -> dict[int, DayResults]:
    stamps = rows["close_time_ms"].to_numpy(np.int64)
    sides = rows["signal"].to_numpy(np.int64)
    outcomes = KnownOutcomes(measure, stamps, rows["close"].to_numpy(np.float64), sides)
    first = np.flatnonzero(np.diff(stamps // DAY_MS, prepend=-1)).tolist()
    days = {
        int(stamps[bar] // DAY_MS * DAY_MS): outcomes.between(bar, until)
        for bar, until in pairwise([*first, len(stamps)])
    }
    return {day_ms: results for day_ms, results in days.items() if results}


def daily_means(days: Sequence[DayResults]) -> FloatArray:
    """Mean net results (N,), bps, of the days that have one."""
    return np.array([day.mean_bps for day in days if day.net_bps], dtype=np.float64)
