"""What a strategy knows about one symbol: its lines, its position's story, its last decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.shadow import ShadowSignals
from cppncripto_strategy.feeds.replay import bar_interval_ms
from cppncripto_strategy.lines import Reader, SymbolLines


@dataclass(frozen=True, slots=True)
class Decision:
    """One candle of one symbol as it was judged; fields as in the `signals` table."""

    symbol: str
    close_time_ms: int
    close: float
    score: float
    p_buy: float
    p_sell: float
    score_zero: float
    upper: float
    lower: float
    signal: int
    drift: float
    age_ms: float


class SymbolState:
    """What the strategy knows about one symbol; lives as long as the strategy."""

    def __init__(self, data: Any, score: Any, threshold: Any, traded_line: str) -> None:
        self.data = data
        self.clock = data.lines.datetime
        self.score = score
        self.threshold = threshold
        self.interval_ms = bar_interval_ms(data)
        self.lines = SymbolLines(data, score, threshold, traded_line)
        self.readers: dict[str, Reader] = {}
        self.bars = 0  # bars already decided on
        self.order: Any = None
        self.entry_price = math.nan
        self.entry_open_ms = 0
        self.exit_reason = ""  # why an exit was sent, until the position is flat
        self.no_entry_before_ms = 0
        self.decides = True  # only the fast loop says of a bar that it is none of this symbol's
        self.shadow: ShadowSignals | None = None  # of the evidence meter, where there is one

    _KEPT = ("entry_price", "entry_open_ms", "exit_reason", "no_entry_before_ms")

    def snapshot(self) -> dict[str, Any]:
        """What later decisions depend on: the indicators' state and the position's story.

        Raises
        ------
        RecipeError
            When the score or the threshold is an indicator that cannot hand its state over.
        """
        parts = {"score": self.score, "threshold": self.threshold}
        for what, indicator in parts.items():
            if not hasattr(indicator, "snapshot"):
                raise RecipeError(
                    f"the {what} {type(indicator).__name__} of {self.data._name!r} has no"
                    " snapshot() and restore(): its state cannot be kept"
                )
        kept = {name: getattr(self, name) for name in self._KEPT}
        return kept | {what: indicator.snapshot() for what, indicator in parts.items()}

    def restore(self, kept: dict[str, Any], order: Any) -> None:
        """Continue where another was, with the order that waits (None for none)."""
        for name in self._KEPT:
            setattr(self, name, kept[name])
        self.order, self.bars = order, self.clock.lencount
        self.score.restore(kept["score"])
        self.threshold.restore(kept["threshold"])
