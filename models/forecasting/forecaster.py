"""A fitted forecaster of the coming day: part of a bundle, asked once per session.

It holds the regressions of volatility and of range on HAR-X and on the embedding, their intervals,
and the last month of days it has seen, so that it can forecast from the first session on, where the
candles at hand do not reach a month back. Left out: refitting, which comes with the next bundle.
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
)
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable

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
    weights : float64 (C + E,), of HAR-X's terms, then of the embedding; 0 where it is left out.
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

    @property
    def uses_embedding(self) -> bool:
        """Whether the embedding has earned a weight."""
        terms = har_x_count(self.market is not None)
        return any(bool(e.weights[terms:].any()) for e in (self.volatility, self.range))

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
        terms = har_x_terms(own, session_ms, others)
        columns = np.concatenate([terms, embedding.astype(np.float64)], axis=1)
        number = self.symbols.index(symbol) if symbol in self.symbols else -1
        lift, low, high = self.volatility.numbers
        center = self.volatility.center(columns, number)
        extent = self.range.center(columns, number) + self.range.numbers[0]
        lines = np.stack([center + lift, center + low, center + high, extent], axis=1)
        found: FloatArray = np.exp(lines)
        return found

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
        if self.market is not None:
            arrays["market.day_ms"] = self.market.day_ms
            arrays["market.statistics"] = self.market.statistics
        return arrays

    @classmethod
    def from_tensors(
        cls, symbols: Sequence[str], arrays: Mapping[str, NDArray[np.generic]]
    ) -> Forecaster:
        """Rebuild from the arrays of `to_tensors`. Raises KeyError when one is missing."""
        values = {name: np.asarray(array) for name, array in arrays.items()}

        def equation(name: str) -> Equation:
            return Equation(*(values[f"{name}.{p}"] for p in ("weights", "constants", "numbers")))

        market = None
        if "market.day_ms" in values:
            market = DayTable(values["market.day_ms"], values["market.statistics"])
        return cls(
            symbols=tuple(symbols),
            volatility=equation("volatility"),
            range=equation("range"),
            level=float(values["level"][0]),
            days=int(values["days"][0]),
            memory={
                name: DayTable(values[f"day_ms.{n}"], values[f"statistics.{n}"])
                for n, name in enumerate(symbols)
            },
            market=market,
        )


def fit_forecaster(
    sessions: SessionSet,
    embeddings: NDArray[np.float32],
    from_ms: int,
    earn_from_ms: int,
    until_ms: int,
) -> Forecaster | None:
    """Learn from the candles of some symbols that close by `until_ms`; None from too few days.

    Parameters
    ----------
    sessions : the days to learn from. embeddings : float32 (N, E), theirs.
    from_ms : open time of the first candle that may be looked at.
    earn_from_ms : first day on which the embedding may earn its place: its encoder has learned from
        those before.
    """
    tables = sessions.tables
    days = {t.symbol: day_table(_between(t.grid, from_ms, until_ms)) for t in tables}
    market = None
    if tables[0].settings.reads_market:
        market = day_table(_between(tables[0].grid.of_market(), from_ms, until_ms))
    panel, kept = panel_of_sessions(days, sessions, market)
    blocks = [panel.har_x, embeddings[kept].astype(np.float64)]
    equations = []
    for target in (panel.log_variance / 2, panel.log_range):
        learn = np.flatnonzero(np.isfinite(target) & (panel.day_ms < until_ms))
        if len(np.unique(panel.day_ms[learn])) < MIN_FIT_DAYS:
            return None
        ridge = fit_rows(panel, blocks, target, learn, earn_from_ms)
        known = ridge.constants[~np.isnan(ridge.constants)]
        constants = np.where(np.isnan(ridge.constants), known.mean(), ridge.constants)
        numbers = np.array([lift_of(ridge.errors), *interval_of(ridge.errors, DEFAULT_LEVEL)])
        equations.append(Equation(ridge.weights, np.append(constants, known.mean()), numbers))
    return Forecaster(
        symbols=tuple(days),
        volatility=equations[0],
        range=equations[1],
        level=DEFAULT_LEVEL,
        days=int(np.isfinite(panel.log_variance).sum()),
        memory={name: table.last(REMEMBERED_DAYS) for name, table in days.items()},
        market=None if market is None else market.last(REMEMBERED_DAYS),
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
