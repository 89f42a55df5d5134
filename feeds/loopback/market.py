"""The loopback exchange's market: its candles, its clock, and what is visible when.

What has not closed is forming, what has not opened is unknown, what falls into a halt never exists.
The clock runs at a speed factor, or is stepped by hand for deterministic tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.archive import ArchiveFile
from cppncripto_strategy.feeds.binance.klines import Kline, KlinesQuery
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import interval_to_ms
from cppncripto_strategy.feeds.filters import TRADING
from cppncripto_strategy.feeds.loopback import wire
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings


class ManualClock:
    """A market clock that moves only when moved."""

    def __init__(self, start_ms: int) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        return self._now_ms

    def move(self, now_ms: int) -> None:
        """Set the market time; never backwards."""
        self._now_ms = max(self._now_ms, now_ms)


class SpeedClock:
    """A market clock that runs `speed` times as fast as the wall's, from `begin` on.

    Raises
    ------
    SourceError
        When the speed is not a positive, finite number.
    """

    def __init__(self, start_ms: int, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise SourceError(
                f"the market's speed is {speed}: expected market seconds per wall second, above 0"
            )
        self._from_ms = start_ms
        self._from_s: float | None = None
        self.speed = speed

    def begin(self) -> None:
        """Let it run; a second call changes nothing."""
        if self._from_s is None:
            self._from_s = time.monotonic()

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        elapsed_s = 0.0 if self._from_s is None else time.monotonic() - self._from_s
        return self._from_ms + int(elapsed_s * 1000 * self.speed)

    def wall_s_until(self, market_ms: int) -> float:
        """Wall seconds until the market shows this time; at most half a second at a time."""
        if self._from_s is None:
            return 0.5
        return min(0.5, (market_ms - self.now_ms()) / 1000 / self.speed)


Clock = ManualClock | SpeedClock


class Market:
    """Candles of several symbols and the time by which they are seen.

    Parameters
    ----------
    candles : symbol -> candles of `settings.interval`, the whole market, future included.
    archived : what archives hold where it differs from `candles`.
    clock : None is a `ManualClock` at the end of the candles (pure history).

    Attributes
    ----------
    candles, archived : as clients read them (eight decimals, halts taken out of `candles`).
    end_ms : close of the last candle, UTC milliseconds.

    Raises
    ------
    SourceError
        When there is no candle.
    """

    def __init__(
        self,
        candles: Mapping[str, Candles],
        archived: Mapping[str, Candles],
        clock: Clock | None,
        settings: ExchangeSettings,
    ) -> None:
        self.settings = settings
        self.interval, self.interval_ms = settings.interval, interval_to_ms(settings.interval)
        self.candles = {
            symbol: self._without_halts(symbol, wire.as_served(every))
            for symbol, every in candles.items()
        }
        self._trades_before = {
            symbol: np.concatenate([[0], np.cumsum(every.trades)])
            for symbol, every in self.candles.items()
        }
        restated = {symbol: wire.as_served(every) for symbol, every in archived.items()}
        self.archived = {**self.candles, **restated}
        filled = [every for every in self.candles.values() if len(every)]
        if not filled:
            raise SourceError("the loopback exchange was given no candle: nothing to serve")
        self.end_ms = max(int(every.open_time[-1]) for every in filled) + self.interval_ms
        self.clock: Clock = clock or ManualClock(self.end_ms)

    def _without_halts(self, symbol: str, candles: Candles) -> Candles:
        keep = np.ones(len(candles), dtype=np.bool_)
        for halt in self.settings.halts:
            if halt.symbol in (None, symbol):
                inside = (candles.open_time >= halt.start_ms) & (candles.open_time < halt.end_ms)
                keep &= ~inside
        return candles[keep]

    def now_ms(self) -> int:
        """Market time, UTC milliseconds."""
        return self.clock.now_ms()

    def begin(self) -> None:
        """Let a `SpeedClock` run."""
        if isinstance(self.clock, SpeedClock):
            self.clock.begin()

    def status(self, symbol: str) -> str:
        """The symbol's trading status now."""
        halted = [h.status for h in self.settings.halts if h.holds(self.now_ms(), symbol)]
        return halted[0] if halted else TRADING

    def row_opening_at(self, symbol: str, open_ms: int) -> int | None:
        """The row of the candle that opens at this time; None where there is none."""
        times = self.candles[symbol].open_time
        row = int(np.searchsorted(times, open_ms))
        return row if row < len(times) and times[row] == open_ms else None

    def closed(self, symbol: str, row: int) -> Kline:
        """A row's candle as it is when it has closed."""
        return wire.whole_kline(
            self.candles[symbol], row, self.interval_ms, self._first_trade_id(symbol, row)
        )

    def forming(self, symbol: str, row: int, at_ms: int) -> Kline:
        """A row's candle as it looks at this time."""
        candles = self.candles[symbol]
        elapsed_ms = at_ms - int(candles.open_time[row])
        first = self._first_trade_id(symbol, row)
        return wire.forming_kline(candles, row, self.interval_ms, elapsed_ms, first)

    def _first_trade_id(self, symbol: str, row: int) -> int:
        """Trades are numbered without holes, from the symbol's first candle on."""
        return int(self._trades_before[symbol][row])

    def visible(self, query: KlinesQuery, at_ms: int) -> list[Kline]:
        """The candles of a query as they look at this time.

        Oldest first from the first open time; without it the latest, the forming one last.
        """
        open_time = self.candles[query.symbol].open_time
        start, end = query.first_open_ms, query.last_open_ms
        first = 0 if start is None else int(np.searchsorted(open_time, start))
        last_open = at_ms if end is None else min(at_ms, end)
        last = int(np.searchsorted(open_time, last_open, side="right"))
        # A candle appears with its first trade, after its open.
        last = min(last, int(np.searchsorted(open_time, at_ms)))
        rows = range(first, last)
        limit = query.limit
        rows = rows[:limit] if start is not None else rows[max(0, len(rows) - limit) :]
        return [self.forming(query.symbol, row, at_ms) for row in rows]

    def published(self, file: ArchiveFile) -> list[Kline]:
        """The candles of an archive; none before its span has ended."""
        candles = self.archived.get(file.symbol)
        if candles is None or file.interval != self.interval or file.span.end_ms > self.now_ms():
            return []
        within = candles.between(file.span.start_ms, file.span.end_ms)
        return [wire.whole_kline(within, row, self.interval_ms) for row in range(len(within))]
