"""How the loopback exchange behaves: settings only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.endpoints import BINANCE_INTERVALS, WEIGHT_LIMIT, WINDOW_S
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.loopback.faults import Halt


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """How the loopback exchange behaves.

    Parameters
    ----------
    interval : interval of the candles handed in.
    port : 0 takes a free one.
    updates_per_candle : frames of the forming candle between its open and its close.
    halts : maintenance; candles in it never exist.
    weight_limit : request weight per window, as the exchange counts it.
    weight_window_s : wall seconds of that window (60 on the exchange).
    attempts_limit : websocket upgrades per 5 wall minutes.
    rest_lag_ms : REST shows the market as it was so long ago (market milliseconds).
    wait_for_subscriber : the clock starts with the first stream connection.
    connection_life_ms : streams are cut after so much market time.
    hang_s : wall seconds a hanging request is held at most.
    slow_s : wall seconds between two bytes of a slow answer.

    Raises
    ------
    SourceError
        Naming the settings that are impossible, and what they may be.
    """

    interval: str = "5m"
    port: int = 0
    updates_per_candle: int = 2
    halts: Sequence[Halt] = ()
    weight_limit: int = WEIGHT_LIMIT
    weight_window_s: float = WINDOW_S
    attempts_limit: int = 300
    rest_lag_ms: int = 0
    wait_for_subscriber: bool = False
    connection_life_ms: int = DAY_MS
    hang_s: float = 30.0
    slow_s: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "updates_per_candle": (0, 100_000),
            "weight_limit": (1, 10**9),
            "weight_window_s": (0.0, DAY_MS / 1000),
            "attempts_limit": (0, 10**9),
            "rest_lag_ms": (0, 365 * DAY_MS),
            "connection_life_ms": (1, 10**15),
            "hang_s": (0.0, DAY_MS / 1000),
            "slow_s": (0.0, DAY_MS / 1000),
            "port": (0, 65_535),
        }
        wrong = [
            f"{name} is {getattr(self, name)}, expected {low:,} to {high:,}"
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        wrong += [
            f"a halt from {halt.start_ms} to {halt.end_ms} ends before it starts"
            for halt in self.halts
            if halt.end_ms <= halt.start_ms
        ]
        if self.interval not in BINANCE_INTERVALS:
            wrong.append(
                f"interval is {self.interval!r}, expected one of {', '.join(BINANCE_INTERVALS)}"
            )
        if wrong:
            raise SourceError(f"the loopback exchange cannot run so: {'; '.join(wrong)}")
