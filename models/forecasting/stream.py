"""Forecasts one session at a time: the twin of `forecaster.forecast_sessions`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.forecaster import (
    FORECAST_COLUMNS,
    REMEMBERED_DAYS,
    Forecaster,
)
from cppncripto_strategy.models.inputs.grid import CandleGrid

NO_FORECAST = np.full(len(FORECAST_COLUMNS), np.nan)


class ForecastStream:
    """Whole days in, the coming session's forecast out. One symbol; lives for one run.

    Parameters
    ----------
    needed : whether any forecast is made; without, no day need be taken.
    """

    def __init__(self, symbol: str, needed: bool) -> None:
        self.symbol, self.needed = symbol, needed
        self._days: DayTable | None = None
        self._market: DayTable | None = None

    def close_day(self, grid: CandleGrid) -> None:
        """Take the candles of the day that is over, and the one before them where there is one."""
        self._days = _longer(self._days, grid)
        if grid.market is not None:
            self._market = _longer(self._market, grid.market)

    def snapshot(self) -> dict[str, Any]:
        """All that later forecasts depend on, arrays copied."""
        return {"days": _plain(self._days), "market": _plain(self._market)}

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where a stream of the same bundles was."""
        self._days = None if kept["days"] is None else DayTable(*kept["days"])
        self._market = None if kept["market"] is None else DayTable(*kept["market"])

    def forecast(
        self, forecaster: Forecaster | None, session_ms: int, embedding: NDArray[np.float32]
    ) -> FloatArray:
        """The session's forecast, (4,) as `FORECAST_COLUMNS`; NaN where there is none.

        Parameters
        ----------
        forecaster : the active bundle's.
        embedding : float32 (E,), the session's.
        """
        if forecaster is None or self._days is None:
            return NO_FORECAST
        found: FloatArray = forecaster.predict(
            self.symbol, self._days, np.array([session_ms]), embedding[None], self._market
        )[0]
        return found


def _plain(days: DayTable | None) -> list[NDArray[Any]] | None:
    if days is None:
        return None
    return [days.day_ms.copy(), days.statistics.copy(), days.hours.copy()]


def _longer(days: DayTable | None, grid: CandleGrid) -> DayTable:
    """The days with those of a grid behind them, as many as are looked back on."""
    latest = day_table(grid)
    return (latest if days is None else latest.over(days)).last(REMEMBERED_DAYS)
