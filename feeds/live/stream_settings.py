"""What a live stream shows and how patient it is: settings only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import interval_to_ms

_REAL_CANDLE_S = 300.0
# Wall seconds by which a busy loop may hear one clock later than another.
_LOOP_JITTER_S = 0.1


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream shows, and from where on.

    Parameters
    ----------
    symbols : such as ("BTCUSDT", "ETHUSDT").
    interval : of all of them.
    start_ms : open time of the first candle wanted (UTC ms, on the grid); what has closed since is
        read over REST.
    next_open : symbol -> open time of its next candle, where a recorded session left it behind
        start_ms (it was stale).
    known : candles that are here already, from start_ms on; REST is only asked for the rest.
    gaps : symbol -> open times of the gaps that a recorded session has published and not
        withdrawn: a candle that appears there withdraws one.
    rules : symbol -> its entry of exchangeInfo's `symbols` as last recorded, so that what changed
        while nobody looked is noticed.

    Raises
    ------
    SourceError
        When start_ms is off the grid, or symbols are none or repeated.
    """

    symbols: Sequence[str]
    interval: str
    start_ms: int
    next_open: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, Candles] = field(default_factory=dict)
    gaps: Mapping[str, Collection[int]] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise SourceError(f"expected one or more different symbols, found {self.symbols}")
        if self.start_ms % self.interval_ms != 0:
            raise SourceError(
                f"the stream must start at an open time: {self.start_ms} is no multiple of"
                f" {self.interval_ms} ms"
            )

    @property
    def interval_ms(self) -> int:
        """Milliseconds of a candle."""
        return interval_to_ms(self.interval)

    @property
    def first_open(self) -> dict[str, int]:
        """Symbol -> open time of the first candle wanted of it, UTC milliseconds."""
        return dict.fromkeys(self.symbols, self.start_ms) | dict(self.next_open)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How patient the stream is. All waits are wall seconds.

    Parameters
    ----------
    market_speed : market seconds per wall second; 1 on the real exchange, more on a loopback.
    close_grace_s : after a close, how long its frame may take before REST is asked; so long, too,
        candles that catch up wait for each other.
    stale_after_s : how long symbols that have a candle wait for one that does not.
    backfill_s : the same for rounds of the past, while what it lacks there is read.
    gap_confirm_s : minimum time between the two REST reads that prove a gap.
    doubt_s : the same where trade ids show that the candle existed; and how long a REST row with
        fewer trades than its last frame is refused.
    still_s : how long REST must show the same newest candle before it counts as closed without a
        newer one behind it.
    refetch_s, refetch_cap_s : minimum time between two REST reads of a symbol, doubled up to the
        cap while they bring nothing.
    retry_first_s, retry_cap_s : waits until a symbol that the exchange refused is asked for again,
        doubled up to the cap.
    review_first_s, review_every_s : after a gap, and regularly, what was shown is read again; the
        wait grows from the first to the second.
    watchdog_s : a connection silent for so long is replaced.
    backoff_first_s, backoff_cap_s : waits between generations, doubled and jittered.
    poll_s : how often deadlines are looked at.
    info_every_s : how often trading rules and statuses are read again.
    clock_refresh_s : how often the exchange is asked for its time.
    close_timeout_s : bounds the closing of a dropped socket.
    clock_bound_ms : market milliseconds by which the exchange's clocks may differ and agree.
    settle_ms : market milliseconds after a close before REST is believed; at least the bound, or a
        clock that is ahead by less passes a candle that has not closed.
    queue_frames : unread frames a socket may hold.
    """

    market_speed: float = 1.0
    close_grace_s: float = 3.0
    stale_after_s: float = 30.0
    backfill_s: float = 300.0
    gap_confirm_s: float = 5.0
    doubt_s: float = 600.0
    still_s: float = 60.0
    refetch_s: float = 1.0
    refetch_cap_s: float = 15.0
    retry_first_s: float = 30.0
    retry_cap_s: float = 3600.0
    review_first_s: float = 60.0
    review_every_s: float = 3600.0
    watchdog_s: float = 30.0
    backoff_first_s: float = 0.5
    backoff_cap_s: float = 30.0
    poll_s: float = 0.5
    info_every_s: float = 300.0
    clock_refresh_s: float = 20.0
    close_timeout_s: float = 1.0
    clock_bound_ms: int = 2_000
    settle_ms: int = 2_500
    queue_frames: int = 100_000

    @classmethod
    def for_speed(cls, speed: float, interval: str = "5m") -> StreamSettings:
        """Settings whose waits shrink with the wall time of a candle, down to what a loop can keep.

        At speed 1 and 5-minute candles they are the defaults.
        """
        candle_s = interval_to_ms(interval) / 1000 / speed
        part = min(1.0, candle_s / _REAL_CANDLE_S)
        bound_ms = max(2_000, int(_LOOP_JITTER_S * 1000 * speed))
        return cls(
            market_speed=speed,
            close_grace_s=max(0.04, 3.0 * part),
            stale_after_s=max(1.0, 30.0 * part),
            backfill_s=max(5.0, 300.0 * part),
            gap_confirm_s=max(0.1, 5.0 * part),
            doubt_s=max(1.0, 600.0 * part),
            still_s=max(0.1, 60.0 * part),
            refetch_s=max(0.03, 1.0 * part),
            refetch_cap_s=max(0.3, 15.0 * part),
            retry_first_s=max(0.2, 30.0 * part),
            retry_cap_s=max(2.0, 3600.0 * part),
            review_first_s=max(0.5, 60.0 * part),
            review_every_s=max(2.0, 3600.0 * part),
            # How often frames come does not follow from the candles' length.
            watchdog_s=max(0.4, 30.0 / speed, 4 * candle_s if speed > 1 else 0.0),
            backoff_first_s=max(0.02, 0.5 * part),
            backoff_cap_s=max(0.2, 30.0 * part),
            poll_s=max(0.02, 0.5 * part),
            info_every_s=max(2.0, 300.0 * part),
            clock_refresh_s=max(0.2, 20.0 * part),
            close_timeout_s=max(0.2, part),
            clock_bound_ms=bound_ms,
            settle_ms=max(2_500, bound_ms * 5 // 4),
        )
