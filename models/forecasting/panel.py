"""Days of several symbols as rows of one table, and forecasts of them, refitted every month.

A row is one symbol's day to come: the terms known at its midnight, and what the day then did. Left
out: how good the forecasts are (`evaluation.forecasts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.forecasting.days import DayTable
from cppncripto_strategy.models.forecasting.ridge import BlockRidge, fit_blocks
from cppncripto_strategy.models.forecasting.terms import (
    har_terms,
    har_x_terms,
    hour_terms,
    targets_of,
    usual_log_variance,
)

# With fewer days a regression on fifteen terms says nothing.
MIN_FIT_DAYS = 60
# Share of the days that an interval should hold.
DEFAULT_LEVEL = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Symbol-days whose terms are all known (N rows), by symbol, then by day.

    Parameters
    ----------
    symbols : names. symbol : int64 (N,), number of each row's symbol.
    day_ms : int64 (N,), 00:00 UTC of the day that is predicted.
    har : float64 (N, 3). har_x : float64 (N, 12), or (N, 15) with a market; see `terms`.
    hours : float64 (N, 5), or (N, 10) with a market.
    usual : float64 (N,), mean log variance of the 30 days before.
    log_variance, log_range : float64 (N,), what the day did; NaN where it is not known.
    """

    symbols: tuple[str, ...]
    symbol: IntArray
    day_ms: IntArray
    har: FloatArray
    har_x: FloatArray
    hours: FloatArray
    usual: FloatArray
    log_variance: FloatArray
    log_range: FloatArray

    @classmethod
    def of(
        cls,
        days: Mapping[str, DayTable],
        market: DayTable | None = None,
        sessions: Mapping[str, IntArray] | None = None,
    ) -> Panel:
        """The days of some symbols.

        Parameters
        ----------
        days : statistics by symbol. market : of the market symbol, None for HAR-X without one.
        sessions : 00:00 UTC of each symbol's days to keep; None for all, and the one to come.
        """
        parts = []
        for number, (name, table) in enumerate(days.items()):
            if sessions is None:
                last = table.day_ms[-1:] + DAY_MS
                session_ms = np.concatenate([table.day_ms, last])
            else:
                session_ms = sessions[name]
            parts.append(_rows(number, table, session_ms, market))
        numbers = np.concatenate([part[0] for part in parts])
        stamps = np.concatenate([part[1] for part in parts])
        values = (np.concatenate(column) for column in zip(*(p[2] for p in parts), strict=True))
        return cls(tuple(days), numbers, stamps, *values)

    def __len__(self) -> int:
        return len(self.day_ms)

    @property
    def linear(self) -> FloatArray:
        """HAR-X's terms and the last hours', (N, 17 or 25): what the product's forecast sees."""
        return np.concatenate([self.har_x, self.hours], axis=1)

    def rows(self, kept: BoolArray | IntArray) -> Panel:
        """Some of the rows."""
        terms = (self.har, self.har_x, self.hours, self.usual)
        columns = (*terms, self.log_variance, self.log_range)
        values = (column[kept] for column in columns)
        return Panel(self.symbols, self.symbol[kept], self.day_ms[kept], *values)


