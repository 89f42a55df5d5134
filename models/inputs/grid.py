"""A regular grid of candles: one row for every interval, NaN where the exchange has no candle.

Every model works on a grid, so that a window of N candles is N rows and a gap is visible as a mask
instead of silently bringing distant candles together.

A grid may carry a second one of the same rows: the candles of the market symbol, which features
read beside the traded symbol's own. Whatever is done to the rows of one is done to both.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import CandleError


class CandleColumns(Protocol):
    """Anything with candle columns of equal length (N,), ordered by open time."""

    @property
    def open_time(self) -> IntArray:
        """UTC milliseconds."""

    @property
    def open(self) -> FloatArray:
        """Quote per base."""

    @property
    def high(self) -> FloatArray:
        """Quote per base."""

    @property
    def low(self) -> FloatArray:
        """Quote per base."""

    @property
    def close(self) -> FloatArray:
        """Quote per base."""

    @property
    def volume(self) -> FloatArray:
        """Base units."""

    @property
    def taker_buy_volume(self) -> FloatArray:
        """Base units, NaN where unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class CandleGrid:
    """Candles on every interval from `start_ms`, row i opening at start_ms + i * interval_ms.

    Parameters
    ----------
    start_ms, interval_ms : int, UTC milliseconds.
    open, high, low, close, volume, taker_buy_volume : float64 arrays (T,); NaN where no candle.
    present : bool array (T,), whether the candle exists.
    market : the market symbol's candles on the same rows, with its own gaps; None without one.
    """

    start_ms: int
    interval_ms: int
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    taker_buy_volume: FloatArray
    present: BoolArray
    market: CandleGrid | None = None

    @classmethod
    def from_candles(
        cls,
        candles: CandleColumns,
        interval_ms: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> CandleGrid:
        """Lay candles on the grid [start_ms, end_ms); defaults: the first to past the last candle.

        Candles outside the grid are left out. Raises ValueError for candles off the grid.
        """
        times = candles.open_time
        if start_ms is None:
            start_ms = int(times[0])
        if end_ms is None:
            end_ms = int(times[-1]) + interval_ms
        offset = times - start_ms
        if (offset % interval_ms).any():
            raise ValueError(f"candles are not on the {interval_ms} ms grid from {start_ms}")
        rows = offset // interval_ms
        size = (end_ms - start_ms) // interval_ms
        inside = (rows >= 0) & (rows < size)
        rows = rows[inside]

        def lay(values: FloatArray) -> FloatArray:
            column = np.full(size, np.nan)
            column[rows] = values[inside]
            return column

        present = np.zeros(size, dtype=np.bool_)
        present[rows] = True
        return cls(
            start_ms=start_ms,
            interval_ms=interval_ms,
            open=lay(candles.open),
            high=lay(candles.high),
            low=lay(candles.low),
            close=lay(candles.close),
            volume=lay(candles.volume),
            taker_buy_volume=lay(candles.taker_buy_volume),
            present=present,
        )

    def with_market(self, candles: CandleColumns | None) -> CandleGrid:
        """This grid with a market symbol's candles on its rows, by closing time; None: as it is.

        Row i holds the market's candle that closes when this symbol's row i does, and no other. The
        market's candles outside the grid are left out, and its gaps are its own.

        Raises
        ------
        CandleError
            When the market's candles are not on this grid's intervals.
        """
        if candles is None:
            return self
        market = market_grid(candles, self.interval_ms, self.start_ms, self.end_ms)
        return self.beside(market)

    def beside(self, market: CandleGrid) -> CandleGrid:
        """This grid with the rows of a market's grid that covers it: views of them, no copies."""
        first = market.row_of(self.start_ms)
        rows = market.rows(first, first + len(self))
        assert first >= 0
        assert (rows.start_ms, len(rows)) == (self.start_ms, len(self))
        return dataclasses.replace(self, market=rows)

    def of_market(self) -> CandleGrid:
        """The market symbol's candles on the same rows.

        Raises
        ------
        CandleError
            When the grid carries none.
        """
        if self.market is None:
            raise CandleError(
                "a feature reads the market symbol's candles, and there are none beside these:"
                " name the symbol in features.market, and give its candles"
            )
        return self.market

    def __len__(self) -> int:
        return len(self.present)

    @property
    def end_ms(self) -> int:
        """Open time of the row after the last."""
        return self.start_ms + len(self) * self.interval_ms

    @property
    def open_time(self) -> IntArray:
        """Open time of each row, int64 (T,)."""
        return self.start_ms + np.arange(len(self), dtype=np.int64) * self.interval_ms

    @property
    def close_time(self) -> IntArray:
        """Close boundary of each row, open time + interval, int64 (T,)."""
        return self.open_time + self.interval_ms

    def row_of(self, open_time_ms: int) -> int:
        """Row of the candle that opens at this time (may lie outside the grid)."""
        return (open_time_ms - self.start_ms) // self.interval_ms

    def rows(self, first: int, last: int) -> CandleGrid:
        """Rows first <= i < last as a grid of its own."""
        return CandleGrid(
            start_ms=self.start_ms + first * self.interval_ms,
            interval_ms=self.interval_ms,
            open=self.open[first:last],
            high=self.high[first:last],
            low=self.low[first:last],
            close=self.close[first:last],
            volume=self.volume[first:last],
            taker_buy_volume=self.taker_buy_volume[first:last],
            present=self.present[first:last],
            market=None if self.market is None else self.market.rows(first, last),
        )


def market_grid(candles: CandleColumns, interval_ms: int, start_ms: int, end_ms: int) -> CandleGrid:
    """A market symbol's candles on the grid [start_ms, end_ms) of traded symbols.

    Raises
    ------
    CandleError
        When they are not on this grid's intervals.
    """
    try:
        return CandleGrid.from_candles(candles, interval_ms, start_ms, end_ms)
    except ValueError as cause:
        raise CandleError(
            f"the market symbol's candles do not close when the traded symbol's do: {cause}"
        ) from cause
