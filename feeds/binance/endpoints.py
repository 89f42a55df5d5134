"""Where candles come from: Binance's public, keyless end points, and how patiently they are asked.

Settings only; nothing here opens a connection. No API key exists anywhere in this package.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from urllib.parse import urlsplit

# The intervals the exchange offers, less 1M, which has no fixed length.
BINANCE_INTERVALS = (
    *("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h"),
    *("1d", "3d", "1w"),
)
# Below the REST address: the versions, and each end point with the weight of one request.
API_PATH, API_VERSIONS = "/api", ("v3", "v1")
PING, TIME, INFO, KLINES = "ping", "time", "exchangeInfo", "klines"
WEIGHTS = {PING: 1, TIME: 1, INFO: 20, KLINES: 2}
WEIGHT_LIMIT = 6000
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Sources:
    """The exchange's addresses; the defaults need no key and no account.

    Parameters
    ----------
    archive_url : bulk files, monthly and daily.
    rest_url : market data over REST (`/api` is appended).
    stream_url : market data over websockets.
    """

    archive_url: str = "https://data.binance.vision"
    rest_url: str = "https://data-api.binance.vision"
    stream_url: str = "wss://data-stream.binance.vision"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how patiently, a failed request is sent again.

    Parameters
    ----------
    attempts : tries of one request before giving up, at least 1.
    base_s, cap_s : the n-th wait is at most base_s * 2**n seconds, never above cap_s.
    timeout_s : seconds one try may take.
    longest_pause_s : a Retry-After beyond this (a long ban) is reported, not waited for.
    """

    attempts: int = 8
    base_s: float = 0.5
    cap_s: float = 30.0
    timeout_s: float = 30.0
    longest_pause_s: float = 900.0

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Seconds before try `attempt + 1`: capped exponential, jittered by half."""
        return float(min(self.cap_s, self.base_s * 2.0**attempt) * rng.uniform(0.5, 1.0))


def is_loopback(url: str) -> bool:
    """True for an address on this machine, which no proxy must see."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
