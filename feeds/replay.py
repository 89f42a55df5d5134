"""Replay feed: stored candles as a Backtrader data feed.

A bar is stamped with its close boundary (open + interval), so that everything a strategy reads at
a stamp was known at that stamp. Preloading fills the line buffers in bulk instead of bar by bar.
Several replay feeds with different gaps stay in step in every mode of Cerebro, `exactbars=1`
included, where the engine itself loses bars of a feed that is ahead of the others.

Left out: volume filters, sessions and time zones of the input (candles are UTC); with Backtrader
filters or `tzinput` the feed loads bar by bar, as any other feed does.
"""

from __future__ import annotations

import math
from array import array
from itertools import islice
from typing import TYPE_CHECKING, Any

import backtrader as bt
import numpy as np

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import (
    DAY_MS,
    MINUTE_MS,
    SECOND_MS,
    ms_to_num,
    num_to_ms,
    nums_to_ms,
)

_UNITS = (
    (DAY_MS, bt.TimeFrame.Days),
    (MINUTE_MS, bt.TimeFrame.Minutes),
    (SECOND_MS, bt.TimeFrame.Seconds),
    (1, bt.TimeFrame.MicroSeconds),
)
_LENGTHS = {frame: unit for unit, frame in _UNITS if unit > 1} | {bt.TimeFrame.Weeks: 7 * DAY_MS}
_ENOUGH_BARS = 20  # so many steps of a feed, all longer than a bar, are no outages


def bar_close_ms(data: Any, ago: int = 0) -> int:
    """Close boundary of a bar of any Backtrader feed, UTC milliseconds.

    Parameters
    ----------
    data : a Backtrader data feed stamped with close boundaries.
    ago : bars back, as in Backtrader: 0 is the present bar, -1 the one before.
    """
    return num_to_ms(data.lines.datetime[ago])


def bar_interval_ms(data: Any) -> int:
    """Length of a feed's bars in milliseconds, by its timeframe as it runs.

    A feed that was resampled or replayed has the timeframe it was given then, whatever it came
    from.

    Raises
    ------
    CandleError
        When the timeframe has no fixed length (months, years, ticks).
    """
    return _length_ms(data, data._timeframe, data._compression)


def tick_interval_ms(data: Any) -> int:
    """Length in milliseconds of what the feed moves by: its bars, or what they are replayed from.

    Raises
    ------
    CandleError
        As `bar_interval_ms`.
    """
    if not getattr(data, "replaying", False):
        return bar_interval_ms(data)
    return _length_ms(data, data.p.timeframe, data.p.compression)


def require_timeframe(data: Any) -> None:
    """Check that the bars a feed has given so far are as far apart as its timeframe says.

    Bars that were resampled or replayed are laid out by Backtrader and are not checked; nor are
    feeds that keep no past.

    Raises
    ------
    CandleError
        When two bars are less than half a bar apart or, among the first twenty and more, no two are
        less than two bars apart.
    """
    if getattr(data, "resampling", False) or getattr(data, "replaying", False):
        return
    line, interval_ms = data.lines.datetime, bar_interval_ms(data)
    steps = np.diff(nums_to_ms(np.array(list(islice(line.array, line.idx + 1)))))
    if not len(steps):
        return
    closest_ms = int(steps.min())
    too_far = len(steps) >= _ENOUGH_BARS and closest_ms >= 2 * interval_ms
    if 2 * closest_ms <= interval_ms or too_far:
        name = bt.TimeFrame.getname(data._timeframe, data._compression)
        raise CandleError(
            f"feed {data._name!r} says that its bars are {data._compression} {name} long"
            f" ({interval_ms / 1e3:,.0f} s), but its rows are {closest_ms / 1e3:,.0f} s apart: give"
            " the feed the timeframe and compression of its rows, such as"
            " timeframe=bt.TimeFrame.Minutes, compression=5"
        )


