"""MicroScore: MicroNet as a Backtrader indicator, at every closed candle."""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.indicators.bulk import QuickIndicator, put
from cppncripto_strategy.indicators.macro import MacroEmbedding, bars_of
from cppncripto_strategy.models.scoring.batch import score_sessions
from cppncripto_strategy.models.scoring.macro_stream import TIMES_KEPT
from cppncripto_strategy.models.scoring.round_scorer import RoundScorer, ScoreStream

_OF_MACRO = ("bundles", "cache", "market", "memory", "device")
LINES = ("score", "p_buy", "p_sell", "score_zero")


class ScoredTogether:
    """Symbols of one run, each with its own MicroScore, whose rounds are scored in one product.

    Hand the same one to every `MicroScore` of a Cerebro. Its feeds deliver a round's candles before
    any indicator is asked, so the first one asked scores them all.
    """

    def __init__(self) -> None:
        self.macros: list[MacroEmbedding] = []
        self.scorer = RoundScorer()


class MicroScore(QuickIndicator):
    """MicroNet's score of the last hours, given the embedding of the last days.

    Use as `MicroScore(data, bundles=...)`, or as `MicroScore(data, macro=MacroEmbedding(data,
    ...))` to share an embedding that already exists.

    Lines: score in [-1, 1], p_buy and p_sell (probabilities at the bundle's temperature, which the
    score is not at), and score_zero (the score under a zero embedding: what would be left without
    macro). NaN, never 0, where there is no score: see `models.scoring`.

    Params
    ------
    bundles, cache, market, memory, device : as in MacroEmbedding, when `macro` is not given.
    macro : a MacroEmbedding over the same data.
    together : ScoredTogether, shared by the symbols of one Cerebro; None scores each by itself.
        Only `next` differs, and only in the last bits of a score.

    Attributes
    ----------
    macro : the MacroEmbedding.
    bundle_seeds : list of (valid_from_close_ms, scores): where AdaptiveThreshold starts afresh,
        with the validation scores of the bundle that becomes active.
    score_s : seconds a score took under `next`, the last `TIMES_KEPT` bars' (under `once`, the
        mean).

    Examples
    --------
    With `bundles/` as `cppn-bt run` leaves it:

    >>> import math
    >>> import backtrader as bt
    >>> from cppncripto_strategy import MicroScore, ReplayFeed
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> class Scores(bt.Strategy):
    ...     def __init__(self):
    ...         self.micro = MicroScore(self.data, bundles="bundles")
    ...         self.scored = 0
    ...     def next(self):
    ...         self.scored += not math.isnan(self.micro.score[0])
    >>> market = generate(PlantedSettings(days=24, interval="1h"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=3_600_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(Scores)
    >>> [strategy] = cerebro.run()
    >>> strategy.scored  # candles after the training span
    145
    """

    lines: Any = LINES
    params: Any = (("bundles", None), ("cache", None), ("market", None), ("macro", None),
                   ("together", None), ("memory", None), ("device", "cpu"))  # fmt: skip
    plotinfo: Any = {"plot": True, "subplot": True, "plothlines": [0.0]}

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    def _build(self) -> None:
        macro: Any = self.p.macro
        self._owns_macro = macro is None
        if macro is None:
            given = {name: getattr(self.p, name) for name in _OF_MACRO}
            macro = MacroEmbedding(self.data, **given)
        self.macro: MacroEmbedding = macro
        macro.readers += 1
        together: ScoredTogether = self.p.together or ScoredTogether()
        self.macro.join(together.macros)
        self._stream = ScoreStream(self.macro.stream, together.scorer)
        self._done = 0
        self.score_s: deque[float] = deque(maxlen=TIMES_KEPT)

    @property
    def bundle_seeds(self) -> list[tuple[int, NDArray[np.float64]]]:
        """(valid_from_close_ms, validation scores) of each bundle, ascending."""
        timeline = self.macro.timeline
        starts = [bundle.info.trained_until_ms for bundle in timeline.bundles]
        if timeline.in_sample:
            starts[0] = 0
        return [
            (start, bundle.score_seed)
            for start, bundle in zip(starts, timeline.bundles, strict=True)
        ]

    def advance(self, size: int = 1) -> None:
        """Move to the next bar, and the embedding too: Backtrader leaves nested indicators."""
        super().advance(size)
        if self._owns_macro:
            self.macro.advance(size)

    def snapshot(self) -> dict[str, Any]:
        """The state of both networks' streams between two bars."""
        present = [float(line[0]) for line in self.macro.lines] if len(self.macro) else []
        streams = {"macro": self.macro.stream.snapshot(), "micro": self._stream.snapshot()}
        return {**streams, "present": present}

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where an indicator of the same bundles was. Raises as `MacroStream.restore`."""
        self.macro.stream.restore(kept["macro"])
        self._stream.restore(kept["micro"])
        # Until the symbol's next candle others read its present bar: sizing asks for forecasts.
        for line, value in zip(self.macro.lines, kept["present"], strict=False):
            line[0] = value

    def next(self) -> None:
        """Score the present candle, once."""
        lines: list[Any] = self.lines.lines
        bars = lines[0].lencount
        if bars == self._done:
            return
        self._done = bars
        put(lines, self._stream.update())
        self.score_s.append(self._stream.seconds)

    def oncestart(self, start: int, end: int) -> None:
        """Nothing: the engine asks for the first bar alone; `once` fills it with the rest."""

    def once(self, start: int, end: int) -> None:
        """Score every bar in batches of whole sessions."""
        macro = self.macro
        known = macro.memory.scored.get(macro.memory_key) if macro.memory is not None else None
        lines = known if known is not None else self._scores()
        for name, values in lines.items():
            getattr(self.lines, name).array[:end] = array("d", values[:end].tobytes())

    def _scores(self) -> dict[str, NDArray[np.float64]]:
        """Every line at every bar, (bars,) each; {} without a bar."""
        macro = self.macro
        if macro.table is None or macro.states is None:
            return {}
        began = time.perf_counter()
        scored = score_sessions(macro.table, macro.timeline, macro.states, macro.device)
        lines = bars_of(macro, scored)
        bars = max(len(lines["score"]), 1)
        self.score_s.append((time.perf_counter() - began) / bars)
        if macro.memory is not None:
            macro.memory.scored[macro.memory_key] = lines
        macro.read_by_one()
        return lines
