"""MacroNet one candle at a time: the twin of `embed_sessions` in `batch`.

`MacroStream` keeps the last candles' features and, at each UTC midnight, activates a new state
(bundle, scaler, embedding). A candle that never came is a row of missing values, as on the batch
grid. A market symbol's candles are given by themselves, each before the traded symbol's of the same
closing time.

What a stream will still look at it hands over (`snapshot`) and takes back (`restore`): a restored
stream gives the very bits of one that was never interrupted.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.forecasting.stream import NO_FORECAST, ForecastStream
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.scaling import fit_sessions, scale_columns
from cppncripto_strategy.models.inputs.sessions import pool_rows
from cppncripto_strategy.models.inputs.terms import session_terms, term_rows
from cppncripto_strategy.models.learning.drift import bank_drift
from cppncripto_strategy.models.scoring.batch import GRACE_SESSIONS
from cppncripto_strategy.models.scoring.embedding_cache import EmbeddingCache
from cppncripto_strategy.models.scoring.ring import Ring
from cppncripto_strategy.models.settings import EMBEDDING_SIZE

N_COLUMNS = 6  # open, high, low, close, volume, taker buy volume
# Candles that may wait for somebody to ask for their features: a day of 5-minute ones, and more.
MOST_WAITING = 512
TIMES_KEPT = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class MacroState:
    """What a rollover activated.

    Parameters
    ----------
    session_ms : the session whose rollover this was; bundle : its number in the timeline.
    center, scale : float64 (S,), the session scaler. embedding : float32 (E,). drift : float.
    forecast : float64 (4,), of the session's day; see `forecaster.FORECAST_COLUMNS`.
    """

    session_ms: int
    bundle: int
    center: FloatArray
    scale: FloatArray
    embedding: NDArray[np.float32]
    drift: float
    forecast: FloatArray


class MacroStream:
    """Candles in, sessions and their states out. One symbol; lives for one run.

    Parameters
    ----------
    timeline : BundleTimeline. cache : of embeddings, None for none.
    symbol : its name, for what the bundles know of it by name.

    Attributes
    ----------
    state : the active MacroState, None before the first good rollover and past the grace period.
    session_ms : session of the last candle, -1 before any.
    rolled : whether the last candle activated another state (or took it away).
    fresh_rows : rows the last candle added, missing ones included.
    clean : how many of the last candles follow each other without a gap, and were traded.
    in_rings : number of the last candle that somebody's rings of features hold; -1 for none.
    rollover_s : seconds each rollover's scaler and embedding took, the last `TIMES_KEPT`.
    """

    def __init__(
        self, timeline: BundleTimeline, cache: EmbeddingCache | None = None, symbol: str = ""
    ) -> None:
        self.timeline, self.settings = timeline, timeline.session
        self.table = self.settings.table
        self.scaled_columns = np.array(self.table.scaled)
        self._cache = cache
        keep = self.settings.warmup + self.settings.day_candles + timeline.receptive_field + 1
        terms = term_rows(self.settings.terms, self.settings.day_candles)
        forecasts = any(bundle.forecaster is not None for bundle in timeline.bundles)
        self._forecasts = ForecastStream(symbol, forecasts)
        day = self.settings.day_candles + 1 if self._forecasts.needed else 0
        self._candles = Ring(max(self.table.memory + MOST_WAITING, terms, day), N_COLUMNS)
        self._market = Ring(self._candles.size, N_COLUMNS) if self.settings.reads_market else None
        self._coming: dict[int, FloatArray] = {}  # market candles that no row has taken yet
        self._features = Ring(keep, len(self.table))
        self._waiting = 0  # last candles whose features nobody has asked for yet
        self.clean = 0
        self.in_rings = -1
        self.rows = 0  # grid rows seen since the first candle
        self.next_open_ms = -1
        self.session_ms = -1
        self.state: MacroState | None = None
        self._kept: MacroState | None = None
        self.rolled = False
        self.fresh_rows = 0
        self.rollover_s: deque[float] = deque(maxlen=TIMES_KEPT)

    def push_market(self, open_time_ms: int, candle: FloatArray) -> bool:
        """Take a closed candle of the market symbol, before the symbol's own of that time.

        Returns
        -------
        Whether a row will hold it. One that closes before the rows already added came too late: its
        row stays without it, as it was when decisions were made on it.
        """
        if self._market is None or open_time_ms < self.next_open_ms:
            return False
        if self.next_open_ms < 0:
            self._coming.clear()  # the symbol's first row can need none but the latest
        self._coming[open_time_ms] = candle
        return True

    def push(self, open_time_ms: int, candle: FloatArray) -> None:
        """Take the next closed candle.

        Parameters
        ----------
        open_time_ms : UTC ms, later than the last one.
        candle : (open, high, low, close, volume, taker buy volume).

        Raises
        ------
        ValueError
            When the candle is not later than the last, or off the grid.
        """
        interval = self.settings.interval_ms
        if self.next_open_ms < 0:
            self.next_open_ms = open_time_ms
            self._coming = {t: c for t, c in self._coming.items() if t >= open_time_ms}
        missing, rest = divmod(open_time_ms - self.next_open_ms, interval)
        if missing < 0 or rest:
            raise ValueError(
                f"candle at {open_time_ms} does not follow: expected {self.next_open_ms} or a"
                f" multiple of {interval} ms later"
            )
        self.rolled, self.fresh_rows = False, 0
        for _ in range(missing):
            self._add(np.full(N_COLUMNS, np.nan))
        self._add(candle)

    def scaled(self, count: int, before: int = 0) -> NDArray[np.float32]:
        """The last `count` feature rows but `before` under the active scaler, (count, F)."""
        assert self.state is not None
        rows = self.features(count, before)
        return scale_columns(rows, self.scaled_columns, self.state.center, self.state.scale)

    def features(self, count: int, before: int = 0) -> FloatArray:
        """The last `count` feature rows but `before`, unscaled, a view (count, F)."""
        return self._known_features().last(count, before)

    @property
    def waits_for_one(self) -> bool:
        """Whether the last candle's features, and no others, are still to be computed."""
        return self._waiting == 1

    def candles(self, count: int, before: int = 0) -> FloatArray:
        """The last `count` candles but `before`, as `push` takes them, a view (count, 6)."""
        return self._candles.last(count, before)

    def grid(self, rows: int = 0) -> CandleGrid:
        """The last candles, those that a feature of the last row depends on, or so many."""
        last_open_ms = self.next_open_ms - self.settings.interval_ms
        return self._grid(rows or self.table.memory, last_open_ms)

    def give(self, row: FloatArray) -> None:
        """Take the last candle's features (F,) from who computed them: `waits_for_one`."""
        self._features.append(row)
        self._waiting = 0

    def present_share(self, window: int) -> float:
        """Share of the last `window` rows that have a candle; rows before the first have none."""
        return float(self.features(window)[:, self.table.present].sum()) / window

    @property
    def active(self) -> MacroState:
        """The active state, where there is one."""
        assert self.state is not None
        return self.state

    def age_ms(self) -> float:
        """Milliseconds from the midnight of the active state to the last close; NaN for none."""
        return float(self.next_open_ms - self.state.session_ms) if self.state else np.nan

    @property
    def forecast(self) -> FloatArray:
        """Forecast of the session's day, (4,); NaN where its own rollover failed."""
        if self.state is None or self.state.session_ms != self.session_ms:
            return NO_FORECAST
        return self.state.forecast

    def snapshot(self) -> dict[str, Any]:
        """All that later candles depend on, arrays copied; a bundle is named by its hash."""
        return {
            "candles": self._candles.snapshot(),
            "market": None if self._market is None else self._market.snapshot(),
            "coming": [[open_ms, candle.copy()] for open_ms, candle in self._coming.items()],
            "features": self._known_features().snapshot(),
            "rows": self.rows,
            "next_open_ms": self.next_open_ms,
            "session_ms": self.session_ms,
            "forecasts": self._forecasts.snapshot(),
            "kept": None if self._kept is None else self._state_snapshot(self._kept),
            "active": self.state is not None,
        }

    def _state_snapshot(self, state: MacroState) -> dict[str, Any]:
        fields = ("session_ms", "center", "scale", "embedding", "drift", "forecast")
        digest = self.timeline.bundles[state.bundle].model_hash
        return {"bundle": digest, **{name: getattr(state, name) for name in fields}}

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where a stream over the same features and bundles was.

        Raises
        ------
        ValueError
            When the snapshot names a bundle that the timeline lacks, or has other features.
        """
        self._candles.restore(kept["candles"])
        if self._market is not None:
            self._market.restore(kept["market"])
        self._coming = dict(kept["coming"])
        self._features.restore(kept["features"])
        self._waiting, self.in_rings = 0, -1
        rows = self._candles.last(self._candles.size)[::-1]
        dirty = np.flatnonzero(~((rows[:, 4] > 0.0) & ~np.isnan(rows[:, 3])))
        self.clean = int(dirty[0]) if len(dirty) else len(rows)
        self._forecasts.restore(kept["forecasts"])
        for name in ("rows", "next_open_ms", "session_ms"):
            setattr(self, name, kept[name])
        self.rolled, self.fresh_rows = False, 0
        self._kept = None
        if kept["kept"] is not None:
            fields = dict(kept["kept"])
            hashes = [bundle.model_hash for bundle in self.timeline.bundles]
            if fields["bundle"] not in hashes:
                raise ValueError(f"bundle {fields['bundle']} is not one of {', '.join(hashes)}")
            fields["bundle"] = hashes.index(fields["bundle"])
            self._kept = MacroState(**fields)
        self.state = self._kept if kept["active"] else None

    def _add(self, candle: FloatArray) -> None:
        """One grid row; its close may cross a midnight."""
        self._candles.append(candle)
        self.clean = self.clean + 1 if candle[4] > 0.0 and candle[3] == candle[3] else 0
        if self._market is not None:
            market = self._coming.pop(self.next_open_ms, None)
            self._market.append(np.full(N_COLUMNS, np.nan) if market is None else market)
        self.rows += 1
        self.fresh_rows += 1
        self.next_open_ms += self.settings.interval_ms
        self._waiting += 1
        if self._waiting == MOST_WAITING:
            self._known_features()
        session_ms = self.next_open_ms // DAY_MS * DAY_MS  # next_open_ms is this row's close
        if session_ms != self.session_ms:
            self.session_ms = session_ms
            if self._forecasts.needed:
                last_open_ms = self.next_open_ms - self.settings.interval_ms
                self._forecasts.close_day(self._grid(self.settings.day_candles + 1, last_open_ms))
            self._roll_over(session_ms)

    def _known_features(self) -> Ring:
        """The ring of features, those of the candles that waited in it: in batch, the same bits.

        A session that begins is given days of candles before the first rollover looks at them.
        """
        count, self._waiting = self._waiting, 0
        if not count:
            return self._features
        last_open_ms = self.next_open_ms - self.settings.interval_ms
        grid = self._grid(self.table.memory - 1 + count, last_open_ms)
        if count == 1:
            self._features.append(self.table.last_row(grid))
        else:
            self._features.extend(self.table.last_rows(grid, count))
        return self._features

    def _grid(self, rows: int, last_open_ms: int) -> CandleGrid:
        """The last `rows` candles as a grid, the market symbol's beside them."""
        own = self._candles.last(rows)
        start_ms = last_open_ms - (len(own) - 1) * self.settings.interval_ms
        market = None
        if self._market is not None:
            market = _grid_of(self._market.last(rows), start_ms, self.settings.interval_ms)
        return _grid_of(own, start_ms, self.settings.interval_ms, market)

    def _roll_over(self, session_ms: int) -> None:
        """Activate a new state, or keep the last good one for its grace period."""
        began = time.perf_counter()
        state = self._compute_state(session_ms)
        if state is not None:
            self.rollover_s.append(time.perf_counter() - began)
            self._kept = state
        kept = self._kept
        expired = kept is None or session_ms - kept.session_ms > GRACE_SESSIONS * DAY_MS
        before, self.state = self.state, None if expired else kept
        self.rolled = self.rolled or self.state is not before

    @torch.no_grad()
    def _compute_state(self, session_ms: int) -> MacroState | None:
        # The last row is the one that closes at session_ms: every row between has been added.
        number = int(self.timeline.active_in([session_ms])[0])
        if number < 0 or self.rows < self.settings.warmup:
            return None
        window = self.features(self.settings.long_window)
        center, scale, ok = fit_sessions(
            window,
            np.array([len(window)]),
            self.settings.long_window,
            self.settings.names,
            self.settings.scaler,
        )
        terms = self._terms(session_ms)
        if not (ok[0] and np.isfinite(terms).all()):
            return None
        bundle, embedding = self.timeline.bundles[number], np.zeros(EMBEDDING_SIZE, np.float32)
        drift = np.nan
        if bundle.macro is not None:
            rows = pool_rows(window, self.settings.pool)
            scaled = scale_columns(rows, self.scaled_columns, center[0], scale[0])
            statistics = np.concatenate([center[0], np.log(scale[0]), terms]).astype(np.float32)
            embedding = self._embed(bundle, scaled, statistics)
            drift = bank_drift(bundle, embedding, session_ms)
        forecast = self._forecasts.forecast(bundle.forecaster, session_ms, embedding)
        return MacroState(session_ms, number, center[0], scale[0], embedding, drift, forecast)

    def _terms(self, session_ms: int) -> FloatArray:
        """The session's terms (K,)."""
        names = self.settings.terms
        rows = max(1, term_rows(names, self.settings.day_candles))
        grid = self._grid(rows, session_ms - self.settings.interval_ms)
        terms: FloatArray = session_terms(grid, np.array([session_ms]), names)[0]
        return terms

    def _embed(
        self, bundle: Bundle, scaled: NDArray[np.float32], statistics: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """MacroNet's embedding of a scaled window (T_long, F), from the cache where it is known."""
        assert bundle.macro is not None
        path = None
        if self._cache is not None:
            path = self._cache.path(bundle.model_hash, scaled, statistics)
            known = self._cache.get(path)
            if known is not None:
                return known
        embedding: NDArray[np.float32] = bundle.macro(
            torch.from_numpy(scaled[None]), torch.from_numpy(statistics[None])
        )[0].numpy()
        if self._cache is not None and path is not None:
            self._cache.put(path, embedding)
        return embedding


def _grid_of(
    rows: FloatArray, start_ms: int, interval_ms: int, market: CandleGrid | None = None
) -> CandleGrid:
    """Candle rows (N, N_COLUMNS) as a grid."""
    opened, high, low, close, volume, taker = rows.T
    present = ~np.isnan(close)
    return CandleGrid(
        start_ms, interval_ms, opened, high, low, close, volume, taker, present, market
    )