def _rows(
    number: int, days: DayTable, session_ms: IntArray, market: DayTable | None
) -> tuple[IntArray, IntArray, tuple[FloatArray, ...]]:
    """Number, day and columns of a symbol's rows."""
    har, har_x = har_terms(days, session_ms), har_x_terms(days, session_ms, market)
    usual, targets = usual_log_variance(days, session_ms), targets_of(days, session_ms)
    hours = hour_terms(days, session_ms, market)
    kept = np.isfinite(np.column_stack([har_x, hours, usual])).all(axis=1)
    symbol = np.full(int(kept.sum()), number, dtype=np.int64)
    values = (har, har_x, hours, usual, targets["log_variance"], targets["log_range"])
    return symbol, session_ms[kept], tuple(column[kept] for column in values)


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Forecasts of one target by one set of inputs, (N,) each, NaN where there is none.

    Parameters
    ----------
    center : of the target itself, which is a logarithm: the exponential of it is a median.
    lift : what lifts it to the logarithm of a mean: ln of the mean of exp(error) on the validation
        days (Duan 1983, the smearing estimate).
    low, high : bounds of the interval.
    """

    center: FloatArray
    lift: FloatArray
    low: FloatArray
    high: FloatArray

    def moved(self, by: FloatArray) -> Forecasts:
        """These, with something (N,) added to center and bounds."""
        return Forecasts(self.center + by, self.lift, self.low + by, self.high + by)


def walk_forward(
    panel: Panel,
    blocks: Sequence[FloatArray],
    target: FloatArray,
    from_ms: int,
    level: float = DEFAULT_LEVEL,
    earn_from_ms: int | None = None,
) -> Forecasts:
    """Predict every row from a day on, by a fit on all days before its month, of every symbol.

    Row d's target is known when row d + 1 is predicted, so nothing has to be purged: a month is
    predicted by the days that were over when it began. A month with fewer than 60 days before it
    has no forecast.

    Parameters
    ----------
    blocks : float64 (N, C_k) of the panel's rows, the anchor first; finite.
    target : float64 (N,). from_ms : first day to predict.
    level : share of the days that an interval should hold, in (0, 1).
    earn_from_ms : see `fit_blocks`.
    """
    lines = np.full((4, len(panel)), np.nan)
    months = month_of(panel.day_ms)
    for month in np.unique(months[panel.day_ms >= from_ms]):
        rows = np.flatnonzero((months == month) & (panel.day_ms >= from_ms))
        first_ms = panel.day_ms[rows].min()
        learn = np.flatnonzero((panel.day_ms < first_ms) & np.isfinite(target))
        if len(np.unique(panel.day_ms[learn])) < MIN_FIT_DAYS:
            continue
        ridge = fit_rows(panel, blocks, target, learn, earn_from_ms)
        found = predict_rows(ridge, [block[rows] for block in blocks], panel.symbol[rows], level)
        lines[:, rows] = found.center, found.lift, found.low, found.high
    return Forecasts(*lines)


def fit_rows(
    panel: Panel,
    blocks: Sequence[FloatArray],
    target: FloatArray,
    learn: IntArray,
    earn_from_ms: int | None = None,
) -> BlockRidge:
    """Fit the rows `learn` (M,) of a panel, all with a known target."""
    return fit_blocks(
        [block[learn] for block in blocks],
        target[learn],
        panel.symbol[learn],
        panel.day_ms[learn],
        earn_from_ms,
        len(panel.symbols),
    )


def predict_rows(
    ridge: BlockRidge,
    blocks: Sequence[FloatArray],
    symbol: IntArray,
    level: float = DEFAULT_LEVEL,
) -> Forecasts:
    """Forecasts of rows (M,) by a fitted regression, with its interval."""
    center = ridge.predict(blocks, symbol)
    low, high = interval_of(ridge.errors, level)
    return Forecasts(
        center, np.full(len(center), lift_of(ridge.errors)), center + low, center + high
    )


def month_of(day_ms: IntArray) -> IntArray:
    """Months since 1970-01 of each day (N,)."""
    months = day_ms.astype("datetime64[ms]").astype("datetime64[M]")
    return np.asarray(months.astype(np.int64))


def lift_of(errors: FloatArray) -> float:
    """Logarithm of the mean of exp(error) (Duan 1983, the smearing estimate)."""
    return float(np.log(np.exp(errors).mean()))


def interval_of(errors: FloatArray, level: float) -> tuple[float, float]:
    """What to add to a forecast for an interval: the errors' outer quantiles, equal tails.

    The k-th smallest and largest with k = (1 - level) / 2 of M + 1, which holds a new error of the
    same kind with at least the level's chance (Vovk, Gammerman & Shafer 2005, split conformal).
    """
    ordered, tail = np.sort(errors), (1 - level) / 2
    k = max(int(tail * (len(ordered) + 1) + 1e-9), 1)  # 1 - 0.8 is a little below 0.2
    return float(ordered[k - 1]), float(ordered[-k])
