"""The coming day's volatility and range of a symbol, and how such forecasts have done so far.

A forecast is HAR-X and the last hours on the candles at hand (`models.forecasting.terms`), fitted
on every day that was over when its day began. With a bundle whose MacroNet has learned to forecast,
half of its correction is added, which is the mean of both forecasts; with another, its embedding
stands beside these terms and has to earn its place on days after its training. The interval is made
of the errors on validation days, and how often such intervals held is counted on past days, each
predicted by what was known then. Left out: the direction of the price, which nothing here predicts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.evaluation.forecasts import (
    Forecasted,
    ForecastScore,
    interval_coverage,
    score_forecasts,
)
from cppncripto_strategy.evaluation.returns import DAYS_PER_YEAR
from cppncripto_strategy.evaluation.statistics import Estimate
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_date
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.forecaster import QUANTITIES
from cppncripto_strategy.models.forecasting.panel import (
    DEFAULT_LEVEL,
    MIN_FIT_DAYS,
    Forecasts,
    Panel,
    fit_rows,
    predict_rows,
    walk_forward,
)
from cppncripto_strategy.models.forecasting.ridge import BlockRidge
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionTable, build_sessions
from cppncripto_strategy.models.judging.quality import (
    ANCHOR,
    CardForecasts,
    QualityCard,
    card_forecasts,
    quality_card,
)
from cppncripto_strategy.models.scoring.batch import embed_sessions

LINEAR = "HAR-X and the last hours"
"""What a forecast is made of without a bundle, in words."""
# Past days on which it is counted how often intervals held.
PAST_DAYS = 365


@dataclass(frozen=True, slots=True)
class Outlook:
    """A quantity of the coming day: its mean and the bounds of its interval, as fractions."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class DayForecast:
    """What is expected of a symbol's coming UTC day.

    Parameters
    ----------
    symbol, day_ms : which day, 00:00 UTC.
    volatility : root of the day's summed squared log returns. range : ln(high / low).
    annual_volatility : the expected volatility times the root of 365 days.
    usual_volatility : exp of the mean log volatility of the 30 days before.
    level : share of the days that an interval should hold.
    inputs : `LINEAR`, and what a bundle puts beside it.
    embedding : what became of a bundle's embedding, in words; "" without a bundle.
    market : the market symbol, None for none.
    learned_days : days it was fitted on. learned_from_ms : the first of them.
    volatility_held, range_held : share of past days inside their interval, with its own interval.
    past_days : how many such days.
    score : of the volatility forecasts of those days; None with fewer than two.
    history : one row per past day: day_ms, expected, low, high (volatility), and came.
    """

    symbol: str
    day_ms: int
    volatility: Outlook
    range: Outlook
    annual_volatility: float
    usual_volatility: float
    level: float
    inputs: str
    embedding: str
    market: str | None
    learned_days: int
    learned_from_ms: int
    volatility_held: Estimate
    range_held: Estimate
    past_days: int
    score: ForecastScore | None
    history: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the history."""
        fields = [f.name for f in dataclasses.fields(self) if f.name != "history"]
        values = {name: getattr(self, name) for name in fields}
        for name, value in values.items():
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                values[name] = dataclasses.asdict(value)
        return values


def forecast_day(
    symbol: str,
    candles: Mapping[str, Candles],
    interval_ms: int,
    market: str | None = None,
    day_ms: int | None = None,
    level: float = DEFAULT_LEVEL,
    bundle: Bundle | None = None,
) -> DayForecast:
    """Forecast a symbol's coming day by what was known at its 00:00 UTC.

    Parameters
    ----------
    candles : of the symbol, and of the market symbol where there is one.
    market : the market symbol, whose days the forecast sees too.
    day_ms : 00:00 UTC of the day; None for the first one that is not over.
    level : share of the days that the interval should hold, in (0, 1).
    bundle : whose MacroNet corrects the forecast, or whose embedding stands beside its terms.

    Raises
    ------
    CandleError
        When yesterday or too many of the days before it are not known, of the symbol or of the
        market, or fewer than 60 days can be learned from.
    BundleError
        When the bundle has no MacroNet.
    """
    days = {name: _days(series, interval_ms) for name, series in candles.items()}
    day_ms = _first_unfinished(symbol, days[symbol]) if day_ms is None else day_ms
    known = {name: table.before(day_ms) for name, table in days.items()}
    panel = Panel.of({symbol: known[symbol]}, known[market] if market else None)
    panel, blocks, added = _inputs(panel, bundle, symbol, candles)
    earn_from_ms = None if bundle is None else bundle.info.trained_until_ms
    coming = np.flatnonzero(panel.day_ms == day_ms)
    learn = np.flatnonzero((panel.day_ms < day_ms) & np.isfinite(panel.log_variance))
    _require(symbol, market, day_ms, len(coming), len(learn))
    found, past, kept = {}, {}, []
    targets = (panel.log_variance / 2, panel.log_range)
    for name, target, more in zip(QUANTITIES, targets, added.T, strict=True):
        rows = learn[np.isfinite(target[learn])]
        ridge = fit_rows(panel, blocks, target, rows, earn_from_ms)
        kept += [name] if len(blocks) > 1 and np.isfinite(ridge.penalties).all() else []
        found[name] = _outlook(ridge, [block[coming] for block in blocks], more[coming], level)
        from_ms = day_ms - PAST_DAYS * DAY_MS
        past[name] = walk_forward(panel, blocks, target, from_ms, level, earn_from_ms).moved(more)
    return DayForecast(
        symbol=symbol,
        day_ms=day_ms,
        volatility=found["volatility"],
        range=found["range"],
        annual_volatility=found["volatility"].expected * float(np.sqrt(DAYS_PER_YEAR)),
        usual_volatility=float(np.exp(panel.usual[coming[0]] / 2)),
        level=level,
        inputs=LINEAR + _beside(bundle, kept),
        embedding="" if bundle is None else _what_became(bundle, panel, day_ms, kept),
        market=market,
        **_record(panel, past, learn, day_ms),
    )


def _first_unfinished(symbol: str, days: DayTable) -> int:
    """00:00 UTC of the day after the last whole one. Raises CandleError when there is none."""
    if not len(days.day_ms):
        raise CandleError(f"{symbol} has no whole UTC day of candles: fetch more")
    return int(days.day_ms[-1]) + DAY_MS


def _days(candles: Candles, interval_ms: int) -> DayTable:
    return day_table(CandleGrid.from_candles(candles, interval_ms))


def _inputs(
    panel: Panel, bundle: Bundle | None, symbol: str, candles: Mapping[str, Candles]
) -> tuple[Panel, list[FloatArray], FloatArray]:
    """Rows, blocks of columns to learn from, and what MacroNet adds (N, 2)."""
    if bundle is None:
        return panel, [panel.linear], np.zeros((len(panel), len(QUANTITIES)))
    panel, vectors = _with_embedding(panel, bundle, symbol, candles)
    blocks = [panel.linear] if _corrects(bundle) else [panel.linear, vectors]
    return panel, blocks, _corrections(bundle, panel, vectors)


def _with_embedding(
    panel: Panel, bundle: Bundle, symbol: str, candles: Mapping[str, Candles]
) -> tuple[Panel, FloatArray]:
    """The rows whose own rollover gives an embedding, and the embeddings (N, E)."""
    table = _sessions(symbol, candles[symbol], bundle, candles)
    states = embed_sessions(table, BundleTimeline((bundle,), in_sample=True))
    fresh = np.flatnonzero(states.source == np.arange(len(table)))
    _, rows, members = np.intersect1d(
        panel.day_ms, table.start_ms[fresh], assume_unique=True, return_indices=True
    )
    return panel.rows(rows), states.embedding[fresh[members]].astype(np.float64)


def _sessions(
    symbol: str, series: Candles, bundle: Bundle, every: Mapping[str, Candles]
) -> SessionTable:
    """A symbol's sessions, with the candles of the market symbol that the bundle reads."""
    settings = bundle.info.session
    grid = CandleGrid.from_candles(series, settings.interval_ms)
    if settings.market is not None:
        grid = grid.with_market(every.get(settings.market))
    return build_sessions(symbol, grid, settings)


