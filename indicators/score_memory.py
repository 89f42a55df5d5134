"""What both networks say of candles, kept from one pass through Cerebro for the next.

A search tries many ways to trade the same scores; with a memory only its first pass computes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.scoring.batch import SessionStates


class ScoreMemory:
    """Embeddings and scores by the candles that they follow from, for one timeline of bundles.

    Hand the same one to `MicroScore(data, bundles=..., memory=...)` of every pass. Candles that
    differ in any number are other candles. A year of 5-minute candles of one symbol takes 4 MB;
    nothing is ever given up: it lives as long as whoever made it keeps it.

    Examples
    --------
    >>> from cppncripto_strategy.indicators.score_memory import ScoreMemory
    >>> len(ScoreMemory())
    0
    """

    def __init__(self) -> None:
        self._timeline: BundleTimeline | None = None
        self.embedded: dict[str, tuple[NDArray[Any], SessionStates]] = {}
        self.scored: dict[str, dict[str, NDArray[Any]]] = {}

    def __len__(self) -> int:
        """How many feeds' scores are kept."""
        return len(self.scored)

    def key(self, timeline: BundleTimeline, columns: Sequence[NDArray[Any]]) -> str:
        """Names what the bundles say of candle columns.

        Raises
        ------
        ValueError
            When the memory is of another timeline.
        """
        if self._timeline is not None and self._timeline is not timeline:
            raise ValueError("a ScoreMemory keeps what one timeline says: make one for each")
        self._timeline = timeline
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column.tobytes() + b"|")
        return digest.hexdigest()
