"""Waits of a stream at any speed and any length of candles."""

from __future__ import annotations

import pytest

from cppncripto_strategy.feeds.clock import interval_to_ms
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings


def test_at_the_speed_of_the_wall_the_waits_are_the_defaults() -> None:
    """A demo in real time that is more, or less, patient than a session on Binance."""
    assert StreamSettings.for_speed(1.0) == StreamSettings()


@pytest.mark.parametrize("interval", ["1m", "3m", "5m", "15m", "1h"])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 60.0, 600.0, 12_000.0])
def test_a_stream_that_sends_as_often_as_binance_is_not_given_up(
    interval: str, speed: float
) -> None:
    """One-minute candles at wall speed lost a healthy connection every half a minute: frames come
    each 7 s, and the wait had shrunk to 6."""
    candle_s = interval_to_ms(interval) / 1000 / speed
    between_frames_s = candle_s / max(1, min(9, int(candle_s * 10)))
    most_s = min(between_frames_s, 10.0 / speed)  # Binance: every 2 s, here up to five times that
    assert StreamSettings.for_speed(speed, interval).watchdog_s > 2 * most_s
