"""The exchange's time: three clocks that must agree, carried on by our own steady clock.

REST states a time, each frame states when it was sent, and a candle that is still forming says that
its interval is not over: three statements, of which any one may be wrong. Two of them decide. Where
the first two differ by more than a bound, the candles are the referee; where they cannot tell,
nothing is trusted, and what counts as closed is what two of the three say.

Our own wall clock plays no part, since a laptop's can be hours off. Left out: the trip of a frame
or an answer through the network; it makes every reading late, never early.
"""

from __future__ import annotations

import time
from collections.abc import Callable

REST, FRAMES, CANDLES = "rest", "frames", "candles"
# A clock that was ahead is set back when so many of its statements in a row are behind it.
_STATEMENTS = 16


class _Reading:
    """What one clock said last, carried on; None until it has said something."""

    def __init__(self, speed: float, steady_s: Callable[[], float]) -> None:
        self._speed, self._steady_s = speed, steady_s
        self._heard: tuple[int, float] | None = None
        self._behind = 0

    def set(self, market_ms: int) -> None:
        self._heard, self._behind = (market_ms, self._steady_s()), 0

    def move_on(self, market_ms: int, slack_ms: int) -> None:
        """Forward at once; back only when `_STATEMENTS` in a row lie behind by more."""
        now_ms = self.now_ms()
        if now_ms is None or market_ms >= now_ms:
            self.set(market_ms)
        elif market_ms >= now_ms - slack_ms:
            self._behind = 0
        else:
            self._behind += 1
            if self._behind >= _STATEMENTS:
                self.set(market_ms)

    def now_ms(self) -> int | None:
        if self._heard is None:
            return None
        market_ms, at_s = self._heard
        return market_ms + int((self._steady_s() - at_s) * 1000 * self._speed)

    @property
    def age_s(self) -> float:
        return float("inf") if self._heard is None else self._steady_s() - self._heard[1]


class ExchangeClock:
    """The exchange's time as its three clocks tell it; touched only from the stream's loop.

    Parameters
    ----------
    speed : market seconds per wall second.
    interval_ms : of the candles.
    bound_ms : market milliseconds by which clocks that agree may differ.
    steady_s : seconds of our own steady clock.

    Attributes
    ----------
    trusted : REST or FRAMES, the clock that another one confirms; None when no two agree, or none
        was heard.
    """

    def __init__(
        self,
        speed: float,
        interval_ms: int,
        bound_ms: int,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_ms, self.bound_ms = interval_ms, bound_ms
        self._speed, self._steady_s = speed, steady_s
        self._rest = _Reading(speed, steady_s)
        self._frames = _Reading(speed, steady_s)
        self._opened = _Reading(speed, steady_s)  # since the newest candle opened
        self._forming = _Reading(speed, steady_s)  # from when that candle was last shown
        self._newest_open = -1
        self.trusted: str | None = None
        self._contested = False  # whether the candles were asked already

    @property
    def known(self) -> bool:
        """Whether the exchange's time was heard at all."""
        return self._rest.now_ms() is not None or self._frames.now_ms() is not None

    @property
    def rest_age_s(self) -> float:
        """Wall seconds since REST stated its time; infinite before the first."""
        return self._rest.age_s

    def hear_rest(self, server_ms: int, took_s: float = 0.0, stale_s: float = 0.0) -> None:
        """REST's statement of its time.

        Parameters
        ----------
        took_s : wall seconds between question and answer. One that took longer than the bound
            places the clock too loosely, and is ignored while the last is younger than `stale_s`.
        """
        if took_s * 1000 * self._speed > self.bound_ms and self._rest.age_s < stale_s:
            return
        self._rest.set(server_ms)
        self.judge()

    def hear_frame(self, event_ms: int) -> None:
        """The time at which a frame says it was sent."""
        before_ms = self._frames.now_ms()
        self._frames.move_on(event_ms, self.bound_ms)
        # A jump may not be believed for as long as it takes to look at all clocks again.
        if before_ms is None or event_ms > before_ms + self.bound_ms:
            self.judge()

    def hear_candle(self, open_ms: int) -> bool:
        """A frame or a REST row shows the candle that opens then, so it has opened.

        False when that would be in the future by both other clocks: it is not believed.
        """
        latest = max((ms for ms in (self._rest.now_ms(), self._frames.now_ms()) if ms), default=0)
        if open_ms > latest + self.bound_ms:
            return False
        if open_ms > self._newest_open or self._newest_open > latest + self.bound_ms:
            self._newest_open = open_ms
            self._opened.set(open_ms)
            self._forming.set(open_ms)
            self.judge()
        elif open_ms == self._newest_open:
            self._forming.set(open_ms)
        return True

    def readings(self) -> dict[str, int]:
        """What each clock that was heard says now, UTC milliseconds."""
        clocks = {REST: self._rest, FRAMES: self._frames, CANDLES: self._opened}
        told = {name: clock.now_ms() for name, clock in clocks.items()}
        return {name: ms for name, ms in told.items() if ms is not None}

    @property
    def agree(self) -> bool:
        """Whether no two of the clocks heard contradict each other."""
        told = self.readings()
        stated = [told[name] for name in (REST, FRAMES) if name in told]
        near = max(stated, default=0) - min(stated, default=0) <= self.bound_ms
        return near and all(self._fits(ms) for ms in stated)

    def judge(self) -> None:
        """Decide anew which clock is trusted.

        A clock that the candles have confirmed against the other stays trusted while they cannot
        tell: within a candle, both may be possible.
        """
        told = self.readings()
        stated = {name: told[name] for name in (REST, FRAMES) if name in told}
        near = max(stated.values(), default=0) - min(stated.values(), default=0) <= self.bound_ms
        if near and len(stated) == 2:
            self.trusted, self._contested = REST, False
            return
        possible = [name for name, ms in stated.items() if self._fits(ms)]
        if len(possible) == 1:
            self.trusted = possible[0]
        elif self.trusted not in possible or not self._contested:
            self.trusted = None
        self._contested = not near

    def now_ms(self) -> int:
        """The exchange's time now, by the clock that is trusted, UTC milliseconds; 0 while unknown.

        While none is, the time that two of them say has come.
        """
        told, trusted = self.readings(), self.trusted
        if trusted is None:
            return self.closed_ms()
        other = told.get(FRAMES if trusted == REST else REST, 0)
        near = abs(told[trusted] - other) <= self.bound_ms
        return max(told[trusted], other) if near else told[trusted]

    def closed_ms(self) -> int:
        """The time that has come for certain, UTC milliseconds; 0 while nothing is.

        Two of the three clocks say so; where these differ by no more than the bound, the later of
        them, and whoever relies on it keeps a margin of the bound.
        """
        told = sorted(self.readings().values(), reverse=True)
        if len(told) < 2:
            return 0
        latest, second = told[:2]
        return latest if latest - second <= self.bound_ms else second

    def _fits(self, stated_ms: int) -> bool:
        """Whether the newest candle can be forming at this time; True before there is one."""
        opened, forming = self._opened.now_ms(), self._forming.now_ms()
        if opened is None or forming is None:
            return True
        latest_ms = forming + self.interval_ms
        return opened - self.bound_ms <= stated_ms <= latest_ms + self.bound_ms