def _require(symbol: str, market: str | None, day_ms: int, coming: int, learn: int) -> None:
    if not coming:
        whose = symbol if market is None else f"{symbol} or {market}"
        raise CandleError(
            f"no forecast of {symbol} for {ms_to_date(day_ms)}: the day before, or half of the 30"
            f" days before, is not known of {whose}. Fetch the missing candles, or ask for another"
            " day"
        )
    if learn < MIN_FIT_DAYS:
        raise CandleError(
            f"no forecast of {symbol} for {ms_to_date(day_ms)}: {learn} days before it can be"
            f" learned from, and {MIN_FIT_DAYS} are needed (each with half of the 30 days before"
            " it). Fetch earlier candles"
        )


def _corrects(bundle: Bundle) -> bool:
    """Whether the bundle's MacroNet has learned to forecast."""
    return bundle.forecaster is not None and bundle.forecaster.correction is not None


def _corrections(bundle: Bundle, panel: Panel, vectors: FloatArray) -> FloatArray:
    """What MacroNet adds to ln volatility and ln range of a panel's days, (N, 2).

    0 on the days that it learned from: the record of past days is of forecasts that knew no more.
    """
    if bundle.forecaster is None:
        return np.zeros((len(panel), len(QUANTITIES)))
    later = panel.day_ms >= bundle.info.trained_until_ms
    return np.where(later[:, None], bundle.forecaster.corrections(vectors), 0.0)


def _beside(bundle: Bundle | None, kept: list[str]) -> str:
    """What stands beside the linear terms, in words."""
    if bundle is not None and _corrects(bundle):
        return " and MacroNet's forecast"
    return " and the embedding" if kept else ""


def _outlook(
    ridge: BlockRidge, blocks: list[FloatArray], added: FloatArray, level: float
) -> Outlook:
    """The coming day of the one symbol learned from, from one row of every block."""
    forecasts = predict_rows(ridge, blocks, np.zeros(1, dtype=np.int64), level).moved(added)
    expected = np.exp(forecasts.center + forecasts.lift)[0]
    return Outlook(float(expected), *np.exp([forecasts.low[0], forecasts.high[0]]).tolist())


