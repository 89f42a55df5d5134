"""What the loopback exchange sends when: candles as time passes, and the faults of its stream."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import replace

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.answers import compact
from cppncripto_strategy.feeds.binance.frames import ODD_FRAMES, kline_frame
from cppncripto_strategy.feeds.binance.klines import Kline
from cppncripto_strategy.feeds.loopback.faults import CONNECTION_FAULTS, FRAME_FAULTS, FaultBook
from cppncripto_strategy.feeds.loopback.market import ManualClock, Market, SpeedClock
from cppncripto_strategy.feeds.loopback.sockets import Sockets
from cppncripto_strategy.feeds.loopback.wire import restated_kline

_TORN_AT = 24  # characters of a malformed frame
_OFF_GRID_MS = 1234
_JUST_OPENED_MS = 1


class Ticker:
    """Sends every frame that is due; knows the next one, and the frames held back as late.

    Attributes
    ----------
    finished : set when the last candle has closed and nothing is held back.
    """

    def __init__(self, market: Market, faults: FaultBook, sockets: Sockets) -> None:
        self.market, self.faults, self.sockets = market, faults, sockets
        self.finished = asyncio.Event()
        self._late: list[tuple[int, int, str, str]] = []
        self._sequence = itertools.count()
        self._tick_ms = self._tick_after(market.now_ms())

    async def advance_to(self, until_ms: int) -> None:
        """Move a `ManualClock` to this market time, sending every frame due on the way."""
        clock = self.market.clock
        if not isinstance(clock, ManualClock):
            raise SourceError("only a ManualClock can be moved by hand; a SpeedClock runs alone")
        while self._due_ms() <= until_ms:
            due = self._due_ms()
            clock.move(due)
            self._happen(due)
            await asyncio.sleep(0)
        clock.move(until_ms)
        if until_ms >= self.market.end_ms:
            self.finished.set()

    async def run(self, clock: SpeedClock) -> None:
        """Send what is due as the clock runs, to the end of the candles."""
        while self._tick_ms <= self.market.end_ms or self._late:
            due = self._due_ms()
            await asyncio.sleep(max(0.0, clock.wall_s_until(due)))
            if clock.now_ms() >= due:
                self._happen(due)
        self.finished.set()

    def _tick_after(self, now_ms: int) -> int:
        interval_ms = self.market.interval_ms
        step = interval_ms // (self.market.settings.updates_per_candle + 1)
        return (now_ms - now_ms % interval_ms) + (now_ms % interval_ms // step + 1) * step

    def _due_ms(self) -> int:
        return min(self._tick_ms, self._late[0][0]) if self._late else self._tick_ms

    def _happen(self, due_ms: int) -> None:
        """Everything the market does at this time."""
        while self._late and self._late[0][0] <= due_ms:
            _, _, symbol, text = heapq.heappop(self._late)
            self.sockets.broadcast(symbol, text)
        if self._tick_ms <= due_ms:
            self._tick(self._tick_ms)
            self._tick_ms = self._tick_after(self._tick_ms)

    def _tick(self, now_ms: int) -> None:
        interval_ms = self.market.interval_ms
        closing = now_ms % interval_ms == 0
        self._strike_connections(now_ms, closing)
        open_ms = now_ms - interval_ms if closing else now_ms - now_ms % interval_ms
        for symbol in self.market.candles:
            row = self.market.row_opening_at(symbol, open_ms)
            if row is None or self._silent(symbol, open_ms, now_ms):
                continue
            if closing:
                self._send_closed(symbol, row, now_ms)
            else:
                kline = self.market.forming(symbol, row, now_ms)
                self._send(symbol, now_ms, self._text(symbol, kline, now_ms, closed=False))

    def _silent(self, symbol: str, open_ms: int, now_ms: int) -> bool:
        """Whether nothing is sent of this candle now."""
        lasting = (self.faults.lasting(kind, now_ms, symbol) for kind in ("silence", "removed"))
        return any(lasting) or self.faults.on_candle("hidden", open_ms, now_ms, symbol)

    def _strike_connections(self, now_ms: int, closing: bool) -> None:
        kinds = [fault.kind for fault in self.faults.take_connections(now_ms)]
        if closing:
            drawn = self.faults.random_stream(CONNECTION_FAULTS, f"connection/{now_ms}")
            kinds += [drawn] if drawn else []
        if self.sockets.open and self.sockets.in_outage():
            kinds.append("abort")
        self.sockets.close_old()
        for kind in kinds:
            self.faults.struck[f"stream:{kind}"] += 1
            self.sockets.strike(kind)

    def _send_closed(self, symbol: str, row: int, now_ms: int) -> None:
        """The closing frame, unless it is missed, with what the faults make of it."""
        key = f"{symbol}/{int(self.market.candles[symbol].open_time[row])}"
        if self.faults.lasting("missed_close", now_ms, symbol) or self.faults.random_stream(
            ("missed_close",), key
        ):
            self.faults.struck["stream:missed_close"] += 1
            return
        scripted = [fault.kind for fault in self.faults.take_frames(symbol, now_ms)]
        drawn = self.faults.random_stream(FRAME_FAULTS, f"frame/{key}")
        for text in self._faulty(symbol, row, now_ms, scripted or ([drawn] if drawn else [])):
            self._send(symbol, now_ms, text)

    def _faulty(self, symbol: str, row: int, now_ms: int, kinds: list[str]) -> list[str]:
        """The closing frame with what the faults make of it, in the order sent."""
        whole = self.market.closed(symbol, row)
        frame = self._text(symbol, whole, now_ms)
        texts = [frame]
        for kind in kinds:
            self.faults.struck[f"stream:{kind}"] += 1
            if kind == "malformed":
                texts.insert(0, frame[:_TORN_AT])
            elif kind == "odd":
                texts.insert(0, ODD_FRAMES[row % len(ODD_FRAMES)])
            elif kind == "duplicate":
                texts.append(texts[-1])
            elif kind == "stale" and row > 0:
                texts.append(self._text(symbol, self.market.closed(symbol, row - 1), now_ms))
            elif kind == "misaligned":
                texts.insert(0, self._text(symbol, _off_grid(whole), now_ms))
            elif kind == "restated":
                texts.append(self._text(symbol, restated_kline(whole), now_ms))
            elif kind == "future_close" and row + 1 < len(self.market.candles[symbol]):
                coming = self.market.forming(symbol, row + 1, now_ms + _JUST_OPENED_MS)
                texts.append(self._text(symbol, coming, now_ms))
            elif kind == "broken_candle":
                broken = replace(whole, high=whole.low, low=whole.high, close="NaN")
                texts[-1] = self._text(symbol, broken, now_ms)
        return texts

    def _text(self, symbol: str, kline: Kline, now_ms: int, closed: bool = True) -> str:
        frozen = self.faults.lasting("event_times_frozen", now_ms)
        if frozen is not None:
            self.faults.struck["stream:event_times_frozen"] += 1
        sent_ms = frozen.at_ms if frozen else now_ms
        sent_ms += self.faults.shift_ms("event_times_off", now_ms)
        close_ms = kline.close_time + self.faults.shift_ms("close_times_off", now_ms, symbol)
        stated = replace(kline, close_time=close_ms)
        return compact(kline_frame(stated, symbol, self.market.interval, sent_ms, closed))

    def _send(self, symbol: str, now_ms: int, text: str) -> None:
        delays = [self.faults.shift_ms(kind, now_ms, symbol) for kind in ("late", "stream_late")]
        if not any(delays):
            self.sockets.broadcast(symbol, text)
        else:
            due = now_ms + max(delays)
            heapq.heappush(self._late, (due, next(self._sequence), symbol, text))


def _off_grid(kline: Kline) -> Kline:
    opened, closed = kline.open_time + _OFF_GRID_MS, kline.close_time + _OFF_GRID_MS
    return replace(kline, open_time=opened, close_time=closed)
