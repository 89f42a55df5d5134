"""The package's features of several symbols at once, one candle after the other, from rings.

The levels of the doubling trees of `windows` are kept: S_2k(i) = S_k(i) + S_k(i - k) needs one
addition per candle where the level k candles ago is known. They are the same additions, so every
number has the bits of `Feature.last`. That holds where all of the last `DAY_MEMORY` candles exist
and were traded; for others, and for features that are not known here, ask `Feature.last`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.models.inputs.features import clock, presence, ranges, returns, taker
from cppncripto_strategy.models.inputs.features import volume as volumes
from cppncripto_strategy.models.inputs.features.feature import Feature
from cppncripto_strategy.models.inputs.features.table import FeatureTable
from cppncripto_strategy.models.inputs.features.windows import DAY_MEMORY, DAY_WINDOW
from cppncripto_strategy.models.inputs.grid import CandleGrid

_VOLATILITY = {returns.VOLATILITY_12: 12, returns.VOLATILITY_24: 24, returns.VOLATILITY_48: 48}
_CLOCKS = (clock.SIN_DAY, clock.COS_DAY, clock.SIN_WEEK, clock.COS_WEEK)
_SQUARES, _MOMENTS = 6, 9  # levels: up to 32 candles, and up to 256
_EARLY, _LATE = 256, 32  # the parts of a day's window


class _Levels:
    """The levels of one doubling tree, rings of what they were at the last candles."""

    def __init__(self, count: int, width: int) -> None:
        self._rings = [np.zeros((2 << level, width, 0)) for level in range(count)]

    def reserve(self, slots: int) -> None:
        """Hold so many symbols."""
        self._rings = [
            np.concatenate([r, np.zeros((*r.shape[:2], slots - r.shape[2]))], axis=2)
            for r in self._rings
        ]

    def push(
        self,
        state: FloatArray,
        number: int,
        slots: IntArray | slice,
        merge: Callable[[FloatArray, FloatArray, int], FloatArray],
    ) -> list[FloatArray]:
        """Take the states (width, S) of the candles of this number; every level's newest."""
        levels = []
        for level, ring in enumerate(self._rings):
            ring[number % len(ring)][:, slots] = state
            levels.append(state)
            if level + 1 < len(self._rings):
                state = merge(state, self.at(level, number - (1 << level), slots), 1 << level)
        return levels

    def load(
        self,
        state: FloatArray,
        number: int,
        slot: int,
        merge: Callable[[FloatArray, FloatArray, int], FloatArray],
    ) -> None:
        """Begin a symbol with the states (width, T) of its last candles."""
        for level, ring in enumerate(self._rings):
            count = min(len(ring), state.shape[1])
            places = (number - np.arange(count)) % len(ring)
            ring[places, :, slot] = state[:, ::-1][:, :count].T
            size = 1 << level
            state = merge(state[:, size:], state[:, :-size], size)

    def at(self, level: int, number: int, slots: IntArray | slice) -> FloatArray:
        """A level as it was at a candle, (width, S)."""
        ring = self._rings[level]
        earlier: FloatArray = ring[number % len(ring)][:, slots]
        return earlier


