"""MacroEmbedding: MacroNet as a Backtrader indicator, once a day.

The embedding itself has 128 numbers and is an attribute; the lines say how old it is and how far
the day lies from the days the network learned from. Under `once` everything is computed in batches,
under `next` one candle at a time; both give the same.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import ms_to_utc, num_to_ms, nums_to_ms
from cppncripto_strategy.indicators.bulk import QuickIndicator, put
from cppncripto_strategy.indicators.score_memory import ScoreMemory
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.forecasting.forecaster import FORECAST_COLUMNS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionTable, build_sessions
from cppncripto_strategy.models.scoring.batch import ScoredSpan, SessionStates, embed_sessions
from cppncripto_strategy.models.scoring.embedding_cache import EmbeddingCache
from cppncripto_strategy.models.scoring.macro_stream import MacroStream

log = logging.getLogger(__name__)

_COLUMNS = ("open", "high", "low", "close", "volume")


def load_timeline(bundles: Any) -> BundleTimeline:
    """A timeline from a timeline, or from the path of a bundle or a folder of bundles."""
    if bundles is None:
        raise RecipeError("bundles is not given: pass a BundleTimeline or the path of its folder")
    if isinstance(bundles, BundleTimeline):
        return bundles
    return BundleTimeline.load(Path(bundles))


class _Columns:
    """A Backtrader data's buffers as candle columns, copied."""

    def __init__(self, data: Any, interval_ms: int) -> None:
        stamps = np.array(data.lines.datetime.array, dtype=np.float64)
        close_ms = nums_to_ms(stamps)
        self.open_time = close_ms - interval_ms
        for name in _COLUMNS:
            setattr(self, name, np.array(getattr(data.lines, name).array, dtype=np.float64))
        taker = _taker_line(data)
        absent = np.full(len(stamps), np.nan)
        self.taker_buy_volume = absent if taker is None else np.array(taker.array, np.float64)

    def arrays(self) -> list[NDArray[Any]]:
        """Every column, (bars,) each."""
        prices = [getattr(self, name) for name in _COLUMNS]
        return [self.open_time, *prices, self.taker_buy_volume]

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]


def _require_lines(data: Any, timeline: BundleTimeline) -> None:
    """Refuse data without a line that the bundles' features read. Raises RecipeError."""
    table = timeline.session.table
    for name, feature in zip(table.names, table.features, strict=True):
        for need in feature.needs:
            if getattr(data.lines, need, None) is None:
                raise RecipeError(
                    f"the bundles read the feature {name!r}, which needs {need}, and the data has"
                    " no such line: use a feed that carries it, such as feeds.replay.ReplayFeed"
                )


def _taker_line(data: Any) -> Any:
    return getattr(data.lines, "taker_buy_volume", None)


def _lines_of(data: Any) -> tuple[Any, ...]:
    """A data's lines as the stream reads them: stamp, `_COLUMNS`, takers' purchases or None."""
    columns = (getattr(data.lines, name) for name in ("datetime", *_COLUMNS))
    return (*columns, _taker_line(data))


def _market_data(data: Any, given: Any, timeline: BundleTimeline) -> Any:
    """The market symbol's data: the one given, the data itself, or Cerebro's feed of that name.

    Raises
    ------
    RecipeError
        When the bundles read a market symbol and there is no data of it, or it is of another
        interval.
    """
    session = timeline.session
    if not session.reads_market:
        return None
    feeds = getattr(getattr(data, "_env", None), "datasbyname", {})
    market = data if data._name == session.market else feeds.get(session.market)
    market = market if given is None else given
    if market is None:
        raise RecipeError(
            f"the bundles read the candles of {session.market} beside {data._name or 'the data'},"
            f" and Cerebro has no feed of that name: add one (it need not be traded), or pass its"
            " data as market=..."
        )
    bars = [(item._timeframe, item._compression) for item in (data, market)]
    if bars[0] != bars[1]:
        raise RecipeError(
            f"{session.market} is the market symbol of {data._name or 'the data'}, and their bars"
            f" differ (timeframe, compression: {bars[1]} and {bars[0]}): give both one interval"
        )
    return market