def _what_became(bundle: Bundle, panel: Panel, day_ms: int, kept: list[str]) -> str:
    """Whether the embedding is part of the forecast, and why not."""
    until_ms = bundle.info.trained_until_ms
    if _corrects(bundle):
        return (
            f"half of what the MacroNet of bundle {bundle.model_hash} would add is added: the mean"
            " of its forecast and the linear one"
        )
    if kept:
        return f"bundle {bundle.model_hash} stands beside them for the {' and the '.join(kept)}"
    after = int(((panel.day_ms >= until_ms) & (panel.day_ms < day_ms)).sum())
    return (
        f"bundle {bundle.model_hash} is left out: on the {after} days after its training"
        f" ({ms_to_date(until_ms)}) it did not lower the error enough"
    )


def _record(
    panel: Panel, past: Mapping[str, Forecasts], learn: IntArray, day_ms: int
) -> dict[str, Any]:
    """What was learned from, and how the forecasts of past days did: fields of `DayForecast`."""
    truth = {"volatility": panel.log_variance / 2, "range": panel.log_range}
    held, rows = {}, np.zeros(len(panel), dtype=np.bool_)
    for name, forecasts in past.items():
        known: BoolArray = np.isfinite(forecasts.center) & np.isfinite(truth[name])
        known &= panel.day_ms < day_ms
        inside = (truth[name] >= forecasts.low) & (truth[name] <= forecasts.high)
        held[name] = interval_coverage(panel.day_ms[known], inside[known])
        if name == "volatility":
            rows = known
    found = past["volatility"]
    history = pd.DataFrame(
        {
            "day_ms": panel.day_ms[rows],
            "expected": np.exp(found.center + found.lift)[rows],
            "low": np.exp(found.low)[rows],
            "high": np.exp(found.high)[rows],
            "came": np.exp(truth["volatility"])[rows],
        }
    )
    return {
        "volatility_held": held["volatility"],
        "range_held": held["range"],
        "past_days": int(rows.sum()),
        "score": _score(panel, found, rows) if rows.sum() > 1 else None,
        "history": history,
        "learned_days": len(learn),
        "learned_from_ms": int(panel.day_ms[learn[0]]),
    }


def _score(panel: Panel, found: Forecasts, rows: BoolArray) -> ForecastScore:
    """Of the volatility forecasts, in log variance as everywhere."""
    chosen = panel.rows(rows)
    forecasted = Forecasted(
        chosen.day_ms,
        chosen.symbol,
        chosen.log_variance,
        chosen.usual,
        {"forecast": 2 * found.center[rows]},
        {"forecast": 2 * found.lift[rows]},
    )
    return score_forecasts(forecasted, "forecast", resamples=0)[0]


@dataclass(frozen=True, slots=True)
class JudgedEmbedding:
    """A quality card, and the pooled forecasts of what it compares, held to HAR-X.

    Parameters
    ----------
    card : QualityCard. market : the market symbol, None for none.
    forecasts : one score per input, on the same symbol-days.
    """

    card: QualityCard
    market: str | None
    forecasts: tuple[ForecastScore, ...]

    def to_json(self) -> dict[str, Any]:
        """The card's plain values, with market and forecasts beside them."""
        scores = [dataclasses.asdict(score) for score in self.forecasts]
        return {**self.card.to_json(), "market": self.market, "forecasts": scores}


def judge_embedding(
    bundle: Bundle,
    candles: Mapping[str, Candles],
    market: str | None = None,
    market_candles: Candles | None = None,
    in_sample: bool = False,
) -> JudgedEmbedding:
    """Judge a bundle's embedding on some symbols' days, beside HAR-X.

    Parameters
    ----------
    candles : by symbol. market, market_candles : whose days HAR-X sees too; None for none.
    in_sample : judge days that the bundle learned from, too.

    Raises
    ------
    BundleError
        As `quality_card`.
    """
    every = dict(candles)
    if market is not None and market_candles is not None:
        every[market] = market_candles
    tables = [_sessions(name, series, bundle, every) for name, series in candles.items()]
    other = (
        None if market_candles is None else _days(market_candles, bundle.info.session.interval_ms)
    )
    card = quality_card(bundle, tables, in_sample=in_sample, market=other)
    found = card_forecasts(bundle, tables, in_sample=in_sample, market=other)
    return JudgedEmbedding(card, market, tuple(score_forecasts(_common(found), ANCHOR)))


def _common(found: CardForecasts) -> Forecasted:
    """The symbol-days that every input has a forecast of, and whose truth is known."""
    panel = found.panel
    rows = np.isfinite(panel.log_variance)
    for forecasts in found.by_input.values():
        rows &= np.isfinite(forecasts.center)
    return Forecasted(
        panel.day_ms[rows],
        panel.symbol[rows],
        panel.log_variance[rows],
        panel.usual[rows],
        {name: forecasts.center[rows] for name, forecasts in found.by_input.items()},
        {name: forecasts.lift[rows] for name, forecasts in found.by_input.items()},
    )
