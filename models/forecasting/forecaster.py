"""A fitted forecaster of the coming day: part of a bundle, asked once per session.

It holds the regressions of volatility and of range on HAR-X, the last hours and the embedding,
their intervals, and the last month of days it has seen, so that it can forecast from the first
session on, where the candles at hand do not reach a month back. Where MacroNet has learned to
forecast, its own correction takes the embedding's place: half of it is added to the regression,
which is the mean of the network's forecast and the linear one. Left out: refitting, which comes
with the next bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.panel import (
    DEFAULT_LEVEL,
    MIN_FIT_DAYS,
    Panel,
    fit_rows,
    interval_of,
    lift_of,
)
from cppncripto_strategy.models.forecasting.terms import (
    MONTH_DAYS,
    har_x_count,
    har_x_terms,
    linear_terms,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.settings import EMBEDDING_SIZE

QUANTITIES = ("volatility", "range")
FORECAST_COLUMNS = ("volatility", "volatility_low", "volatility_high", "range")
"""Columns of `Forecaster.predict`: expected volatility of the day, its interval, expected range."""
# Days a forecast looks back on, and one more for the day that is under way.
REMEMBERED_DAYS = MONTH_DAYS + 1


@dataclass(frozen=True, slots=True, eq=False)
class Equation:
    """The regression of one quantity's logarithm.

    Parameters
    ----------
    weights : float64 (C + E,), of the linear terms, then of the embedding; 0 where it is left out.
    constants : float64 (S + 1,), of each symbol, then their mean for one never seen.
    numbers : float64 (3,), what lifts a median to a mean, and the interval's bounds; logarithms.
    """

    weights: FloatArray
    constants: FloatArray
    numbers: FloatArray

    def center(self, columns: FloatArray, symbol: int) -> FloatArray:
        """Predicted logarithm of rows (D, C + E) of a symbol (-1: never seen), (D,).

        Summed row by row: the bits do not depend on how many rows are asked for at a time.
        """
        centre: FloatArray = self.constants[symbol] + (columns * self.weights).sum(axis=1)
        return centre


@dataclass(frozen=True, slots=True, eq=False)
class Forecaster:
    """Forecasts of volatility and range for the sessions of any symbol.

    Parameters
    ----------
    symbols : names of those it learned from.
    volatility, range : Equation of each quantity.
    level : share of the days that the interval should hold, by the validation days.
    days : int, symbol-days it learned from.
    correction : float64 (2, E + 1), weights of the embedding and a constant for the logarithms of
        volatility and range: half of what MacroNet's own forecast adds; None where it makes none.
    memory : the last days before `trained_until`, by symbol. market : of the market symbol, None
        where it looks at none.
    """

    symbols: tuple[str, ...]
    volatility: Equation
    range: Equation
    level: float
    days: int
    memory: Mapping[str, DayTable]
    market: DayTable | None = None
    correction: FloatArray | None = None

    @property
    def uses_embedding(self) -> bool:
        """Whether the embedding has a weight, earned or by MacroNet's correction."""
        weights = [equation.weights[-EMBEDDING_SIZE:] for equation in (self.volatility, self.range)]
        weights += [] if self.correction is None else [self.correction[:, :-1]]
        return any(bool(part.any()) for part in weights)

    def corrections(self, embedding: NDArray[np.float32] | FloatArray) -> FloatArray:
        """What MacroNet adds to the logarithms of volatility and range, (D, 2); 0 without one.

        Parameters
        ----------
        embedding : (D, E).
        """
        if self.correction is None:
            return np.zeros((len(embedding), len(QUANTITIES)))
        columns = embedding.astype(np.float64)  # (D, E), summed row by row as in `Equation.center`
        parts = [(columns * row[:-1]).sum(axis=1) + row[-1] for row in self.correction]
        return np.stack(parts, axis=1)

    def predict(
        self,
        symbol: str,
        days: DayTable,
        session_ms: IntArray,
        embedding: NDArray[np.float32],
        market: DayTable | None = None,
    ) -> FloatArray:
        """Forecasts of sessions, (D, 4) as `FORECAST_COLUMNS`; NaN where a term is not known.

        Parameters
        ----------
        days : the symbol's days; those that memory holds are taken from there. Days from a session
            on are not looked at.
        embedding : float32 (D, E), of each session.
        market : the market symbol's days, where the forecaster looks at them.
        """
        # Memory first: the first day of a feed lacks the return from the close before it.
        own = self.memory[symbol].over(days) if symbol in self.memory else days
        others = None
        if self.market is not None:
            others = self.market if market is None else self.market.over(market)
        columns = np.concatenate(
            [self._terms(own, session_ms, others), embedding.astype(np.float64)], axis=1
        )
        added = self.corrections(embedding)  # (D, 2)
        number = self.symbols.index(symbol) if symbol in self.symbols else -1
        lift, low, high = self.volatility.numbers
        center = self.volatility.center(columns, number) + added[:, 0]
        extent = self.range.center(columns, number) + self.range.numbers[0] + added[:, 1]
        lines = np.stack([center + lift, center + low, center + high, extent], axis=1)
        found: FloatArray = np.exp(lines)
        return found

    def _terms(self, days: DayTable, session_ms: IntArray, market: DayTable | None) -> FloatArray:
        """The linear terms; HAR-X's alone for a bundle made before there were those of hours."""
        count = len(self.volatility.weights) - EMBEDDING_SIZE
        known = har_x_terms if count == har_x_count(market is not None) else linear_terms
        return known(days, session_ms, market)

    def to_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Arrays by name, for a bundle's weights."""
        arrays: dict[str, NDArray[np.generic]] = {
            "level": np.array([self.level]),
            "days": np.array([self.days], dtype=np.int64),
        }
        for name in QUANTITIES:
            equation: Equation = getattr(self, name)
            arrays[f"{name}.weights"] = equation.weights
            arrays[f"{name}.constants"] = equation.constants
            arrays[f"{name}.numbers"] = equation.numbers
        for number, symbol in enumerate(self.symbols):
            arrays[f"day_ms.{number}"] = self.memory[symbol].day_ms
            arrays[f"statistics.{number}"] = self.memory[symbol].statistics
            arrays[f"hours.{number}"] = self.memory[symbol].hours
        if self.market is not None:
            arrays["market.day_ms"] = self.market.day_ms
            arrays["market.statistics"] = self.market.statistics
            arrays["market.hours"] = self.market.hours
        if self.correction is not None:
            arrays["correction"] = self.correction
        return arrays

    @classmethod
    def from_tensors(
        cls, symbols: Sequence[str], arrays: Mapping[str, NDArray[np.generic]]
    ) -> Forecaster:
        """Rebuild from the arrays of `to_tensors`. Raises KeyError when one is missing."""
        values = {name: np.asarray(array) for name, array in arrays.items()}

        def equation(name: str) -> Equation:
            return Equation(*(values[f"{name}.{p}"] for p in ("weights", "constants", "numbers")))

        def table(day_ms: str, statistics: str, hours: str) -> DayTable:
            # Bundles made before there were hours have none, and weights for none.
            days = (values[day_ms], values[statistics])
            return DayTable(*days, values[hours]) if hours in values else DayTable(*days)

        market = None
        if "market.day_ms" in values:
            market = table("market.day_ms", "market.statistics", "market.hours")
        return cls(
            symbols=tuple(symbols),
            volatility=equation("volatility"),
            range=equation("range"),
            level=float(values["level"][0]),
            days=int(values["days"][0]),
            memory={
                name: table(f"day_ms.{n}", f"statistics.{n}", f"hours.{n}")
                for n, name in enumerate(symbols)
            },
            market=market,
            correction=values.get("correction"),
        )