class MacroEmbedding(QuickIndicator):
    """MacroNet's embedding of the last days, renewed at each 00:00 UTC.

    Lines: drift (see `models.learning.drift.bank_drift`; 1 is as usual, NaN before the first
    session), age (milliseconds since the midnight the embedding is valid from; NaN without one),
    and the bundle's forecast of the session's UTC day: volatility (root of its summed squared log
    returns, expected), volatility_low and volatility_high (its 80 % interval) and range (ln of high
    over low, expected), as fractions. A forecast is made at the day's own rollover and holds for
    that day alone: NaN where the rollover failed, or the bundle forecasts nothing.

    Params
    ------
    bundles : BundleTimeline, or the path of a bundle or of a folder of bundles.
    market : the market symbol's data, where the bundles read one (`features.market`); None takes
        Cerebro's feed of that name. It need not be traded, and has to be of the same interval.
    cache : folder in which embeddings are kept by model and data, for `next` (live); None for none.
    memory : `ScoreMemory` that passes over the same candles share, for `once`; None for none.
    device : where `once` computes: "cpu", "cuda", or "auto" (CUDA where there is one). `next` is
        always the processor's.

    Raises
    ------
    RecipeError
        When the data lacks a line that a feature of the bundles needs, or the bundles read a market
        symbol and there is no data of it, or the device is not there.

    Attributes
    ----------
    vector : the embedding active at the present bar, float32 (128,); None without one.
    rollover_s : seconds each embedding took, the last `TIMES_KEPT` (under `once`, the mean).

    Examples
    --------
    With `bundles/` as `cppn-bt run` leaves it:

    >>> import backtrader as bt
    >>> from cppncripto_strategy import MacroEmbedding, ReplayFeed
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> class Days(bt.Strategy):
    ...     def __init__(self):
    ...         self.macro = MacroEmbedding(self.data, bundles="bundles")
    ...     def stop(self):
    ...         print(self.macro.vector.shape, f"{self.macro.age[0] / 3_600_000:.0f} hours old")
    >>> market = generate(PlantedSettings(days=24, interval="1h"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=3_600_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(Days)
    >>> _ = cerebro.run()
    (128,) 0 hours old
    """

    lines: Any = ("drift", "age", *FORECAST_COLUMNS)
    params: Any = (("bundles", None), ("cache", None), ("market", None), ("memory", None),
                   ("device", "cpu"))  # fmt: skip
    plotinfo: Any = {"plot": True, "subplot": True}

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    def _build(self) -> None:
        self.timeline = load_timeline(self.p.bundles)
        self.device = resolve_device(self.p.device)
        _require_lines(self.data, self.timeline)
        self._market = _market_data(self.data, self.p.market, self.timeline)
        self._lines = _lines_of(self.data)
        self._market_lines = () if self._market is None else _lines_of(self._market)
        self._stamps = self._lines[0]
        self._market_done = 0
        cache = None if self.p.cache is None else EmbeddingCache(Path(self.p.cache))
        self.stream = MacroStream(self.timeline, cache, str(self.data._name or ""))
        self._done = self._taken = 0  # bars: `next` runs again when another symbol ticks
        self.company: list[MacroEmbedding] = [self]
        self.table: SessionTable | None = None
        self.states: SessionStates | None = None
        self.bar_rows: NDArray[np.int64] | None = None
        self.memory: ScoreMemory | None = self.p.memory
        self.memory_key = ""
        self.readers = 0  # scores that `once` makes of the table
        self._start_ms: NDArray[np.int64] | None = None
        self._batch_s: list[float] = []

    def follow(self, timeline: BundleTimeline) -> None:
        """Go by this timeline from the next rollover on: the one there was, with bundles added."""
        self.timeline = self.stream.timeline = timeline

    def join(self, company: list[MacroEmbedding]) -> None:
        """Be scored with these: whose `next` is first lets all of them take their candles."""
        company.append(self)
        self.company = company

    @property
    def rollover_s(self) -> Sequence[float]:
        """Seconds each rollover took."""
        return self._batch_s or self.stream.rollover_s

    @property
    def vector(self) -> NDArray[np.float32] | None:
        """The embedding active at the present bar, float32 (128,); None without one."""
        if self._start_ms is None or self.states is None:
            return self.stream.state.embedding if self.stream.state is not None else None
        stamp = self.data.lines.datetime[0]
        close_ms = num_to_ms(stamp)
        session = int(np.searchsorted(self._start_ms, close_ms, side="right")) - 1
        if session < 0 or self.states.source[session] < 0:
            return None
        vector: NDArray[np.float32] = self.states.embedding[session]
        return vector

    def embeddings(self) -> list[tuple[int, int, str, float, NDArray[np.float32]]]:
        """What was active: (valid_from_ms, data_end_ms, hash, drift, vector) of each session."""
        if self._start_ms is None or self.states is None:
            return list(self._streamed)
        rows = []
        hashes = [bundle.model_hash for bundle in self.timeline.bundles]
        for session in np.flatnonzero(self.states.source >= 0):
            source = int(self.states.source[session])
            rows.append(
                (
                    int(self._start_ms[session]),
                    int(self._start_ms[source]),
                    hashes[int(self.states.bundle[session])],
                    float(self.states.drift[session]),
                    self.states.embedding[session],
                )
            )
        return rows

    _streamed: tuple[tuple[int, int, str, float, NDArray[np.float32]], ...] = ()

    def take(self) -> None:
        """Take the present candle, once; the market symbol's of the same close before it."""
        self._take_market()
        bars = self._stamps.lencount
        if bars == self._taken:
            return
        self._taken = bars
        stream = self.stream
        session_before = stream.session_ms
        stream.push(*self._candle(self._lines))
        if stream.session_ms != session_before and stream.state is not None:
            self._remember(stream)

    def next(self) -> None:
        """Say what holds at the present candle; all who are scored together have taken theirs."""
        self._take_market()
        if self._stamps.lencount != self._taken:
            for other in self.company:
                other.take()
        lines: list[Any] = self.lines.lines
        bars = lines[0].lencount
        if bars == self._done:
            return
        self._done, stream = bars, self.stream
        drift = stream.state.drift if stream.state is not None else math.nan
        put(lines, (drift, stream.age_ms(), *stream.forecast.tolist()))

    def _take_market(self) -> None:
        """Hand on the market symbol's present candle, once, even where the symbol has none."""
        market = self._market
        if market is None or len(market) == self._market_done:
            return
        self._market_done = len(market)
        open_ms, candle = self._candle(self._market_lines)
        if not self.stream.push_market(open_ms, candle):
            log.warning(
                "%s: the candle of %s that opens at %s came after the symbol's own and is left out",
                self.data._name,
                self.timeline.session.market,
                ms_to_utc(open_ms),
            )

    def _candle(self, lines: Sequence[Any]) -> tuple[int, NDArray[np.float64]]:
        """Open time (UTC ms) of the present bar of `_lines_of`, and its candle as the stream takes
        it."""
        stamp, *values = [math.nan if line is None else line.array[line._idx] for line in lines]
        return num_to_ms(stamp) - self.timeline.session.interval_ms, np.array(values)

    def forget(self) -> None:
        """Let go of the embeddings of days gone by, which `embeddings` lists: in a long session."""
        self._streamed = ()

    def _remember(self, stream: MacroStream) -> None:
        state = stream.state
        assert state is not None
        digest = self.timeline.bundles[state.bundle].model_hash
        row = (stream.session_ms, state.session_ms, digest, state.drift, state.embedding)
        self._streamed = (*self._streamed, row)

    def oncestart(self, start: int, end: int) -> None:
        """Nothing: the engine asks for the first bar alone; `once` fills it with the rest."""

    def once(self, start: int, end: int) -> None:
        """Embed every session in batches."""
        settings = self.timeline.session
        columns = _Columns(self.data, settings.interval_ms)
        if len(columns.open_time) == 0:
            return
        market = self._market
        beside = None if market is None else _Columns(market, settings.interval_ms)
        if not self._recall(columns, beside):
            self._embed(columns, beside)
        for name, line in self._session_lines(columns.open_time + settings.interval_ms).items():
            getattr(self.lines, name).array[:end] = array("d", line[:end].tobytes())

    def _embed(self, columns: _Columns, beside: _Columns | None) -> None:
        settings = self.timeline.session
        grid = CandleGrid.from_candles(columns, settings.interval_ms)
        if beside is not None:
            grid = grid.with_market(beside)
        self.bar_rows = (columns.open_time - grid.start_ms) // settings.interval_ms
        self.table = build_sessions(str(self.data._name or ""), grid, settings)
        self._start_ms = self.table.start_ms
        began = time.perf_counter()
        self.states = embed_sessions(self.table, self.timeline, self.device)
        fresh = int((self.states.source == np.arange(len(self.table))).sum())
        self._batch_s = [(time.perf_counter() - began) / fresh] * fresh if fresh else []
        if self.memory is not None:
            self.memory.embedded[self.memory_key] = (self._start_ms, self.states)

    def _recall(self, columns: _Columns, beside: _Columns | None) -> bool:
        """Whether an earlier pass left what both networks say of these candles."""
        if self.memory is None:
            return False
        arrays = columns.arrays() + (beside.arrays() if beside is not None else [])
        self.memory_key = self.memory.key(self.timeline, arrays)
        if self.memory_key not in self.memory.scored:
            return False
        self._start_ms, self.states = self.memory.embedded[self.memory_key]
        return True

    def read_by_one(self) -> None:
        """Say that a score was made: after the last one nobody needs the candles' features."""
        self.readers -= 1
        if self.readers == 0:
            self.table = self.bar_rows = None

    def _session_lines(self, close_ms: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Every line at every bar, (bars,) each."""
        assert self._start_ms is not None
        assert self.states is not None
        drift, age = np.full(len(close_ms), np.nan), np.full(len(close_ms), np.nan)
        forecast = np.full((len(FORECAST_COLUMNS), len(close_ms)), np.nan)
        lines = {"drift": drift, "age": age, **dict(zip(FORECAST_COLUMNS, forecast, strict=True))}
        if len(self._start_ms) == 0:
            return lines
        session = np.searchsorted(self._start_ms, close_ms, side="right") - 1
        inside = session >= 0
        source = np.where(inside, self.states.source[session], -1)
        known = source >= 0
        drift[known] = self.states.drift[session[known]]
        age[known] = close_ms[known] - self._start_ms[source[known]]
        forecast[:, inside] = self.states.forecast[session[inside]].T
        return lines


def bars_of(macro: MacroEmbedding, scored: ScoredSpan) -> dict[str, NDArray[np.float64]]:
    """Scores of a span at the indicator's bars, each (bars,)."""
    rows = macro.bar_rows
    assert rows is not None
    return {
        "score": scored.score[rows],
        "p_buy": scored.p_buy[rows],
        "p_sell": scored.p_sell[rows],
        "score_zero": scored.score_zero[rows],
    }
