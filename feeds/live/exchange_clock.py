"""The exchange's time, from what it says and how long ago."""

from __future__ import annotations

import time


class ExchangeClock:
    """The exchange's time as last heard, carried on by our steady clock.

    A wrong local clock does not matter: only what the exchange says, and elapsed time, count.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._heard: tuple[int, float] | None = None

    @property
    def known(self) -> bool:
        """Whether the exchange's time was heard at all."""
        return self._heard is not None

    def hear(self, server_ms: int, exact: bool = False) -> None:
        """Take a server time; an event's time (not exact) may only move the clock on."""
        if exact or self._heard is None or server_ms > self.now_ms():
            self._heard = (server_ms, time.monotonic())

    def now_ms(self) -> int:
        """The exchange's time now, UTC milliseconds; 0 while unknown."""
        if self._heard is None:
            return 0
        server_ms, at_s = self._heard
        return server_ms + int((time.monotonic() - at_s) * 1000 * self._speed)

    def wall_s_since(self, market_ms: int) -> float:
        """Wall seconds since the exchange's clock showed this time."""
        return (self.now_ms() - market_ms) / 1000 / self._speed