def fit_forecaster(
    sessions: SessionSet,
    embeddings: NDArray[np.float32],
    from_ms: int,
    earn_from_ms: int,
    until_ms: int,
    correction: FloatArray | None = None,
) -> Forecaster | None:
    """Learn from the candles of some symbols that close by `until_ms`; None from too few days.

    Parameters
    ----------
    sessions : the days to learn from. embeddings : float32 (N, E), theirs.
    from_ms : open time of the first candle that may be looked at.
    earn_from_ms : first day on which the embedding may earn its place: its encoder has learned from
        those before.
    correction : what MacroNet's own forecast adds, see `Forecaster`; the embedding then earns no
        other place. Intervals are of the linear forecast's errors, which are the larger ones.
    """
    tables = sessions.tables
    days = {t.symbol: day_table(_between(t.grid, from_ms, until_ms)) for t in tables}
    market = None
    if tables[0].settings.reads_market:
        market = day_table(_between(tables[0].grid.of_market(), from_ms, until_ms))
    panel, kept = panel_of_sessions(days, sessions, market)
    blocks = [panel.linear]
    if correction is None:
        blocks.append(embeddings[kept].astype(np.float64))
    equations = []
    for target in (panel.log_variance / 2, panel.log_range):
        learn = np.flatnonzero(np.isfinite(target) & (panel.day_ms < until_ms))
        if len(np.unique(panel.day_ms[learn])) < MIN_FIT_DAYS:
            return None
        ridge = fit_rows(panel, blocks, target, learn, earn_from_ms)
        known = ridge.constants[~np.isnan(ridge.constants)]
        constants = np.where(np.isnan(ridge.constants), known.mean(), ridge.constants)
        numbers = np.array([lift_of(ridge.errors), *interval_of(ridge.errors, DEFAULT_LEVEL)])
        weights = np.zeros(panel.linear.shape[1] + embeddings.shape[1])
        weights[: len(ridge.weights)] = ridge.weights
        equations.append(Equation(weights, np.append(constants, known.mean()), numbers))
    return Forecaster(
        symbols=tuple(days),
        volatility=equations[0],
        range=equations[1],
        level=DEFAULT_LEVEL,
        days=int(np.isfinite(panel.log_variance).sum()),
        memory={name: table.last(REMEMBERED_DAYS) for name, table in days.items()},
        market=None if market is None else market.last(REMEMBERED_DAYS),
        correction=correction,
    )


