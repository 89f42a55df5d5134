"""Live feed: rounds as Backtrader bars, one feed per symbol, all in step.

Bars and lines are those of `feeds.replay.ReplayFeed`: stamped with their close boundary, open,
high, low, close, volume, openinterest (0) and taker_buy_volume. At the start of each pass of
Cerebro's loop the first feed opens the next round of the shared source; every feed delivers its
candle of that round or nothing. So `next` runs once per closing time, and no bar is ever taken
back. While nothing comes the first feed waits on the source's condition: an idle session sleeps.

The source is a running stream's queue, a recorded session, or one after the other. Left out:
partial (forming) bars, resampling of live bars.
"""

from __future__ import annotations

import math
from typing import Any

import backtrader as bt

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.clock import DAY_MS, EPOCH_DAYS, MINUTE_MS, SECOND_MS

_UNITS = (
    (DAY_MS, bt.TimeFrame.Days),
    (MINUTE_MS, bt.TimeFrame.Minutes),
    (SECOND_MS, bt.TimeFrame.Seconds),
)
_WRITTEN = ("datetime", "open", "high", "low", "close", "volume", "openinterest",
            "taker_buy_volume")  # fmt: skip


class LiveFeed(bt.feed.DataBase):
    """One symbol of a `RoundSource` as Backtrader bars.

    Params
    ------
    source : RoundSource shared by every feed of the session. Required.
    symbol : which of its symbols. Required; `name` should be the same.
    interval_ms : bar length in milliseconds.

    Notifications
    -------------
    DELAYED before a bar that is history or too old to trade on, LIVE before one that is fresh,
    CONNBROKEN while the connection is lost and nothing waits, DISCONNECTED at the end.

    Raises
    ------
    CandleError
        When the source or the symbol is missing, or the interval has no Backtrader unit.
    """

    lines = ("taker_buy_volume",)
    params = (("source", None), ("symbol", ""), ("interval_ms", 5 * MINUTE_MS), ("qcheck", 0.5))

    # With these at None the engine's broker reads the bar itself, as with ReplayFeed.
    tick_open = tick_high = tick_low = tick_close = tick_volume = tick_openinterest = None
    tick_taker_buy_volume = tick_last = None

    def __init__(self) -> None:
        super().__init__()
        if self.p.source is None or not self.p.symbol:
            raise CandleError("LiveFeed needs source=<RoundSource> and symbol='BTCUSDT'")
        fits = [pair for pair in _UNITS if self.p.interval_ms % pair[0] == 0]
        if not fits:
            raise CandleError(f"interval_ms={self.p.interval_ms} is no whole number of seconds")
        self.p.timeframe = fits[0][1]
        self.p.compression = self.p.interval_ms // fits[0][0]
        if not self.p.name:
            self.p.name = self.p.symbol
        self._buffers: tuple[Any, ...] = ()

    def islive(self) -> bool:
        """True: Cerebro turns preloading and runonce off."""
        return True

    def haslivedata(self) -> bool:
        """Whether rounds wait to be delivered."""
        return bool(self.p.source.waiting())

    def start(self) -> None:
        """Begin as DELAYED: what comes first is history."""
        super().start()
        self._delivered: Any = None
        self.put_notification(self.DELAYED)

    def next(self, datamaster: Any = None, ticks: bool = True) -> bool | None:
        """The bar of the open round; the first feed of a pass opens the next round."""
        if datamaster is None and self._leads():
            self.p.source.open_next(self._qcheck)
        if not (self._coming() or self._barstack or self._barstash):
            # Backtrader moves on before it asks `_load`, and under exactbars=1 moving back loses
            # the last bar: so it is not asked when there is nothing.
            return self._nothing()
        if datamaster is None and self._is_plain():
            self._deliver()
            return True
        delivered: bool | None = super().next(datamaster=datamaster, ticks=ticks)
        return delivered

    def _is_plain(self) -> bool:
        """Whether a bar is its round's candle and no more: nobody filters it, bounds its dates, or
        took one back, and no subclass reads candles its own way."""
        lines: Any = self.lines
        first = lines.lines[0]
        return (
            first.lencount >= len(first.array) - first.extension
            and not (self._barstack or self._barstash or self._filters or self._tzinput)
            and self.fromdate == -math.inf
            and self.todate == math.inf
            and type(self)._load is LiveFeed._load
        )

    def _deliver(self) -> None:
        """The candle of the open round as the next bar: what `load` does in more steps."""
        opened = self._delivered = self.p.source.current
        row = opened.candles[self.p.symbol]
        if not self._buffers:
            self._buffers = self._line_buffers()
        *known, rest = self._buffers
        stamp = opened.close_ms / DAY_MS + EPOCH_DAYS
        values = (stamp, row[1], row[2], row[3], row[4], row[5], 0.0, row[8])
        for line, value in zip(known, values, strict=True):
            if line.mode == line.UnBounded or line._idx < line.lenmark:  # as `line.forward` does
                line._idx += 1
            line.lencount += 1
            line.array.append(value)
        for line in rest:
            line.forward()

    def _line_buffers(self) -> tuple[Any, ...]:
        """The lines that `_deliver` writes, in its order, and those that it leaves NaN."""
        lines: Any = self.lines
        known = [getattr(lines, name) for name in _WRITTEN]
        return (*known, [line for line in lines.lines if all(line is not k for k in known)])

    def get_notifications(self) -> list[Any]:
        """News for the strategy; asked for twice a round, and nearly always there is none."""
        return super().get_notifications() if self.notifs else []

    def _leads(self) -> bool:
        """Whether this is the first of Cerebro's feeds over this source."""
        for data in self._env.datas:
            if isinstance(data, LiveFeed) and data.p.source is self.p.source:
                return data is self
        return True

    def _coming(self) -> bool:
        """Whether the open round holds a candle of this symbol that was not delivered yet."""
        opened = self.p.source.current
        self._notify_status(self.p.source.status)
        return (
            opened is not None and opened is not self._delivered and self.p.symbol in opened.candles
        )

    def _nothing(self) -> bool | None:
        """None: nothing yet; False: nothing ever again."""
        source = self.p.source
        if source.current is None and source.finished:
            self._notify_status("DISCONNECTED")
            return False
        return None

    def _load(self) -> bool | None:
        if not self._coming():
            return self._nothing()
        opened = self._delivered = self.p.source.current
        row = opened.candles[self.p.symbol]
        lines: Any = self.lines
        lines.datetime[0] = opened.close_ms / DAY_MS + EPOCH_DAYS
        lines.open[0], lines.high[0], lines.low[0] = row[1], row[2], row[3]
        lines.close[0], lines.volume[0] = row[4], row[5]
        lines.openinterest[0] = 0.0
        lines.taker_buy_volume[0] = row[8]
        return True

    def _notify_status(self, status: str) -> None:
        self.put_notification(getattr(self, status))

    def _tick_nullify(self) -> None:
        """Nothing: a closed bar has no ticks."""

    def _tick_fill(self, force: bool = False) -> None:
        """Nothing: a closed bar has no ticks."""
