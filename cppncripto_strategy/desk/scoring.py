"""A score on demand: the last candles of a symbol in, what a run's networks make of them out.

The networks are read (weights only, no pickle, no plugin), and nothing is kept of what was sent.
One request is computed at a time, and the candles are bounded in number and in span.
"""

from __future__ import annotations

import threading
import tomllib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from cppncripto_strategy.desk.busy import alone
from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.schema import MOST_CANDLES, Columns, Instant, Score, ScoreRequest
from cppncripto_strategy.errors import BundleError, CandleError, SessionError
from cppncripto_strategy.feeds.candles import Candles, validate
from cppncripto_strategy.feeds.clock import SECOND_MS, ms_to_utc
from cppncripto_strategy.foreign import read_text, reading

if TYPE_CHECKING:
    from cppncripto_strategy.models.bundle import BundleTimeline
    from cppncripto_strategy.models.scoring.batch import ScoredSpan
    from cppncripto_strategy.models.scoring.threshold import ScoreThreshold

KEPT_TIMELINES = 4


class Scorer:
    """Scores with the networks of runs and sessions; keeps those used last. One per desk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timelines: OrderedDict[tuple[Any, ...], BundleTimeline] = OrderedDict()

    def score(self, entry: Entry, request: ScoreRequest) -> Score:
        """The score of the last candle, with its thresholds.

        Raises
        ------
        BusyError
            When others' requests take too long.
        CandleError
            When the candles break a rule, are of another interval, or too few.
        BundleError
            When there are no networks, or they may not score that day: it is their own past.
        """
        with alone(self._lock):
            timeline = self._timeline(entry)
            candles = _candles(request.candles, timeline.session.interval_ms)
            market = None
            if request.market is not None:
                market = _candles(request.market, timeline.session.interval_ms)
            return _score(request.symbol, candles, market, timeline, _threshold(entry))

    def _timeline(self, entry: Entry) -> BundleTimeline:
        import torch

        from cppncripto_strategy.models.bundle import BundleTimeline

        torch.set_num_threads(1)
        folders = entry.path / "bundles"
        changed = folders.stat().st_mtime_ns if folders.is_dir() else 0
        key = (entry.id, changed)
        if key not in self._timelines:
            self._timelines[key] = BundleTimeline.load(entry.path)
            while len(self._timelines) > KEPT_TIMELINES:
                self._timelines.popitem(last=False)
        self._timelines.move_to_end(key)
        return self._timelines[key]


def _candles(columns: Columns, interval_ms: int) -> Candles:
    """The candles that were sent, judged by every rule of the schema."""
    values = columns.model_dump(exclude_none=True)
    candles = Candles.from_columns(open_time=values.pop("open_time_ms"), **values)
    span = int(candles.open_time.max()) - int(candles.open_time.min())
    if span >= MOST_CANDLES * interval_ms:
        raise CandleError(f"the candles span more than {MOST_CANDLES:,} intervals")
    validate(candles, interval_ms, "the candles sent")
    return candles


def _threshold(entry: Entry) -> ScoreThreshold:
    """The threshold of the recipe, whose plugins are not run."""
    from cppncripto_strategy.models.scoring.threshold import ScoreThreshold
    from cppncripto_strategy.recipe_sections import ThresholdRecipe

    path = entry.path / "recipe.toml"
    with reading(path, "recipe", SessionError):
        section = tomllib.loads(read_text(path)).get("threshold", {})
        return ScoreThreshold(ThresholdRecipe.model_validate(section).settings())


def _score(
    symbol: str,
    candles: Candles,
    market: Candles | None,
    timeline: BundleTimeline,
    threshold: ScoreThreshold,
) -> Score:
    from cppncripto_strategy.models.inputs.grid import CandleGrid
    from cppncripto_strategy.models.inputs.sessions import build_sessions
    from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
    from cppncripto_strategy.models.scoring.threshold import signal_of

    grid = CandleGrid.from_candles(candles, timeline.session.interval_ms).with_market(market)
    table = build_sessions(symbol, grid, timeline.session)
    if not len(table):
        needed = timeline.session.warmup
        raise CandleError(
            f"{len(grid)} candles are too few: {needed} must lie before the last 00:00 UTC"
        )
    span = score_sessions(table, timeline, embed_sessions(table, timeline))
    number = int(span.states.bundle[-1])
    if number < 0:
        until = ms_to_utc(timeline.first_session_ms)
        raise BundleError(
            f"no network may score that day: the first one was trained until {until}, and of the"
            " day's macro window enough candles must be there"
        )
    bundle = timeline.bundles[number]
    threshold.seed(bundle.score_seed)
    upper, lower = _thresholds(table, span, number, threshold)
    last = float(span.score[-1])
    return Score(
        symbol=symbol,
        close_time=Instant.of(int(grid.close_time[-1])),
        bundle=bundle.model_hash,
        trained_until=Instant.of(bundle.info.trained_until_ms),
        score=last,
        score_zero=float(span.score_zero[-1]),
        p_buy=float(span.p_buy[-1]),
        p_sell=float(span.p_sell[-1]),
        upper=upper,
        lower=lower,
        signal=signal_of(last, upper, lower),
        drift=float(span.drift[-1]),
        embedding_age_s=float(span.age_ms[-1]) / SECOND_MS,
        own_scores=int(np.isfinite(span.score[_rows(table, span, number)]).sum()),
    )


def _rows(table: Any, span: ScoredSpan, number: int) -> Any:
    """Rows of the last sessions in a row that the bundle scores, int64 (N,)."""
    others = np.flatnonzero(span.states.bundle != number)
    first = int(others[-1]) + 1 if len(others) else 0
    rows = np.concatenate([np.arange(len(table.grid))[table.session_rows(i)]
                           for i in range(first, len(table))])  # fmt: skip
    return rows[rows < len(table.grid)]


def _thresholds(
    table: Any, span: ScoredSpan, number: int, threshold: ScoreThreshold
) -> tuple[float, float]:
    """(upper, lower) at the last candle, of the bundle's seed and its scores before."""
    pair = (float("nan"), float("nan"))
    for row in _rows(table, span, number):
        pair = threshold.update(float(span.score[row]), int(table.grid.close_time[row]))
    return pair
