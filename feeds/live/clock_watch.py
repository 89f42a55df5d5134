"""Says when the exchange's clocks disagree, once when it begins and once when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cppncripto_strategy.feeds.live.exchange_clock import ExchangeClock
from cppncripto_strategy.feeds.live.notices import ClockAgrees, ClockDisagrees, Listener

log = logging.getLogger(__name__)

CLOSES = "closes"
# Wall seconds between two looks from which on it was us who were late.
_STALL_S = 0.5


class ClockWatch:
    """Follows an `ExchangeClock`; lives as long as its stream, touched only from its loop.

    Parameters
    ----------
    clock : the clock.
    hold_s : wall seconds that a disagreement must last: a frame may be late once.
    calm_s : the same of agreement, longer: a clock that jumps agrees now and then.
    tell : hears of it.

    Attributes
    ----------
    blind : whether the clocks disagree and none is trusted; nothing may be traded then.
    """

    def __init__(
        self,
        clock: ExchangeClock,
        hold_s: float,
        calm_s: float,
        tell: Listener,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.tell = clock, tell
        self.hold_s, self.calm_s = hold_s, calm_s
        self.blind = False
        self.disagrees = False
        self._steady_s = steady_s
        self._since_s: float | None = None  # since when it looks otherwise than was said
        self._looked_s = 0.0
        self._misdated: tuple[int, float] | None = None  # (how far off, when)

    def misdated(self, off_ms: int) -> None:
        """A frame states a close time that is off its candle's by so much."""
        self._misdated = (off_ms, self._steady_s())

    def look(self) -> None:
        """Judge the clocks now."""
        at_s = self._steady_s()
        if at_s - self._looked_s > max(_STALL_S, self.hold_s / 2):
            self._since_s = None  # we were busy ourselves: what has waited for us looks late
        self._looked_s = at_s
        self.clock.judge()
        off_ms = self._off_ms(at_s)
        agree = self.clock.agree and off_ms is None
        if agree != self.disagrees:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = at_s
        elif at_s - self._since_s >= (self.calm_s if agree else self.hold_s):
            self._since_s, self.disagrees = None, not agree
            self._say(off_ms)
        self.blind = self.disagrees and self.clock.trusted is None

    def _off_ms(self, at_s: float) -> int | None:
        if self._misdated is None or at_s - self._misdated[1] > self.calm_s:
            return None
        return self._misdated[0]

    def _say(self, off_ms: int | None) -> None:
        readings = self.clock.readings()
        if not self.disagrees:
            log.warning("the exchange's clocks agree again: %s", readings)
            self.tell(ClockAgrees(readings))
            return
        if off_ms is not None:
            readings[CLOSES] = self.clock.now_ms() + off_ms
        log.error("the exchange's clocks disagree: %s; trusted: %s", readings, self.clock.trusted)
        self.tell(ClockDisagrees(readings, self.clock.bound_ms, self.clock.trusted))
