"""The exchange a session talks to, and how patiently."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings


@dataclass(frozen=True, slots=True)
class Connection:
    """Addresses and patience of a session; the defaults are Binance's public ones.

    Parameters
    ----------
    sources : addresses of REST and stream.
    stream : waits and deadlines of the stream.
    retry : how often a failed request is sent again.
    rng : jitter of waits; None draws it afresh.
    """

    sources: Sources = field(default_factory=Sources)
    stream: StreamSettings = field(default_factory=StreamSettings)
    retry: Retry = field(default_factory=Retry)
    rng: random.Random | None = None