def _length_ms(data: Any, timeframe: int, compression: int) -> int:
    if timeframe == bt.TimeFrame.MicroSeconds and compression % 1000 == 0:
        return compression // 1000
    unit = _LENGTHS.get(timeframe)
    if unit is None:
        name = bt.TimeFrame.getname(timeframe, 1)
        raise CandleError(
            f"feed {data._name!r} has timeframe {name}, which has no fixed length in milliseconds:"
            " give the feed timeframe=bt.TimeFrame.Minutes and compression=..., or use ReplayFeed"
        )
    return unit * compression


class ReplayFeed(bt.feed.DataBase):
    """Candles of one symbol as Backtrader bars.

    Lines: open, high, low, close (quote per base), volume (base), openinterest (always 0) and
    taker_buy_volume (base, NaN where the source did not carry it).

    Params
    ------
    candles : Candles, ordered by open time. Required.
    interval_ms : bar length in milliseconds; the timeframe and compression follow from it.
    name : the symbol. Filters, fills and tables are keyed by it.
    fromdate, todate : as in Backtrader, compared with bar stamps (close boundaries), UTC.

    Raises
    ------
    CandleError
        When candles are missing, not ordered by open time, or the interval is not positive.

    Examples
    --------
    >>> import backtrader as bt
    >>> from cppncripto_strategy import ReplayFeed
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> market = generate(PlantedSettings(days=2, interval="5m"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=300_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(bt.Strategy)
    >>> [strategy] = cerebro.run()
    >>> len(strategy.data), f"{strategy.data.datetime.datetime():%H:%M}"  # the last close, UTC
    (576, '00:00')
    """

    lines: Any = ("taker_buy_volume",)
    params: Any = (("candles", None), ("interval_ms", 5 * MINUTE_MS))

    # With these at None the engine's own broker reads the bar itself; see `_tick_fill`.
    tick_open = tick_high = tick_low = tick_close = tick_volume = tick_openinterest = None
    tick_taker_buy_volume = tick_last = None

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    def _build(self) -> None:
        self._check_params()
        unit, frame = next(pair for pair in _UNITS if self.p.interval_ms % pair[0] == 0)
        self.p.timeframe = frame
        self.p.compression = self.p.interval_ms * 1000 if unit == 1 else self.p.interval_ms // unit
        self._reset_cursor()

    def _check_params(self) -> None:
        if not isinstance(self.p.candles, Candles):
            raise CandleError(
                f"ReplayFeed needs candles=Candles(...), got {type(self.p.candles).__name__}:"
                " read them from a CandleStore or build them with Candles.from_columns"
            )
        if not isinstance(self.p.interval_ms, int) or self.p.interval_ms <= 0:
            raise CandleError(f"interval_ms must be a positive int, got {self.p.interval_ms!r}")
        steps = np.diff(self.p.candles.open_time)
        if (steps <= 0).any():
            row = int(np.argmax(steps <= 0)) + 1
            raise CandleError(
                f"candles of {self.p.name!r} are not ordered by open time at row {row}:"
                " sort them and drop duplicates (see feeds.candles.validate)"
            )

    def _reset_cursor(self) -> None:
        self._cursor = 0  # the next candle to deliver bar by bar
        self._rounds = 0  # rounds of Cerebro's loop in which this feed was asked first
        self._delivered = False  # whether it gave a bar in its last round
        self._peers: list[ReplayFeed] | None = None
        self._preloaded = False
        self._buffers: list[Any] = []

    def _start(self) -> None:
        """Forget how far an earlier run came and lay out the columns in line order."""
        super()._start()
        self._reset_cursor()
        stamps = ms_to_num(self.p.candles.open_time + self.p.interval_ms)
        rows = slice(0, len(stamps))
        if not self._tzinput:  # else the engine compares after shifting each stamp
            first = int(np.searchsorted(stamps, self.fromdate, side="left"))
            rows = slice(first, int(np.searchsorted(stamps, self.todate, side="right")))
        columns = {"datetime": stamps, "openinterest": np.zeros(len(stamps))}
        for name in ("open", "high", "low", "close", "volume", "taker_buy_volume"):
            columns[name] = getattr(self.p.candles, name)
        for name in self.getlinealiases():
            setattr(self, name, getattr(self.lines, name))  # else looked for in vain here each time
        self._stamps = stamps[rows]
        self._by_line = [columns[name][rows] for name in self.getlinealiases()]

    # Bulk loading -------------------------------------------------------------------------------

    def preload(self) -> None:
        """Fill every line buffer at once; bar by bar when a filter must see each bar."""
        if self._filters or self._tzinput:
            super().preload()
            return
        count = len(self._stamps)
        for line, column in zip(self.lines, self._by_line, strict=True):
            values = array("d")
            values.frombytes(np.ascontiguousarray(column).tobytes())
            values.extend([math.nan] * line.extension)  # room asked for by Cerebro's lookahead
            line.array = values
            line.idx, line.lencount = count - 1, count
        self._cursor = len(self._stamps)  # else `_load` would replay every bar after the buffer
        self._preloaded, self._buffers = True, list(self.lines)
        self._by_line = []  # what `_load` would have read: the buffers have it now
        self._last()
        self.home()

    # Bar by bar ---------------------------------------------------------------------------------

    def _load(self) -> bool:
        cursor = self._cursor
        if cursor >= len(self._stamps):
            return False
        for line, column in zip(self.lines, self._by_line, strict=True):
            line[0] = column.item(cursor)
        self._cursor = cursor + 1
        return True

    def next(self, datamaster: Any = None, ticks: bool = True) -> bool | None:
        """Deliver a bar, or None while another replay feed still holds an earlier one.

        Cerebro asks each feed for a bar and takes back those that came too early. Under
        `exactbars=1` a bar taken back is lost and stays visible meanwhile, a look into the future;
        so a feed that would be early does not load at all.
        """
        if datamaster is None:
            self._rounds += 1
            self._delivered = False
        if self._filters:
            return super().next(datamaster=datamaster, ticks=ticks)  # type: ignore[no-any-return]
        ended = self._cursor >= len(self._stamps)
        if ended and len(self) >= len(self._stamps):
            # The engine would try, and undo, one more bar: a short buffer would lose its last one.
            return False
        if not ended:
            coming = self._stamps[self._cursor]
            if datamaster is None and self._earliest_peer() < coming:
                return None
            if datamaster is not None and coming > datamaster.lines.datetime[0]:
                return False
        delivered: bool | None = super().next(datamaster=datamaster, ticks=ticks)
        self._delivered = bool(delivered)
        return delivered

    def _earliest_peer(self) -> float:
        """The earliest stamp that another replay feed gives, or has given, in this round."""
        if self._peers is None:
            datas = self._env.datas
            self._peers = [d for d in datas if isinstance(d, ReplayFeed) and d is not self]
        return min((peer._stamp_in_round(self._rounds) for peer in self._peers), default=math.inf)

    def _stamp_in_round(self, round_number: int) -> float:
        if self._rounds == round_number and self._delivered:
            return float(self.lines.datetime[0])
        if self._cursor < len(self._stamps):
            return float(self._stamps[self._cursor])
        return math.inf

    # Shorter bookkeeping ------------------------------------------------------------------------

    def advance(self, size: int = 1, datamaster: Any = None, ticks: bool = True) -> None:
        """Move to the next preloaded bar."""
        if datamaster is not None or not self._preloaded:
            super().advance(size, datamaster, ticks)
            return
        for line in self._buffers:
            line._idx += size  # a preloaded buffer keeps its past: no clipping to do
            line.lencount += size

    def advance_peek(self) -> float:
        """Stamp of the next preloaded bar, infinity after the last."""
        stamps = self.lines.datetime
        if stamps.lencount < len(stamps.array) - stamps.extension:
            return stamps.array[stamps._idx + 1]  # type: ignore[no-any-return]
        return math.inf

    def _tick_nullify(self) -> None:
        if self._filters:
            super()._tick_nullify()

    def _tick_fill(self, force: bool = False) -> None:
        # A bar that never changes needs no ticks: the broker reads open, high, low and close.
        if self._filters:
            super()._tick_fill(force)