class FeatureRings:
    """Rings of several symbols; a symbol has a slot. Lives as long as its run.

    Parameters
    ----------
    table : the features, in the order of the columns. interval_ms : of the candles.

    Attributes
    ----------
    memory : candles that `load` needs, all present and traded.
    """

    memory = DAY_MEMORY

    def __init__(self, table: FeatureTable, interval_ms: int) -> None:
        self._table, self._interval_ms, self._slots = table, interval_ms, 0
        self._squares, self._moments = _Levels(_SQUARES, 1), _Levels(_MOMENTS, 2)
        self._ranges = np.zeros((0, DAY_WINDOW))
        self._close = np.zeros(0)
        self._clocks = [feature for feature in _CLOCKS if feature in table.features]

    def reserve(self, slots: int) -> None:
        """Hold so many symbols."""
        if slots > self._slots:
            self._squares.reserve(slots)
            self._moments.reserve(slots)
            more = slots - self._slots
            self._ranges = np.concatenate([self._ranges, np.zeros((more, DAY_WINDOW))])
            self._close = np.concatenate([self._close, np.zeros(more)])
            self._slots = slots

    def load(self, grid: CandleGrid, number: int, slot: int) -> None:
        """Begin a symbol with its last `memory` candles, the last of them of this number."""
        close, volume = grid.close[-self.memory :], grid.volume[-self.memory :]
        squares = np.log(close[1:] / close[:-1])
        squares *= squares
        logs = np.log(volume)
        self._squares.load(squares[None], number, slot, _add)
        self._moments.load(np.stack([logs, np.zeros(len(logs))]), number, slot, _moments)
        spans = (grid.high - grid.low)[-DAY_WINDOW:]
        self._ranges[slot, (number - np.arange(DAY_WINDOW)) % DAY_WINDOW] = spans[::-1]
        self._close[slot] = close[-1]

    def step(
        self, candles: FloatArray, number: int, slots: IntArray
    ) -> tuple[FloatArray, BoolArray]:
        """Take a candle of each of these symbols; their rows, and what of them is known.

        Parameters
        ----------
        candles : (6, S): open, high, low, close, volume, taker buy volume.
        number : the candles' place on the time axis, one more than the last.

        Returns
        -------
        Rows float64 (S, F), and bool (S, F): False where `Feature.last` must be asked.
        """
        where: IntArray | slice = slots
        if len(slots) == self._slots and bool((np.diff(slots) == 1).all()):
            where = slice(None)
        values, unsure = self._rows(candles, number, where)
        rows = np.full((len(slots), len(self._table)), np.nan)
        known = np.ones(rows.shape, dtype=np.bool_)
        for column, feature in enumerate(self._table.features):
            if feature in values:
                rows[:, column] = values[feature]
            else:
                known[:, column] = False
            if feature is ranges.RANGE_RATIO:
                known[:, column] &= ~unsure
        return rows, known

    def _rows(
        self, candles: FloatArray, number: int, slots: IntArray | slice
    ) -> tuple[dict[Feature, FloatArray | float], BoolArray]:
        """Every known feature's values (S,), and which ranges have a median of zero, bool (S,)."""
        _opened, high, low, close, volume, bought = candles
        values = self._of_time(number)
        change = np.log(close / self._close[slots])
        self._close[slots] = close
        values[returns.LOG_RETURN] = change
        levels = self._squares.push((change * change)[None], number, slots, _add)
        for feature, window in _VOLATILITY.items():
            # A window of 12 is the last 4 candles and the 8 before them; 24 and 48 are twice that.
            part = (window // 3).bit_length() - 1
            early = self._squares.at(part + 1, number - (1 << part), slots)
            values[feature] = np.sqrt((levels[part] + early)[0] / window)
        values[volumes.VOLUME_Z] = self._volume_z(np.log(volume), number, slots)
        spans = high - low
        self._ranges[slots, number % DAY_WINDOW] = spans
        middle = (DAY_WINDOW - 1) // 2, DAY_WINDOW // 2
        ordered = np.partition(self._ranges[slots], middle, axis=1)
        typical = (ordered[:, middle[0]] + ordered[:, middle[1]]) / 2
        unsure = typical == 0
        values[ranges.RANGE_RATIO] = spans / np.where(unsure, 1.0, typical)
        values[taker.TAKER_IMBALANCE] = taker.imbalance(bought, volume)
        return values, unsure

    def _volume_z(self, logs: FloatArray, number: int, slots: IntArray | slice) -> FloatArray:
        levels = self._moments.push(np.stack([logs, np.zeros(len(logs))]), number, slots, _moments)
        late, early = levels[5], self._moments.at(8, number - _LATE, slots)
        mean, squares = _moments(late, early, _LATE, _EARLY)
        count = np.full(len(logs), float(DAY_WINDOW))
        return volumes.z_score(logs, np.stack([count, mean, squares]))

    def _of_time(self, number: int) -> dict[Feature, FloatArray | float]:
        """What all symbols share: that their candles exist, and what time they close at."""
        values: dict[Feature, FloatArray | float] = {presence.PRESENT: 1.0}
        there, one = np.ones(1, dtype=np.bool_), np.ones(1)
        start_ms = number * self._interval_ms
        grid = CandleGrid(start_ms, self._interval_ms, one, one, one, one, one, one, there)
        return values | {feature: feature.last(grid) for feature in self._clocks}


def _add(late: FloatArray, early: FloatArray, _size: int) -> FloatArray:
    return late + early


def _moments(
    late: FloatArray, early: FloatArray, late_count: int, early_count: int | None = None
) -> FloatArray:
    """`volume.merge_moments` of (mean, sum of squared deviations) of so many candles each."""
    early_count = late_count if early_count is None else early_count
    share = early_count / (late_count + early_count)
    delta = early[0] - late[0]
    merged = np.empty_like(late)
    merged[0] = late[0] + delta * share
    merged[1] = late[1] + early[1] + delta * delta * (late_count * share)
    return merged