def panel_of_sessions(
    days: Mapping[str, DayTable], sessions: SessionSet, market: DayTable | None = None
) -> tuple[Panel, IntArray]:
    """A panel of a set's sessions whose terms are known, and which members (N,) those are.

    Parameters
    ----------
    days : by symbol, in the order of the set's tables.
    """
    starts = sessions.start_ms()
    number = sessions.members[:, 0]
    own_ms = {name: starts[number == place] for place, name in enumerate(days)}
    panel = Panel.of(days, market, own_ms)
    place_of = {key: place for place, key in enumerate(zip(number, starts, strict=True))}
    kept = [place_of[key] for key in zip(panel.symbol, panel.day_ms, strict=True)]
    return panel, np.array(kept, dtype=np.int64)


def forecast_sessions(
    table: SessionTable,
    forecasters: Sequence[Forecaster | None],
    bundle: IntArray,
    fresh: IntArray,
    embedding: NDArray[np.float32],
) -> FloatArray:
    """Forecasts of a table's sessions by their active bundles, (D, 4) as `FORECAST_COLUMNS`.

    NaN where a session's own rollover failed, where its bundle forecasts nothing, and where a term
    is not known: a forecast is of one day and is not kept for the next.

    Parameters
    ----------
    forecasters : of each bundle. bundle : int64 (D,), number of the active one, -1 for none.
    fresh : int64 (D,), the session itself where its own rollover succeeded.
    embedding : float32 (D, E).
    """
    found = np.full((len(table), len(FORECAST_COLUMNS)), np.nan)
    if not any(forecasters):
        return found
    days = day_table(table.grid)
    market = None if table.grid.market is None else day_table(table.grid.market)
    for number, forecaster in enumerate(forecasters):
        rows = np.flatnonzero((bundle == number) & (fresh == np.arange(len(table))))
        if forecaster is not None and len(rows):
            found[rows] = forecaster.predict(
                table.symbol, days, table.start_ms[rows], embedding[rows], market
            )
    return found


def _between(grid: CandleGrid, from_ms: int, until_ms: int) -> CandleGrid:
    first, last = (int(np.clip(grid.row_of(ms), 0, len(grid))) for ms in (from_ms, until_ms))
    return grid.rows(first, last)
