"""Sessions: which rows of a grid belong to which UTC day, and each day's scaler.

Session D holds the candles that close in [D 00:00, D + 1 day 00:00). Its scaler and its embedding
see the `long_window` rows that close by D 00:00, and no later one; both then stay fixed for the
session.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import BundleError, CandleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.features import (
    DEFAULT_COLUMNS,
    FeatureTable,
    compute_features,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.outcomes import OUTCOMES, day_outcomes
from cppncripto_strategy.models.inputs.scaling import ScalerKind, fit_sessions, scale_windows
from cppncripto_strategy.models.inputs.terms import session_terms, term_rows, terms_of


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session's inputs are made of; part of every bundle.

    Parameters
    ----------
    interval_ms : int.
    long_window : int, candles MacroNet and the session scaler see.
    scaler : "robust" or "minmax".
    names : the features, in column order; they must be known (see `features.FEATURES`).
    market : symbol whose candles the market's columns and terms read; None where none does.
    terms : what the embedding holds of a session beside encoder and scaler (see `terms.TERMS`).
    pool : candles averaged into one row of MacroNet's window; a day and `long_window` are multiples
        of it. The scaler sees candles, whatever it is.
    """

    interval_ms: int = 300_000
    long_window: int = 1440
    scaler: ScalerKind = "robust"
    names: tuple[str, ...] = DEFAULT_COLUMNS
    market: str | None = None
    terms: tuple[str, ...] = ()
    pool: int = 1

    @property
    def table(self) -> FeatureTable:
        """The features themselves. Raises RecipeError when they are not known here."""
        return FeatureTable.of(self.names)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with a digest of what each feature does.

        What a recipe left out is left out here, too: bundles made before it existed keep their
        names.
        """
        plain = {**dataclasses.asdict(self), "feature_digests": self.table.digests}
        left_out = {"market": None, "terms": (), "pool": 1}
        return {k: v for k, v in plain.items() if k not in left_out or v != left_out[k]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SessionSettings:
        """Rebuild from plain values.

        Raises
        ------
        BundleError
            When a feature is unknown here, or computes something else than it did.
        KeyError, TypeError
            When a key is missing or unknown.
        """
        values = dict(values)
        digests, names = values.pop("feature_digests"), tuple(values.pop("names"))
        terms = tuple(values.pop("terms", ()))
        try:
            known = FeatureTable.of(names).digests
            terms_of(terms)
        except RecipeError as cause:
            raise BundleError(f"made with features {', '.join(names)}: {cause}") from cause
        for name in names:
            if known[name] != digests[name]:
                raise BundleError(
                    f"made with another {name!r}: the feature then had the digest {digests[name]}"
                    f" and now has {known[name]}. Train again, or go back to the code it was made"
                    " with"
                )
        return cls(names=names, terms=terms, **values)

    @property
    def n_statistics(self) -> int:
        """Numbers beside the encoder's in the embedding: the session scaler's, then the terms."""
        return 2 * len(self.table.scaled) + len(self.term_signs)

    @property
    def term_signs(self) -> tuple[int, ...]:
        """Factor of each number among the terms in a mirrored market."""
        return tuple(sign for term in terms_of(self.terms) for sign in term.signs)

    @property
    def reads_market(self) -> bool:
        """Whether some column or term reads the market symbol's candles."""
        return bool(self.table.market) or any(term.market for term in terms_of(self.terms))

    @property
    def day_candles(self) -> int:
        """Candles a day."""
        return DAY_MS // self.interval_ms

    @property
    def macro_day_rows(self) -> int:
        """Rows a day of MacroNet's window."""
        return self.day_candles // self.pool

    @property
    def warmup(self) -> int:
        """Rows before the first session: the long window, each of its rows with full memory.

        Terms may look back farther.
        """
        windows = self.long_window + self.table.memory - 1
        return max(windows, term_rows(self.terms, self.day_candles))

    def require_market(self, symbol: str, grid: CandleGrid) -> None:
        """Refuse candles without the market symbol's beside them, where something reads those.

        Raises
        ------
        CandleError
            Naming the market symbol, and what reads it.
        """
        if not self.reads_market or grid.market is not None:
            return
        readers = [self.table.names[i] for i in self.table.market]
        readers += [f"the term {name}" for name in self.terms if terms_of([name])[0].market]
        raise CandleError(
            f"{symbol} cannot be scored by itself: {', '.join(readers)} read the candles of the"
            f" market symbol {self.market or '(none is named)'}, and there are none. Give its"
            " candles beside these, or train without features.market"
        )


