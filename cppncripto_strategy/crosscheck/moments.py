"""What an account saw, moment by moment: new candles of its symbols, scores, thresholds, signals.

A backtest's moments are the closing times of its candles; a paper session's are its rounds, in the
order in which they were shown. Candles come from where candles are kept, scores and thresholds from
the record; the sign of a signal is compared here again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.candles import Candles


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """M moments of S symbols, in order; NaN and False where a symbol has no new candle.

    Parameters
    ----------
    symbols : in the order in which an account decides on them.
    close_ms : (M,) closing time, UTC ms.
    new : (M, S) whether the symbol has a new candle.
    open, close, volume : (M, S) of that candle.
    signal : (M, S) +1, -1 or 0.
    may_trade : (M, S) whether the exchange took orders on that candle.
    may_enter : (M, S) whether entries need not wait for evidence.
    volatility : (M, S) forecast of the day, a fraction; NaN where none is used.
    """

    symbols: tuple[str, ...]
    close_ms: IntArray
    new: BoolArray
    open: FloatArray
    close: FloatArray
    volume: FloatArray
    signal: IntArray
    may_trade: BoolArray
    may_enter: BoolArray
    volatility: FloatArray

    @property
    def last_close(self) -> FloatArray:
        """(M, S) close of the latest candle so far, the first one's before there is any."""
        frame = pd.DataFrame(self.close)
        return frame.ffill().bfill().to_numpy()


def signals_from(scores: FloatArray, upper: FloatArray, lower: FloatArray) -> IntArray:
    """+1 at or above `upper`, -1 at or below `lower`, else 0; arrays (N,).

    NaN decides nothing, nor do thresholds that leave no room between them.
    """
    signs = (scores >= upper).astype(np.int64) - (scores <= lower)
    return np.where(upper > lower, signs, 0)


def moments_of(
    symbols: Sequence[str],
    rounds: Sequence[int],
    signals: pd.DataFrame,
    candles: Mapping[str, Candles],
    interval_ms: int,
) -> Moments:
    """Moments of candles that are shown once, in order of time.

    Parameters
    ----------
    rounds : closing times, strictly ascending, UTC ms.
    signals : table with symbol, close_time_ms, and `sign` as `signals_from` gives it.
    candles : by symbol; those that close outside `rounds` are left out.

    A row of `signals` without a candle, or a candle without a row, shows in `lost_candles`.
    """
    close_ms = np.asarray(rounds, dtype=np.int64)
    shape = (len(close_ms), len(symbols))
    columns = {name: np.full(shape, np.nan) for name in ("open", "close", "volume")}
    new = np.zeros(shape, dtype=np.bool_)
    signal = np.zeros(shape, dtype=np.int64)
    for place, symbol in enumerate(symbols):
        series = candles[symbol]
        closes = series.open_time + interval_ms
        row, known = _rows(close_ms, closes)
        new[row, place] = True
        for name, column in columns.items():
            column[row, place] = getattr(series, name)[known]
        mine = signals[signals["symbol"] == symbol]
        row, known = _rows(close_ms, mine["close_time_ms"].to_numpy(np.int64))
        signal[row, place] = mine["sign"].to_numpy(np.int64)[known]
    every = np.ones(shape, dtype=np.bool_)
    return Moments(
        tuple(symbols),
        close_ms,
        new,
        **columns,
        signal=signal,
        may_trade=every,
        may_enter=every,
        volatility=np.full(shape, np.nan),
    )


def _rows(moments: IntArray, times: IntArray) -> tuple[IntArray, BoolArray]:
    """(rows of `moments` at which the times are found, which of the times those are)."""
    if not len(moments):
        return np.empty(0, dtype=np.int64), np.zeros(len(times), dtype=np.bool_)
    row = np.searchsorted(moments, times).clip(max=len(moments) - 1)
    known = moments[row] == times
    return row[known], known


def lost_candles(
    signals: pd.DataFrame, candles: Mapping[str, Candles], interval_ms: int
) -> list[tuple[int, str, str]]:
    """Where the candles of today are not those that were decided on: (close ms, symbol, what).

    Parameters
    ----------
    signals : table with symbol, close_time_ms and close, of the whole span.
    candles : by symbol; those outside the table's span are not looked at.
    """
    found: list[tuple[int, str, str]] = []
    first_ms, last_ms = signals["close_time_ms"].min(), signals["close_time_ms"].max()
    for symbol, rows in signals.groupby("symbol", sort=False):
        series = candles[str(symbol)]
        closes = pd.Series(series.close, index=series.open_time + interval_ms)
        closes = closes[(closes.index >= first_ms) & (closes.index <= last_ms)]
        decided = pd.Series(rows["close"].to_numpy(), index=rows["close_time_ms"].to_numpy())
        both = pd.DataFrame({"decided": decided, "candle": closes})
        apart = both[~(both["decided"] == both["candle"])]
        for at_ms, one, other in zip(
            apart.index.tolist(), apart["decided"], apart["candle"], strict=True
        ):
            what = f"close {one:.12g}, the candles have {other:.12g}"
            found.append((int(at_ms), str(symbol), what))
    return found
