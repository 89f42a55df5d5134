"""Candles, traded span and sessions of a recipe: what every kind of run starts from.

Left out: training (`models.learning`), trading (`replay`) and judging (`outcome`).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field

import numpy as np

from cppncripto_strategy.errors import CandleError, TrainingError
from cppncripto_strategy.feeds import planted
from cppncripto_strategy.feeds.candles import NULLABLE_COLUMNS, Candles, validate
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_utc, utc_to_ms
from cppncripto_strategy.feeds.history.files import open_source
from cppncripto_strategy.models.inputs.grid import CandleGrid, market_grid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable, build_sessions
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.symbol_rules import refuse_mixed_quotes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Candles of a run.

    Parameters
    ----------
    candles : by symbol, in the recipe's order.
    planted : by symbol, the planted truth; empty for real candles.
    beside : candles that networks read and nobody trades: the market symbol's, by its name.
    """

    candles: dict[str, Candles]
    planted: dict[str, planted.PlantedMarket] = field(default_factory=dict)
    beside: dict[str, Candles] = field(default_factory=dict)

    @property
    def every(self) -> dict[str, Candles]:
        """Traded candles, then those beside them."""
        return {**self.candles, **self.beside}

    def digest(self) -> str:
        """SHA-256 over the candles of every symbol, those that are only read among them."""
        digest = hashlib.sha256()
        for symbol, candles in self.every.items():
            digest.update(symbol.encode())
            for _, column in candles.columns():
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def grids(self, settings: SessionSettings) -> dict[str, CandleGrid]:
        """Each traded symbol's candles on their grid, the market symbol's beside them where read.

        The market's candles are laid out once, and shared: fifteen symbols do not hold fifteen.

        Raises
        ------
        CandleError
            When the market symbol is read and has no candles here, or they close at other times.
        """
        step = settings.interval_ms
        grids = {symbol: CandleGrid.from_candles(c, step) for symbol, c in self.candles.items()}
        read = self.every.get(settings.market or "") if settings.reads_market else None
        if read is not None:
            first_ms = min(grid.start_ms for grid in grids.values())
            last_ms = max(grid.end_ms for grid in grids.values())
            whole = market_grid(read, step, first_ms, last_ms)
            grids = {symbol: grid.beside(whole) for symbol, grid in grids.items()}
        for symbol, grid in grids.items():
            settings.require_market(symbol, grid)
        return grids


def load_market(recipe: Recipe) -> Market:
    """Read and validate the recipe's candles.

    Raises
    ------
    CppnError
        When a source, symbol or candle is not as it should be, or symbols are priced in different
        currencies.
    """
    if recipe.candles.source == "planted":
        return _planted_market(recipe)
    refuse_mixed_quotes(recipe)
    source = open_source(recipe.candles.folder)
    stored, span = source.symbols(recipe.interval), recipe.span()
    absent = [symbol for symbol in recipe.subscribed if symbol not in stored]
    if len(absent) > 1:  # of a single one the source says more: which name comes near
        raise CandleError(
            f"{recipe.candles.folder} holds no {recipe.interval} candles of {', '.join(absent)}:"
            " fetch or import them, or take them out of symbols. It holds those of"
            f" {', '.join(stored) or 'no symbol'}"
        )
    series = {
        symbol: _lean(source.read(symbol, recipe.interval, None, span.end_ms if span else None))
        for symbol in recipe.subscribed
    }
    empty = [symbol for symbol, candles in series.items() if len(candles) == 0]
    if empty:
        raise CandleError(
            f"{recipe.candles.folder} holds no {', '.join(empty)} {recipe.interval} candle before"
            f" the end of {recipe.timerange}: choose a later timerange, or take"
            f" {'it' if len(empty) == 1 else 'them'} out of symbols"
        )
    return _split(recipe, series)


def _lean(candles: Candles) -> Candles:
    """The same candles; a column that the source did not carry takes no memory."""
    absent = [name for name in NULLABLE_COLUMNS if np.isnan(getattr(candles, name)).all()]
    return candles.replace(**dict.fromkeys(absent, np.broadcast_to(np.nan, len(candles))))


def closed_market(recipe: Recipe, now_ms: int) -> Market:
    """The recipe's candles that have closed by now: nothing later may teach anybody."""
    open_recipe = recipe.model_copy(update={"timerange": None})
    market = load_market(open_recipe)
    last_open = now_ms - recipe.interval_ms
    closed = {
        symbol: candles[candles.open_time <= last_open] for symbol, candles in market.every.items()
    }
    return _split(recipe, closed)


def _split(
    recipe: Recipe,
    series: dict[str, Candles],
    truth: dict[str, planted.PlantedMarket] | None = None,
) -> Market:
    """Candles by symbol as a market: what is traded, and what is read beside it."""
    traded = {symbol: series[symbol] for symbol in recipe.symbols}
    return Market(traded, truth or {}, {symbol: series[symbol] for symbol in recipe.beside})


def _planted_market(recipe: Recipe) -> Market:
    """One planted market per symbol, each with a seed of its own."""
    values = recipe.candles.planted.model_dump()
    start, seed = utc_to_ms(values.pop("start")), values.pop("seed")
    markets = {
        symbol: planted.generate(
            planted.PlantedSettings(
                **values, seed=seed + index, interval=recipe.interval, start_ms=start
            )
        )
        for index, symbol in enumerate(recipe.subscribed)
    }
    for market in markets.values():
        validate(market.candles, recipe.interval_ms, "planted market")
    series = {symbol: market.candles for symbol, market in markets.items()}
    return _split(recipe, series, {symbol: markets[symbol] for symbol in recipe.symbols})


def session_tables(market: Market, settings: SessionSettings) -> list[SessionTable]:
    """Sessions of every symbol; refuses candles that lack a column some feature needs."""
    for symbol, candles in market.candles.items():
        settings.table.require(symbol, candles)
    grids = market.grids(settings)
    return [build_sessions(symbol, grid, settings) for symbol, grid in grids.items()]


def traded_span(recipe: Recipe, market: Market) -> Span:
    """The recipe's timerange, or what the candles leave after the first training.

    Raises
    ------
    CandleError
        When the candles end before the timerange begins.
    TrainingError
        When nothing is left after training.
    """
    span = recipe.span()
    first = max(int(candles.open_time[0]) for candles in market.candles.values())
    last = max(int(candles.open_time[-1]) for candles in market.candles.values())
    end = last + recipe.interval_ms
    if span is not None:
        if end <= span.start_ms:
            raise CandleError(
                f"the candles end at {ms_to_utc(end)}, before timerange {recipe.timerange} begins:"
                " choose an earlier timerange or give later candles"
            )
        if span.end_ms > end:
            log.warning("candles end at %s: the timerange is cut there", ms_to_utc(end))
        return Span(span.start_ms, min(span.end_ms, end))
    walk, settings = recipe.walkforward, recipe.learn_settings().session
    warmup_days = -(-settings.warmup * settings.interval_ms // DAY_MS)
    days = walk.train_days + walk.validate_days + warmup_days + 1
    earliest = first // DAY_MS * DAY_MS + days * DAY_MS
    stamps = calendar(earliest, earliest + DAY_MS, walk.retrain_days)
    start = next(s for s in (*stamps, stamps[-1] + walk.retrain_days * DAY_MS) if s >= earliest)
    if start + DAY_MS > end:
        raise TrainingError(
            f"the candles reach from {ms_to_utc(first)} to {ms_to_utc(end)}: after {days} days of"
            " training nothing is left to trade. Lower walkforward.train_days or give more candles"
        )
    return Span(start, end)