@dataclass(frozen=True, slots=True, eq=False)
class SessionTable:
    """One symbol's features and sessions.

    Parameters
    ----------
    symbol : str.
    grid : CandleGrid of T rows.
    settings : SessionSettings.
    features : float64 (T + padding, F), unscaled, NaN where undefined; the padding completes the
        last session with missing rows.
    start_ms : int64 (D,), 00:00 UTC of each session, consecutive days.
    row : int64 (D,), the row that opens at start_ms; the session's own rows are
        row - 1 .. row + day_candles - 2.
    center, scale : float64 (D, S), the session scalers.
    terms : float64 (D, K), what is known of each session beside its window; K may be 0.
    pooled : float64 (T', F), the features averaged over `settings.pool` candles, unscaled, in step
        with midnights; no row where nothing is pooled.
    ok : bool (D,), whether the macro window had enough candles for a scaler, and the days before
        for the terms.
    """

    symbol: str
    grid: CandleGrid
    settings: SessionSettings
    features: FloatArray
    start_ms: IntArray
    row: IntArray
    center: FloatArray
    scale: FloatArray
    terms: FloatArray
    pooled: FloatArray
    ok: BoolArray

    def __len__(self) -> int:
        return len(self.start_ms)

    @property
    def statistics(self) -> FloatArray:
        """Scaler centres and log widths, then the terms, (D, 2 S + K): what is appended."""
        parts: FloatArray = np.concatenate([self.center, np.log(self.scale), self.terms], axis=1)
        return parts

    def macro_windows(self, index: IntArray) -> Tensor:
        """Scaled macro windows of sessions `index` (B,) -> (B, long_window / pool, F) float32."""
        pool, length = self.settings.pool, self.settings.long_window
        first = self.row[index] - length
        if pool == 1:
            return self._scaled(first, length, index)
        # Every midnight, and so every window, is as far from a pooled row's first candle.
        return self._scaled(first // pool, length // pool, index, self.pooled)

    def micro_inputs(
        self, index: IntArray, receptive_field: int, scaler_of: IntArray | None = None
    ) -> Tensor:
        """Scaled rows that give one score a candle of sessions `index` (B,).

        Returns (B, receptive_field - 1 + day_candles, F) float32. `scaler_of` names the sessions
        whose scalers apply, when a failed rollover left an older one active.
        """
        first = self.row[index] - receptive_field
        length = receptive_field - 1 + self.settings.day_candles
        scaler_of = index if scaler_of is None else scaler_of
        return self._scaled(first, length, scaler_of)

    def _scaled(
        self,
        first: IntArray,
        length: int,
        scaler_of: IntArray,
        features: FloatArray | None = None,
    ) -> Tensor:
        """Scaled rows (B, length, F) from each `first` on, of `features` or else of candles."""
        features = self.features if features is None else features
        center, scale = self.center[scaler_of], self.scale[scaler_of]
        return torch.from_numpy(
            scale_windows(features, first, length, self.settings.names, center, scale)
        )

    def session_rows(self, index: int) -> slice:
        """Grid rows of one session (the last session may reach past the grid)."""
        return slice(int(self.row[index]) - 1, int(self.row[index]) - 1 + self.settings.day_candles)


def present_share(grid: CandleGrid, window: int) -> FloatArray:
    """Share of candles present among the last `window` rows, at each row, (T,)."""
    count = np.cumsum(grid.present, dtype=np.int64)
    before = np.concatenate([np.zeros(window, dtype=np.int64), count])[: len(count)]
    share: FloatArray = (count - before) / window
    return share


def build_sessions(symbol: str, grid: CandleGrid, settings: SessionSettings) -> SessionTable:
    """Features, session boundaries and scalers of one symbol.

    Sessions start at the first midnight with `settings.warmup` rows before it and end with the one
    the last row closes in. There may be none (D = 0).

    Raises
    ------
    CandleError
        When the settings read a market symbol's candles, and the grid carries none.
    """
    settings.require_market(symbol, grid)
    day = settings.day_candles
    first_midnight = -(-grid.start_ms // DAY_MS) * DAY_MS
    first = first_midnight
    while grid.row_of(first) < settings.warmup:
        first += DAY_MS
    starts = np.arange(first, grid.end_ms + 1, DAY_MS, dtype=np.int64)
    rows = (starts - grid.start_ms) // settings.interval_ms
    features = compute_features(grid, settings.names)
    if len(rows):
        features = _pad(features, int(rows[-1]) - 1 + day, settings.table)
    center, scale, ok = fit_sessions(
        features, rows, settings.long_window, settings.names, settings.scaler
    )
    terms = session_terms(grid, starts, settings.terms)
    ok &= np.isfinite(terms).all(axis=1)
    phase = int(rows[0]) % settings.pool if len(rows) else 0
    pooled = pool_rows(features[phase:], settings.pool) if settings.pool > 1 else features[:0]
    return SessionTable(
        symbol, grid, settings, features, starts, rows, center, scale, terms, pooled, ok
    )


def pool_rows(features: FloatArray, pool: int) -> FloatArray:
    """Means over every `pool` rows of features (T, F), float64 (T // pool, F).

    Of a scaled column the mean of what is known, NaN where nothing is; the others are known always.
    Rows after the last whole group are left out. A pool of 1 gives the features themselves.
    """
    if pool == 1:
        return features
    # A row beside the other, whatever lay beside it: sums of a column have one order of additions.
    whole = np.ascontiguousarray(features[: len(features) // pool * pool])
    groups = whole.reshape(-1, pool, features.shape[1])
    known = ~np.isnan(groups)  # (N, pool, F)
    count = known.sum(axis=1)
    total = np.where(known, groups, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _pad(features: FloatArray, length: int, table: FeatureTable) -> FloatArray:
    """Rows of missing candles up to `length`: NaN where scaled, else 0."""
    missing = max(length - len(features), 0)
    padding = np.zeros((missing, features.shape[1]))
    padding[:, list(table.scaled)] = np.nan
    return np.concatenate([features, padding])


@dataclass(frozen=True, slots=True, eq=False)
class SessionFacts:
    """What is known of sessions beside their windows (N sessions).

    Parameters
    ----------
    terms : float32 (N, K), known at the rollover; see `terms`.
    outcomes : float32 (N, 3), known a day later; NaN where not; see `outcomes.OUTCOMES`.
    """

    terms: Tensor
    outcomes: Tensor

    def at(self, index: NDArray[np.int64]) -> SessionFacts:
        """Those of some sessions (B,)."""
        rows = torch.from_numpy(index).to(self.terms.device)
        return SessionFacts(self.terms[rows], self.outcomes[rows])

    def to(self, device: torch.device) -> SessionFacts:
        """The same on a device."""
        return SessionFacts(self.terms.to(device), self.outcomes.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class SessionSet:
    """Sessions of several symbols as one indexable set: what training iterates over.

    Parameters
    ----------
    tables : the symbols' session tables.
    members : int64 (N, 2), table number and session number.
    """

    tables: tuple[SessionTable, ...]
    members: IntArray

    @classmethod
    def between(cls, tables: Iterable[SessionTable], start_ms: int, end_ms: int) -> SessionSet:
        """All usable sessions with start_ms <= session start < end_ms."""
        chosen, tables = [], tuple(tables)
        for number, table in enumerate(tables):
            inside = (table.start_ms >= start_ms) & (table.start_ms < end_ms) & table.ok
            index = np.flatnonzero(inside)
            chosen.append(np.stack([np.full(len(index), number), index], axis=1))
        members = np.concatenate(chosen) if chosen else np.empty((0, 2))
        return cls(tables, members.astype(np.int64))

    def __len__(self) -> int:
        return len(self.members)

    def gather(self, index: NDArray[np.int64]) -> Tensor:
        """Scaled macro windows (B, long_window, F)."""
        parts = (
            (places, self.tables[number].macro_windows(sessions))
            for number, places, sessions in self._by_table(index)
        )
        return _interleave(parts, len(index))

    def micro_inputs(self, index: NDArray[np.int64], receptive_field: int) -> Tensor:
        """Scaled rows for MicroNet, (B, receptive_field - 1 + day_candles, F)."""
        parts = (
            (places, self.tables[number].micro_inputs(sessions, receptive_field))
            for number, places, sessions in self._by_table(index)
        )
        return _interleave(parts, len(index))

    def statistics(self) -> Tensor:
        """Scaler statistics and terms of every member, (N, 2 S + K) float32."""
        of_table = [table.statistics for table in self.tables]
        rows = [of_table[t][d] for t, d in self.members]
        return torch.from_numpy(np.asarray(rows, dtype=np.float32))

    def facts(self) -> SessionFacts:
        """Terms and outcomes of every member: the outcomes of a day that is not over are NaN."""
        known = [(table.terms, day_outcomes(table.grid, table.start_ms)) for table in self.tables]
        width = [len(table.settings.term_signs) for table in self.tables][:1] or [0]
        terms = [known[t][0][d] for t, d in self.members]
        outcomes = [known[t][1][d] for t, d in self.members]
        return SessionFacts(
            torch.tensor(np.array(terms).reshape(len(self), *width), dtype=torch.float32),
            torch.tensor(np.array(outcomes).reshape(len(self), len(OUTCOMES)), dtype=torch.float32),
        )

    def start_ms(self) -> IntArray:
        """00:00 UTC of every member, (N,)."""
        return np.array([self.tables[t].start_ms[d] for t, d in self.members], dtype=np.int64)

    def _by_table(
        self, index: NDArray[np.int64]
    ) -> Iterable[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        chosen = self.members[index]  # (B, 2)
        for number in np.unique(chosen[:, 0]):
            places = np.flatnonzero(chosen[:, 0] == number)
            yield int(number), places, chosen[places, 1]


def _interleave(parts: Iterable[tuple[NDArray[np.int64], Tensor]], size: int) -> Tensor:
    """Put each table's rows, made as they are asked for, back where the index asked for them."""
    whole = torch.empty(0)
    for places, values in parts:
        if len(values) == size:  # all are of one table, in the index's order
            return values
        if not len(whole):
            whole = torch.empty((size, *values.shape[1:]), dtype=values.dtype)
        whole[torch.from_numpy(places)] = values
    return whole
